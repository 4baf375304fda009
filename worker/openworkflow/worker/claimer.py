"""Which runs this worker asks for, and which it holds: the journal's `Claims` for one worker.

A worker is *hungry* when there may be work: after a wake-up, when a poll is due, and as long as
claims come back full. Every flush of a hungry worker with free slots carries a claim. What a claim
brings waits in `arrivals` until the executor takes it.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

from openworkflow.backend.records import ClaimedRun, ClaimRequest
from openworkflow.engine.guard import LeaseGuard
from openworkflow.telemetry.metrics import Metrics
from openworkflow.worker.slots import Slot, Slots
from openworkflow.worker.spared import Spared

Claim = tuple[UUID, int]
"""A run and the number of the claim that fences it."""

TRUSTED_CRASHES = 2
LONE_EXECUTIONS = 2
"""A run that is suspected of killing its workers is given so many executions as the only suspect
of a worker before it is convicted, where the poison-pill limit leaves room for them."""


def trusted_crashes(max_crashes: int) -> int:
    """The crashes below which a run is claimed like any other.

    All runs of a worker that dies count a crash, though one of them may be the cause. From here
    on they are suspects: each worker takes one at a time, so that the cause meets its conviction
    without the others.
    """
    return max(0, min(TRUSTED_CRASHES, max_crashes - LONE_EXECUTIONS))


class Arrival:
    """A run that was just claimed, and its slot."""

    __slots__ = ("claim", "run", "slot")

    def __init__(self, run: ClaimedRun, slot: Slot) -> None:
        self.run, self.slot = run, slot
        self.claim: Claim = (run.id, run.claim_no)
        """The key of everything that is known of it here."""


class Claimer:
    """Decides what flushes claim. `request` says which runs this worker serves, and the batch.

    `obstacle` gives the reason why nothing may be claimed for now, or None.
    """

    def __init__(
        self,
        request: ClaimRequest,
        slots: int,
        guard: LeaseGuard,
        metrics: Metrics,
        *,
        obstacle: Callable[[], str | None],
    ) -> None:
        self._request, self._batch = request, request.limit
        self._spared, self._refused = Spared(request.limit, guard.now), False
        self._guard, self._metrics, self._obstacle = guard, metrics, obstacle
        self._hungry = self._woken = self._full = self._stopped = False
        self._held: dict[Claim, None] = {}
        self._suspects: set[Claim] = set()
        self._suspect_asked = False
        self._arrived: list[Arrival] = []
        self._news, self._gone = asyncio.Event(), asyncio.Event()
        self.slots = Slots(slots, freed=self._news.set)
        self.claimed = 0
        """Runs claimed so far."""

    def take(self) -> ClaimRequest | None:
        """What the next flush should claim."""
        limit = min(self.slots.claimable, self._spared.limit)
        if not self._hungry or self._stopped or limit <= 0 or self._obstacle() is not None:
            return None
        # Another claim is under way: a second one only for a backlog, and for enough slots.
        if self.slots.reserved and (not self._full or limit < self._batch // 2):
            return None
        self.slots.reserve(limit)
        self._woken = False
        suspects = 0 if self._suspects or self._suspect_asked else 1
        self._suspect_asked = self._suspect_asked or suspects > 0
        recover = self._guard.may_recover
        return replace(
            self._request,
            limit=limit,
            suspects=suspects,
            recover=recover,
            spared=self._spared.ids(),
        )

    def settled(self, request: ClaimRequest, claimed: list[ClaimedRun], set_aside: int = 0) -> None:
        """Take the runs of a claim that has come back; behind those set aside may be others."""
        slots = self.slots.fill(request.limit, len(claimed))
        if request.suspects:
            self._suspect_asked = False
        self._full = len(claimed) + set_aside == request.limit
        if not self._refused:
            self._spared.taken(full=self._full)
        self._refused = False
        if not self._full and not self._woken:
            self._hungry = False
        if claimed:
            self._take_in([Arrival(*pair) for pair in zip(claimed, slots, strict=True)])
            self._metrics.claimed(Counter([r.workflow_name for r in claimed]), len(claimed))
        if claimed or self._hungry:
            self._news.set()
        self._gone.set()

    def refused(self, run_id: UUID | None) -> None:
        """The claim that is about to be settled was refused, of this run if of one alone."""
        self._refused = True
        if self._spared.refused(run_id):
            self.wake()

    async def arrivals(self) -> list[Arrival]:
        """Wait for news: runs that were claimed, or none where there is room for another claim."""
        await self._news.wait()
        self._news.clear()
        arrived, self._arrived = self._arrived, []
        return arrived

    def held(self) -> list[UUID]:
        """The ids of all runs this worker holds."""
        return [run_id for run_id, _ in list(self._held)]

    def claims(self) -> list[Claim]:
        """All claims this worker holds; safe to call from another thread."""
        return list(self._held)

    def forget(self, claim: Claim) -> None:
        """The run's end was written, or its claim lost."""
        self._held.pop(claim, None)
        if self._suspects:
            self.trust(claim)
        self._gone.set()

    def suspects(self) -> list[Claim]:
        """The claims in progress whose run may be what its workers died of."""
        return list(self._suspects)

    def trust(self, claim: Claim) -> None:
        """Ask for the next suspect: this claim's run has recorded something since, or is over."""
        if claim in self._suspects:
            self._suspects.remove(claim)
            self.wake()
            self._news.set()

    async def emptied(self, seconds: float) -> bool:
        """Wait so long for all runs to be gone, those of a claim under way included."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._held or self.slots.reserved:
                    self._gone.clear()
                    await self._gone.wait()
        return not self._held and not self.slots.reserved

    def wake(self) -> None:
        """There may be work now: the next flush with free slots carries a claim."""
        self._hungry = self._woken = True

    def stop(self) -> None:
        """Claim nothing any more."""
        self._stopped = True

    def _take_in(self, arrivals: list[Arrival]) -> None:
        for arrival in arrivals:
            self._held[arrival.claim] = None
            if arrival.run.crashes > self._request.trusted_crashes:
                self._suspects.add(arrival.claim)
        self._arrived += arrivals
        self.claimed += len(arrivals)
