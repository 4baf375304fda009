"""Rollouts as tables: each state, what leads out of it, and what is never taken for granted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworkflow_operator.api.spec import FailureLimit, Gate, Step
from openworkflow_operator.decide.rollout import (
    MOST_BUILDS,
    Action,
    BuildFleet,
    BuildView,
    Hold,
    Phase,
    Promote,
    Retire,
    StartCanary,
    StopCanary,
    decide_rollout,
)

UP = BuildFleet(ready=1)
STARTING = BuildFleet()
BROKEN = BuildFleet(trouble="CrashLooping")
STALLED = BuildFleet(is_stalled=True)
IN_USE = BuildView(share=100, is_main=True, is_promoted=True, seconds_since_promotion=1000)
MAIN_OF_RAMP = replace(IN_USE, share=90)
NEW = BuildView(share=0)
USED = BuildView(share=0, is_promoted=True, seconds_since_promotion=2000)
CANARY = Gate(canary="smoke", canary_timeout_seconds=60)
RAMP = Gate(ramp=(Step(10, 60), Step(50, 120)))
JUDGED = replace(RAMP, failure_limit=FailureLimit(first_runs=20, max_percent=10))


def view(**values: Any) -> BuildView:
    return replace(NEW, **values)


def first_runs(ended: int, failed: int = 0) -> BuildView:
    """A build whose first step has lasted long enough."""
    return view(share=10, seconds_since_promotion=60, ended=ended, failed=failed)


@pytest.mark.parametrize(
    ("wanted", "fleet", "old", "gate", "phase", "action"),
    [
        # Before any worker of it has started it is not in the database.
        (None, STARTING, IN_USE, Gate(), Phase.STARTING, None),
        (None, BROKEN, IN_USE, Gate(), Phase.HELD, None),
        (None, STALLED, IN_USE, Gate(), Phase.HELD, None),
        # The very first build needs no proof: there is nothing to protect.
        (NEW, STARTING, None, CANARY, Phase.STARTING, None),
        (NEW, UP, None, CANARY, Phase.CURRENT, Promote("new")),
        # Without a gate a ready pod is enough.
        (NEW, STARTING, IN_USE, Gate(), Phase.STARTING, None),
        (NEW, BROKEN, IN_USE, Gate(), Phase.HELD, None),
        (NEW, UP, IN_USE, Gate(), Phase.CURRENT, Promote("new")),
        # The canary.
        (NEW, UP, IN_USE, CANARY, Phase.VERIFYING, StartCanary("new", "smoke")),
        (view(canary="pending"), UP, IN_USE, CANARY, Phase.VERIFYING, None),
        (view(canary="running", canary_age=61), UP, IN_USE, CANARY, Phase.HELD, None),
        (view(canary="failed"), UP, IN_USE, CANARY, Phase.HELD, None),
        (view(canary="canceled"), UP, IN_USE, CANARY, Phase.HELD, None),
        # It stays held once its pods are gone: it rests, so that they come and go no more.
        (view(canary="failed"), STARTING, IN_USE, CANARY, Phase.HELD, None),
        (view(canary="canceled"), STARTING, IN_USE, CANARY, Phase.HELD, None),
        (view(canary="failed"), BROKEN, IN_USE, CANARY, Phase.HELD, None),
        # A canary that failed earlier is nothing to one that needs no proof, or no more.
        (view(canary="failed"), STARTING, IN_USE, Gate(), Phase.STARTING, None),
        (replace(USED, canary="failed"), UP, IN_USE, CANARY, Phase.CURRENT, Promote("new")),
        (view(canary="succeeded"), UP, IN_USE, CANARY, Phase.CURRENT, Promote("new")),
        # The ramp, step by step.
        (NEW, UP, IN_USE, RAMP, Phase.RAMPING, Promote("new", 10)),
        (view(share=10), UP, MAIN_OF_RAMP, RAMP, Phase.RAMPING, None),
        (
            view(share=10, seconds_since_promotion=60),
            UP,
            MAIN_OF_RAMP,
            RAMP,
            Phase.RAMPING,
            Promote("new", 50),
        ),
        (
            view(share=50, seconds_since_promotion=119),
            UP,
            MAIN_OF_RAMP,
            RAMP,
            Phase.RAMPING,
            None,
        ),
        (
            view(share=50, seconds_since_promotion=120),
            UP,
            MAIN_OF_RAMP,
            RAMP,
            Phase.RAMPING,
            Promote("new"),
        ),
        # Its first runs are judged in the first step, which lasts until enough of them ended.
        (first_runs(19, failed=2), UP, MAIN_OF_RAMP, JUDGED, Phase.RAMPING, None),
        (first_runs(20, failed=2), UP, MAIN_OF_RAMP, JUDGED, Phase.RAMPING, Promote("new", 50)),
        (first_runs(20, failed=3), UP, MAIN_OF_RAMP, JUDGED, Phase.HELD, Hold("new")),
        (first_runs(3, failed=3), UP, MAIN_OF_RAMP, JUDGED, Phase.HELD, Hold("new")),
        (
            replace(first_runs(20), seconds_since_promotion=59),
            UP,
            MAIN_OF_RAMP,
            JUDGED,
            Phase.RAMPING,
            None,
        ),
        (
            view(share=50, seconds_since_promotion=120, ended=0),
            UP,
            MAIN_OF_RAMP,
            JUDGED,
            Phase.RAMPING,
            Promote("new"),
        ),
        # A ramp that was removed from the resource meanwhile is over.
        (view(share=50), UP, MAIN_OF_RAMP, Gate(), Phase.RAMPING, Promote("new")),
        # Failing in the middle of a ramp gives the new runs back; only starting does not.
        (view(share=10), BROKEN, MAIN_OF_RAMP, RAMP, Phase.HELD, Hold("new")),
        (view(share=10), STALLED, MAIN_OF_RAMP, RAMP, Phase.HELD, Hold("new")),
        (view(share=10), STARTING, MAIN_OF_RAMP, RAMP, Phase.STARTING, None),
        (view(is_held=True), UP, IN_USE, Gate(), Phase.HELD, None),
        # Current stays current, with or without pods.
        (IN_USE, UP, USED, CANARY, Phase.CURRENT, None),
        (IN_USE, STARTING, USED, CANARY, Phase.CURRENT, None),
        (IN_USE, BROKEN, USED, CANARY, Phase.CURRENT, None),
        # Back to the build in use in the middle of a ramp: at once.
        (MAIN_OF_RAMP, STARTING, view(share=10), RAMP, Phase.CURRENT, Promote("new")),
        # Back to a build that was in use before: once it is up, without proof and ramp.
        (USED, STARTING, IN_USE, CANARY, Phase.STARTING, None),
        (USED, UP, IN_USE, replace(RAMP, canary="smoke"), Phase.CURRENT, Promote("new")),
    ],
)
def test_the_wanted_build(
    wanted: BuildView | None,
    fleet: BuildFleet,
    old: BuildView | None,
    gate: Gate,
    phase: Phase,
    action: Action | None,
) -> None:
    views = {"new": wanted, "old": old}
    known = {build: each for build, each in views.items() if each is not None}

    verdict = decide_rollout("new", known, {"new": fleet}, gate)

    assert phase == verdict.phases["new"][0]
    assert action == next((a for a in verdict.actions if a.build == "new"), None)
    assert "new" not in verdict.remove


@pytest.mark.parametrize(
    ("other", "phase", "removed"),
    [
        (None, Phase.DRAINED, True),
        (view(due=1), Phase.DRAINING, False),
        (view(running=1), Phase.DRAINING, False),
        (view(next_wake_seconds=86400.0), Phase.DRAINING, False),
        (view(share=10), Phase.CURRENT, False),
        (NEW, Phase.DRAINED, True),
        (view(is_held=True), Phase.DRAINED, True),
        (replace(USED, seconds_since_promotion=3000), Phase.DRAINED, True),
    ],
)
def test_another_build_stays_until_no_run_is_left_on_it(
    other: BuildView | None, phase: Phase, removed: bool
) -> None:
    views = {"new": IN_USE, "before": USED} | ({"other": other} if other else {})

    verdict = decide_rollout("new", views, {"other": STARTING, "new": UP}, Gate())

    assert phase == verdict.phases["other"][0]
    assert removed == ("other" in verdict.remove)
    assert ([Retire("other")] if removed and other else []) == list(verdict.actions)


def test_a_build_with_pods_that_the_database_does_not_know_yet_is_not_drained() -> None:
    """The look at the database may be older than the pod that registered it."""
    verdict = decide_rollout("new", {}, {"old": BuildFleet(pods=1, ready=1)}, Gate())

    assert Phase.UNKNOWN == verdict.phases["old"][0]
    assert not verdict.remove


def test_the_build_in_use_before_is_kept_for_a_rollback() -> None:
    views = {"new": IN_USE, "before": USED, "long-ago": replace(USED, seconds_since_promotion=9e6)}

    verdict = decide_rollout("new", views, {"before": STARTING, "long-ago": STARTING}, Gate())

    assert {"long-ago"} == verdict.remove
    assert (Phase.DRAINED, "kept for a rollback") == verdict.phases["before"]


@pytest.mark.parametrize("fleet", [STARTING, BROKEN])
def test_a_build_that_is_not_in_use_yet_does_not_cost_the_way_back(fleet: BuildFleet) -> None:
    """Whoever finds the build in use broken too goes back to the one before it."""
    views = {
        "in-use": IN_USE,
        "before": USED,
        "long-ago": replace(USED, seconds_since_promotion=9e6),
    }
    fleets = {"new": fleet, "in-use": UP, "before": STARTING, "long-ago": STARTING}

    verdict = decide_rollout("new", views, fleets, Gate())

    assert {"long-ago"} == verdict.remove
    assert (Phase.DRAINED, "kept for a rollback") == verdict.phases["before"]


def test_a_build_in_a_ramp_says_how_its_first_runs_ended() -> None:
    def message(wanted: BuildView, old: BuildView = MAIN_OF_RAMP) -> str:
        views = {"new": wanted, "old": old}
        return decide_rollout("new", views, {"new": UP}, JUDGED).phases["new"][1]

    waits = "10 % of the new runs: 7 of the first 20 ended, 1 failed"
    assert waits == message(first_runs(7, failed=1))
    assert "3 of its first 7 runs failed" == message(first_runs(7, failed=3))
    held = view(is_held=True, is_promoted=True, ended=7, failed=3)
    assert message(held, IN_USE).startswith("3 of its first 7 runs failed; change the image")


def test_runs_that_are_left_too_long_are_moved_or_failed() -> None:
    gate = Gate(leftover_seconds=999, leftover="fail")
    old = replace(USED, next_wake_seconds=1e6)

    assert [Retire("old", "fail")] == list(
        decide_rollout("new", {"new": IN_USE, "old": old}, {}, gate).actions
    )
    in_time = replace(gate, leftover_seconds=1001)
    assert [] == list(decide_rollout("new", {"new": IN_USE, "old": old}, {}, in_time).actions)
    ramping = {"new": view(share=10, seconds_since_promotion=5000), "old": MAIN_OF_RAMP}
    left = ramping | {"older": old}
    assert Retire("older", "fail") not in decide_rollout("new", left, {"new": UP}, gate).actions


def test_what_cannot_be_read_is_neither_drained_nor_promoted() -> None:
    verdict = decide_rollout("new", None, {"new": UP, "old": STARTING}, CANARY)

    assert {Phase.UNKNOWN} == {phase for phase, _ in verdict.phases.values()}
    assert ((), frozenset(), frozenset()) == (verdict.actions, verdict.awake, verdict.remove)


def test_a_canary_that_nobody_waits_for_keeps_no_build_alive() -> None:
    for canary in ("pending", "running"):
        views = {"new": IN_USE, "old": view(due=1, canary=canary, is_held=True)}
        assert [StopCanary("old")] == list(decide_rollout("new", views, {}, CANARY).actions)


def test_a_build_that_was_not_looked_at_is_not_drained() -> None:
    views = {f"b{number}": replace(USED, due=1) for number in range(MOST_BUILDS - 1)}
    views["new"] = IN_USE
    fleets = {"new": UP, "old": BuildFleet()}

    verdict = decide_rollout("new", views, fleets, Gate())

    assert Phase.UNKNOWN is verdict.phases["old"][0]
    assert ((), frozenset()) == (tuple(verdict.actions), verdict.remove)


@pytest.mark.parametrize(
    ("wanted", "fleet", "awake"),
    [
        (None, STARTING, True),
        (NEW, STARTING, True),
        (None, BROKEN, True),  # its image may still turn up
        (view(canary="running"), UP, True),
        (view(canary="failed"), UP, False),
        (view(canary="failed"), STARTING, False),
        (view(is_held=True), UP, False),
        (view(share=10), UP, True),
        (IN_USE, STARTING, False),
    ],
)
def test_a_build_gets_a_pod_as_long_as_it_has_something_to_prove(
    wanted: BuildView | None, fleet: BuildFleet, awake: bool
) -> None:
    views = {"old": IN_USE} | ({"new": wanted} if wanted else {})

    assert awake == ("new" in decide_rollout("new", views, {"new": fleet}, CANARY).awake)


@pytest.mark.parametrize("fleet", [STARTING, BROKEN, STALLED, UP])
def test_a_build_whose_canary_nobody_asks_for_any_more_is_tried_whatever_became_of_it(
    fleet: BuildFleet,
) -> None:
    """A pod that is taken away for being broken would come back as one that starts."""
    views = {"old": IN_USE, "new": view(canary="failed")}
    verdict = decide_rollout("new", views, {"new": fleet}, Gate())

    assert "new" in verdict.awake or verdict.actions


BUILDS = st.sampled_from(["a", "b", "c", "d"])
FLEETS = st.builds(
    BuildFleet, ready=st.integers(0, 2), trouble=st.none() | st.just("x"), is_stalled=st.booleans()
)
VIEWS = st.builds(
    BuildView,
    share=st.just(0),
    is_promoted=st.booleans(),
    is_held=st.booleans(),
    seconds_since_promotion=st.floats(0, 1e4),
    due=st.integers(0, 2),
    running=st.integers(0, 2),
    next_wake_seconds=st.none() | st.floats(0, 1e6),
    canary=st.none() | st.sampled_from(["pending", "running", "succeeded", "failed"]),
    canary_age=st.floats(0, 100),
)
GATES = st.sampled_from(
    [Gate(), CANARY, RAMP, JUDGED, replace(RAMP, canary="smoke", leftover_seconds=60)]
)


@given(
    target=BUILDS,
    views=st.dictionaries(BUILDS, VIEWS),
    fleets=st.dictionaries(BUILDS, FLEETS),
    gate=GATES,
    taker=BUILDS,
    share=st.sampled_from([0, 10, 50, 100]),
)
def test_whatever_the_state_no_run_is_ever_abandoned(
    target: str,
    views: dict[str, BuildView],
    fleets: dict[str, BuildFleet],
    gate: Gate,
    taker: str,
    share: int,
) -> None:
    """Nothing with runs or a share is removed, and what is promoted has pods or was in use."""
    if taker in views and share:
        views[taker] = replace(views[taker], share=share, is_main=share == 100)
        rest = next((build for build in views if build != taker), None)
        if rest is not None and share < 100:
            views[rest] = replace(views[rest], share=100 - share, is_main=True)

    verdict = decide_rollout(target, views, fleets, gate)

    for build in verdict.remove:
        assert build != target
        assert build not in views or not (views[build].runs_left or views[build].share)
    for action in verdict.actions:
        if isinstance(action, Promote):
            assert action.build == target
            assert fleets.get(target, STARTING).ready or views[target].is_main
        if isinstance(action, Retire):
            assert action.build != target
    assert set(verdict.phases) == {target, *views, *fleets}
