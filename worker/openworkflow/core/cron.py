"""`Cron`: when a workflow is to run again and again, and what becomes of times that cannot be met.

The instants follow from the expression and the time zone alone: each from the one before, whatever
any clock says. Daylight saving time is as in Debian's cron, which cronsim follows: a job at a
certain time that falls into the gap runs at its end, one in the hour that comes twice runs in the
first; jobs with a wildcard for minutes or hours run through both as the time passes.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from openworkflow.core.duration import Duration, parse_duration
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.names import NAME_LIMIT, storable_text
from openworkflow.core.options import says_what_was_meant
from openworkflow.core.shown import shown
from openworkflow_contract.recurrence import ALIASES, fields_of, instants_after, zone_of

Overlap = Literal["skip", "queue_one", "queue_all", "cancel_running", "allow"]
"""What becomes of an occurrence while an earlier one has not ended."""

DEFAULT_CATCH_UP = "1h"
PUNCTUAL = timedelta(minutes=1)
"""How late an occurrence may begin that is not to be caught up with: workers may be busy."""
LONGEST_JITTER = timedelta(days=1)


@says_what_was_meant(
    timezone="tz",
    time_zone="tz",
    cron="expression",
    args="input",
    **dict.fromkeys(
        ("minute", "hour", "day", "day_of_month", "month_of_year", "day_of_week", "seconds"),
        'the expression says it: Cron("0 3 * * *") is every night at three',
    ),
)
@dataclass(frozen=True, slots=True)
class Cron:
    """A schedule: five fields of cron, or `@daily` and the like, in a time zone.

    `overlap` says what becomes of an occurrence while an earlier one has not ended: it is skipped,
    waits (one or all of them), cancels the earlier one, or runs beside it. `catch_up` says how late
    one may begin after an outage: of those that were missed only the last one runs, if it is not
    older; "none" is a minute, "all" runs each of them. `jitter` spreads the beginnings, each time
    by the same part of it for the same instant. `input` is the workflow's. The `name` is the
    workflow's unless given. Raises ConfigurationError for what could never run.
    """

    expression: str
    tz: str = "UTC"
    _: KW_ONLY
    overlap: Overlap = "skip"
    catch_up: Duration | Literal["none", "all"] = DEFAULT_CATCH_UP
    jitter: Duration = 0
    input: Any = None
    name: str | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            storable_text("a schedule's name", self.name, NAME_LIMIT, printable=True)
        if self.overlap not in get_args(Overlap):
            raise ConfigurationError(
                f"overlap must be one of {', '.join(get_args(Overlap))}, not {shown(self.overlap)}"
            )
        lateness(self.catch_up)
        if self.catch_up == "all" and self.overlap not in ("queue_all", "allow"):
            raise ConfigurationError(
                f"catch_up='all' with overlap={self.overlap!r} would drop what it catches up with; "
                "choose overlap='queue_all' or overlap='allow'"
            )
        if parse_duration(self.jitter) > LONGEST_JITTER:
            raise ConfigurationError(f"jitter is at most a day, not {shown(self.jitter)}")
        texts: tuple[Any, ...] = (self.expression, self.tz)
        recurrence(*(each if isinstance(each, str) else shown(each) for each in texts))


def lateness(catch_up: Duration) -> timedelta | None:
    """How late an occurrence may begin; None for any time. Raises ConfigurationError."""
    if catch_up == "all":
        return None
    if catch_up == "none":
        return PUNCTUAL
    limit = parse_duration(catch_up)
    if limit < timedelta(seconds=1):
        raise ConfigurationError(
            f'catch_up is "none", "all" or a duration of a second or more, not {shown(catch_up)}'
        )
    return limit


class Recurrence:
    """The instants of an expression in a time zone, in UTC."""

    def __init__(self, expression: str, tz: str) -> None:
        self._text, self._zone, self.tz = _fields(expression), _zone(tz), tz
        try:
            self._words = CronSim(self._text, datetime(2000, 1, 1, tzinfo=UTC)).explain()
            # The days of February 30 are parsed, and never come: fifty years are looked through.
            self.after(datetime(2000, 1, 1, tzinfo=UTC))
        except CronSimError as error:
            raise ConfigurationError(
                f"{shown(expression)} is no cron expression: {str(error).lower()}; it has minute, "
                'hour, day of month, month and day of week, such as "0 9 * * 1-5"'
            ) from None

    @property
    def words(self) -> str:
        """The expression in English."""
        return f"{self._words[:1].lower()}{self._words[1:]} ({self.tz})"

    def local(self, instant: datetime) -> datetime:
        """An instant as the clocks of the time zone show it."""
        return instant.astimezone(self._zone)

    def after(self, instant: datetime) -> datetime:
        """The first instant later than this one. Raises ConfigurationError if there is none."""
        for found in self._from(instant):
            return found
        raise ConfigurationError(f"{self._text!r} comes at no time: there is no such day")

    def between(self, start: datetime, end: datetime, limit: int) -> list[datetime]:
        """The instants from `start` on and before `end`, `limit` of them at most."""
        before = max(start, _FIRST) - timedelta.resolution
        found = itertools.takewhile(lambda at: at < end, self._from(before))
        return list(itertools.islice(found, limit))

    def last_until(self, instant: datetime, after: datetime) -> datetime | None:
        """The last instant that is not later than `instant`, and later than `after`.

        Walks forward only, from further and further back, so that it names what `after` names.
        """
        back = timedelta(hours=1)
        while True:
            begin = max(after, instant - back)
            found = itertools.takewhile(lambda at: at <= instant, self._from(begin))
            last = deque(found, maxlen=1)
            if last or begin == after:
                return last[0] if last else None
            back *= 24

    def _from(self, instant: datetime) -> Iterator[datetime]:
        return instants_after(instant, self._text, self._zone)


_FIRST = datetime(1, 1, 3, tzinfo=UTC)
"""There is nothing before it in some time zone."""


@lru_cache(maxsize=4096)
def recurrence(expression: str, tz: str) -> Recurrence:
    """The instants of an expression; the same object for the same. Raises ConfigurationError."""
    return Recurrence(expression, tz)


def _fields(expression: str) -> str:
    if (fields := fields_of(str(expression))) is not None:
        return fields
    more = ""
    if len(str(expression).split()) == 6:
        more = "; there is none for seconds: for less than a minute use step.sleep in a loop"
    raise ConfigurationError(
        f"{shown(expression)} is no cron expression: it has five fields, minute, hour, day of "
        f'month, month and day of week, such as "0 9 * * 1-5", or is one of '
        f"{', '.join(ALIASES)}{more}"
    )


def _zone(tz: str) -> ZoneInfo:
    if (zone := zone_of(tz)) is None:
        raise ConfigurationError(
            f"there is no time zone {shown(tz)}; give a name of the IANA database, such as "
            '"Europe/Berlin" or "UTC"'
        )
    return zone


def named_schedules(schedule: Cron | Sequence[Cron], name: str) -> tuple[Cron, ...]:
    """The schedules of a workflow, each with a name. Raises ConfigurationError."""
    given: Any = (schedule,) if isinstance(schedule, Cron) else schedule
    if not isinstance(given, Iterable) or any(not isinstance(each, Cron) for each in given):
        raise ConfigurationError(
            f'workflow {name!r}: a schedule is a Cron("0 9 * * 1-5"), not {shown(schedule)}'
        )
    named = tuple(replace(each, name=each.name or name) for each in given)
    if len({each.name for each in named}) < len(named):
        raise ConfigurationError(
            f"workflow {name!r}: two of its schedules have one name; give each one: Cron(name=...)"
        )
    return named
