"""What becomes of an occurrence whose time has come."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from openworkflow import Cron, workflow
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.schedule import (
    Begin,
    Hold,
    Move,
    NewSchedule,
    Queue,
    Schedule,
    Source,
    decide,
)
from openworkflow.worker.declared import declared

NINE = datetime(2026, 11, 26, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)
RUN = UUID("0197a5be-7b3c-7c1e-9d59-6d5e8b1c2f3a")


def schedule(cron: Cron | None = None, **columns: Any) -> Schedule:
    wish = NewSchedule.of(cron or Cron("0 * * * *"), Source.API, ("report", None), None, "hourly")
    values: dict[str, Any] = {name: getattr(wish, name) for name in wish.__slots__}
    values |= {"id": RUN, "created_at": NINE, "updated_at": NINE, "next_at": NINE}
    values |= dict.fromkeys(["begun", "skipped", "missed"], 0)
    values |= {"open_run_ids": [], "queued_run_ids": []}
    nothing = ["paused_at", "pause_reason", "retired_at", "next_run_id", "last_at", "last_run_id"]
    values = dict.fromkeys(nothing) | values | columns
    return Schedule(**values)


def hourly(**options: Any) -> Schedule:
    return schedule(Cron("0 * * * *", **options))


def test_an_occurrence_in_time_begins_and_the_next_instant_follows_from_its_own() -> None:
    late = NINE + timedelta(minutes=59)

    assert Begin(NINE + HOUR) == decide(hourly(), NINE, NINE, 0)
    assert Begin(NINE + HOUR) == decide(hourly(), NINE, late, 0)


def test_while_an_earlier_one_has_not_ended_the_overlap_decides() -> None:
    queued: dict[str, Any] = {"queued_run_ids": [RUN]}

    assert Move(NINE + HOUR, skipped=1) == decide(hourly(), NINE, NINE, 1)
    assert Begin(NINE + HOUR) == decide(hourly(overlap="allow"), NINE, NINE, 1)
    assert Begin(NINE + HOUR) == decide(hourly(overlap="cancel_running"), NINE, NINE, 1)
    assert Queue(NINE + HOUR) == decide(hourly(overlap="queue_one"), NINE, NINE, 1)
    assert Queue(NINE + HOUR) == decide(hourly(overlap="queue_all"), NINE, NINE, 1)
    one, every = hourly(overlap="queue_one"), hourly(overlap="queue_all")
    assert Move(NINE + HOUR, skipped=1) == decide(replace(one, **queued), NINE, NINE, 1)
    assert Queue(NINE + HOUR) == decide(replace(every, **queued), NINE, NINE, 1)


def test_nothing_overtakes_what_is_queued() -> None:
    waiting = replace(hourly(overlap="queue_all"), queued_run_ids=[RUN])

    assert Queue(NINE + HOUR) == decide(waiting, NINE, NINE, 0)


def test_after_an_outage_the_last_missed_one_runs_if_it_is_not_too_late() -> None:
    back = NINE + timedelta(hours=5, minutes=30)

    assert Move(NINE + 5 * HOUR, missed=5) == decide(hourly(), NINE, back, 0)
    assert Begin(NINE + 6 * HOUR) == decide(hourly(), NINE + 5 * HOUR, back, 0)
    assert Move(NINE + 6 * HOUR, missed=6) == decide(hourly(catch_up="20m"), NINE, back, 0)


def test_without_catching_up_an_occurrence_may_still_wait_a_minute_for_a_worker() -> None:
    punctual = hourly(catch_up="none")

    assert Begin(NINE + HOUR) == decide(punctual, NINE, NINE + timedelta(seconds=59), 0)
    assert Move(NINE + HOUR, missed=1) == decide(punctual, NINE, NINE + timedelta(seconds=61), 0)


def test_all_of_them_are_caught_up_with_where_that_is_asked_for() -> None:
    everything = hourly(catch_up="all", overlap="queue_all")

    assert Begin(NINE + HOUR) == decide(everything, NINE, NINE + 1000 * HOUR, 0)
    assert Queue(NINE + HOUR) == decide(everything, NINE, NINE + 1000 * HOUR, 1)


def test_what_a_year_of_minutes_missed_is_counted_up_to_a_limit() -> None:
    found = decide(schedule(Cron("* * * * *")), NINE, NINE + 365 * 24 * HOUR, 0)

    assert Move(NINE + 365 * 24 * HOUR, missed=100) == found


@pytest.mark.parametrize("since", ["paused_at", "retired_at"])
def test_a_stopped_schedule_holds_its_run_however_late_it_is(since: str) -> None:
    assert Hold() == decide(schedule(None, **{since: NINE}), NINE, NINE + 9 * HOUR, 0)


def test_jitter_is_the_same_for_the_same_instant_and_spreads_over_all_of_it() -> None:
    instants = [NINE + HOUR * n for n in range(200)]
    jittery = hourly(jitter="10m")
    offsets = [(jittery.due_at(at) - at).total_seconds() for at in instants]

    assert offsets == [(hourly(jitter="10m").due_at(at) - at).total_seconds() for at in instants]
    assert all(0 <= each < 600 for each in offsets)
    assert max(offsets) > 500
    assert min(offsets) < 100


def test_jitter_longer_than_the_time_between_two_occurrences_starves_none() -> None:
    """Each is due later than the next instant, and yet one that is due begins."""
    minutely = schedule(Cron("* * * * *", jitter="10m"))
    instant, begun = NINE, 0
    now = NINE
    for _ in range(200):
        now = max(now, minutely.due_at(instant))
        verdict = decide(minutely, instant, now, 0)
        assert isinstance(verdict, Begin | Move)
        begun += isinstance(verdict, Begin)
        assert verdict.next_at > instant
        instant = verdict.next_at

    assert begun > 20


@pytest.mark.parametrize(
    "columns",
    [{"cron": "nonsense"}, {"time_zone": "Mars/Olympus"}, {"catch_up": "soon"}],
)
def test_a_row_that_nobody_checked_is_told_and_never_crashes_what_lists_it(
    columns: dict[str, Any],
) -> None:
    broken = replace(hourly(), **columns)

    with pytest.raises((ConfigurationError, ValueError)):
        decide(broken, NINE, NINE, 0)
    assert broken.words
    assert isinstance(broken.upcoming(3), list)


def test_the_runs_of_a_schedule_made_again_under_its_name_have_other_ids() -> None:
    again = replace(hourly(), id=uuid4())

    assert hourly().run_id(NINE) == hourly().run_id(NINE)
    assert hourly().run_id(NINE) != hourly().run_id(NINE + HOUR)
    assert again.run_id(NINE) != hourly().run_id(NINE)
    assert 5 == again.run_id(NINE).version


def test_a_workflow_declares_its_schedules_with_their_input() -> None:
    @workflow(
        schedule=[
            Cron("0 9 * * 1-5", tz="Europe/Berlin", input="daily"),
            Cron("@monthly", name="month", input="monthly", catch_up="2d", jitter="30s"),
        ]
    )
    async def report(kind: str) -> None: ...

    first, second = declared([report], 1000)

    assert ("report", '"daily"', "3600.0") == (first.name, first.input, first.catch_up)
    assert ("month", '"monthly"', "172800.0") == (second.name, second.input, second.catch_up)
    assert 30.0 == second.jitter_seconds


def test_two_schedules_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="two of its schedules have one name"):

        @workflow(schedule=[Cron("@daily"), Cron("@hourly")])
        async def twice() -> None: ...

    @workflow(schedule=Cron("@daily", name="nightly"))
    async def one() -> None: ...

    @workflow(schedule=Cron("@daily", name="nightly"))
    async def two() -> None: ...

    with pytest.raises(ConfigurationError, match="'one' and 'two' both declare a schedule 'night"):
        declared([one, two], 1000)


def test_a_schedule_whose_input_does_not_fit_is_refused_before_any_run() -> None:
    @workflow(schedule=Cron("@daily"))
    async def needs(order: int) -> None: ...

    @workflow(schedule=Cron("@daily", input=3))
    async def takes_none() -> None: ...

    @workflow(schedule=Cron("@daily"))
    async def optional(order: int | None = None) -> None: ...

    with pytest.raises(ConfigurationError, match=r"give one: Cron\(\.\.\., input=\.\.\.\)"):
        declared([needs], 1000)
    with pytest.raises(ConfigurationError, match="takes no input, and its schedule gives one"):
        declared([takes_none], 1000)
    assert declared([optional], 1000)[0].input is None


def test_a_schedule_that_is_no_cron_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="a schedule is a Cron"):

        @workflow(schedule="0 9 * * *")  # type: ignore[arg-type]
        async def text() -> None: ...


@pytest.mark.parametrize(
    ("wanted", "there", "same"),
    [
        ('{"all": true}', '{"all": 1}', False),
        ('{"n": 1.0}', '{"n": 1}', True),
    ],
)
def test_an_input_is_the_same_where_postgresql_has_it_be(
    wanted: str | None, there: str, same: bool
) -> None:
    """To Python, true is 1: a deploy that changed one into the other changed nothing."""
    wish = NewSchedule.of(Cron("@daily"), Source.CODE, ("report", None), wanted, "s")

    columns = {name: getattr(wish, name) for name in wish.__slots__} | {"input": there}
    assert same == wish.matches(replace(schedule(), **columns))
