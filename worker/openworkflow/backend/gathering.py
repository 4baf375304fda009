"""Group commit of new runs: what concurrent callers of a process start shares statements.

The first callers send their run at once, each over a connection of its own. What comes meanwhile
gathers, and leaves as one statement when one of them is back. There is no timer: a lone caller has
the latency of a single commit, a hundred at once share each commit.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from openworkflow.backend.creation import kind_of
from openworkflow.backend.records import CreatedRun, NewRun
from openworkflow.core.errors import BackendError, Fault

FLIGHTS = 2
"""Statements under way at once; more would carry less each."""
MOST_ABOARD = 500
_OF_ALL = (Fault.SERVER, Fault.OURS, Fault.MOMENT)
MOST_CHARACTERS = 65_536
"""The longest input that shares a statement; more would be too much for both sides to hold."""


def can_gather(run: NewRun) -> bool:
    """Whether others are likely to be alike: a key, or a time of its own, sets a run apart."""
    return (
        run.idempotency_key is None
        and run.available_at is None
        and run.deadline_at is None
        and len(run.input or "") <= MOST_CHARACTERS
    )


class _Waiting(NamedTuple):
    run: NewRun
    created: "asyncio.Future[CreatedRun]"


class Gathering:
    """Starts single runs by `send`, which creates all of those it is given, or none."""

    def __init__(self, send: Callable[[Sequence[NewRun]], Awaitable[list[CreatedRun]]]) -> None:
        self._send = send
        self._waiting: dict[tuple[Any, ...], list[_Waiting]] = {}
        """Runs by what those of one statement have in common; the kind to leave next is first."""
        self._in_flight = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def create(self, run: NewRun) -> CreatedRun:
        """Create this run; it is durable once this returns. Raises BackendError."""
        if self._in_flight >= FLIGHTS:
            waiting = _Waiting(run, asyncio.get_running_loop().create_future())
            self._waiting.setdefault(kind_of(run), []).append(waiting)
            return await waiting.created
        self._in_flight += 1
        try:
            (created,) = await self._send([run])
        finally:
            self._landed()
        return created

    def _landed(self) -> None:
        """The next flight, if anybody waits."""
        if not self._waiting:
            self._in_flight -= 1
            return
        task = asyncio.create_task(self._fly(self._boarded()), name="openworkflow enqueue")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _boarded(self) -> list[_Waiting]:
        """The runs that share the next statement."""
        kind = next(iter(self._waiting))
        alike = self._waiting.pop(kind)
        if left := alike[MOST_ABOARD:]:
            self._waiting[kind] = left  # behind the other kinds
        return alike[:MOST_ABOARD]

    async def _fly(self, aboard: list[_Waiting]) -> None:
        try:
            await self._deliver(aboard)
        finally:
            for waiting in aboard:
                waiting.created.cancel()  # no effect on those that have their answer
            self._landed()

    async def _deliver(self, aboard: list[_Waiting]) -> None:
        """Send these, but for those whose callers have given up; nothing if all of them have."""
        aboard = [waiting for waiting in aboard if not waiting.created.done()]
        if not aboard:
            return
        try:
            created = await self._send([waiting.run for waiting in aboard])
        except Exception as error:
            if len(aboard) == 1 or _is_of_all(error):
                for waiting in aboard:
                    if not waiting.created.done():
                        waiting.created.set_exception(error)
                return
            # The database refused the statement: only the run at fault may fail for it. And what
            # was too much for one statement may pass in two.
            middle = len(aboard) // 2
            for half in aboard[:middle], aboard[middle:]:
                await self._deliver(half)
            return
        for waiting, run in zip(aboard, created, strict=True):
            if not waiting.created.done():
                waiting.created.set_result(run)


def _is_of_all(error: Exception) -> bool:
    """Whether every other run would meet the same; a moment that does not pass is one of all."""
    return isinstance(error, BackendError) and error.fault in _OF_ALL
