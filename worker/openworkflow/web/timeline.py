"""The timeline of a run: when its steps were called, slept and waited. Pure.

Time in which nothing of the run was executed is folded: a sleep of a week beside a call of a
second would leave nothing of the call to be seen.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from openworkflow.backend.board import StepRow
from openworkflow.core.step_attempt import StepKind, StepStatus, told_status
from openworkflow.web.words import length

WIDTH = 1000.0
"""Units of a timeline from left to right."""
FOLD = 28.0
"""Units of what is folded."""
FOLDED_FROM = 0.5
"""What is idle for more than this part of all that is not is folded."""
FOLDED_SECONDS = 1.0
"""What is idle for less than this is not."""
LEAST = 3.0
"""Units of a bar, so that it is seen."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch of time of a step."""

    x: float
    width: float
    look: str
    """What it is drawn as: call, sleep, wait, retry or undo, and failed, running or canceled."""
    told: str
    """What it says when it is pointed at."""


@dataclass(slots=True)
class Line:
    """A step, with all attempts that are shown."""

    name: str
    kind: str
    rows: list[StepRow] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)

    @property
    def last(self) -> StepRow:
        """The newest attempt."""
        return self.rows[-1]

    @property
    def is_failed(self) -> bool:
        """Whether its newest attempt failed."""
        return status_told(self.last) == StepStatus.FAILED


@dataclass(frozen=True, slots=True)
class Timeline:
    """Lines in the order in which steps began, and where time is folded."""

    lines: list[Line]
    folds: list[tuple[float, str]]
    """Where, and how long."""
    seconds: float
    """From the first to the last."""

    @property
    def failed(self) -> list[Line]:
        """What is to be looked at first."""
        return [line for line in self.lines if line.is_failed]


def timeline(steps: Sequence[StepRow], now: datetime, ended: datetime | None) -> Timeline:
    """The timeline of these attempts, in the order in which they began, of a run as it is now."""
    if not steps:
        return Timeline([], [], 0.0)
    until = ended or now
    spans = [span for step in steps for span in _spans(step, until)]
    scale = _Scale([(start, end) for start, end, look, _ in spans if look in _BUSY], spans)
    lines: dict[str, Line] = {}
    for step in steps:
        line = lines.setdefault(step.step_name, Line(step.step_name, step.kind))
        line.rows.append(step)
        for start, end, look, told in _spans(step, until):
            x = scale.place(start)
            width = max(LEAST, scale.place(end) - x)
            line.bars.append(Bar(round(min(x, WIDTH - LEAST), 2), round(width, 2), look, told))
    return Timeline(list(lines.values()), scale.folds, scale.seconds)


Span = tuple[float, float, str, str]
_BUSY = frozenset({"call", "call failed", "call running", "call canceled", "undo", "undo failed"})


def _spans(step: StepRow, until: datetime) -> Iterable[Span]:
    """From when to when, as seconds since the epoch: the attempt, and the wait for the next."""
    start = step.created_at.timestamp()
    last = until.timestamp()
    end = last if step.completed_at is None else step.completed_at.timestamp()
    end = max(start, end)
    look = _look(step)
    yield start, end, look, _told(step, end - start)
    if step.status == StepStatus.FAILED and step.resume_at is not None:
        again = min(step.resume_at.timestamp(), last)
        if again > end:
            left = length(step.resume_at.timestamp() - end)
            yield end, again, "retry", f"waits {left} for its next attempt"


def status_told(step: StepRow) -> str:
    """The status of an attempt, as people are told."""
    return told_status(step.status, step.claim_no, step.context)


def _look(step: StepRow) -> str:
    if step.kind == StepKind.SLEEP:
        kind = "sleep"
    elif step.kind == StepKind.UNDO:
        kind = "undo"
    else:
        kind = "call" if step.kind in (StepKind.RUN, StepKind.CHILD_START) else "wait"
    context = step.context if isinstance(step.context, dict) else {}
    if context.get("canceled") or context.get("interrupted"):
        return f"{kind} canceled"
    if step.status == StepStatus.FAILED:
        return f"{kind} failed"
    return f"{kind} running" if step.status == StepStatus.RUNNING and kind == "call" else kind


def _told(step: StepRow, seconds: float) -> str:
    tried = f", attempt {step.attempt}" if step.attempt > 1 else ""
    return f"{step.step_name}{tried}: {step.kind}, {status_told(step)}, {length(seconds)}"


class _Scale:
    """Where a moment is, from 0 to WIDTH."""

    def __init__(self, busy: list[tuple[float, float]], spans: Sequence[Span]) -> None:
        start, end = min(span[0] for span in spans), max(span[1] for span in spans)
        self.seconds = end - start
        marks = sorted({start, end, *(moment for span in busy for moment in span)})
        marks = [mark for mark in marks if start <= mark <= end]
        covered = _merged(busy)
        pieces = list(pairwise(marks)) or [(start, start + 1e-6)]
        lengths = [after - before for before, after in pieces]
        idle = [not _within(covered, before, after) for before, after in pieces]
        active = sum(taken for taken, is_idle in zip(lengths, idle, strict=True) if not is_idle)
        most = max(FOLDED_FROM * active, FOLDED_SECONDS) if active else self.seconds * 2
        folded = [is_idle and taken > most for taken, is_idle in zip(lengths, idle, strict=True)]
        room = max(WIDTH - FOLD * sum(folded), WIDTH / 3)
        fold = (WIDTH - room) / max(1, sum(folded))
        shown = sum(taken for taken, hide in zip(lengths, folded, strict=True) if not hide)
        self._starts = [before for before, _ in pieces]
        self._pieces: list[tuple[float, float, float]] = []
        self.folds: list[tuple[float, str]] = []
        x = 0.0
        for (before, _), taken, hide in zip(pieces, lengths, folded, strict=True):
            width = fold if hide else room * taken / shown if shown else room
            if hide:
                self.folds.append((round(x + fold / 2, 2), length(taken)))
            self._pieces.append((before, x, width / taken if taken else 0.0))
            x += width

    def place(self, moment: float) -> float:
        """Where it is; what lies outside is at the end."""
        before, x, pace = self._pieces[max(0, bisect_right(self._starts, moment) - 1)]
        return min(WIDTH, max(0.0, x + (moment - before) * pace))


def _merged(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Stretches that do not touch each other, in their order."""
    found: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found


def _within(covered: Sequence[tuple[float, float]], start: float, end: float) -> bool:
    place = bisect_right(covered, (start, float("inf"))) - 1
    return place >= 0 and covered[place][1] >= end
