# Everything a developer and CI run. Each target sets up what it needs.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
PYTEST_ARGS ?=
RETRY ?=
CHAOS_ARGS ?=
BENCH_ARGS ?=
LOCK_ARGS ?=
AUDIT_ARGS ?=
IMAGE_BUILD ?= docker build
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# For every platform and Python that pyproject.toml supports; what is locked stays as it is.
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --custom-compile-command 'make lock' $(LOCK_ARGS)

.PHONY: help setup check format test chaos chaos-tests demo bench bench-compare bench-growth bench-features bench-autoscaling envtest matrix docs generate lock images e2e
.PHONY: test-programs site chart chart-scan fuzz sbom audit verify clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-17s %s\n", $$1, $$2}'

setup: $(STAMP) ## Make .venv and install the package with its dev and test extras

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "error: the venv module is missing; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check \
		--editable '.[dev,operator,test]'
	@touch $(STAMP)

check: setup ## Lint, formatting, types and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## Rewrite the code in the one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: setup ## All tests, in parallel, on a PostgreSQL of their own (RETRY=1: what fails once more)
	$(BIN)/python -m $(if $(RETRY),tools.test_twice,pytest) -n auto $(PYTEST_ARGS)

chaos: setup ## Faults of every kind against a fleet at work (CHAOS_ARGS='--seconds 3600 --seed 7')
	$(BIN)/python -m tests.chaos.campaign $(CHAOS_ARGS)

chaos-tests: setup ## A short campaign, and broken copies of the engine that it must catch (CHAOS=short: fewer)
	OPENWORKFLOW_CHAOS=$(or $(CHAOS),all) $(BIN)/python -m pytest -n auto tests/chaos

demo: setup ## See workflows run, a worker killed, and every run finish
	$(BIN)/python examples/demo.py

bench: setup ## Measure this worker, a naive one and pgbench side by side
	$(BIN)/python -m benchmarks.run $(BENCH_ARGS)

bench-compare: setup ## Set up the peers in .bench/ and measure them on one PostgreSQL, in turns
	$(BIN)/python -m benchmarks.compare $(BENCH_ARGS)

bench-growth: setup ## Measure how a run's cost grows with finished, sleeping and other tenants' runs, payload, steps, workers
	$(BIN)/python -m benchmarks.growth $(BENCH_ARGS)

bench-features: setup ## Count what each feature costs the runs that use it, and many waiting runs
	$(BIN)/python -m benchmarks.features $(BENCH_ARGS)
	$(BIN)/python -m benchmarks.backlog
	$(BIN)/python -m benchmarks.schedules

bench-autoscaling: setup ## Replay loads against the autoscaler and KEDA in virtual time
	$(BIN)/python -m benchmarks.autoscaling.run --write

test-programs: setup ## Fetch helm, promtool, Chromium and others that tests start into .tools/
	@$(BIN)/python -m tools.test_programs
	@$(BIN)/python -m tools.vendor --tests

envtest: setup ## Say which Kubernetes programs the operator's tests find, and how to provide them
	@$(BIN)/python -m tests.control_plane

matrix: setup ## The integration tests on PostgreSQL 12 and 18 (needs npm)
	$(BIN)/python -m tests.matrix $(PYTEST_ARGS)

docs: setup ## Write docs/cli.md by running every command it shows
	$(BIN)/python -m tools.cli_docs

.venv-site: requirements/site.txt
	@$(PYTHON) -m venv .venv-site
	@.venv-site/bin/pip install --quiet --disable-pip-version-check --requirement $< || \
		{ rm -rf .venv-site; exit 1; }
	@touch .venv-site

site: setup .venv-site ## The documentation as a site in dist/site, every link checked; writes llms.txt
	$(BIN)/python -m tools.site
	NO_MKDOCS_2_WARNING=1 .venv-site/bin/mkdocs build --quiet --strict

generate: setup ## Write from the code: the dashboards, docs/monitoring.md's tables, the sync client
	$(BIN)/python -m tools.sync_client
	$(BIN)/python -m tools.dashboards
	$(BIN)/python -m tools.monitoring_docs

lock: setup ## Write requirements/*.txt anew where pyproject.toml asks for it (LOCK_ARGS=--upgrade)
	$(LOCK) pyproject.toml --extra dashboard --extra openid --output-file requirements/worker.txt
	$(LOCK) pyproject.toml --extra operator --output-file requirements/operator.txt
	$(LOCK) requirements/build.in --output-file requirements/build.txt

images: ## Build the worker, operator and example images (IMAGE_BUILD='buildah build')
	$(IMAGE_BUILD) --target worker --tag openworkflow-worker:$(VERSION) .
	$(IMAGE_BUILD) --target operator --tag openworkflow-operator:$(VERSION) .
	$(IMAGE_BUILD) --tag openworkflow-example:$(VERSION) examples/image

e2e: setup ## The fleet with real pods, in the cluster of OPENWORKFLOW_E2E_KUBECONFIG
	$(BIN)/python -m pytest -n 0 tests/e2e $(PYTEST_ARGS)

chart: setup ## Write what in charts/ and manifests/install.yaml follows from other files (needs helm)
	$(BIN)/python -m tools.chart

chart-scan: setup ## Hold the rendered chart against checkov and the exceptions we give reasons for
	@test -x .venv-checkov/bin/checkov || $(PYTHON) -m venv .venv-checkov
	@test -x .venv-checkov/bin/checkov || .venv-checkov/bin/pip install --quiet checkov==3.3.30
	$(BIN)/python -m tools.chart_scan .venv-checkov/bin/checkov

fuzz: setup ## Feed every parser FUZZ_EXAMPLES made-up inputs (20,000), and print the figures
	FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-20000} $(BIN)/python -m pytest -q -n 0 -s tests/property/test_fuzz.py

# Tools with many dependencies of their own, none of which is to meet ours. Without them there is
# no bill, and nothing is audited: tools/supply_chain.py says so.
.venv-audit: requirements/audit.txt
	@$(PYTHON) -m venv .venv-audit
	@.venv-audit/bin/pip install --quiet --disable-pip-version-check --requirement $< || \
		{ rm -rf .venv-audit; echo "warning: cyclonedx-bom and pip-audit cannot be installed" >&2; }
	@test ! -d .venv-audit || touch .venv-audit

sbom: setup .venv-audit ## Write what the images hold as CycloneDX into dist/
	$(BIN)/python -m tools.supply_chain sbom .venv-audit/bin/cyclonedx-py

audit: setup .venv-audit ## Hold the locked packages against known vulnerabilities (AUDIT_ARGS=--strict)
	$(BIN)/python -m tools.supply_chain audit .venv-audit/bin/pip-audit $(AUDIT_ARGS)

verify: check test ## What has to hold before a commit

clean: ## Remove environments, caches and downloaded servers
	rm -rf .venv* .postgres .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf dist build benchmarks/results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
