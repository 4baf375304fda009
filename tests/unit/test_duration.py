"""Durations: what is understood, what is refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworkflow.core.duration import LONGEST, Duration, parse_duration
from openworkflow.core.errors import ConfigurationError


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("24h", timedelta(hours=24)),
        ("1h30m", timedelta(minutes=90)),
        ("1h 30m", timedelta(minutes=90)),
        ("7d", timedelta(days=7)),
        ("500ms", timedelta(milliseconds=500)),
        ("2w", timedelta(weeks=2)),
        ("1.5s", timedelta(seconds=1.5)),
        ("90", timedelta(seconds=90)),
        (90, timedelta(seconds=90)),
        (0.25, timedelta(milliseconds=250)),
        (0, timedelta(0)),
        (timedelta(days=1), timedelta(days=1)),
    ],
)
def test_a_duration_is_understood(written: Duration, meant: timedelta) -> None:
    assert meant == parse_duration(written)


@pytest.mark.parametrize(
    "written",
    [
        *(-1, -0.001, float("nan"), float("inf"), 10**400, True, None, [], b"1s"),
        *("", " ", "h"),
        *("-1s", "1 year", "1e3s", "1h-30m", "1hh", "nan", "inf", "٣s", "9" * 400, "40000d"),
        *(timedelta(seconds=-1), timedelta.max),
    ],
)
def test_anything_else_is_refused_by_an_error_that_says_what_is_allowed(written: Any) -> None:
    with pytest.raises(ConfigurationError, match="a duration is a timedelta") as caught:
        parse_duration(written)

    assert len(str(caught.value)) < 400


@given(st.integers(0, 36_000), st.integers(0, 23), st.integers(0, 59), st.integers(0, 999))
def test_the_parts_of_a_duration_add_up(days: int, hours: int, minutes: int, ms: int) -> None:
    written = f"{days}d{hours}h{minutes}m{ms}ms"

    assert parse_duration(written) == timedelta(
        days=days, hours=hours, minutes=minutes, milliseconds=ms
    )


@given(st.text() | st.floats() | st.integers())
def test_a_duration_is_within_its_bounds_or_refused(written: Duration) -> None:
    try:
        duration = parse_duration(written)
    except ConfigurationError:
        return

    assert timedelta(0) <= duration <= LONGEST
