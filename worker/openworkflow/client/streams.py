"""Following the events of runs: one look at the database for all who follow some in a process.

As in looks.py, a message says when to look, and polling makes it right: whatever passes is waited
out, and what a server that answers refuses again and again is given up, for the run that it is
refused for. Who does not take what was found is not looked for meanwhile.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from uuid import UUID
from weakref import WeakKeyDictionary

from openworkflow.backend.backend import BackendPostgres
from openworkflow.backend.notifications import Listener
from openworkflow.client.looks import (
    FIRST_POLL_SECONDS,
    LOOK_SECONDS,
    POLL_SECONDS,
    REFUSALS,
    may_be_of_one,
)
from openworkflow.core.errors import BackendError, ConnectionLost, Fault, RunNotFound
from openworkflow.core.progress import EventsAsked, EventsFound
from openworkflow.worker.hints import Patience

MOST_AT_ONCE, MOST_EVENTS = 100, 1000
"""Followers in one statement, and events for each: fewer where they are large."""

logger = logging.getLogger(__name__)

_of: "WeakKeyDictionary[BackendPostgres, Streams]" = WeakKeyDictionary()


@dataclass(slots=True, eq=False)
class _Follower:
    """Somebody who waits for the next events of a run."""

    asked: EventsAsked
    answer: "asyncio.Future[EventsFound]"
    pause: float = FIRST_POLL_SECONDS
    poll_at: float = 0.0
    """By `monotonic`."""
    refusals: int = 0


class Streams:
    """The followers of one backend; `streams_of` has them."""

    def __init__(self, backend: BackendPostgres) -> None:
        self._backend = backend
        self._followers: dict[UUID, set[_Follower]] = {}
        self._wanted: set[_Follower] = set()
        self._hinted: set[UUID] = set()
        """A message says to look at them; anybody may send one, so a flood costs few looks."""
        self._patience = Patience(FIRST_POLL_SECONDS / 5, POLL_SECONDS)
        self._found = True
        self._poll_at = float("inf")
        self._refusals = 0
        self._pause = FIRST_POLL_SECONDS
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._listener: Listener | None = None

    async def next(self, asked: EventsAsked) -> EventsFound:
        """The next events, once there are some; none if the run has ended before.

        Raises RunNotFound, and BackendError where there is no sense in waiting.
        """
        self._backend.check_usable()
        follower = _Follower(asked, asyncio.get_running_loop().create_future())
        follower.poll_at = monotonic() + FIRST_POLL_SECONDS
        self._poll_at = min(self._poll_at, follower.poll_at)
        self._followers.setdefault(asked.run_id, set()).add(follower)
        self._wanted.add(follower)
        self._begin()
        try:
            return await follower.answer
        finally:
            self._leave(follower)

    async def rest(self) -> None:
        """Listen no more, unless somebody follows a run."""
        if not self._followers and self._listener is not None:
            listener, self._listener = self._listener, None
            await listener.__aexit__(None, None, None)

    async def stop(self) -> None:
        """Fail all who follow a run, and listen no more."""
        _of.pop(self._backend, None)
        for follower in self._all():
            _fail(follower, BackendError("the backend was stopped while this followed a run"))
        self._followers.clear()
        try:
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait({self._task})
        finally:
            await self.rest()

    def _begin(self) -> None:
        self._wake.set()
        if self._listener is None:
            self._listener = self._backend.listen()
            self._listener.on_events(self._hear)
            self._listener.on_finished(self._hear, self._hear_all)
            self._listener.start()
        if self._task is None:
            self._task = asyncio.create_task(self._look_forever(), name="openworkflow streams")

    def _leave(self, follower: _Follower) -> None:
        self._wanted.discard(follower)
        if follower.answer.done() and not follower.answer.cancelled():
            follower.answer.exception()
        others = self._followers.get(follower.asked.run_id, set())
        others.discard(follower)
        if not others:
            self._followers.pop(follower.asked.run_id, None)

    def _all(self) -> list[_Follower]:
        return [each for followers in self._followers.values() for each in followers]

    def _hear(self, run_id: UUID) -> None:
        if run_id in self._followers:
            self._hinted.add(run_id)
            self._wake.set()

    def _hear_all(self) -> None:
        """The listener was deaf until now."""
        self._wanted.update(self._all())
        self._wake.set()

    async def _look_forever(self) -> None:
        try:
            while self._followers:
                await self._look(await self._due())
        except Exception as error:  # a defect: told to those who follow, and not hidden
            for follower in self._all():
                _fail(follower, error)
            raise
        finally:
            self._task = None

    async def _due(self) -> list[_Follower]:
        """Whom to look for next, once there is somebody; nobody where none is left."""
        while self._followers and not self._wanted:
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
            for run_id in self._hinted:
                self._wanted |= self._followers.get(run_id, set())
            self._hinted.clear()
        due, self._wanted = self._wanted, set()
        return [each for each in due if not each.answer.done()]

    def _poll(self, now: float) -> None:
        """Want all whose time has come, or is about to: together they are one look."""
        for follower in self._all():
            if follower.poll_at - follower.pause / 2 <= now:
                self._wanted.add(follower)
                follower.pause = min(2 * follower.pause, POLL_SECONDS)
                follower.poll_at = now + follower.pause * random.uniform(0.75, 1.0)
        self._poll_at = min((each.poll_at for each in self._all()), default=float("inf"))

    async def _look(self, due: Sequence[_Follower]) -> None:
        """Look for these; after a failure pause for a while."""
        try:
            for start in range(0, len(due), MOST_AT_ONCE):
                await self._look_for(due[start : start + MOST_AT_ONCE])
        except BackendError as error:
            self._wanted.update(each for each in due if not each.answer.done())
            self._fails(error)
            await asyncio.sleep(self._pause * random.uniform(0.75, 1.0))
            self._pause = min(2 * self._pause, POLL_SECONDS)
        else:
            self._refusals, self._pause = 0, FIRST_POLL_SECONDS

    async def _look_for(self, followers: Sequence[_Follower]) -> None:
        """Raises BackendError where the database is at fault, and not one of the runs."""
        asked = [follower.asked for follower in followers]
        try:
            answers = await self._backend.progress.events(asked, MOST_EVENTS, seconds=LOOK_SECONDS)
        except BackendError as error:
            if not may_be_of_one(error):
                raise
            await self._look_apart(followers, error)
            return
        for follower, found in zip(followers, answers, strict=True):
            follower.refusals = 0
            if found is None:
                _fail(follower, RunNotFound(follower.asked.run_id))
            elif (found.events or found.ended) and not follower.answer.done():
                self._found = True
                follower.answer.set_result(found)

    async def _look_apart(self, followers: Sequence[_Follower], error: BackendError) -> None:
        """Find whose events cannot be read; who follows another run has no part in it."""
        await self._backend.progress.events((), 0, seconds=LOOK_SECONDS)  # raises if it is no run
        if len(followers) > 1:
            middle = len(followers) // 2
            for half in (followers[:middle], followers[middle:]):
                await self._look_for(half)
            return
        (follower,) = followers
        if not follower.refusals:
            logger.warning("the events of run %s: %s", follower.asked.run_id, error)
        follower.refusals += 1
        if follower.refusals >= REFUSALS or error.fault is Fault.VALUE:
            _fail(follower, error)

    def _fails(self, error: BackendError) -> None:
        """Say once that the database is away; give up what is refused for good."""
        passing = isinstance(error, ConnectionLost) or error.fault is Fault.MOMENT
        self._refusals = 0 if passing else self._refusals + 1
        if self._pause == FIRST_POLL_SECONDS:
            logger.warning("following runs, and waiting for the database: %s", error)
        if self._refusals >= REFUSALS:
            for follower in self._all():
                _fail(follower, error)


def streams_of(backend: BackendPostgres) -> Streams:
    """The one of this backend, whichever client asks."""
    found = _of.get(backend)
    if found is None:
        found = _of[backend] = Streams(backend)
        backend.on_stop(found.stop)
    return found


def _fail(follower: _Follower, error: Exception) -> None:
    if not follower.answer.done():
        follower.answer.set_exception(error)
