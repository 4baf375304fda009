"""When a schedule runs, as the workers compute it, which the operator may not import. Pure.

Only the first instant is found here, so that no fleet is woken to compute one; each later one is
the workers' doing. A test holds the two against each other.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from uuid import UUID, uuid5
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

ALIASES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
LONGEST_EXPRESSION: Final = 200
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
    fields, zone = _fields(expression), _zone(time_zone)
    try:
        for local in CronSim(fields, instant.astimezone(zone)):
            # In the hour that comes twice a job of its first half lies behind us.
            if (found := local.astimezone(UTC)) > instant:
                return found
    except CronSimError:
        raise _no_expression(expression) from None
    except OverflowError:
        pass  # the end of Python's calendar
    raise NoRecurrence(f"{expression!r:.80} comes at no time")


def run_id(schedule_id: UUID, instant: datetime) -> UUID:
    """The id of a schedule's run for an instant, for ever the same."""
    return uuid5(schedule_id, instant.isoformat())


def due_at(run: UUID, instant: datetime, jitter_seconds: float) -> datetime:
    """When the run of an instant is to begin: its part of the jitter follows from its id."""
    if jitter_seconds <= 0:
        return instant
    part = (run.int & 0xFFFFFFFFFFFF) / 0x1000000000000
    return instant + timedelta(seconds=jitter_seconds * part)


def _fields(expression: str) -> str:
    text = expression.strip()
    if text.lower() in ALIASES:
        return ALIASES[text.lower()]
    fields = text.split()
    if len(text) > LONGEST_EXPRESSION or len(fields) != 5:
        raise _no_expression(expression)
    return " ".join(fields)


def _no_expression(expression: str) -> NoRecurrence:
    return NoRecurrence(
        f"{expression!r:.80} is no cron expression, or of no day that comes: it has minute, hour, "
        'day of month, month and day of week, such as "0 9 * * 1-5"'
    )


def _zone(time_zone: str) -> ZoneInfo:
    try:
        return ZoneInfo(time_zone)
    except (ValueError, OSError, TypeError, KeyError):  # malformed, a folder, no text, not found
        raise NoRecurrence(
            f"there is no time zone {time_zone!r:.80}: it is a name of the IANA database, such as "
            '"Europe/Berlin"'
        ) from None
