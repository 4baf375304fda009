"""Overview: what waits, what is executed, and how the newest runs of each workflow ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openworkflow.backend.board import MOST_COUNTED, NEWEST, Recent
from openworkflow.web import words
from openworkflow.web.site import Place

BUCKETS = 60
SPANS = (60.0, 300.0, 900.0, 3600.0, 6 * 3600.0, 86400.0, 7 * 86400.0, 30 * 86400.0)
"""Seconds that a chart may cover: the first that all the newest runs fit into."""
HEIGHT = 60.0


@dataclass(frozen=True, slots=True)
class Column:
    """What ended in a part of the time that a chart covers, in units of the drawing."""

    x: int
    good: float
    bad: float
    told: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Runs that ended, over time."""

    columns: list[Column]
    span: str
    is_cut: bool
    """Whether older runs than those that were looked at may lie within its time."""


async def load(place: Place, asked: Mapping[str, str]) -> dict[str, Any]:
    """See Load."""
    board = place.backend.board
    recent = sorted(
        await board.recent(), key=lambda each: (-each.open - each.failed, each.workflow)
    )
    return {
        "counts": await board.counts(),
        "most": MOST_COUNTED,
        "newest": NEWEST,
        "recent": recent,
        "chart": chart(recent),
        "pauses": await place.backend.pauses.list(),
    }


def chart(recent: Sequence[Recent]) -> Chart | None:
    """The ends of the newest runs; None where nothing has ended."""
    good = [age for each in recent for age in each.ended_well or ()]
    bad = [age for each in recent for age in each.ended_badly or ()]
    if not good and not bad:
        return None
    # Not further back than the time for which all of every workflow was looked at.
    full = [max(each.begun) for each in recent if each.runs >= NEWEST and each.begun]
    oldest = min([max(good + bad), *full])
    span = next((span for span in SPANS if span >= oldest), SPANS[-1])
    counts = [_counted(ages, span) for ages in (good, bad)]
    most = max(map(sum, zip(*counts, strict=True))) or 1
    step = span / BUCKETS
    columns = [
        Column(
            x=place * 10,
            good=round(HEIGHT * well / most, 1),
            bad=round(HEIGHT * badly / most, 1),
            told=f"{words.length(span - place * step)} ago: {well} succeeded, {badly} failed",
        )
        for place, (well, badly) in enumerate(zip(*counts, strict=True))
    ]
    return Chart(columns, words.length(span), bool(full) and span > min(full))


def _counted(ages: Sequence[float], span: float) -> list[int]:
    counts = [0] * BUCKETS
    for age in ages:
        if age < span:
            counts[BUCKETS - 1 - int(max(0.0, age) / span * BUCKETS)] += 1
    return counts
