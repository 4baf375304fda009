"""Writes the tables of docs/monitoring.md from the code and the shipped alerts.

python -m tools.monitoring_docs
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import yaml
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

from openworkflow.telemetry.catalogue import catalogue
from openworkflow_operator.report.metrics import Metrics

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs/monitoring.md"
ALERTS: Final = ROOT / "charts/openworkflow/alerts/openworkflow.yaml"


def page() -> str:
    """The page with its tables as they should be."""
    text = PAGE.read_text()
    for name, table in (("alerts", alerts()), ("worker", worker()), ("operator", operator())):
        before, begin, rest = text.partition(f"<!-- made by `make generate`: {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        assert end, f"docs/monitoring.md has no place for {name}"
        text = before + begin + table + end + after
    return text


def alerts() -> str:
    """Each alert with how bad it is, when it fires, and its runbook."""
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    rows = [
        (
            f"[{rule['alert']}](runbooks/{rule['alert']}.md)",
            rule["labels"]["severity"],
            rule["for"],
            f"`{_one_line(rule['expr'])}`",
        )
        for group in groups
        for rule in group["rules"]
    ]
    return _table(("alert", "severity", "for", "fires while"), rows)


def worker() -> str:
    """The metrics of a worker."""
    rows = [
        (f"`{each.name}`", each.type, _labels(each.labels[1:]), each.help) for each in catalogue()
    ]
    return _table(("metric", "type", "labels", ""), rows)


def operator() -> str:
    """The metrics of the operator."""
    metrics = Metrics()
    own = [each for each in vars(metrics).values() if isinstance(each, MetricWrapperBase)]
    labels = {family.name: each._labelnames for each in own for family in each.describe()}
    rows = [
        (
            f"`{family.name}{'_total' if family.type == 'counter' else ''}`",
            family.type,
            _labels(labels.get(family.name) or _labels_shown(family)),
            family.documentation,
        )
        for family in metrics.registry.collect()
    ]
    return _table(("metric", "type", "labels", ""), rows)


def _labels_shown(family: Metric) -> Sequence[str]:
    """Labels of a family, made by a collector or with values from the start."""
    if isinstance(family, GaugeMetricFamily):
        return family._labelnames
    return [name for sample in family.samples[:1] for name in sample.labels if name != "le"]


def _labels(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _one_line(expression: str) -> str:
    """An expression as one reads it in a table."""
    line = " ".join(expression.split())
    return line.replace("( ", "(").replace(" )", ")").replace("|", "\\|")


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |\n" for row in (heading, *rows)]
    return "".join([lines[0], f"|{'---|' * len(heading)}\n", *lines[1:]])


if __name__ == "__main__":
    PAGE.write_text(page())
