"""When a schedule runs: expressions, time zones, and the days on which clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openworkflow import Cron
from openworkflow.core.cron import recurrence
from openworkflow.core.errors import ConfigurationError

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def ticks(expression: str, tz: str, start: str, end: str) -> list[str]:
    """In the local time of the zone, with its offset."""
    found = recurrence(expression, tz)
    return [
        found.local(each).isoformat(" ", "minutes")
        for each in found.between(at(start), at(end), 100)
    ]


def test_the_days_of_the_week_are_those_of_the_zone() -> None:
    friday = recurrence("0 9 * * 1-5", BERLIN).after(at("2026-11-27T08:00Z"))

    assert at("2026-11-30T09:00+01:00") == friday
    assert timedelta(0) == friday.utcoffset()


def test_an_instant_is_not_its_own_next() -> None:
    found = recurrence("*/5 * * * *", "UTC")

    assert at("2026-11-26T10:05Z") == found.after(at("2026-11-26T10:00Z"))
    assert at("2026-11-26T10:05Z") == found.after(at("2026-11-26T10:00:00.000001Z"))
    assert at("2026-11-26T10:00Z") == found.after(at("2026-11-26T09:59:59.999999Z"))


def test_a_job_at_a_time_that_the_clock_skips_runs_at_the_end_of_the_gap() -> None:
    """New York, 8 March 2026: after 01:59 comes 03:00."""
    assert [
        "2026-03-07 02:30-05:00",
        "2026-03-08 03:00-04:00",
        "2026-03-09 02:30-04:00",
    ] == ticks("30 2 * * *", NEW_YORK, "2026-03-07T00:00-05:00", "2026-03-10T00:00-04:00")


def test_a_job_at_a_time_that_comes_twice_runs_once_in_the_first() -> None:
    """New York, 1 November 2026: after 01:59 comes 01:00."""
    assert [
        "2026-10-31 01:30-04:00",
        "2026-11-01 01:30-04:00",
        "2026-11-02 01:30-05:00",
    ] == ticks("30 1 * * *", NEW_YORK, "2026-10-31T00:00-04:00", "2026-11-03T00:00-05:00")


def test_a_job_that_is_asked_about_in_the_second_of_two_hours_has_run_already() -> None:
    within = at("2026-11-01T01:10-05:00")

    assert at("2026-11-02T01:30-05:00") == recurrence("30 1 * * *", NEW_YORK).after(within)


def test_a_job_with_wildcards_runs_through_both_hours_and_knows_no_gap() -> None:
    twice = ticks("*/30 * * * *", NEW_YORK, "2026-11-01T01:00-04:00", "2026-11-01T02:00-05:00")
    gap = ticks("0 * * * *", NEW_YORK, "2026-03-08T01:00-05:00", "2026-03-08T05:00-04:00")

    assert [
        "2026-11-01 01:00-04:00",
        "2026-11-01 01:30-04:00",
        "2026-11-01 01:00-05:00",
        "2026-11-01 01:30-05:00",
    ] == twice
    assert ["2026-03-08 01:00-05:00", "2026-03-08 03:00-04:00", "2026-03-08 04:00-04:00"] == gap


EXPRESSIONS = [
    "30 2 * * *",
    "30 1 * * *",
    "*/30 * * * *",
    "0 */2 * * *",
    "0 0 * * 1",
    "0,30 2,3 * * *",
]
AROUND_CHANGES = st.one_of(
    st.datetimes(datetime(2026, 3, 27), datetime(2026, 3, 31)),
    st.datetimes(datetime(2026, 10, 23), datetime(2026, 10, 27)),
).map(lambda moment: moment.replace(tzinfo=UTC))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(EXPRESSIONS), AROUND_CHANGES, st.timedeltas(timedelta(0), timedelta(days=3)))
def test_where_one_begins_to_count_makes_no_difference(
    expression: str, begin: datetime, later: timedelta
) -> None:
    """The chain of `after`, `between` and `last_until` name the same instants."""
    found, end = recurrence(expression, BERLIN), begin + later
    chain = []
    instant = found.after(begin)
    while instant <= end:
        chain.append(instant)
        instant = found.after(instant)

    assert chain == sorted(set(chain))
    assert [each for each in found.between(begin, end, 10_000) if each > begin] == [
        each for each in chain if each < end
    ]
    assert (chain[-1] if chain else None) == found.last_until(end, begin)
    assert instant == found.after(end)


def test_the_last_instant_of_a_long_outage_is_found_without_walking_through_all_of_it() -> None:
    every_minute = recurrence("* * * * *", BERLIN)
    leap_day = recurrence("0 0 29 2 *", BERLIN)
    now, long_ago = at("2026-11-26T10:00:30Z"), at("2010-01-01T00:00Z")

    assert at("2026-11-26T10:00Z") == every_minute.last_until(now, long_ago)
    assert at("2024-02-29T00:00+01:00") == leap_day.last_until(now, long_ago)
    assert leap_day.last_until(now, at("2025-01-01T00:00Z")) is None


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("0 9 * * 1-5", "at 09:00 on Monday through Friday (Europe/Berlin)"),
        ("@daily", "at 00:00 every day (Europe/Berlin)"),
        ("*/5 * * * *", "every fifth minute of every hour (Europe/Berlin)"),
        ("0 3 L * *", "at 03:00 on the last day of every month (Europe/Berlin)"),
    ],
)
def test_a_schedule_is_told_in_words(expression: str, words: str) -> None:
    assert words == recurrence(expression, BERLIN).words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"expression": "0 0 30 2 *"}, "no cron expression: bad day-of-month"),
        ({"expression": "0 0 31 4,6 *"}, "bad day-of-month"),
        ({"expression": "61 * * * *"}, "bad minute"),
        ({"expression": "* * * * * *"}, "there is none for seconds"),
        ({"expression": "@reboot"}, "has five fields"),
        ({"expression": ""}, "has five fields"),
        ({"expression": None}, "has five fields"),
        ({"expression": "0 9 * * *" + " " * 5000 + "x"}, "has five fields"),
        ({"tz": "Europe/Berln"}, "no time zone 'Europe/Berln'"),
        ({"tz": ""}, "no time zone ''"),
        ({"tz": "../zoneinfo/UTC"}, "no time zone"),
        ({"tz": "Europe"}, "no time zone 'Europe'"),
        ({"tz": None}, "no time zone"),
        ({"overlap": "sometimes"}, "overlap must be one of skip, queue_one"),
        ({"catch_up": "soon"}, "is not a duration"),
        ({"catch_up": 0}, 'catch_up is "none", "all" or a duration'),
        ({"catch_up": "all"}, "choose overlap='queue_all' or overlap='allow'"),
        ({"catch_up": "all", "overlap": "cancel_running"}, "would drop what it catches up with"),
        ({"jitter": "2d"}, "jitter is at most a day"),
        ({"jitter": -1}, "not a duration"),
        ({"name": ""}, "a schedule's name"),
        ({"name": "a\nb"}, "a schedule's name"),
    ],
)
def test_what_could_never_run_is_refused_where_it_is_declared(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Cron(**{"expression": "0 9 * * *"} | arguments)

    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500
