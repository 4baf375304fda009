"""The metrics that the code has, and those that an expression names."""

from __future__ import annotations

import re

from openworkflow.telemetry.catalogue import catalogue
from openworkflow_operator.report.metrics import Metrics

_NAME = re.compile(r"\b(?:openworkflow_\w+|ALERTS)\b")
_PARTS = ("", "_bucket", "_sum", "_count")


def exported() -> set[str]:
    """Every name that a worker or an operator exports."""
    types = {metric.name: metric.type for metric in catalogue()}
    for family in Metrics().registry.collect():
        total = "_total" if family.type == "counter" else ""
        types[family.name + total] = family.type
    return {
        name + part
        for name, kind in types.items()
        for part in (_PARTS[1:] if kind == "histogram" else _PARTS[:1])
    }


def named(expression: str) -> set[str]:
    """The metrics of an expression; ALERTS is Prometheus' own."""
    without_labels = re.sub(r'"[^"]*"', "", expression)
    return set(_NAME.findall(without_labels)) - {"ALERTS"}
