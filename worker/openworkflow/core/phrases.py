"""Words of the sentences that tell of runs: times, numbers, errors and limits. Pure."""

from datetime import MAXYEAR, datetime

from openworkflow.core.failure import Failure
from openworkflow.core.limits import LimitWait

SHOWN_ERROR = 200
"""Characters of an error in a sentence."""


def when(moment: datetime | None) -> str:
    """A time as everybody reads it alike, to the second."""
    if moment is None or moment.year == MAXYEAR:
        return "at no time"
    return moment.strftime("%Y-%m-%d %H:%M:%S %Z")


def at(moment: datetime | None) -> str:
    """When something happens that a time makes happen, or somebody."""
    return "once something wakes it" if moment is None else f"at {when(moment)}"


def finite(moment: datetime) -> datetime | None:
    """None for a run that no time makes due."""
    return None if moment.year == MAXYEAR else moment


def short(failure: Failure) -> str:
    """An error in one line: type and message."""
    text = " ".join(failure.summary.split())
    return text if len(text) <= SHOWN_ERROR else text[: SHOWN_ERROR - 1] + "…"


def limit_told(limit: LimitWait) -> str:
    """A limit, and what is in the way."""
    told = []
    if limit.slots == 0:
        told.append("lets none be executed")
    elif limit.slots is not None and limit.used >= limit.slots:
        by = "" if limit.holder is None else f", by run {limit.holder}"
        others = " and others" if by and limit.used > 1 else ""
        told.append(f"has {limit.used} of {limit.slots} slots in use{by}{others}")
    if limit.paused_until is not None:
        told.append(f"is paused until {when(limit.paused_until)}")
    of = "" if limit.key is None else f" of {limit.key!r}"
    return f"limit {limit.name!r}{of}" + (f", which {' and '.join(told)}" if told else "")
