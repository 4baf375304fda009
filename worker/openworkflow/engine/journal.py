"""What the runs of a worker want written, until a flusher takes it: the queue of group commit.

An *entry* is a list of rows that travel together: one statement, one commit, one future. A run's
end is appended to the entry of its last step, while that is still here; were they two entries, the
end could overtake the step, which would then be refused.

Entries share statements, but for those that would write one row twice in the same statement, of
which PostgreSQL silently drops one. The law is that *a batch that wakes runs parks none*, and ends
or tags none that it wakes; and that a run which continues as new travels without rows of its steps,
which it is about to delete (traits.py). The end of a child wakes its parent. The first entry always
leaves, so none waits for more than one other batch.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from openworkflow.backend.records import (
    ChildEnd,
    ClaimRequest,
    Completion,
    Continuation,
    NewChild,
    StepSuccess,
    Wake,
    Write,
)
from openworkflow.core.errors import BackendError
from openworkflow.engine.traits import Traits

MOST_CHARACTERS = 16 * 1024 * 1024
"""Most text in one statement: far below the gigabyte that a message of PostgreSQL's may have, and
little enough for its memory and for a statement_timeout."""
APART = frozenset({Wake, Continuation, ChildEnd})
"""Rows of these types may not share a statement with everything."""


class Refused(BackendError):
    """The database will not store `row`, or an end whose last step is that row.

    By its `fault` it never will, or it does not for now, or this program is at fault.
    """

    def __init__(self, message: str, row: Write) -> None:
        super().__init__(message)
        self.row = row


class Written(asyncio.Future[bool]):
    """An entry: resolves once its rows are durable, to False where their claim was lost.

    It cannot be cancelled: a task that is cancelled while it waits for a write sees the write
    through first, so the end of a run never overtakes its last step.
    """

    __slots__ = ("rows", "told", "unsent")

    rows: list[Write]
    unsent: bool
    told: Callable[["Written"], None] | None
    """Called at once when it is over: what waits for nothing else needs no task to wait in."""

    def cancel(self, msg: object = None) -> bool:
        """Refuse; asyncio then delivers the cancellation once the write has returned."""
        return False

    async def over(self) -> None:
        """Wait until it is resolved, whatever it comes to: who awaits it is told that."""
        with contextlib.suppress(BackendError):
            await self

    def settle(self, held: bool) -> None:
        """Resolve, unless that has happened."""
        if not self.done():
            self.set_result(held)
            if self.told is not None:
                self._tell(self.told)

    def refuse(self, error: BackendError, row: Write) -> None:
        """Fail, because the database will not store `row`."""
        if not self.done():
            refused = Refused(str(error), row)
            refused.fault = error.fault
            refused.__cause__ = error
            self.set_exception(refused)
            self.exception()  # an execution that is over does not ask any more: no news to asyncio
            if self.told is not None:
                self._tell(self.told)

    def _tell(self, told: Callable[["Written"], None]) -> None:
        self.told = None  # it leads to the run, which leads back to here
        told(self)


class DatabaseClock:
    """The database's time, estimated from its last answer and the monotonic clock."""

    __slots__ = ("_at", "_now")

    def __init__(self, now: datetime) -> None:
        self.set(now)

    def set(self, now: datetime) -> None:
        """Take the time of an answer that has just arrived."""
        self._now, self._at = now, time.monotonic()

    def now(self) -> datetime:
        """The database's time, late by at most a round trip."""
        return self._now + timedelta(seconds=time.monotonic() - self._at)


class Batch:
    """What one flush carries: entries, and their rows by type."""

    __slots__ = ("claim", "entries", "rows")

    def __init__(self, entries: Sequence[Written]) -> None:
        self.entries = entries
        self.rows = by_type([row for written in entries for row in written.rows])
        self.claim: ClaimRequest | None = None

    def __len__(self) -> int:
        return sum(map(len, self.rows.values()))

    @property
    def characters(self) -> int:
        """Length of the text that it carries."""
        return sum(
            sum([len(row.output or "") for row in rows])
            if kind is StepSuccess or kind is Completion
            else sum(map(_length, rows))
            for kind, rows in self.rows.items()
        )

    def keep(self, entries: Sequence[Written]) -> None:
        """Carry these of the entries only."""
        if len(entries) < len(self.entries):
            self.entries = entries
            self.rows = by_type([row for written in entries for row in written.rows])

    def settle(self, lost: Iterable[UUID]) -> None:
        """Tell each entry whether its claim still held."""
        if not lost:
            for written in self.entries:
                written.settle(True)
            return
        gone = frozenset(lost)
        for written in self.entries:
            written.settle(gone.isdisjoint(row[0] for row in written.rows))

    def abandon(self) -> None:
        """Nobody will send this any more: to those who wait that is a lost claim."""
        for written in self.entries:
            written.settle(False)


class Journal:
    """Collects entries; a flusher takes them in the order they came."""

    def __init__(self, clock: DatabaseClock) -> None:
        self.clock = clock
        self._entries: list[Written] = []
        self._closed = False
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def write(self, row: Write) -> Written:
        """Have it written, as an entry of its own."""
        written = Written(loop=self._loop)
        written.told = None
        if self._closed:  # somebody did not let himself be stopped; nobody will send this
            written.rows, written.unsent = [row], False
            written.settle(False)
            return written
        written.rows, written.unsent = [row], True
        if not self._entries:
            self._wake.set()
        self._entries.append(written)
        return written

    def write_together(self, rows: Sequence[Write]) -> Written:
        """Have them written as one entry: all of them are durable, or none."""
        written = self.write(rows[0])
        written.rows += rows[1:]
        return written

    def append(self, written: Written, row: Write) -> bool:
        """Have the row travel in that entry; False if it cannot, and then nothing has happened.

        It cannot if the entry has left, or if both may not be in one statement: then wait for the
        entry, and write the row after it.
        """
        if not written.unsent:
            return False
        rows = written.rows
        rare = type(row) in APART or not APART.isdisjoint(map(type, rows))
        if rare and Traits.of(rows).excludes(Traits.of([row])):
            return False
        rows.append(row)
        return True

    def kick(self) -> None:
        """Let a flush leave soon, if only to claim."""
        self._wake.set()

    async def wanted(self) -> None:
        """Wait until there may be something to flush."""
        await self._wake.wait()

    def rest(self) -> None:
        """Nothing was there; `wanted` waits for the next write or kick."""
        self._wake.clear()

    def take(self, limit: int) -> Batch:
        """Remove up to `limit` entries that may share a statement, the oldest first.

        There are fewer where their texts come to more than MOST_CHARACTERS, but never none.
        """
        batch = Batch(self._entries[:limit])
        if batch.characters > MOST_CHARACTERS:
            batch = Batch(self._entries[: fitting(self._entries, limit)])
        del self._entries[: len(batch.entries)]
        if not APART.isdisjoint(batch.rows):
            together, deferred = separated(batch.entries)
            self._entries[:0] = deferred
            batch = Batch(together)
        for written in batch.entries:
            written.unsent = False
        return batch

    def abandon(self) -> None:
        """Nobody will take anything any more: what is here, and what comes yet, counts as lost."""
        self._closed = True
        batch = Batch(self._entries)
        self._entries = []
        for written in batch.entries:
            written.unsent = False
        batch.abandon()


def fitting(entries: Sequence[Written], limit: int) -> int:
    """How many of the first `limit` entries fit into one statement; at least one."""
    left = MOST_CHARACTERS
    for place, written in enumerate(entries[:limit]):
        for row in written.rows:
            left -= _length(row)
        if left < 0:
            return max(1, place)
    return limit


def _length(row: Write) -> int:
    if type(row) is StepSuccess or type(row) is Completion:
        return len(row.output or "")
    return sum(len(value) for value in row if isinstance(value, str))


def separated(entries: Iterable[Written]) -> tuple[list[Written], list[Written]]:
    """The entries that may share a statement with the first one, and the others."""
    together: list[Written] = []
    deferred: list[Written] = []
    company = Traits()
    for written in entries:
        traits = Traits.of(written.rows)
        if company.excludes(traits):
            deferred.append(written)
        else:
            company.add(traits)
            together.append(written)
    return together, deferred


def divisible(written: Written) -> bool:
    """Whether its rows may be sent one by one: a child and its step come to be together."""
    return len(written.rows) > 1 and not any(type(row) is NewChild for row in written.rows)


def by_type(rows: Iterable[Write]) -> dict[type[Write], list[Any]]:
    """The rows of each type, in their order."""
    sorted_: dict[type[Write], list[Any]] = {}
    for row in rows:
        kind = type(row)
        if kind in sorted_:
            sorted_[kind].append(row)
        else:
            sorted_[kind] = [row]
    return sorted_
