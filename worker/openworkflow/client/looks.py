"""Waiting for runs to end: one look at the database for all who wait in a process.

A message says when to look, polling makes it right. The looks outlive whatever passes: a server
that restarts, a failover, connections that were cut or fell silent. They give up what is refused
again and again by a server that answers, for the run that it is refused for.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Collection
from dataclasses import dataclass, field
from time import monotonic
from uuid import UUID
from weakref import WeakKeyDictionary

from openworkflow.backend.backend import BackendPostgres
from openworkflow.backend.failures import UnreadableAnswer
from openworkflow.backend.notifications import Listener
from openworkflow.core.errors import BackendError, ConnectionLost, Fault, RunNotFound
from openworkflow.core.workflow_run import WorkflowRun
from openworkflow.worker.hints import Patience

FIRST_POLL_SECONDS = 0.05
POLL_SECONDS = 2.0
"""Under the messages: the longest pause between two looks at a run."""
LOOK_SECONDS = 10.0
"""For the answer to a look; a connection that is silent for as long is dropped."""
LAST_LOOK_SECONDS = 2.0
"""For the look after the time of a wait is over: its end may have come unheard."""
REFUSALS = 20
"""So many in a row, in half a minute, are for good: of a login, a right, a table that is gone."""
MOST_AT_ONCE, MOST_ANSWERS = 10_000, 100
"""Runs in one statement, and in one answer: results may be large."""

logger = logging.getLogger(__name__)

_of: "WeakKeyDictionary[BackendPostgres, Looks]" = WeakKeyDictionary()


@dataclass(slots=True, eq=False)
class _Watched:
    """A run that somebody waits for."""

    waiting: set[asyncio.Future[WorkflowRun]] = field(default_factory=set)
    leaving: set[asyncio.Future[WorkflowRun]] = field(default_factory=set)
    """Waiters whose time is over, and who want to know how the run stands."""
    pause: float = FIRST_POLL_SECONDS
    poll_at: float = 0.0
    """By `monotonic`."""
    refusals: int = 0
    """In a row, of looks at this run alone."""


class Looks:
    """The waits of one backend; `looks_of` has them."""

    def __init__(self, backend: BackendPostgres) -> None:
        self.trouble: BackendError | None = None
        """Why nothing can be seen just now."""
        self._backend = backend
        self._watched: dict[UUID, _Watched] = {}
        self._wanted: set[UUID] = set()
        """To be looked at now: somebody begins to wait, or is about to give up, or it is time."""
        self._hinted: set[UUID] = set()
        """A message says to look at them; anybody may send one, so a flood costs few looks."""
        self._patience = Patience(FIRST_POLL_SECONDS, POLL_SECONDS)
        self._found = True
        """Whether the last message led to something."""
        self._poll_at = float("inf")
        self._refusals = 0
        self._pause = FIRST_POLL_SECONDS
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._listener: Listener | None = None

    async def run(self, run_id: UUID, seconds: float | None) -> WorkflowRun | None:
        """The run once it has ended, or after `seconds` as it is; None if that cannot be known.

        Raises RunNotFound, and BackendError where there is no sense in waiting.
        """
        self._backend.check_usable()
        watched = self._watched.setdefault(run_id, _Watched())
        answer: asyncio.Future[WorkflowRun] = asyncio.get_running_loop().create_future()
        watched.waiting.add(answer)
        watched.pause, watched.poll_at = FIRST_POLL_SECONDS, monotonic() + FIRST_POLL_SECONDS
        self._poll_at = min(self._poll_at, watched.poll_at)
        self._look_at(run_id)
        try:
            await asyncio.wait({answer}, timeout=seconds)
            if not answer.done():
                watched.leaving.add(answer)
                self._look_at(run_id)
                await asyncio.wait({answer}, timeout=LAST_LOOK_SECONDS)
            return answer.result() if answer.done() else None
        finally:
            watched.waiting.discard(answer)
            watched.leaving.discard(answer)
            if answer.done():
                answer.exception()  # whoever was cancelled in this moment does not want it
            if not watched.waiting and self._watched.get(run_id) is watched:
                del self._watched[run_id]

    async def rest(self) -> None:
        """Listen no more, unless somebody waits."""
        if not self._watched and self._listener is not None:
            listener, self._listener = self._listener, None
            await listener.__aexit__(None, None, None)

    async def stop(self) -> None:
        """Fail all waits, and listen no more."""
        _of.pop(self._backend, None)
        stopped = BackendError("the backend was stopped while this waited for a run")
        for watched in self._watched.values():
            _fail(watched, stopped)
        self._watched.clear()
        try:
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait({self._task})
        finally:
            await self.rest()

    def _look_at(self, run_id: UUID) -> None:
        self._wanted.add(run_id)
        self._wake.set()
        if self._listener is None:
            self._listener = self._backend.listen()
            self._listener.on_finished(self._hear, self._hear_all)
            self._listener.start()
        if self._task is None:
            self._task = asyncio.create_task(self._look_while_waiting(), name="openworkflow looks")

    def _hear(self, run_id: UUID) -> None:
        if run_id in self._watched:
            self._hinted.add(run_id)
            self._wake.set()

    def _hear_all(self) -> None:
        """The listener was deaf until now."""
        self._wanted.update(self._watched)
        self._wake.set()

    async def _look_while_waiting(self) -> None:
        try:
            while self._watched:
                await self._look(await self._due())
        except Exception as error:  # a defect: told to those who wait, and not hidden
            for watched in self._watched.values():
                _fail(watched, error)
            raise
        finally:
            self._task = None

    async def _due(self) -> list[UUID]:
        """The runs to look at next, once there are any; none where nobody waits any more."""
        while self._watched and not self._wanted:
            now = monotonic()
            left = self._poll_at - now
            if self._hinted:
                left = min(left, self._patience.wait(led_to_something=self._found))
            if left <= 0:
                break
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._wake.wait()
        if (now := monotonic()) >= self._poll_at:
            self._poll(now)
        if self._hinted:
            self._found = False
            self._patience.looked()
        due = (self._wanted | self._hinted) & self._watched.keys()
        self._wanted.clear()
        self._hinted.clear()
        return list(due)

    def _poll(self, now: float) -> None:
        """Want all whose time has come, or is about to: together they are one look."""
        for run_id, watched in self._watched.items():
            if watched.poll_at - watched.pause / 2 <= now:
                self._wanted.add(run_id)
                watched.pause = min(2 * watched.pause, POLL_SECONDS)
                watched.poll_at = now + watched.pause * random.uniform(0.75, 1.0)
        times = (watched.poll_at for watched in self._watched.values())
        self._poll_at = min(times, default=float("inf"))

    async def _look(self, run_ids: list[UUID]) -> None:
        """Look at these, and answer those who wait for them; after a failure pause for a while."""
        try:
            for start in range(0, len(run_ids), MOST_AT_ONCE):
                await self._look_at_some(run_ids[start : start + MOST_AT_ONCE])
        except BackendError as error:
            self._wanted.update(run_ids)
            self._fails(error)
            await asyncio.sleep(self._pause * random.uniform(0.75, 1.0))
            self._pause = min(2 * self._pause, POLL_SECONDS)
            return
        if self.trouble is not None:
            logger.info("the database answers again")
        self.trouble, self._refusals, self._pause = None, 0, FIRST_POLL_SECONDS

    async def _look_at_some(self, run_ids: Collection[UUID]) -> None:
        """Raises BackendError where the database is at fault, and not one of the runs."""
        left = set(run_ids)
        try:
            while left:
                told = [run_id for run_id in left if self._is_to_be_told(run_id)]
                seen = await self._read(left, told)
                for run_id, run in seen.items():
                    self._answer(run_id, run)
                if len(seen) < MOST_ANSWERS:
                    return
                left -= seen.keys()
        except BackendError as error:
            if not may_be_of_one(error):
                raise
            await self._look_apart(sorted(left), error)

    async def _look_apart(self, run_ids: list[UUID], error: BackendError) -> None:
        """Find the run that cannot be read; who waits for another has no part in it."""
        await self._read((), ())  # raises where it is not of any run
        if len(run_ids) > 1:
            middle = len(run_ids) // 2
            for half in (run_ids[:middle], run_ids[middle:]):
                await self._look_at_some(half)
            return
        watched = self._watched.get(run_ids[0])
        if watched is None:
            return
        if not watched.refusals:
            logger.warning("run %s cannot be read for now: %s", run_ids[0], error)
        watched.refusals += 1
        if watched.refusals >= REFUSALS or error.fault is Fault.VALUE:
            _fail(watched, error)

    async def _read(
        self, run_ids: Collection[UUID], told: Collection[UUID]
    ) -> dict[UUID, WorkflowRun | None]:
        return await self._backend.find_ended_runs(
            run_ids, told, MOST_ANSWERS, seconds=LOOK_SECONDS
        )

    def _is_to_be_told(self, run_id: UUID) -> bool:
        watched = self._watched.get(run_id)
        return watched is not None and bool(watched.leaving)

    def _answer(self, run_id: UUID, run: WorkflowRun | None) -> None:
        watched = self._watched.get(run_id)
        if watched is None:
            return
        watched.refusals = 0
        if run is None:
            _fail(watched, RunNotFound(run_id))
            return
        self._found = self._found or run.status.finished
        for answer in watched.waiting if run.status.finished else watched.leaving:
            if not answer.done():
                answer.set_result(run)

    def _fails(self, error: BackendError) -> None:
        """Say once that the database is away; give up what is refused for good."""
        passing = isinstance(error, ConnectionLost) or error.fault is Fault.MOMENT
        self._refusals = 0 if passing else self._refusals + 1
        if self.trouble is None:
            logger.warning("waiting for runs, and for the database: %s", error)
        self.trouble = error
        if self._refusals >= REFUSALS:
            for watched in self._watched.values():
                _fail(watched, error)


def looks_of(backend: BackendPostgres) -> Looks:
    """The one of this backend, whichever client asks."""
    found = _of.get(backend)
    if found is None:
        found = _of[backend] = Looks(backend)
        backend.on_stop(found.stop)
    return found


def may_be_of_one(error: BackendError) -> bool:
    """Whether one of the runs that were looked at may be at fault, and not the database."""
    if isinstance(error, UnreadableAnswer):
        return True
    return error.fault in (Fault.VALUE, Fault.TABLE, Fault.SIZE)


def _fail(watched: _Watched, error: Exception) -> None:
    for answer in watched.waiting:
        if not answer.done():
            answer.set_exception(error)
