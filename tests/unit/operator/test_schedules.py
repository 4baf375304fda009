"""Declared schedules: what can run, when it first does, and what is told of the rest."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworkflow.core import cron
from openworkflow.core.cron import Cron
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.schedule import NewSchedule, Source
from openworkflow_contract.recurrence import ALIASES, run_id
from openworkflow_operator.api import nesting
from openworkflow_operator.api.schedules import ScheduleEntry
from openworkflow_operator.api.spec import Database, Key, Worker, WorkflowNamespace
from openworkflow_operator.decide import recurrence
from openworkflow_operator.decide.observation import DatabaseProblem, DatabaseReason
from openworkflow_operator.decide.recurrence import NoRecurrence
from openworkflow_operator.decide.schedules import (
    DEEPEST_INPUT,
    LARGEST_INPUT,
    Definition,
    Kept,
    ScheduleFault,
    ScheduleReason,
    Stored,
    concerns,
    defined,
    is_announced,
    is_settled,
    next_aim,
)
from openworkflow_operator.report.schedules import schedules_stored

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
ID = UUID("00000000-0000-4000-8000-000000000001")
ZONES = ["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kolkata"]
BAD = [
    ("99 * * * *", "UTC"),
    ("0 0 30 2 *", "UTC"),
    ("* * * *", "UTC"),
    ("0 * * * * *", "UTC"),
    ("@reboot", "UTC"),
    ("a b c d e", "UTC"),
    ("0 9 * * 1-5", "Mars/Olympus"),
    ("0 9 * * 1-5", "../../etc/passwd"),
    ("0 9 * * 1-5", "Europe"),
    (",".join(["0"] * 120) + " * * * *", "UTC"),
]


def entry(**changes: Any) -> ScheduleEntry:
    return ScheduleEntry.parse(
        {"name": "nightly", "workflow": "report", "cron": "0 3 * * *"} | changes
    )


def definition(**changes: Any) -> Definition:
    found = defined(entry(**changes))
    assert isinstance(found, Definition)
    return found


def resource(*entries: ScheduleEntry, **changes: Any) -> WorkflowNamespace:
    made = WorkflowNamespace(
        key=Key("shop", "orders"),
        uid="uid-1",
        generation=3,
        created_at="",
        namespace_id="orders",
        database=Database("db"),
        worker=Worker("image"),
        schedules=entries,
    )
    return dataclasses.replace(made, **changes)


# -- times ----------------------------------


@pytest.mark.parametrize(("expression", "zone"), BAD)
def test_what_the_workers_refuse_is_refused_and_named(expression: str, zone: str) -> None:
    with pytest.raises(ConfigurationError):
        Cron(expression, zone)

    found = defined(entry(cron=expression, timeZone=zone))

    assert isinstance(found, ScheduleFault)
    assert ("nightly", "SchedulesInvalid") == (found.name, found.reason)


_FIELDS = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]


@st.composite
def expressions(draw: st.DrawFn) -> str:
    fields = []
    for low, high in _FIELDS:
        number = st.integers(low, high).map(str)
        step = st.integers(1, 20).map(lambda n: f"*/{n}")
        pair = st.tuples(number, number).map("-".join)
        fields.append(draw(st.one_of(st.just("*"), number, step, pair, st.just("L"))))
    return " ".join(fields)


@given(
    expressions() | st.sampled_from(sorted(ALIASES)),
    st.sampled_from(ZONES),
    st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)),
)
def test_the_first_instant_is_the_workers_whatever_the_clocks_do(
    expression: str, zone: str, now: datetime
) -> None:
    try:
        expected = cron.recurrence(expression, zone).after(now)
    except ConfigurationError:
        with pytest.raises(NoRecurrence):
            recurrence.check(expression, zone)
        return

    recurrence.check(expression, zone)
    assert expected == recurrence.first_after(now, expression, zone)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Cron("0 3 * * *")),
        ({"overlap": "QueueOne"}, Cron("0 3 * * *", overlap="queue_one")),
        ({"overlap": "CancelRunning"}, Cron("0 3 * * *", overlap="cancel_running")),
        ({"catchUp": "None"}, Cron("0 3 * * *", catch_up="none")),
        (
            {"catchUp": "All", "overlap": "QueueAll"},
            Cron("0 3 * * *", catch_up="all", overlap="queue_all"),
        ),
        (
            {"catchUpSeconds": 86400, "overlap": "Allow"},
            Cron("0 3 * * *", catch_up="1d", overlap="allow"),
        ),
        (
            {"jitterSeconds": 90, "timeZone": "Asia/Kolkata"},
            Cron("0 3 * * *", "Asia/Kolkata", jitter=90),
        ),
    ],
)
def test_a_row_is_what_the_workers_would_write(changes: Any, expected: Cron) -> None:
    worker = NewSchedule.of(expected, Source.RESOURCE, ("report", None), None, "nightly")
    ours = definition(**changes)

    for name in Definition.__slots__:
        assert getattr(worker, name) == getattr(ours, name), name


# -- inputs ---------------------------------


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1, "b": [2.5]}, '{"b": [2.50], "a": 1.0}', True),
        (1e30, "1000000000000000000000000000000", True),
        (True, "1", False),
        ({"a": False}, '{"a": 0}', False),
        (None, "null", False),
        ("1", "1", False),
    ],
)
def test_inputs_are_the_same_where_postgresql_has_them_be(one: Any, other: str, same: bool) -> None:
    wanted = definition(input=one)

    assert same == wanted.matches(dataclasses.replace(wanted, input=other))


def test_a_change_of_the_input_alone_is_one() -> None:
    """To Python, True is 1."""
    assert entry(input={"all": True}) != entry(input={"all": 1})


def test_an_input_that_is_too_large_or_too_deep_costs_its_entry() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    level: list[Any] = []
    for _ in range(DEEPEST_INPUT):
        level = [level]
    for value in ("x" * LARGEST_INPUT, deep, level):
        found = defined(entry(input=value))
        assert isinstance(found, ScheduleFault)
        assert "its input" in found.message


def test_what_is_nested_too_deeply_is_cut_and_nothing_else_is() -> None:
    plain = b'{"a": [{"b": "]}\\\\\\"[{"}, 1], "c": {}}'
    far = b"[" * 5000 + b"]" * 5000
    text = b'{"items": [{"first": %s}, {"second": [%s, 2]}, %s]}' % (plain, far, plain)

    found = json.loads(nesting.cut(text))

    assert plain == nesting.cut(plain)
    assert json.loads(plain) == found["items"][0]["first"] == found["items"][2]
    assert 2 == found["items"][1]["second"][1]
    assert nesting.DEEPEST == nesting.depth_of(json.dumps(found))


# -- what is there --------------------------


def stored(**changes: Any) -> Stored:
    at = NOW + timedelta(hours=15)
    made = Stored(ID, "resource", definition(), False, False, at, run_id(ID, at), True)
    return dataclasses.replace(made, **changes)


def test_what_is_as_wanted_is_left_alone() -> None:
    assert is_settled(definition(), stored())
    assert is_settled(definition(), stored(is_paused=True, has_run=False))
    assert not is_settled(definition(), stored(is_retired=True))
    assert not is_settled(definition(), stored(has_run=False))
    assert not is_settled(definition(overlap="Allow"), stored())


def test_where_a_schedule_goes_on() -> None:
    three = datetime(2030, 1, 2, 3, tzinfo=UTC)
    four = definition(cron="0 4 * * *")
    overdue = stored(next_at=NOW - timedelta(minutes=1))

    assert three == next_aim(definition(overlap="Allow"), stored(), NOW).instant
    assert three + timedelta(hours=1) == next_aim(four, stored(), NOW).instant
    # One that is due already is of the former times, and is not to be lost.
    assert overdue.next_at == next_aim(four, overdue, NOW).instant
    # Somebody canceled it, and with it this occurrence.
    assert three + timedelta(days=1) == next_aim(definition(), stored(has_run=False), NOW).instant
    # What would have run while it was declared no more is not caught up with.
    old = stored(is_retired=True, next_at=NOW - timedelta(days=9))
    assert three == next_aim(definition(), old, NOW).instant
    paused = next_aim(four, stored(is_paused=True), NOW)
    assert (three + timedelta(hours=1), None) == (paused.instant, paused.due_at)


# -- what is told ---------------------------


def test_the_condition_names_the_entries_that_are_not_stored() -> None:
    bad = ScheduleFault("a", ScheduleReason.REFUSED, "the database does not take it")
    taken = ScheduleFault("b", ScheduleReason.NAME_TAKEN, "there is one of this name")
    worst = ScheduleFault("c", ScheduleReason.INVALID, "it comes at no time")
    many = [dataclasses.replace(bad, name=f"s{n}") for n in range(8)]

    found = schedules_stored(resource(entry()), Kept([bad, taken, worst]))

    assert ("False", "SchedulesInvalid") == (found.status, found.reason)
    for fault in (bad, taken, worst):
        assert f"schedule {fault.name!r}: {fault.message}" in found.message
    assert "NameTaken" == schedules_stored(resource(entry()), Kept([bad, taken])).reason
    assert "and 3 more" in schedules_stored(resource(entry()), Kept(many)).message


def test_what_is_not_known_is_not_taken_for_none() -> None:
    gone = Kept(problem=DatabaseProblem(DatabaseReason.UNREACHABLE, "nothing answers"))
    left = resource(status=reported("Stored", "True"))

    assert ("Unknown", "NotStored") == told(left, gone)
    assert ("True", "NotDeclared") == told(left, Kept())
    assert ("False", "Unreachable") == told(resource(entry()), gone)
    assert ("True", "Stored") == told(resource(entry()), Kept())
    assert ("Unknown", "Paused") == told(resource(entry(), paused=True), None)


def test_a_restart_of_the_operator_is_no_news_of_a_schedule() -> None:
    status = reported("SchedulesInvalid", "False")

    assert ("False", "SchedulesInvalid") == told(resource(entry(), status=status), None)
    changed = resource(entry(), status=status, generation=4)
    assert ("Unknown", "NotStored") == told(changed, None)
    # Or nothing would ever be announced, and so nothing stored.
    none = resource(entry(), status=reported("NotDeclared", "True"))
    assert ("Unknown", "NotStored") == told(none, None)


def test_only_what_has_schedules_or_may_have_had_some_is_asked_about() -> None:
    none = reported("NotDeclared", "True")

    assert not concerns(resource(status=none))
    assert concerns(resource())
    assert concerns(resource(entry(), status=none))
    assert concerns(resource(status=reported("Stored", "True")))
    # The status says it first: an operator after this one would not know of them.
    assert not is_announced(resource(entry()))
    assert not is_announced(resource(entry(), status=none))
    assert is_announced(resource(status=reported("NotStored", "Unknown")))


def told(of: WorkflowNamespace, kept: Kept | None) -> tuple[str, str]:
    found = schedules_stored(of, kept)
    return found.status, found.reason


def reported(reason: str, status: str) -> dict[str, Any]:
    condition = {"type": "SchedulesStored", "status": status, "reason": reason, "message": ""}
    return {"conditions": [condition | {"observedGeneration": 3}]}
