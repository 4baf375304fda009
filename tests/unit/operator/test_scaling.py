"""The scaling function: its arithmetic, and what must hold whatever it sees."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworkflow_operator.decide.scaling import (
    MOST_COUNTED,
    Decision,
    Demand,
    Fleet,
    Limit,
    Memory,
    Policy,
    decide,
    observation_cap,
    pods_needed,
)

POLICY = Policy(
    min_replicas=0, max_replicas=10, concurrency=10, target_latency=30, scale_in_delay=120
)
NOTHING = Demand(due=0, oldest_due_age=0, running=0)


def demand(due: int = 0, age: float = 0, running: int = 0, waking: int = 0) -> Demand:
    return Demand(due=due, oldest_due_age=age, running=running, waking=waking)


@pytest.mark.parametrize(
    ("seen", "service_seconds", "pods"),
    [
        (NOTHING, None, 0),
        (demand(due=1), None, 1),
        (demand(due=35), None, 4),
        (demand(running=9), None, 2),  # 9 + ½·√9 slots
        (demand(due=100), 10.0, 4),  # one slot starts three within the target
        (demand(due=100, age=20), 10.0, 10),  # … but not when they already waited for 20 s
        (demand(due=100, age=500), 10.0, 10),
        (demand(waking=40), None, 4),
    ],
)
def test_the_pods_that_a_demand_takes(
    seen: Demand, service_seconds: float | None, pods: int
) -> None:
    assert pods == pods_needed(POLICY, seen, service_seconds)


def test_a_fleet_at_zero_goes_straight_to_the_number_it_needs() -> None:
    assert Decision(replicas=7, wanted=7) == first(Fleet(0, 0), demand(due=70))


def test_a_running_run_whose_worker_died_wakes_a_fleet_at_zero() -> None:
    assert first(Fleet(0, 0), demand(running=1)).replicas == 1


def test_sleeping_runs_that_wake_soon_start_workers_ahead() -> None:
    assert first(Fleet(0, 0), demand(waking=25)).replicas == 3


def test_more_than_the_limit_is_wanted_and_said() -> None:
    expected = Decision(replicas=10, wanted=50, limit=Limit.MAX_REPLICAS)

    assert expected == first(Fleet(2, 2), demand(due=500))


def test_pods_that_cannot_start_are_not_joined_by_more() -> None:
    fleet = Fleet(replicas=4, ready=1, blocked=True)

    assert first(fleet, demand(due=90)) == Decision(4, 9, Limit.PODS_BLOCKED)


def test_idle_slots_beside_old_runs_are_a_fault_and_not_a_lack_of_pods() -> None:
    fleet = Fleet(replicas=2, ready=2)
    stuck = demand(due=50, age=100)

    early, late = replay(fleet, [(0.0, stuck), (61.0, stuck)])

    assert (early.replicas, early.limit) == (5, Limit.NONE)
    assert (late.replicas, late.limit) == (2, Limit.RUNS_NOT_PICKED_UP)


def test_the_fleet_shrinks_to_the_most_of_the_window() -> None:
    fleet = Fleet(replicas=8, ready=8)
    looks: list[tuple[float, Demand | None]] = [(0.0, demand(due=80)), (60.0, demand(due=50))]
    looks += [(119.0, demand(due=10)), (159.0, demand(due=10)), (161.0, demand(due=10))]
    looks += [(239.0, demand(due=10))]

    assert [8, 8, 8, 8, 5, 1] == [decision.replicas for decision in replay(fleet, looks)]


def test_a_peak_that_is_over_before_a_pod_could_start_holds_no_pods() -> None:
    looks = [(5.0 * tick, demand(due=80 if tick % 8 == 0 else 40)) for tick in range(40)]

    sizes = [decision.replicas for decision in replay(Fleet(8, 8), looks)]

    # Eight only where eight are wanted now, once the window is that of the load alone.
    assert [8, 4, 4, 4] == [sizes[tick] for tick in (32, 33, 35, 39)]


def test_the_fleet_grows_at_once_for_work_and_for_headroom_once_that_lasts() -> None:
    fleet, busy = Fleet(replicas=2, ready=2, busy=2), demand(running=20)  # 20 + ½·√20 slots
    looks = [(0.0, demand(running=10)), (5.0, busy), (10.0, busy), (25.0, busy)]

    assert [2, 2, 2, 3] == [decision.replicas for decision in replay(fleet, looks)]
    assert 3 == first(fleet, demand(due=1, running=20)).replicas


def test_zero_takes_two_empty_looks() -> None:
    policy = dataclasses.replace(POLICY, scale_in_delay=0)

    looks: list[tuple[float, Demand | None]] = [(0.0, demand(due=30)), (5.0, NOTHING)]
    decisions = replay(Fleet(3, 3), [*looks, (10.0, NOTHING)], policy)

    assert [3, 1, 0] == [decision.replicas for decision in decisions]


def test_the_last_pod_stays_for_the_window_after_the_shortest_run() -> None:
    quiet = [(1000.0, NOTHING), (1130.0, NOTHING)]
    looks = [*quiet, (1200.0, demand(running=1)), (1205.0, NOTHING), (1210.0, NOTHING)]
    looks += [(1320.0, NOTHING), (1330.0, NOTHING)]

    assert [1, 1, 1, 1, 0] == [decision.replicas for decision in replay(Fleet(1, 1), looks)][2:]


def test_a_restarted_operator_starts_a_new_window_from_the_pods_there_are() -> None:
    looks = [(1000.0, NOTHING), (1099.0, NOTHING), (1101.0, NOTHING), (1121.0, NOTHING)]

    assert [6, 6, 1, 0] == [decision.replicas for decision in replay(Fleet(6, 6), looks)]


def test_after_an_outage_the_window_starts_again() -> None:
    looks: list[tuple[float, Demand | None]] = [(0.0, demand(due=90)), (5.0, None), (900.0, None)]
    looks += [(905.0, NOTHING), (910.0, NOTHING), (1021.0, NOTHING), (1026.0, NOTHING)]

    assert [9, 9, 9, 9, 9, 1, 0] == [d.replicas for d in replay(Fleet(9, 9), looks)]


def test_an_unreadable_database_still_lets_the_fleet_grow_to_the_minimum() -> None:
    policy = dataclasses.replace(POLICY, min_replicas=2)

    assert replay(Fleet(0, 0), [(0.0, None)], policy)[0].replicas == 2


def test_a_count_that_stopped_doubles_the_fleet_until_it_tells_again() -> None:
    seen = dataclasses.replace(demand(due=100), saturated=True, service_seconds=0.1)

    assert first(Fleet(3, 3), seen).replicas == 6


@pytest.mark.parametrize("service_seconds", [None, 0.0, 0.001, 1.0, 3600.0])
def test_a_count_is_bounded_however_long_the_backlog(service_seconds: float | None) -> None:
    policy = dataclasses.replace(POLICY, max_replicas=1000, concurrency=1000)

    assert observation_cap(POLICY, None) == 101
    assert observation_cap(policy, service_seconds) <= MOST_COUNTED


policies = st.builds(
    lambda low, more, concurrency, target, delay: Policy(
        low, max(1, low + more), concurrency, target, delay
    ),
    st.integers(0, 5),
    st.integers(0, 60),
    st.integers(1, 100),
    st.floats(1, 3600),
    st.floats(0, 600),
)
demands = st.builds(
    Demand,
    due=st.integers(0, 5000),
    oldest_due_age=st.floats(0, 10_000),
    running=st.integers(0, 5000),
    saturated=st.booleans(),
    waking=st.integers(0, 200),
    service_seconds=st.none() | st.floats(0, 5000),
)
fleets = st.integers(0, 65).flatmap(
    lambda n: st.builds(Fleet, st.just(n), st.integers(0, n), st.integers(0, n), st.booleans())
)
looks = st.lists(st.tuples(st.floats(0.1, 400), fleets, st.none() | demands), max_size=12)


@given(policies, looks)
def test_whatever_happens_the_limits_and_the_busy_pods_hold(
    policy: Policy, story: list[tuple[float, Fleet, Demand | None]]
) -> None:
    memory, now = Memory(), 0.0
    for pause, fleet, seen in story:
        now += pause
        decision, memory = decide(policy, fleet, seen, memory, now)

        assert decision.replicas >= min(policy.min_replicas, policy.max_replicas)
        if seen is None:
            assert decision.replicas == max(fleet.replicas, policy.min_replicas)
            continue
        assert decision.replicas <= max(policy.max_replicas, fleet.replicas * fleet.blocked)
        if decision.replicas < fleet.replicas:
            assert decision.replicas >= min(fleet.busy, policy.max_replicas)
        if decision.replicas == 0 < fleet.replicas:
            assert (seen.due, seen.running, seen.waking) == (0, 0, 0)
            assert memory.empty_observations >= 2


@given(policies, demands, st.integers(0, 65))
def test_a_step_of_load_is_answered_at_once_and_in_full(
    policy: Policy, seen: Demand, replicas: int
) -> None:
    decision, _ = decide(policy, Fleet(replicas, ready=0), seen, Memory(), 0.0)

    needed = pods_needed(policy, seen, seen.service_seconds, headroom=0.0)
    assert decision.replicas >= min(needed, policy.max_replicas)


@given(policies, demands, st.integers(0, 65))
def test_a_constant_demand_is_answered_without_oscillation(
    policy: Policy, seen: Demand, replicas: int
) -> None:
    seen = dataclasses.replace(seen, saturated=False)
    memory, sizes = Memory(), []
    for tick in range(20):
        decision, memory = decide(policy, Fleet(replicas, 0), seen, memory, tick * 60.0)
        replicas = decision.replicas
        sizes.append(replicas)

    changes = [b - a for a, b in itertools.pairwise(sizes) if a != b]
    assert len(changes) <= 1 or all(change < 0 for change in changes)


@given(policies, st.integers(1, 65))
def test_without_demand_the_fleet_is_at_its_minimum_after_the_window_and_two_looks(
    policy: Policy, replicas: int
) -> None:
    memory, now, poll = Memory(), 0.0, 5.0
    while now <= policy.scale_in_delay + 3 * poll:
        decision, memory = decide(policy, Fleet(replicas, replicas), NOTHING, memory, now)
        replicas, now = decision.replicas, now + poll

    assert replicas == policy.min_replicas


@given(st.lists(st.integers(0, 100), min_size=1, max_size=200))
def test_the_memory_stays_small_and_exact(wanted: list[int]) -> None:
    policy = dataclasses.replace(POLICY, max_replicas=100, concurrency=1, scale_in_delay=50)
    memory = Memory(seeded=True)
    for now, due in enumerate(wanted):
        decision, memory = decide(policy, Fleet(100, 0), demand(due=due), memory, float(now))
        # A second each: what at least twenty of them wanted, or the most while there are fewer.
        window = sorted(wanted[max(0, now - 50) : now], reverse=True)
        held = window[19] if len(window) >= 20 else max(window, default=0)

        idle = memory.empty_observations >= 2 and not any(window)
        expected = max(held, due) or (0 if idle else 1)
        assert expected == decision.replicas
        assert len(memory.wanted) <= 51


def first(fleet: Fleet, seen: Demand) -> Decision:
    return replay(fleet, [(0.0, seen)])[0]


def replay(
    fleet: Fleet, looks: Sequence[tuple[float, Demand | None]], policy: Policy = POLICY
) -> list[Decision]:
    """Every decision of a sequence of looks at a fleet that does not change."""
    memory, decisions = Memory(), []
    for now, seen in looks:
        decision, memory = decide(policy, fleet, seen, memory, now)
        decisions.append(decision)
    return decisions


UNSERVED = Demand(due=0, oldest_due_age=0, running=0, unserved=6000, oldest_unserved_age=7200)


def test_runs_that_nobody_serves_call_for_one_pod_and_no_more() -> None:
    """A new image may serve them; more pods of one that does not would not help."""
    assert 1 == pods_needed(POLICY, UNSERVED, 1.0)
    assert 3 == pods_needed(POLICY, dataclasses.replace(UNSERVED, due=30), None)


def test_runs_that_nobody_serves_do_not_keep_a_fleet_from_growing() -> None:
    fleet, memory = Fleet(replicas=1, ready=1), Memory()
    for now in range(0, 600, 5):
        _, memory = decide(POLICY, fleet, UNSERVED, memory, now)

    decision, _ = decide(POLICY, fleet, dataclasses.replace(UNSERVED, due=40), memory, 600)

    assert (4, Limit.NONE) == (decision.replicas, decision.limit)
