"""Figures as a person reads them: one markdown table for each question."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.workloads import Workload


@dataclass(slots=True)
class Figures:
    """All rounds of all measurements; what ends up in the JSON file."""

    machine: dict[str, str]
    settings: dict[str, str]
    options: dict[str, Any]
    rounds: dict[str, list[float]] = field(default_factory=dict)
    memory_mib: list[float] = field(default_factory=list)

    def add(self, name: str, value: float) -> None:
        """One round's figure of `name`."""
        self.rounds.setdefault(name, []).append(value)

    def add_all(self, prefix: str, values: Mapping[str, float]) -> None:
        """Several figures of one measurement."""
        for name, value in values.items():
            self.add(f"{prefix} {name}", value)

    def median(self, name: str) -> float | None:
        """The median of the rounds; None if it was not measured."""
        values = self.rounds.get(name)
        return statistics.median(values) if values else None


def describe_machine() -> dict[str, str]:
    """Where the figures come from."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next(
            (line.split(": ")[1] for line in lines if line.startswith("model name")), model
        )
    return {
        "cpu": f"{psutil.cpu_count()} x {model}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def markdown(figures: Figures) -> str:
    """Every table that has figures."""
    sections = (
        conditions(figures),
        _throughput(figures),
        _costs(figures),
        _enqueue(figures),
        _latency(figures),
        _plans(figures),
        _sizes(figures),
        _memory(figures),
    )
    return "\n".join(section for section in sections if section)


def conditions(figures: Figures) -> str:
    """The machine and the server's settings, a line each."""
    facts = {**figures.machine, **{f"`{name}`": value for name, value in figures.settings.items()}}
    return "\n".join(f"- {name}: {value}" for name, value in facts.items()) + "\n"


def _throughput(figures: Figures) -> str:
    rows = []
    for kind in ("ours", "pinned", "naive", "pgbench batch", "pgbench single"):
        one = figures.median(f"{Workload.ONE_STEP} {kind}")
        ten = figures.median(f"{Workload.TEN_STEPS} {kind}")
        steps = None if ten is None else ten * Workload.TEN_STEPS.steps
        rows.append([kind, _count(one), _count(steps)])
    ratios = ["ours / naive"]
    for workload in Workload:
        ours, other = (figures.median(f"{workload} {kind}") for kind in ("ours", "naive"))
        ratios.append(_ratio(ours, other))
    return table("Throughput", ["", "W1 runs/s", "W2 steps/s"], [*rows, ratios])


def _costs(figures: Figures) -> str:
    parts = ("client cpu", "server cpu", "wal", "stored")
    rows = [
        [f"{workload}, {kind}"]
        + [_count(figures.median(f"{workload} {kind} {part}")) for part in parts]
        for workload in Workload
        for kind in ("ours", "naive")
    ]
    header = ["", "client CPU us", "server CPU us", "log bytes", "table and index bytes"]
    return table("What a run costs, its enqueue apart", header, rows)


def _enqueue(figures: Figures) -> str:
    forms = ("single", "concurrent", "batch")
    rows = [
        [kind, *(_count(figures.median(f"W3 {kind} {form}")) for form in forms)]
        for kind in ("ours", "naive", "pgbench")
    ]
    return table("W3, runs enqueued per second", ["", *forms], rows)


def _latency(figures: Figures) -> str:
    names = ("p50", "p99", "commit pair p50", "commit pair p99")
    values = {name: figures.median(f"W4 {name}") for name in names}
    if values["p50"] is None:
        return ""
    rows = [
        ["enqueue to result", _fixed(values["p50"]), _fixed(values["p99"])],
        ["commit pair", _fixed(values["commit pair p50"]), _fixed(values["commit pair p99"])],
        ["ratio", _ratio(values["p50"], values["commit pair p50"]), ""],
    ]
    return table("W4, idle latency in ms", ["", "p50", "p99"], rows)


def _plans(figures: Figures) -> str:
    rows = []
    for workload in Workload:
        cold, warm = (figures.median(f"{workload} {state}") for state in ("cold", "ours"))
        if cold is not None:
            rows.append([workload.value, _count(cold), _count(warm), _ratio(cold, warm)])
    header = ["", "cold runs/s", "warm runs/s", "cold / warm"]
    return table("Tables never analysed, autovacuum off", header, rows)


def _sizes(figures: Figures) -> str:
    rows = []
    for name in ("finished", "pending"):
        rate = figures.median(f"W1 with {name}")
        if rate is not None:
            label = f"{figures.options[f'preload_{name}']:,} {name}"
            empty = figures.median("W1 ours")
            rows.append([label, _count(rate), _ratio(rate, empty)])
    return table("W1 on tables that hold", ["", "runs/s", "against empty"], rows)


def _memory(figures: Figures) -> str:
    runs = figures.options["memory_runs"]
    tenths = len(figures.memory_mib)
    rows = [
        [f"{runs * (tenth + 1) // tenths:,}", f"{mib:.1f}"]
        for tenth, mib in enumerate(figures.memory_mib)
    ]
    return table("Resident memory of one worker", ["after runs", "MiB"], rows)


def table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[str]], *, words: bool = False
) -> str:
    """Markdown; nothing where no row has a figure. Columns of `words` begin at the left."""
    body = [row for row in rows if any(cell not in ("", "-") for cell in row[1:])]
    if not body:
        return ""
    rule = ["---", *("---" if words else "---:" for _ in header[1:])]
    lines = ["| " + " | ".join(row) + " |" for row in (header, rule, *body)]
    return "\n".join([f"### {title}", "", *lines, ""])


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _fixed(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _ratio(value: float | None, other: float | None) -> str:
    return "-" if not value or not other else f"{value / other:.2f} x"
