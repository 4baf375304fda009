"""When a declared schedule first runs, and why it could not. Pure.

Only the first instant is found here, so that no fleet is woken to compute one; each later one is
the workers' doing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from cronsim import CronSimError

from openworkflow_contract.recurrence import fields_of, instants_after, zone_of

_LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)


class NoRecurrence(ValueError):
    """There are no such times; the message says why, and quotes nothing but what was given."""


@lru_cache(maxsize=4096)
def check(expression: str, time_zone: str) -> None:
    """Raises NoRecurrence for what could never run."""
    # It is looked through fifty years for a day that may never come: a millisecond at most.
    first_after(_LONG_AGO, expression, time_zone)


def first_after(instant: datetime, expression: str, time_zone: str) -> datetime:
    """The first instant later than this one, in UTC. Raises NoRecurrence if there is none."""
    if (fields := fields_of(expression)) is None:
        raise _no_expression(expression)
    if (zone := zone_of(time_zone)) is None:
        raise NoRecurrence(
            f"there is no time zone {time_zone!r:.80}: it is a name of the IANA database, such as "
            '"Europe/Berlin"'
        )
    try:
        for found in instants_after(instant, fields, zone):
            return found
    except CronSimError:
        raise _no_expression(expression) from None
    raise NoRecurrence(f"{expression!r:.80} comes at no time")


def _no_expression(expression: str) -> NoRecurrence:
    return NoRecurrence(
        f"{expression!r:.80} is no cron expression, or of no day that comes: it has minute, hour, "
        'day of month, month and day of week, such as "0 9 * * 1-5"'
    )
