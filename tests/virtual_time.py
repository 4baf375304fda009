"""An event loop whose time jumps to the next timer: delays cost nothing, in their exact order."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")

THREAD_SECONDS = 1.0
"""How long a thread may take, in real time, when there is nothing else to wait for."""


class _Selector(selectors.SelectSelector):
    """Does not wait: it moves the clock instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is not None:
            self.now += max(0.0, timeout)
            return super().select(0)
        if found := super().select(THREAD_SECONDS):
            return found
        raise RuntimeError("nothing is ready, and no timer is left: this would wait forever")


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop with a clock of its own."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._clock.now


class Clock:
    """The database's clock, in virtual time; `ahead` is how far it went while no loop ran."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> datetime:
        """See DatabaseClock.now."""
        seconds = asyncio.get_running_loop().time() + self.ahead
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)

    def pass_until(self, when: datetime) -> None:
        """Let the time come, if it has not."""
        self.ahead += max(0.0, (when - self.now()).total_seconds())


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run to the end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coroutine)
