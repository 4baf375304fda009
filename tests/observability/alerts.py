"""The shipped alerts, as their tests read them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "charts/openworkflow/alerts"
RULES: Final = FOLDER / "openworkflow.yaml"
TESTS: Final = FOLDER / "tests"
RUNBOOKS: Final = ROOT / "docs/runbooks"
_COMPARISON: Final = re.compile(r"\s(==|!=|>=|<=|>|<)\s")


def alerts() -> list[dict[str, Any]]:
    """All alerts, in order; one of two severities is there twice."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def names() -> list[str]:
    """The names of all alerts, each once."""
    return sorted({alert["alert"] for alert in alerts()})


def without_comparison(expression: str) -> str:
    """The same with subtractions: they need the same series, and drop none.

    So it returns data exactly where the alert can.
    """
    return _COMPARISON.sub(" - ", expression.replace("absent(", "("))
