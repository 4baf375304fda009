"""The rules of composed and of controlled runs: what they accept, and what each of them sees."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.chaos import evidence
from tests.chaos.checker import check
from tests.chaos.evidence import Evidence, Fork, Group, Job, Kin, Occurrence, Row, Run, Told
from tests.chaos.ledger import Call

START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def call(begun: float, job: str, key: str, token: str, *, raises: bool = False) -> Call:
    return Call(begun, 1, job, 0, key, token, {}, raises)


def row(job: str, key: str, token: str | None, ended: float, **more: object) -> Row:
    told = {"kind": "run"} | more
    return Row(job, key, "succeeded", 1, at(ended - 0.1), at(ended), token, **told)  # type: ignore[arg-type]


def of(*jobs: str, **more: object) -> Evidence:
    """Nothing but these runs, each of one step that took from its number to half a second later."""
    calls = [call(place, job, "a", f"t{place}") for place, job in enumerate(jobs)]
    return replace(
        Evidence(
            lease=1.0,
            jobs=[Job(job) for job in jobs],
            calls=calls,
            runs=[
                Run(job, "succeeded", output={"a": each.token})
                for job, each in zip(jobs, calls, strict=True)
            ],
            rows=[row(each.job, "a", each.token, each.at + 0.5) for each in calls],
            ended={each.token: each.at + 0.5 for each in calls},
        ),
        **more,  # type: ignore[arg-type]
    )


# -- children --------------------------------------------------------------------------------------

CHILD = Kin("p", "p/c", "p/c", "succeeded", 2, 2)
PARENT = Run("p", "succeeded", output={"a": "t0", "=c": "t9"})
FAMILY = of("p", runs=[PARENT, Run("p/c", "succeeded", output={"b": "t9"})], kin=[CHILD])
FAMILY = replace(FAMILY, calls=[*FAMILY.calls, call(1, "p/c", "b", "t9")])
FAMILY = replace(FAMILY, rows=[*FAMILY.rows, row("p/c", "b", "t9", 2)])


def item(number: int, begun: float, ended: float | None) -> Kin:
    until = None if ended is None else at(ended)
    return Kin("p", f"m {number}", f"p/{number}", "succeeded", map="m", open=(at(begun), until))


def test_a_child_of_which_its_parent_got_what_it_came_to_is_no_violation() -> None:
    assert () == check(FAMILY).violations
    failed = [Run("p", "succeeded", output={"a": "t0", "=c": "failed"}), Run("p/c", "failed")]
    assert () == check(replace(FAMILY, runs=failed)).violations


def test_an_item_may_begin_when_another_has_ended() -> None:
    items = [item(0, 0, 1), item(1, 0, 2), item(2, 1, None)]
    assert () == check(of("p", kin=items, windows={"p": 2})).violations


def test_a_child_that_its_parent_never_started_need_not_be_there() -> None:
    lacks = Job("p/c", may_lack=True)
    assert () == check(of("p", jobs=[Job("p"), lacks])).violations


# -- limits and keys -------------------------------------------------------------------------------

AT_ONCE = of("p", "q", ended={"t0": 1.5, "t1": 1.5})
ONE = Group("k", 1)


def test_what_was_not_recorded_counts_for_no_limit() -> None:
    """Its claim may have been lost, and its slot been given to another."""
    groups = {"p": [ONE], "q": [ONE]}
    assert () == check(replace(AT_ONCE, groups={"p": [ONE]})).violations
    assert {evidence.LIMITS} == check(replace(AT_ONCE, groups=groups)).rules
    lost = replace(
        AT_ONCE,
        groups=groups,
        rows=AT_ONCE.rows[:1],
        runs=[*AT_ONCE.runs[:1], Run("q", "canceled")],
    )
    assert evidence.LIMITS not in check(lost).rules


# -- sagas -----------------------------------------------------------------------------------------


def saga(status: str, *undone: tuple[str, float], cut_short: bool = False) -> Evidence:
    """A run that did a and b, in this order; what was undone, and when."""
    rows = [
        row("p", "a", "t0", 1, number=1, can_be_undone=True),
        row("p", "b", "t1", 2, number=2, can_be_undone=True),
        *(row("p", f"undo:{key}", None, ended, kind="undo") for key, ended in undone),
    ]
    calls = [call(0, "p", "a", "t0"), call(1, "p", "b", "t1")]
    if cut_short:
        rows[1] = replace(rows[1], status="failed", number=None)
    done = [call(ended, "p", f"undo:{key}", f"u{ended}") for key, ended in undone]
    return Evidence(
        lease=1.0,
        jobs=[Job("p", frozenset({status}))],
        calls=[*calls, *done],
        runs=[Run("p", status)],
        rows=rows,
    )


def test_a_run_that_undid_all_in_the_reverse_order_is_no_violation() -> None:
    assert () == check(saga("failed", ("b", 3), ("a", 4))).violations
    assert () == check(saga("canceled", ("b", 3), ("a", 4), cut_short=True)).violations
    assert () == check(saga("succeeded")).violations


# -- schedules, events, forks ----------------------------------------------------------------------


def minutes(*numbers: int, last: str = "canceled") -> list[Occurrence]:
    found = [Occurrence("s", START + number * MINUTE, "succeeded") for number in numbers]
    return [*found, Occurrence("s", START + (max(numbers) + 1) * MINUTE, last)]


def event(number: int) -> Told:
    return Told("p", "other", "a", "t0", number)


FORKED = of("p", "q", forks=[Fork("q", "p", frozenset({"a"}))])
FORKED = replace(
    FORKED,
    calls=[call(0, "p", "a", "t0"), call(0.5, "p", "b", "t2"), call(1, "q", "b", "t3")],
    runs=[
        Run("p", "succeeded", output={"a": "t0", "b": "t2"}),
        Run("q", "succeeded", output={"a": "t0", "b": "t3"}),
    ],
    rows=[
        *(row("p", "a", "t0", 1), row("p", "b", "t2", 2)),
        *(row("q", "a", "t0", 1), row("q", "b", "t3", 2)),
    ],
)
REOPENED = of("p", reopened={"p": 1.0})
REOPENED = replace(
    REOPENED,
    calls=[*REOPENED.calls, call(2, "p", "b+", "t2")],
    runs=[Run("p", "succeeded", output={"a": "t0", "=b": "t2"})],
    rows=[*REOPENED.rows, row("p", "b", "t2", 3)],
)


@pytest.mark.parametrize(
    "sound",
    [
        of("p", occurrences=minutes(0, 1, 2)),
        of("p", occurrences=minutes(5, 6, 0), wanted=[("s", START)]),
        of("k.0", "k.2", newest={"k": 1}),
        of("p", told=[event(0), event(1)], followed={"p": [0, 1]}),
        of("p", pauses=[("p", 1, 1)]),
        of("p", begun={"k": [at(0), at(1), at(2)]}, apart=1.0),
        FORKED,
        REOPENED,
    ],
)
def test_what_went_as_asked_is_no_violation(sound: Evidence) -> None:
    assert () == check(sound).violations


@pytest.mark.parametrize(
    ("rule", "seen"),
    [
        (evidence.KIN, replace(FAMILY, kin=[CHILD, CHILD])),
        (evidence.KIN, replace(FAMILY, kin=[replace(CHILD, priority=1)])),
        (evidence.KIN, replace(FAMILY, runs=[PARENT, Run("p/c", "succeeded", output={"b": "t8"})])),
        (evidence.KIN, replace(FAMILY, runs=[PARENT, Run("p/c", "failed")])),
        (evidence.WINDOW, of("p", kin=[item(0, 0, 1), item(1, 0.5, None)], windows={"p": 1})),
        (
            evidence.WINDOW,
            replace(
                AT_ONCE,
                calls=[replace(each, job="p") for each in AT_ONCE.calls],
                groups={"p": [Group("m", 1, rule=evidence.WINDOW)]},
            ),
        ),
        (evidence.LIMITS, replace(AT_ONCE, groups={"p": [ONE], "q": [ONE]})),
        (
            evidence.UNIQUE,
            of(
                *("p", "q", "p"),
                groups={key: [Group("k", 1, True, evidence.UNIQUE)] for key in "pq"},
            ),
        ),
        (evidence.RATES, of("p", begun={"k": [at(0), at(0.9)]}, apart=1.0)),
        (evidence.UNDONE, saga("failed", ("a", 3), ("b", 4))),
        (evidence.UNDONE, saga("failed", ("b", 3))),
        (evidence.UNDONE, saga("failed", ("b", 3), ("b", 4), ("a", 5))),
        (evidence.UNDONE, saga("canceled", ("a", 3), ("b", 4), cut_short=True)),
        (evidence.UNDONE, saga("succeeded", ("b", 3))),
        (evidence.OCCURRENCES, of("p", occurrences=minutes(0, 2))),
        (evidence.OCCURRENCES, of("p", occurrences=minutes(0, 1, 1))),
        (evidence.OCCURRENCES, of("p", occurrences=minutes(0, last="failed"))),
        (evidence.OCCURRENCES, of("p", occurrences=minutes(1), wanted=[("s", START)])),
        (evidence.NEWEST, of("k.0", newest={"k": 1})),
        (evidence.READ, of("p", told=[event(0), event(2)])),
        (evidence.READ, of("p", told=[event(0), event(1)], followed={"p": [0]})),
        (evidence.READ, of("p", told=[event(0), event(1)], followed={"p": [1, 0]})),
        (evidence.PAUSED, of("p", pauses=[("p", 1, 2)])),
        (evidence.FORKED, replace(FORKED, calls=[*FORKED.calls, call(2, "q", "a", "t9")])),
        (
            evidence.FORKED,
            replace(FORKED, runs=[FORKED.runs[0], replace(FORKED.runs[0], job="q")]),
        ),
        (evidence.REOPENED, replace(REOPENED, reopened={"p": -1.0})),
        (
            evidence.REOPENED,
            replace(REOPENED, calls=[*REOPENED.calls[:1], call(2, "p", "b", "t2")]),
        ),
    ],
)
def test_each_rule_sees_its_violation(rule: str, seen: Evidence) -> None:
    assert rule in check(seen).rules
