"""The comparison as a person reads it: who took part and how, then a table for each question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks import report
from benchmarks.compare.peers import CONTENDERS, OURS, Contender
from benchmarks.compare.rounds import FORMS
from benchmarks.workloads import Workload

LIMIT = "pgbench batch"


@dataclass(slots=True)
class Comparison(report.Figures):
    """All rounds of all contenders; what ends up in the JSON file."""

    versions: dict[str, list[str]] = field(default_factory=dict)
    """Name of each that took part -> its whole environment."""
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
        *(_by_steps(comparison, load) for load in ("low", "full")),
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


_COSTS: Mapping[str, int] = {"client cpu": 0, "server cpu": 0, "wal": 0, "commits": 2, "dead": 2}
_COSTS_OF_A_RUN = ("client CPU us", "server CPU us", "log bytes", "commits", "dead tuples")


def _drained(comparison: Comparison, workload: Workload) -> str:
    ours = comparison.median(f"{workload} {OURS.name} rate")
    names = [contender.name for contender in _taking_part(comparison)]
    rows = [_row(comparison, f"{workload} {name}", name, ours) for name in (*names, LIMIT)]
    unit = "runs/s" if workload is Workload.ONE_STEP else "steps/s"
    header = ["", unit, "least to most", "ours / this", *_COSTS_OF_A_RUN]
    return report.table(f"{workload}, costs of one run without its enqueue", header, rows)


def _enqueued(comparison: Comparison) -> str:
    rows = []
    for form in ("single", "concurrent", "batch"):
        ours = comparison.median(f"W3 {OURS.name} {form} rate")
        for contender in _taking_part(comparison):
            prefix = f"W3 {contender.name} {form}"
            rows.append(_row(comparison, prefix, f"{contender.name}, {form}", ours))
    header = ["", "runs/s", "least to most", "ours / this", *_COSTS_OF_A_RUN]
    return report.table("W3, enqueue only", header, rows)


def _row(comparison: Comparison, prefix: str, label: str, ours: float | None) -> list[str]:
    """Nothing but the label where there is no figure; such a row is left out."""
    rate = comparison.median(f"{prefix} rate")
    if rate is None:
        return [label]
    costs = [_number(comparison.median(f"{prefix} {part}"), _COSTS[part]) for part in _COSTS]
    spread = _spread(comparison.rounds[f"{prefix} rate"])
    return [label, _number(rate), spread, _times(ours, rate), *costs]


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


_PERCENTILES = ("p50", "p75", "p90", "p99")


def _by_steps(comparison: Comparison, load: str) -> str:
    """The table that Restate publishes of itself: steps of a run by percentiles, at one load."""
    rows = []
    for form in (form for form in FORMS["W5"] if form.endswith(load)):
        for contender in _taking_part(comparison):
            prefix = f"W5 {contender.name} {form}"
            if samples := comparison.rounds.get(f"{prefix} samples"):
                times = [_number(comparison.median(f"{prefix} {part}"), 1) for part in _PERCENTILES]
                rate = _number(comparison.median(f"{prefix} rate"))
                label = f"{form.removesuffix(load)}{contender.name}"
                rows.append([label, *times, rate, _number(sum(samples))])
    header = ["steps", *_PERCENTILES, "runs/s", "samples"]
    return report.table(f"W5, {load} load, ms until the caller knows", header, rows)


def _list(title: str, lines: Mapping[str, str]) -> str:
    if not lines:
        return ""
    listed = (f"- {name}: {why}" for name, why in sorted(lines.items()))
    return "\n".join([f"### {title}", "", *listed, ""])


def _taking_part(comparison: Comparison) -> Sequence[Contender]:
    return [contender for contender in CONTENDERS if contender.name in comparison.versions]


def _spread(values: Sequence[float], digits: int = 0) -> str:
    return f"{_number(min(values), digits)} to {_number(max(values), digits)}"


def _times(ours: float | None, other: float) -> str:
    return "-" if ours is None else f"{ours / other:.2f} x"


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
