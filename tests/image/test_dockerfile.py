"""What the images promise, read from the Dockerfiles; tests/e2e runs them."""

from __future__ import annotations

import fnmatch
import importlib.metadata
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest

from openworkflow.cli.target import load_workflows
from openworkflow.worker.http import DEFAULT_PORT
from openworkflow_operator.desired.workload import WORKER_USER
from openworkflow_operator.settings import Settings as OperatorSettings

ROOT = Path(__file__).parents[2]
VERSION = importlib.metadata.version("openworkflow-fleet")
Instruction = tuple[str, str]


def instructions(path: Path) -> list[Instruction]:
    """Keyword and arguments, continued lines joined."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line]


def stages() -> dict[str, list[Instruction]]:
    """The instructions of each stage, by its name."""
    found: dict[str, list[Instruction]] = {"": []}
    name = ""
    for keyword, arguments in instructions(ROOT / "Dockerfile"):
        if keyword == "FROM":
            name = arguments.split(" AS ")[1]
            found[name] = []
        found[name].append((keyword, arguments))
    return found


def every(keyword: str, stage: str) -> list[str]:
    return [arguments for word, arguments in stages()[stage] if word == keyword]


def test_the_base_is_an_argument_and_the_same_for_all_stages() -> None:
    (base,) = (arguments for keyword, arguments in stages()[""] if keyword == "ARG")
    assert re.fullmatch(r"BASE_IMAGE=[a-z./]+:\d+\.\d+-slim", base)
    for name in stages().keys() - {""}:
        source = every("FROM", name)[0].split()[0]
        assert source == ("${BASE_IMAGE}" if name == "base" else "base")


@pytest.mark.parametrize(
    ("stage", "program", "port"),
    [
        ("worker", "openworkflow", DEFAULT_PORT),
        ("operator", "openworkflow-operator", OperatorSettings().port),
    ],
)
def test_a_final_image_is_one_environment_one_user_and_one_process(
    stage: str, program: str, port: int
) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', str(stages()[stage])))

    assert every("COPY", stage) == [
        f"--from={stage}-environment /opt/openworkflow /opt/openworkflow"
    ]
    assert [] == every("RUN", stage)
    assert [f"{WORKER_USER}:{WORKER_USER}"] == every("USER", stage)
    assert [[program]] == [json.loads(form) for form in every("ENTRYPOINT", stage)]
    assert program in scripts
    assert [str(port)] == every("EXPOSE", stage)
    assert {"title", "description", "licenses", "version", "revision"} == labels.keys()
    assert f"VERSION={VERSION}" in every("ARG", stage)


def test_the_user_has_the_number_that_the_pods_run_as() -> None:
    assert f"openworkflow:x:{WORKER_USER}:{WORKER_USER}:" in every("RUN", "base")[0]


def test_nothing_is_installed_that_is_not_pinned_by_its_hash_or_built_here() -> None:
    commands = [
        command.strip()
        for name in stages()
        for run in every("RUN", name)
        for command in run.split("&&")
    ]
    fetching = [command for command in commands if re.match(r"pip (install|wheel)", command)]

    assert fetching
    for command in fetching:
        if "--no-deps" not in command:
            assert "--require-hashes" in command
            assert "--only-binary :all:" in command
    assert [] == [c for c in commands if re.search(r"\b(apt|apk|curl|wget|git)\b", c)]


def test_the_build_sees_what_it_copies() -> None:
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    seen = [rule[1:] for rule in rules if rule.startswith("!")]
    copied = [
        source
        for name in stages()
        for arguments in every("COPY", name)
        if "--from=" not in arguments
        for source in arguments.split()[:-1]
    ]

    assert copied
    for source in copied:
        assert (ROOT / source).exists()
        assert any(fnmatch.fnmatch(source, pattern) for pattern in seen), source


def test_an_image_of_ones_own_is_three_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ROOT / "examples/image"
    source, copy, command = instructions(folder / "Dockerfile")

    assert ("FROM", f"openworkflow-worker:{VERSION}") == source
    assert ("COPY", "workflows.py ./") == copy
    assert "CMD" == command[0]
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "workflows", raising=False)
    subcommand, module = json.loads(command[1])
    assert "worker" == subcommand
    assert ["fulfil"] == [workflow.name for workflow in load_workflows(module)]
    sys.modules.pop("workflows")
