"""Lengths of time as people write them: `"1h30m"`, `"500ms"`, seconds, or a timedelta."""

import math
import re
from datetime import timedelta

from openworkflow.core.errors import ConfigurationError
from openworkflow.core.shown import shown

Duration = timedelta | str | int | float
"""A number is seconds; so is text without a unit."""

LONGEST = timedelta(days=36_500)
"""A century: still a valid timestamp when PostgreSQL adds it to now()."""

_UNITS = {
    "ms": 0.001,
    "s": 1.0,
    "m": 60.0,
    "h": 3_600.0,
    "d": 86_400.0,
    "w": 604_800.0,
}
_PART = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|[smhdw])", re.ASCII)
_TEXT = re.compile(rf"(?:{_PART.pattern})+\s*\Z", re.ASCII)
_NUMBER = re.compile(r"\s*[0-9]+(?:\.[0-9]+)?\s*\Z", re.ASCII)
_ALLOWED = (
    'a duration is a timedelta, a number of seconds, or text such as "500ms", "90s", "1h30m", '
    '"7d" or "2w"; it is not negative and at most 36500 days'
)


def parse_duration(value: Duration) -> timedelta:
    """`value` as a timedelta. Raises ConfigurationError that says what is allowed."""
    if isinstance(value, timedelta):
        duration = value
    elif isinstance(value, str):
        duration = _of_seconds(_seconds(value), value)
    elif type(value) in (int, float):  # not bool, whatever untyped callers pass
        duration = _of_seconds(value, value)
    else:
        raise _refused(value)
    if not timedelta(0) <= duration <= LONGEST:
        raise _refused(value)
    return duration


def _seconds(text: str) -> float:
    if _NUMBER.match(text):
        return float(text)
    if not _TEXT.match(text):
        raise _refused(text)
    return math.fsum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def _of_seconds(seconds: float, value: object) -> timedelta:
    try:
        return timedelta(seconds=seconds)
    except (OverflowError, ValueError):  # infinite or beyond timedelta, and NaN
        raise _refused(value) from None


def _refused(value: object) -> ConfigurationError:
    huge = isinstance(value, int) and abs(value) >= 10**20
    return ConfigurationError(
        f"{'a huge number' if huge else shown(value)} is not a duration: {_ALLOWED}"
    )
