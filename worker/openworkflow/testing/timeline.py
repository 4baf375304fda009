"""How time passes in a test: not at all while a run is executed, and else to the next event.

Nothing is guessed by a clock: a run that is executed, or is due, can move, and is waited for in
real time; if there is none, the next moment is that for which one of the runs waits.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from uuid import UUID

from openworkflow.core.errors import ConfigurationError, RunNotFound
from openworkflow.testing.clock import Clock, Moment
from openworkflow.testing.crew import Crew

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02
"""Seconds between two looks at runs that are executed."""
_GRACE = 1.0
"""Seconds for which something outside may still move a run that nothing else does."""


class Stuck(Exception):
    """Nothing that could be waited for is left to happen, or it takes too much real time."""

    def __init__(self, moment: Moment, why: str) -> None:
        super().__init__(f"{why}, and it is {moment.now:%Y-%m-%d %H:%M:%S} in the test")
        self.moment = moment


class Timeline:
    """The time of one environment; those who move it take turns."""

    def __init__(
        self, clock: Clock, crew: Crew, cancel_orphans: Callable[[], Awaitable[object]]
    ) -> None:
        self._clock, self._crew, self._cancel_orphans = clock, crew, cancel_orphans
        self._turn = asyncio.Lock()

    async def now(self) -> datetime:
        """The time of the runs."""
        async with self._turn:
            return (await self._clock.look()).now

    async def signals(self, run_id: UUID) -> tuple[list[str], list[str]]:
        """See Clock.signals."""
        async with self._turn:
            return await self._clock.signals(run_id)

    async def until_ended(self, run_id: UUID, seconds: float) -> None:
        """Let all happen until this run has ended. Raises Stuck and RunNotFound."""
        waiting = _Waiting(seconds)
        while True:
            async with self._turn:
                moment = await self._clock.look(run_id)
                if moment.asked is None:
                    raise RunNotFound(run_id)
                if moment.asked.finished:
                    return
                if self._is_busy(moment):
                    waiting.goes_on()
                else:
                    if moment.asked_is_due or moment.next is None or moment.next_begun is None:
                        waiting.in_vain(moment)
                    else:
                        await self._move(moment, moment.next)
            await self._let_work(moment, waiting)

    async def skip(self, until: Callable[[datetime], datetime], seconds: float) -> datetime:
        """Let all happen until then; returns that time. Raises Stuck and ConfigurationError."""
        waiting, end = _Waiting(seconds), None
        while True:
            async with self._turn:
                moment = await self._clock.look()
                if not self._is_busy(moment):
                    if end is None:
                        end = _not_past(until(moment.now), moment.now)
                    if moment.now >= end:
                        return moment.now
                    due = moment.next
                    await self._move(moment, end if due is None or due > end else due)
            await self._let_work(moment, waiting)

    async def settle(self, seconds: float) -> None:
        """Wait until nothing is executed, and nothing is due. Raises Stuck."""
        waiting = _Waiting(seconds)
        while True:
            async with self._turn:
                moment = await self._clock.look()
            if not self._is_busy(moment):
                return
            await self._let_work(moment, waiting)

    def _is_busy(self, moment: Moment) -> bool:
        """Whether anything happens by itself, without that time passes."""
        served = any(self._crew.serves(key) for key in moment.due)
        return bool(moment.running or served or moment.orphans) or not self._crew.idle

    async def _move(self, moment: Moment, to: datetime) -> None:
        await self._clock.move(to - moment.now)
        self._crew.look()

    async def _let_work(self, moment: Moment, waiting: "_Waiting") -> None:
        if moment.due or moment.orphans:
            self._crew.look()
        if moment.orphans and not moment.running:
            await self._cancel_orphans()
        await waiting.pause(moment)


class _Waiting:
    """For what is executed, in real time: often at first, and for so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._pause = seconds, _FIRST_PAUSE
        self._give_up = asyncio.get_running_loop().time() + seconds
        self._idle_since: float | None = None

    def goes_on(self) -> None:
        """Something happens."""
        self._idle_since = None

    def in_vain(self, moment: Moment) -> None:
        """Nothing happens by itself; a task of the test, or a worker of its own, may have it."""
        now = asyncio.get_running_loop().time()
        self._idle_since = self._idle_since or now
        if now - self._idle_since >= min(_GRACE, self._seconds):
            raise Stuck(moment, "nothing is left to happen")

    async def pause(self, moment: Moment) -> None:
        if asyncio.get_running_loop().time() > self._give_up:
            raise Stuck(
                moment, f"after {self._seconds:g} s of real time {moment.running} runs are executed"
            )
        if not moment.running and self._idle_since is None:
            self._pause = _FIRST_PAUSE
        await asyncio.sleep(self._pause)
        self._pause = min(self._pause * 1.5, _LONGEST_PAUSE)


def _not_past(when: datetime, now: datetime) -> datetime:
    if when < now:
        raise ConfigurationError(
            f"it is {now.isoformat()} in this test, and time does not pass backwards"
        )
    return when
