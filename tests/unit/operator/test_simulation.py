"""The comparison with KEDA is a claim of ours: it must stay true."""

from __future__ import annotations

import pytest

from benchmarks.autoscaling.cluster import Cluster
from benchmarks.autoscaling.controllers import Operator
from benchmarks.autoscaling.run import OURS, TUNED, compare, policy_for, shortfalls
from benchmarks.autoscaling.traces import UNTIL, Trace, all_traces

TRACES = all_traces()


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: trace.name)
def test_tuned_keda_is_nowhere_better_for_no_more_and_nothing_is_interrupted(trace: Trace) -> None:
    rows = compare(trace)

    assert [TUNED, OURS] == [row.controller for row in rows[-2:]]
    assert [] == shortfalls(rows)
    assert len(trace.runs) == len(rows[-1].outcome.waits)


@pytest.mark.parametrize("name", ["burst", "huge backlog", "herd of timers"])
def test_the_latency_target_is_met_where_the_limit_allows(name: str) -> None:
    trace = next(trace for trace in TRACES if trace.name == name)
    outcome = Cluster(trace.runs, trace.slots, None).simulate(
        Operator(policy_for(trace)), UNTIL, idle_first=True
    )

    assert max(outcome.waits) <= trace.target_latency
