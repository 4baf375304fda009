"""When a schedule runs, as workers and operator compute it alike. Pure; each has errors of its own.

Daylight saving time is as in Debian's cron, which cronsim follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid5
from zoneinfo import ZoneInfo

from cronsim import CronSim

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


def fields_of(expression: str) -> str | None:
    """The five fields of an expression, or of an alias; None if it has not five."""
    text = expression.strip()
    if text.lower() in ALIASES:
        return ALIASES[text.lower()]
    fields = text.split()
    return " ".join(fields) if len(text) <= LONGEST_EXPRESSION and len(fields) == 5 else None


def zone_of(time_zone: str) -> ZoneInfo | None:
    """The time zone of that name; None if there is none."""
    try:
        return ZoneInfo(time_zone)
    except (ValueError, OSError, TypeError, KeyError):  # malformed, a folder, no text, not found
        return None


def instants_after(instant: datetime, fields: str, zone: ZoneInfo) -> Iterator[datetime]:
    """The instants later than this one, in UTC; none if none comes.

    Raises CronSimError for fields that are understood by nobody, or of a day that never comes.
    """
    try:
        for local in CronSim(fields, instant.astimezone(zone)):
            # In the hour that comes twice a job of its first half lies behind us.
            if (found := local.astimezone(UTC)) > instant:
                yield found
    except OverflowError:
        return  # the end of Python's calendar


def run_id(schedule_id: UUID, instant: datetime) -> UUID:
    """The id of a schedule's run for an instant, forever the same."""
    return uuid5(schedule_id, instant.isoformat())


def may_be_occurrence(run: UUID) -> bool:
    """Whether the run of this id may be one of a schedule; no other has an id of this version."""
    return run.bytes[6] >> 4 == 5


def due_at(run: UUID, instant: datetime, jitter_seconds: float) -> datetime:
    """When the run of an instant is to begin: its part of the jitter follows from its id."""
    if jitter_seconds <= 0:
        return instant
    part = (run.int & 0xFFFFFFFFFFFF) / 0x1000000000000
    return instant + timedelta(seconds=jitter_seconds * part)
