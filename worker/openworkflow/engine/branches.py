"""Which branches of a run are busy, wait for a time, or are held back by the replay.

A workflow function may await several steps at once, in branches. When all of them wait, the run is
parked; when a replay stands still short of its history, that is non-determinism. Both are called by
a quiet period: nothing of the run has moved for a moment.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime

from openworkflow.engine.history import History
from openworkflow.engine.journal import DatabaseClock

QUIET_SECONDS = 0.01
"""How long all branches must have waited before the run is parked."""
MISMATCH_SECONDS = 1.0
"""How long a replay may stand still short of its history before that is called NonDeterminism."""


class Branches:
    """The movement of one execution; calls back when it can only be parked, or cannot match."""

    __slots__ = (
        "_active",
        "_blocked",
        "_clock",
        "_epoch",
        "_history",
        "_mismatch",
        "_park",
        "_waits",
    )

    def __init__(
        self,
        history: History,
        clock: DatabaseClock,
        *,
        park: Callable[[datetime], None],
        mismatch: Callable[[list[str]], None],
    ) -> None:
        self._history, self._clock = history, clock
        self._park, self._mismatch = park, mismatch
        self._active = 0
        self._epoch = 0
        self._waits: dict[asyncio.Future[None], datetime] = {}
        self._blocked: dict[str, asyncio.Future[None]] = {}

    def detach(self) -> None:
        """Forget whom to call back: a finished run is then freed without the garbage collector."""
        self._park = self._mismatch = _nobody

    def enter(self) -> None:
        """A step function starts."""
        self._active += 1
        self._epoch += 1

    def leave(self) -> None:
        """A step function has ended, and its result is recorded."""
        self._active -= 1
        self._epoch += 1
        if self._waits and not self._active:
            self._watch_quiet()

    def requested(self) -> None:
        """The function asked for a recorded step; lets go of those held back if it was the last."""
        self._epoch += 1
        if self._blocked and not self._history.unrequested:
            for held in self._blocked.values():
                _resolve(held)

    async def reach(self, key: str) -> None:
        """Hold back a step that is not recorded until the replay has asked for all that is.

        When the recorded steps were first asked for, this one had no result yet; so a function
        that still matches its history asks for all of them without it.
        """
        if not self._history.unrequested:
            return
        loop = asyncio.get_running_loop()
        held = self._blocked[key] = loop.create_future()
        loop.call_later(MISMATCH_SECONDS, self._check_mismatch, self._epoch)
        try:
            await held
        finally:
            del self._blocked[key]

    async def wait_until(self, when: datetime | None) -> None:
        """Wait in memory while other branches are busy; else the run is parked until `when`."""
        if when is None:
            return
        remaining = (when - self._clock.now()).total_seconds()
        if remaining <= 0:
            return
        loop = asyncio.get_running_loop()
        wait: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(remaining, _resolve, wait)
        self._waits[wait] = when
        if not self._active:
            self._watch_quiet()
        try:
            await wait
        finally:
            timer.cancel()
            del self._waits[wait]
            self._epoch += 1

    def _watch_quiet(self) -> None:
        asyncio.get_running_loop().call_later(QUIET_SECONDS, self._check_quiet, self._epoch)

    def _check_quiet(self, epoch: int) -> None:
        if self._active or self._blocked or not self._waits:
            return
        if epoch != self._epoch:
            self._watch_quiet()
        else:
            self._park(min(self._waits.values()))

    def _check_mismatch(self, epoch: int) -> None:
        if not self._blocked or not self._history.unrequested:
            return
        if epoch != self._epoch:
            asyncio.get_running_loop().call_later(
                MISMATCH_SECONDS, self._check_mismatch, self._epoch
            )
        else:
            self._mismatch(list(self._blocked))


def _nobody(_: object) -> None:
    """The run is over."""


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
