"""When to ask for runs, and how many: free slots, wake-ups, and polling underneath.

A worker is *hungry* when there may be work: after a wake-up, when a poll is due, and as long as
claims come back full. Every flush of a hungry worker with free slots carries a claim.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from openworkflow.backend.backend import BackendPostgres, ClaimedRun, ClaimRequest
from openworkflow.core.errors import BackendError
from openworkflow.engine.journal import DatabaseClock
from openworkflow.telemetry.metrics import Metrics

POLL_SECONDS = 5.0
"""The longest pause between two polls while wake-ups arrive."""
BLIND_POLL_SECONDS = 1.0
"""The same without LISTEN: behind a pooler, or while the listener reconnects."""
FIRST_POLL_SECONDS = 0.1
TIMER_SPREAD_SECONDS = 0.005
"""Workers wake for the same timer a little apart."""


class Poller:
    """Implements the journal's `Claims` for one worker."""

    def __init__(
        self,
        backend: BackendPostgres,
        clock: DatabaseClock,
        metrics: Metrics,
        *,
        claim: ClaimRequest,
        slots: int,
        start: Callable[[list[ClaimedRun]], None],
    ) -> None:
        self._backend, self._clock, self._metrics = backend, clock, metrics
        self._start, self._claim, self._batch = start, claim, claim.limit
        self.slots = slots
        self._free = slots
        self._in_flight = 0
        self._hungry = self._woken = self._found = self._full = self._stopped = False
        self._held: dict[UUID, int] = {}
        self._changed = asyncio.Event()
        self.kick: Callable[[], None] = lambda: None
        """Makes the journal flush; set once the journal exists."""

    def take(self) -> ClaimRequest | None:
        """What the next flush should claim."""
        limit = min(self._free - self._in_flight, self._batch)
        if not self._hungry or self._stopped or limit <= 0:
            return None
        # Another claim is under way: a second one only for a backlog, and for enough slots.
        if self._in_flight and (not self._full or limit < self._batch // 2):
            return None
        self._in_flight += limit
        self._woken = False
        return replace(self._claim, limit=limit)

    def settled(self, request: ClaimRequest, claimed: list[ClaimedRun]) -> None:
        """Take the runs of a claim that has come back."""
        self._in_flight -= request.limit
        self._free -= len(claimed)
        self._full = len(claimed) == request.limit
        if not self._full and not self._woken:
            self._hungry = False
        if claimed:
            for run in claimed:
                self._held[run.id] = run.claim_no
            self._found = True
            self._metrics.claimed(Counter(r.workflow_name for r in claimed), len(claimed))
            self._start(claimed)
        self._changed.set()
        if self._hungry:
            self.kick()

    def held(self) -> list[UUID]:
        """The ids of all runs this worker holds."""
        return list(self._held)

    def claims(self) -> list[tuple[UUID, int]]:
        """The same with their claim numbers; safe to call from another thread."""
        return list(self._held.items())

    def release_slot(self) -> None:
        """A run's end is about to be written: its slot may be claimed for by that very flush."""
        self._free += 1

    def forget(self, run: ClaimedRun) -> None:
        """A run's end was written, or its claim lost."""
        if self._held.get(run.id) == run.claim_no:
            del self._held[run.id]
        self._changed.set()

    async def emptied(self, seconds: float) -> bool:
        """Wait so long for all runs to be gone, those of a claim under way included."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._held or self._in_flight:
                    self._changed.clear()
                    await self._changed.wait()
        return not self._held and not self._in_flight

    @property
    def used(self) -> int:
        """Slots that hold a run."""
        return self.slots - self._free

    def wake(self) -> None:
        """There may be work now."""
        self._hungry = self._woken = True
        self.kick()

    def stop(self) -> None:
        """Claim nothing any more."""
        self._stopped = True

    def resume_at(self, when: datetime) -> None:
        """A run was parked until `when`: be there in time."""
        self.resume_in((when - self._clock.now()).total_seconds())

    async def run(self, listening: Callable[[], bool]) -> None:
        """Poll until canceled: soon after the last work, then backing off, and for due timers."""
        delay = FIRST_POLL_SECONDS
        while True:
            self.wake()
            longest = POLL_SECONDS if listening() else BLIND_POLL_SECONDS
            delay = FIRST_POLL_SECONDS if self._found else min(delay * 2, longest)
            self._found = False
            if delay == longest:
                await self._watch_next_timer(longest)
            await asyncio.sleep(delay * random.uniform(0.75, 1.0))

    async def _watch_next_timer(self, horizon: float) -> None:
        """Wake for the next parked run, if it is due before the next poll."""
        try:
            due = await self._backend.next_due()
        except BackendError:
            return  # the flushes report it
        if due is not None and due < horizon:
            self.resume_in(due)

    def resume_in(self, delay: float) -> None:
        """The same, so many seconds from now; later ones are left to the polls."""
        if delay < POLL_SECONDS:
            spread = random.uniform(0.0, TIMER_SPREAD_SECONDS)
            asyncio.get_running_loop().call_later(max(0.0, delay) + spread, self.wake)
