"""The checker of the campaign: what it accepts, and that each rule sees its violation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.chaos import evidence
from tests.chaos.checker import check
from tests.chaos.evidence import Evidence, Exit, Fault, Job, Row, Run, Told
from tests.chaos.ledger import Beat, Call

START = datetime(2026, 1, 1, tzinfo=UTC)


def call(at: float, key: str, token: str, pid: int = 1, **seen: str) -> Call:
    return Call(at, pid, "job", 0, key, token, seen)


def row(key: str, token: str, claim_no: int = 1, at: float = 0) -> Row:
    begun = START + timedelta(seconds=at)
    done = begun + timedelta(seconds=0.1)
    return Row("job", key, "succeeded", claim_no, begun, done, token)


GOOD = Evidence(
    lease=1.0,
    jobs=[Job("job")],
    calls=[call(1, "a", "t1"), call(2, "b", "t2", a="t1")],
    runs=[Run("job", "succeeded", output={"a": "t1", "b": "t2"})],
    rows=[row("a", "t1"), row("b", "t2", at=1)],
)
KILL = Fault("sigkill", 2.5, 2.5, (1,))
CANCELED = {
    "jobs": [Job("job", frozenset({"canceled"}), canceled_at=0.2)],
    "runs": [Run("job", "canceled")],
}


def told(topic: str, key: str, token: str) -> Told:
    return Told("job", topic, key, token)


TOLD = [
    *(told("seen", "a", "t1"), told("seen", "b", "t2")),
    *(told("work", "a", "t1"), told("work", "b", "t2")),
]


def test_what_was_told_once_and_in_order_is_no_violation() -> None:
    again = [*TOLD, told("work", "b", "of an attempt that was cut short")]
    assert () == check(replace(GOOD, told=again, statuses={"job": "t2"})).violations


def test_a_run_that_went_well_is_no_violation() -> None:
    assert () == check(GOOD).violations


@pytest.mark.parametrize(
    ("beats", "is_excused"),
    [
        ([], False),  # nobody knows
        ([Beat(1.0, 1.1), Beat(1.6, 1.7), Beat(2.2, 2.3), Beat(2.8, 2.9)], False),
        ([Beat(1.0, 1.1), Beat(1.6, 1.9), Beat(2.4, 2.5)], False),  # answered in time
        ([Beat(1.0, 1.1), Beat(1.6, 2.9)], True),
        ([Beat(1.0, 1.1), Beat(2.6, 2.7), Beat(2.7, 2.8)], True),
        ([Beat(-1, 0), Beat(1.6, 1.7), Beat(2.4, 2.5)], False),  # it was late before
        ([Beat(1.0, 1.1), Beat(1.8, 1.9), Beat(4.0, 4.1)], False),  # it was late after
    ],
)
def test_a_lease_that_a_busy_machine_lost_is_a_reason(
    beats: Sequence[Beat], is_excused: bool
) -> None:
    again = [*GOOD.calls, call(2.7, "b", "t3", 2, a="t1")]
    runs = [Run("job", "succeeded", output={"a": "t1", "b": "t3"}, claim_no=2)]
    rows = [row("a", "t1"), row("b", "t3", 2, at=2.7)]

    found = check(replace(GOOD, calls=again, runs=runs, rows=rows, beats={1: beats}))

    assert (set() if is_excused else {evidence.REPEATS}) == found.rules


def test_a_step_that_a_fault_kept_from_its_record_may_be_called_again() -> None:
    again = [*GOOD.calls, call(4, "b", "t3", 2, a="t1")]
    runs = [Run("job", "succeeded", output={"a": "t1", "b": "t3"}, claim_no=2, crashes=1)]
    rows = [row("a", "t1"), row("b", "t3", 2, at=3)]

    evidence = replace(GOOD, calls=again, faults=[KILL], runs=runs, rows=rows)

    assert () == check(evidence).violations


def test_a_wait_that_a_newer_claim_ends_was_begun_before_what_the_older_one_recorded() -> None:
    wait = replace(row("number", "1", 2, at=0.05), kind="signal")
    rows = [row("a", "t1"), wait, row("b", "t2", 2, at=1)]

    assert () == check(replace(GOOD, rows=rows)).violations


def test_a_row_that_a_newer_claim_gave_another_number_was_begun_in_the_older_one() -> None:
    again = replace(row("a", "t1", 2), begun_in=1)
    decision = replace(row("undo", "", 1, at=3), kind="undo")
    assert () == check(replace(GOOD, rows=[again, row("b", "t2", 2, 4), decision])).violations

    moved = [replace(again, begun_in=None), row("b", "t2", 2, 4), decision]
    assert {evidence.FENCE} == check(replace(GOOD, rows=moved)).rules


def test_what_a_process_was_about_to_call_when_it_was_frozen_is_excused_and_counted() -> None:
    stop = Fault("sigstop", 1.5, 5, (1,))
    evidence = replace(GOOD, calls=[*GOOD.calls, call(5.1, "a", "t9")], faults=[stop])

    verdict = check(evidence)

    assert ((), 1) == (verdict.violations, verdict.excused)


@pytest.mark.parametrize(
    ("rule", "changed"),
    [
        (evidence.ENDS, {"runs": [Run("job", "running")]}),
        (evidence.ENDS, {"runs": [Run("job", "failed")]}),
        (evidence.ENDS, {"runs": []}),
        (evidence.ENDS, {"runs": [*GOOD.runs, *[Run("nobody was told", "succeeded")] * 2]}),
        (evidence.ENDS, {"runs": [*GOOD.runs, *GOOD.runs]}),
        (
            evidence.ENDS,
            {
                "jobs": [Job("job", frozenset({"failed"}), "DeadlineExceeded")],
                "runs": [Run("job", "failed", error="SerializationError")],
            },
        ),
        (
            evidence.CALLED,
            {"calls": [*GOOD.calls, call(3, "a", "t3", 2)], "faults": [KILL]},
        ),
        (
            evidence.CALLED,
            {
                "calls": [*GOOD.calls, call(6.5, "a", "t3")],
                "faults": [Fault("sigstop", 1.5, 5, (1,))],
            },
        ),
        (
            evidence.CALLED,
            {"calls": [Call(0, 1, "job", 1, "a", "t0"), *GOOD.calls]},
        ),
        (evidence.RESULTS, {"calls": [*GOOD.calls, call(3, "c", "t3", a="t9")]}),
        (
            evidence.RESULTS,
            {"runs": [Run("job", "succeeded", output={"a": "t9", "b": "t2"})]},
        ),
        (evidence.RESULTS, {"changes": ["run 1: succeeded became failed"]}),
        (evidence.RESTS, CANCELED),
        (
            evidence.REPEATS,
            {"calls": [call(0.5, "a", "t0"), *GOOD.calls]},
        ),
        (
            evidence.REPEATS,
            {
                "calls": [call(0.5, "a", "t0"), *GOOD.calls],
                "faults": [Fault("cut", 5, 5), Fault("cut", -9, -8)],
            },
        ),
        (evidence.ROWS, {"rows": [row("a", "t1")]}),
        (evidence.ROWS, {"rows": [*GOOD.rows, row("c", "t9")]}),
        (
            evidence.ROWS,
            {"rows": [*GOOD.rows, Row("job", "c", "running", 1, START)]},
        ),
        (evidence.FENCE, {"rows": [row("a", "t1", at=3), row("b", "t2", 2, 1)]}),
        (
            evidence.COUNTS,
            {"runs": [replace(GOOD.runs[0], crashes=1)]},
        ),
        (evidence.COUNTS, {"runs": [replace(GOOD.runs[0], attempts=1)]}),
        (evidence.WORKERS, {"exits": [Exit(7, 1, frozenset({0}))]}),
        (evidence.CONNECTIONS, {"connections": 1}),
        (evidence.TOGETHER, {"orders": frozenset({"order-1"})}),
        (evidence.TOGETHER, {"runs": [*GOOD.runs, Run("order-1", "succeeded")]}),
        (
            evidence.BUILDS,
            {"runs": [replace(GOOD.runs[0], build="b1")], "build_of": {1: "b2"}},
        ),
        (evidence.TOLD, {"told": [told("seen", "a", "t1")], "statuses": {"job": "t2"}}),
        (evidence.TOLD, {"told": [*TOLD[:4], *TOLD[:1]], "statuses": {"job": "t2"}}),
        (evidence.TOLD, {"told": [*TOLD[1::-1], *TOLD[2:]], "statuses": {"job": "t2"}}),
        (evidence.TOLD, {"told": TOLD[:3], "statuses": {"job": "t2"}}),
        (evidence.TOLD, {"told": TOLD, "statuses": {"job": "t1"}}),
        (evidence.SIGNALS, {"runs": [Run("job", "succeeded", output={"=got": "0 2 1"})]}),
        (evidence.SIGNALS, {"runs": [Run("job", "succeeded", output={"=got": "0 0 1"})]}),
        (evidence.INVARIANTS, {"broken": ["a running run has a worker"]}),
    ],
)
def test_each_rule_sees_its_violation(rule: str, changed: dict[str, object]) -> None:
    assert rule in check(replace(GOOD, **changed)).rules  # type: ignore[arg-type]
