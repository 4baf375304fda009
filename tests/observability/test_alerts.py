"""The alerts that the chart ships: valid, tested in both directions, and explained."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from openworkflow.cli.main import cli
from tests.observability.alerts import RULES, RUNBOOKS, TESTS, alerts, names

HEADINGS = ["## Meaning", "## Impact", "## Diagnosis", "## Mitigation"]
promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="NO PROMTOOL: the alerts are not tried; make test-programs",
)


@promtool
def test_prometheus_takes_the_rules() -> None:
    done = _promtool("check", "rules", "--lint=all", "--lint-fatal", str(RULES))

    assert done.returncode == 0, done.stdout + done.stderr


@promtool
@pytest.mark.parametrize("name", names())
def test_an_alert_fires_when_it_should_and_only_then(name: str) -> None:
    done = _promtool("test", "rules", str(TESTS / f"{name}.yaml"))

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", names())
def test_an_alert_is_tried_firing_with_each_severity_and_silent(name: str) -> None:
    expected = _expected(TESTS / f"{name}.yaml", name)
    severities = {alert["labels"]["severity"] for alert in alerts() if alert["alert"] == name}

    assert [] in expected
    assert severities == {each["exp_labels"]["severity"] for found in expected for each in found}


@pytest.mark.parametrize("name", names())
def test_a_runbook_says_what_to_do(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text()

    assert text.startswith(f"# {name}\n")
    assert HEADINGS == [line for line in text.splitlines() if line.startswith("## ")]
    assert all(section.strip() for section in text.split("\n## "))


@pytest.mark.parametrize("name", names())
def test_the_commands_of_a_runbook_exist(name: str) -> None:
    for line in _openworkflow_commands(name):
        words = line.split()[1:]
        command: click.Command = cli
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= options, line


def test_no_test_and_no_runbook_is_left_of_an_alert_that_is_gone() -> None:
    assert names() == sorted(path.stem for path in TESTS.glob("*.yaml"))
    assert names() == sorted(path.stem for path in RUNBOOKS.glob("*.md"))


@pytest.mark.parametrize("alert", alerts(), ids=lambda a: f"{a['alert']}-{a['labels']['severity']}")
def test_an_alert_says_what_is_wrong_how_bad_it_is_and_where_to_read_on(
    alert: dict[str, Any],
) -> None:
    annotations = alert["annotations"]

    assert alert["labels"]["severity"] in ("info", "warning", "critical")
    assert annotations["summary"] != annotations["description"]
    assert annotations["runbook_url"].endswith(f"/runbooks/{alert['alert']}")
    assert alert["for"]


def _promtool(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *args], capture_output=True, text=True, timeout=60)


def _openworkflow_commands(name: str) -> list[str]:
    """Those a reader is told to type, in a block or in a sentence."""
    text = (RUNBOOKS / f"{name}.md").read_text()
    return re.findall(r"(?:^\$ |`)(openworkflow [^#`\n]+)", text, re.MULTILINE)


def _expected(path: Path, name: str) -> list[list[dict[str, Any]]]:
    """What each case expects of the alert."""
    tests = yaml.safe_load(path.read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    assert {name} == {case["alertname"] for case in cases}
    return [case["exp_alerts"] for case in cases]
