"""The comparison as a person reads it: who took part and how, then a table for each question."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks import report
from benchmarks.compare.peers import CONTENDERS, OURS, Contender
from benchmarks.workloads import Workload

LIMIT = "pgbench batch"


@dataclass(slots=True)
class Comparison(report.Figures):
    """All rounds of all contenders; what ends up in the JSON file."""

    versions: dict[str, list[str]] = field(default_factory=dict)
    """Of each that took part, its whole environment."""
    not_tried: dict[str, str] = field(default_factory=dict)
    """Name -> why."""
    failed: dict[str, list[str]] = field(default_factory=dict)
    """Figures that are missing since a turn failed: name -> why, for each such turn."""


def markdown(comparison: Comparison) -> str:
    """The whole report."""
    sections = (
        report.conditions(comparison),
        participants(_taking_part(comparison)),
        _list("Not tried", comparison.not_tried),
        _list("Failed", {name: "; ".join(why) for name, why in comparison.failed.items()}),
        *(_drained(comparison, workload) for workload in Workload),
        _enqueued(comparison),
        _latency(comparison),
    )
    return "\n".join(section for section in sections if section)


def participants(contenders: Sequence[Contender]) -> str:
    """Who takes part: pinned versions, how they are installed, settings, where those are from."""
    rows = [
        [
            contender.name,
            contender.kind,
            ", ".join(contender.packages) or "this repository",
            contender.installer,
            contender.settings,
            contender.advice,
        ]
        for contender in contenders
    ]
    header = ["", "kind", "versions", "installed by", "settings", "from"]
    return report.table("Who took part", header, rows, words=True)


def _drained(comparison: Comparison, workload: Workload) -> str:
    ours = comparison.median(f"{workload} {OURS.name} rate")
    names = [contender.name for contender in _taking_part(comparison)]
    rows = []
    for name in (*names, LIMIT):
        rate = comparison.median(f"{workload} {name} rate")
        costs = [
            _number(comparison.median(f"{workload} {name} {part}"), digits)
            for part, digits in _COSTS.items()
        ]
        if rate is not None:
            spread = _spread(comparison.rounds[f"{workload} {name} rate"])
            rows.append([name, _number(rate), spread, _times(ours, rate), *costs])
    unit = "runs/s" if workload is Workload.ONE_STEP else "steps/s"
    costs_of = ["client CPU us", "server CPU us", "log bytes", "commits", "dead tuples"]
    header = ["", unit, "least to most", "ours / this", *costs_of]
    return report.table(f"{workload}, costs of one run without its enqueue", header, rows)


_COSTS: Mapping[str, int] = {"client cpu": 0, "server cpu": 0, "wal": 0, "commits": 2, "dead": 2}


def _enqueued(comparison: Comparison) -> str:
    rows = []
    for contender in _taking_part(comparison):
        prefix = f"W3 {contender.name}"
        rates = [comparison.rounds.get(f"{prefix} {form} rate", []) for form in _FORMS]
        cells = [
            f"{_number(_median(values))} ({_spread(values)})" if values else "-" for values in rates
        ]
        fewest = [comparison.median(f"{prefix} {form} commits") for form in _FORMS]
        rows.append([contender.name, *cells, *(_number(value, 2) for value in fewest)])
    header = ["", *_FORMS, *(f"commits, {form}" for form in _FORMS)]
    return report.table("W3, runs enqueued per second, median (least to most)", header, rows)


_FORMS = ("single", "concurrent", "batch")


def _latency(comparison: Comparison) -> str:
    rows = []
    for contender in _taking_part(comparison):
        prefix = f"W4 {contender.name}"
        p50, p99 = (comparison.median(f"{prefix} {part}") for part in ("p50", "p99"))
        if p50 is not None:
            spread = _spread(comparison.rounds[f"{prefix} p50"], 2)
            samples = sum(comparison.rounds[f"{prefix} samples"])
            rows.append(
                [contender.name, _number(p50, 2), spread, _number(p99, 2), _number(samples)]
            )
    header = ["", "p50", "least to most", "p99", "samples"]
    return report.table("W4, idle, ms from enqueue to the caller's knowledge", header, rows)


def _list(title: str, lines: Mapping[str, str]) -> str:
    if not lines:
        return ""
    listed = (f"- {name}: {why}" for name, why in sorted(lines.items()))
    return "\n".join([f"### {title}", "", *listed, ""])


def _taking_part(comparison: Comparison) -> Sequence[Contender]:
    return [contender for contender in CONTENDERS if contender.name in comparison.versions]


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _spread(values: Sequence[float], digits: int = 0) -> str:
    return f"{_number(min(values), digits)} to {_number(max(values), digits)}"


def _times(ours: float | None, other: float) -> str:
    return "-" if ours is None else f"{ours / other:.2f} x"


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
