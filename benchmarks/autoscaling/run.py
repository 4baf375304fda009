"""Compare the controllers on every trace: `python -m benchmarks.autoscaling.run`.

Prints a table, checks the goal, and with `--write` updates the table and plots beside this file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.autoscaling.cluster import Cluster, Controller, Outcome
from benchmarks.autoscaling.controllers import (
    Operator,
    keda_defaults,
    keda_pending_only,
    keda_tuned,
)
from benchmarks.autoscaling.plot import draw
from benchmarks.autoscaling.traces import UNTIL, Trace, all_traces
from openworkflow_operator.decide.scaling import Policy

HERE = Path(__file__).parent
TUNED, OURS = "KEDA tuned", "operator"
NO_DEARER = frozenset({"steady", "diurnal"})
"""Loads that nothing special is to be had for."""
HEADER = (
    "| load | controller | wait p50 | p95 | p99 | max (s) | pod-hours | scale operations "
    "| SIGTERM on busy slots | interrupted slots | work redone (min) |\n"
    "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One controller on one trace."""

    trace: str
    controller: str
    outcome: Outcome

    def wait(self, share: float) -> float:
        """The wait that `share` of the runs did not exceed, in seconds."""
        waits = sorted(self.outcome.waits)
        return waits[min(len(waits) - 1, int(share * len(waits)))]

    @property
    def pod_hours(self) -> float:
        """Hours of pods, from their creation to their end."""
        return self.outcome.pod_seconds / 3600

    def __str__(self) -> str:
        o = self.outcome
        waits = " | ".join(f"{self.wait(share):.1f}" for share in (0.5, 0.95, 0.99, 1.0))
        return (
            f"| {self.trace} | {self.controller} | {waits} | {self.pod_hours:.2f} "
            f"| {o.scale_operations} | {o.signalled_slots} | {o.interrupted_slots} "
            f"| {o.redone_seconds / 60:.1f} |"
        )


def controllers(trace: Trace) -> Iterator[tuple[str, Controller]]:
    """Every controller, configured for the trace as a careful owner would."""
    yield "KEDA defaults, pending only", keda_pending_only(trace.slots, trace.max_replicas)
    yield "KEDA defaults", keda_defaults(trace.slots, trace.max_replicas)
    yield TUNED, keda_tuned(trace.slots, trace.max_replicas, trace.keda_backlog_per_slot)
    yield OURS, Operator(policy_for(trace))


def policy_for(trace: Trace) -> Policy:
    """The defaults of the custom resource, with the limits of the trace."""
    return Policy(
        min_replicas=0,
        max_replicas=trace.max_replicas,
        concurrency=trace.slots,
        target_latency=trace.target_latency,
        scale_in_delay=120.0,
    )


def compare(trace: Trace) -> list[Row]:
    """All controllers on one trace."""
    rows = []
    for name, controller in controllers(trace):
        cluster = Cluster(trace.runs, trace.slots, trace.outage)
        outcome = cluster.simulate(controller, UNTIL, idle_first=name == OURS)
        rows.append(Row(trace.name, name, outcome))
    return rows


def shortfalls(rows: list[Row]) -> list[str]:
    """Where the goal is missed: tuned KEDA is faster for no more or cheaper, or work is cut off."""
    tuned = next(row for row in rows if row.controller == TUNED)
    ours = next(row for row in rows if row.controller == OURS)
    found = []
    if tuned.wait(0.99) < ours.wait(0.99) and tuned.pod_hours <= ours.pod_hours:
        found.append(f"{ours.trace}: tuned KEDA has a lower p99 at no more pod-hours")
    if ours.trace in NO_DEARER and ours.pod_hours > tuned.pod_hours:
        found.append(f"{ours.trace}: tuned KEDA takes fewer pod-hours")
    if ours.outcome.interrupted_slots:
        found.append(f"{ours.trace}: {ours.outcome.interrupted_slots} slots were interrupted")
    return found


def main() -> int:
    """Print the table; return 1 where the goal is missed."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--write", action="store_true", help="update results.md and the plots")
    arguments = options.parse_args()
    lines, missed = [HEADER], []
    for trace in all_traces(arguments.seed):
        rows = compare(trace)
        lines += [str(row) for row in rows]
        missed += shortfalls(rows)
        if arguments.write:
            timelines = {row.controller: row.outcome.timeline for row in rows[1:]}
            target = HERE / "plots" / f"{trace.name.replace(' ', '-')}.svg"
            target.parent.mkdir(exist_ok=True)
            target.write_text(draw(trace.name, timelines))
    if arguments.write:
        (HERE / "results.md").write_text("\n".join(lines) + "\n")
    sys.stdout.write("\n".join([*lines, *(missed or ["The goal is met on every trace."])]) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
