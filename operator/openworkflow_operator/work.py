"""Which resources are to be visited: each at most once at a time, failures later and later."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final

from openworkflow_operator.api.spec import Key

FIRST_BACKOFF_SECONDS: Final = 0.5
LONGEST_BACKOFF_SECONDS: Final = 60.0
#: After a visit that failed, while something changed: it may have been changed by the visit itself.
CHANGED_SECONDS: Final = 1.0


class WorkQueue:
    """Adding is idempotent; what is added during its visit is visited again after it."""

    def __init__(self) -> None:
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: set[Key] = set()
        self._active: dict[Key, float] = {}
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._later: dict[Key, asyncio.TimerHandle] = {}
        self.last_done = time.monotonic()
        """When a visit last ended, well or not, on the monotonic clock."""

    def __len__(self) -> int:
        return len(self._waiting) + len(self._again)

    def longest_visit(self) -> float:
        """For how many seconds the longest visit under way has gone on."""
        return time.monotonic() - min(self._active.values(), default=time.monotonic())

    def add(self, key: Key) -> None:
        """Visit the resource soon."""
        if key in self._active:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    async def take(self) -> Key:
        """The next resource to visit; `done` or `failed` must follow."""
        key = await self._ready.get()
        self._waiting.discard(key)
        self._active[key] = time.monotonic()
        return key

    def done(self, key: Key, again_after: float | None = None) -> None:
        """The visit went well; visit again after so many seconds, if any are given."""
        self._failures.pop(key, None)
        self._release(key)
        if again_after is None:
            return
        pause, later = again_after * random.uniform(0.8, 1.2), self._later.get(key)
        if later is None or later.when() > asyncio.get_running_loop().time() + pause:
            self._add_after(key, pause)

    def failed(self, key: Key) -> float:
        """Visit again after a pause that grows with each failure; returns the pause in seconds.

        What changed during the visit does not have to wait for that: a second at most.
        """
        count = self._failures[key] = self._failures.get(key, 0) + 1
        longest: float = min(
            LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** min(count - 1, 10)
        )
        pause = longest * random.uniform(0.5, 1.0)
        if key in self._again:
            self._again.discard(key)
            pause = min(pause, CHANGED_SECONDS)
        self._release(key)
        self._add_after(key, pause)
        return pause

    def _add_after(self, key: Key, pause: float) -> None:
        """One timer for each resource: else every visit that fails would lead to one more."""
        if (known := self._later.get(key)) is not None:
            known.cancel()
        loop = asyncio.get_running_loop()
        self._later[key] = loop.call_later(pause, self._add_later, key)

    def _add_later(self, key: Key) -> None:
        self._later.pop(key, None)
        self.add(key)

    def _release(self, key: Key) -> None:
        self.last_done = time.monotonic()
        self._active.pop(key, None)
        if key in self._again:
            self._again.discard(key)
            self.add(key)
