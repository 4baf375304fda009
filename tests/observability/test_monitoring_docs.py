"""docs/monitoring.md is as the code is."""

from __future__ import annotations

import re

import yaml

from tests.observability.metric_names import exported, named
from tools.monitoring_docs import PAGE, ROOT, page

TEXT = PAGE.read_text()


def test_the_tables_are_made_from_the_code() -> None:
    """If not: make generate."""
    assert page() == TEXT


def test_every_metric_is_in_the_catalogue_and_no_other() -> None:
    listed = set(re.findall(r"^\| `((?:openworkflow|process)_\w+)` \|", TEXT, re.MULTILINE))
    parts = re.compile(r"_(?:bucket|sum|count)$")

    assert {parts.sub("", name) for name in exported()} == listed


def test_the_expressions_to_watch_ask_for_metrics_that_there_are() -> None:
    section = TEXT.partition("## What to watch")[2].partition("## Alerts")[0]
    expressions = re.findall(r"`([^`]*openworkflow_[^`]*)`", section)

    assert len(expressions) >= 8
    assert set().union(*map(named, expressions)) <= exported()


def test_the_scrape_configuration_keeps_the_pods_of_a_fleet() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    worker, _operator = yaml.safe_load(block)["scrape_configs"]
    rules = worker["relabel_configs"]
    golden = yaml.safe_load_all((ROOT / "tests/golden/minimal.yaml").read_text())
    (template,) = [each["spec"]["template"] for each in golden if each["kind"] == "Deployment"]
    (port,) = template["spec"]["containers"][0]["ports"]

    kept = [rule["regex"] for rule in rules if rule.get("action") == "keep"]
    assert kept == [template["metadata"]["labels"]["app.kubernetes.io/name"], port["name"]]
    assert "openworkflow.dev/workflow-namespace" in template["metadata"]["labels"]
    labels = {rule["target_label"] for rule in rules if "target_label" in rule}
    assert {"kube_namespace", "workflow_namespace"} <= labels
