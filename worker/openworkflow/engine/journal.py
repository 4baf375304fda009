"""Group commit: what all runs of a worker want written travels in shared statements.

Two flushers take turns. Each sends what has gathered as one statement, one round trip, one commit,
and starts again as soon as that is back. There is no timer: an idle worker has the latency of a
single commit, a busy one shares each commit among hundreds of runs. Claims of new runs ride along.
Batches are capped at a quarter of the worker's slots, so that Python works on one part of the runs
while PostgreSQL works on the others.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from openworkflow.backend.backend import (
    BackendPostgres,
    ClaimedRun,
    ClaimRequest,
    ConnectionLost,
    Flush,
    Flushed,
    RunEnd,
    StepWrite,
    WorkerSession,
)
from openworkflow.core.errors import BackendError
from openworkflow.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

RECONNECT_FIRST_SECONDS = 0.1
RECONNECT_MAX_SECONDS = 5.0


class Written(asyncio.Future[bool]):
    """Resolves once a write is durable: True, or False where the claim was lost.

    It cannot be cancelled: a task that is cancelled while it waits for a write sees the write
    through first, so the end of a run never overtakes its last step.
    """

    def cancel(self, msg: object = None) -> bool:
        """Refuse; asyncio then delivers the cancellation once the write has returned."""
        return False

    def settle(self, held: bool) -> None:
        """Resolve, unless that has happened."""
        if not self.done():
            self.set_result(held)


class Claims(Protocol):
    """Decides when a flush asks for runs, and takes those it got."""

    def take(self) -> ClaimRequest | None:
        """What the flush about to leave should claim, if anything."""

    def settled(self, request: ClaimRequest, claimed: list[ClaimedRun]) -> None:
        """Runs claimed for `request`; none if the flush failed."""

    def held(self) -> list[UUID]:
        """The ids of all runs this worker knows that it holds."""


class DatabaseClock:
    """The database's time, estimated from its last answer and the monotonic clock."""

    __slots__ = ("_at", "_now")

    def __init__(self, now: datetime) -> None:
        self.set(now)

    def set(self, now: datetime) -> None:
        """Take the `now()` of an answer that has just arrived."""
        self._now, self._at = now, time.monotonic()

    def now(self) -> datetime:
        """The database's time, late by at most a round trip."""
        return self._now + timedelta(seconds=time.monotonic() - self._at)


@dataclass(slots=True)
class Batch:
    """What one flush carries, and who waits for it."""

    steps: list[tuple[StepWrite, Written]] = field(default_factory=list)
    ends: list[tuple[RunEnd, Written]] = field(default_factory=list)
    claim: ClaimRequest | None = None

    def __len__(self) -> int:
        return len(self.steps) + len(self.ends)

    def settle(self, flushed: Flushed) -> None:
        """Tell each waiter whether its claim still held."""
        for write, written in self.steps:
            written.settle(write.id in flushed.steps)
        for end, written in self.ends:
            written.settle(end.run_id in flushed.ends)

    def abandon(self) -> None:
        """Nobody will send this any more: to its waiters that is a lost claim."""
        for _, written in (*self.steps, *self.ends):
            written.settle(False)

    def refuse(self, error: BackendError) -> None:
        """The database will not take this."""
        for _, written in (*self.steps, *self.ends):
            if not written.done():
                written.set_exception(error)

    def split(self) -> Iterator["Batch"]:
        """One batch for each write."""
        for step in self.steps:
            yield Batch(steps=[step])
        for end in self.ends:
            yield Batch(ends=[end])


class Journal:
    """Collects writes and sends them; every future resolves to whether the claim still held."""

    def __init__(
        self,
        backend: BackendPostgres,
        session: WorkerSession,
        claims: Claims,
        clock: DatabaseClock,
        metrics: Metrics,
        *,
        worker_id: str,
        lease: timedelta,
        batch: int,
    ) -> None:
        self._backend, self._session, self._claims = backend, session, claims
        self._worker_id, self._lease, self._limit = worker_id, lease, batch
        self._metrics, self.clock = metrics, clock
        self._steps: deque[tuple[StepWrite, Written]] = deque()
        self._ends: deque[tuple[RunEnd, Written]] = deque()
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._uncertain_claims = False

    def record(self, write: StepWrite) -> Written:
        """Have a step attempt written; resolves once it is durable, False if the claim was lost."""
        written = Written(loop=self._loop)
        self._steps.append((write, written))
        self._wake.set()
        return written

    def end(self, end: RunEnd) -> Written:
        """Have the end of a run written; resolves as `record` does."""
        written = Written(loop=self._loop)
        self._ends.append((end, written))
        self._wake.set()
        return written

    def kick(self) -> None:
        """Let a flush leave soon, if only to claim."""
        self._wake.set()

    async def run(self) -> None:
        """Flush until canceled; what is unwritten then counts as lost."""
        try:
            async with asyncio.TaskGroup() as flushers:
                for _ in range(2):
                    flushers.create_task(self._flush_forever())
        finally:
            Batch(list(self._steps), list(self._ends)).abandon()
            self._steps.clear()
            self._ends.clear()

    async def _flush_forever(self) -> None:
        while True:
            await self._wake.wait()
            batch = self._gather()
            if not batch and batch.claim is None:
                self._wake.clear()
                continue
            try:
                await self._send(batch)
            finally:
                batch.abandon()  # no effect on what was settled

    def _gather(self) -> Batch:
        steps, ends = self._steps, self._ends
        return Batch(
            [steps.popleft() for _ in range(min(len(steps), self._limit))],
            [ends.popleft() for _ in range(min(len(ends), self._limit))],
            self._claims.take(),
        )

    async def _send(self, batch: Batch) -> None:
        claimed: list[ClaimedRun] = []
        try:
            claimed = await self._flush(batch)
        except ConnectionLost as error:
            logger.warning("lost the connection to the database, will retry: %s", error)
            await self._send_until_answered(batch)
        except BackendError as error:
            await self._send_one_by_one(batch, error)
        if batch.claim is not None:
            self._claims.settled(batch.claim, claimed)

    async def _flush(self, batch: Batch, *, claim: bool = True) -> list[ClaimedRun]:
        started = time.perf_counter()
        flushed = await self._session.flush(
            Flush(
                self._worker_id,
                self._lease,
                [write for write, _ in batch.steps],
                [end for end, _ in batch.ends],
                batch.claim if claim else None,
            )
        )
        self._metrics.flushed(len(batch), time.perf_counter() - started)
        self.clock.set(flushed.now)
        batch.settle(flushed)
        return flushed.claimed

    async def _send_until_answered(self, batch: Batch) -> None:
        """Send the same writes again until the database answers; each is safe to repeat.

        Whether the lost statement committed is unknown. Its steps keep their ids, its ends find
        their fence gone; runs that it may have claimed are handed back, since nobody runs them.
        """
        self._uncertain_claims |= batch.claim is not None
        delay = RECONNECT_FIRST_SECONDS
        while True:
            self._metrics.database_error("connection")
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, RECONNECT_MAX_SECONDS)
            try:
                await self._release_uncertain_claims()
                await self._flush(batch, claim=False)
            except ConnectionLost:
                continue
            except BackendError as error:
                await self._send_one_by_one(batch, error)
            logger.info("the database answers again")
            return

    async def _release_uncertain_claims(self) -> None:
        if self._uncertain_claims:
            await self._backend.release_unknown(self._worker_id, self._claims.held())
            self._uncertain_claims = False

    async def _send_one_by_one(self, batch: Batch, error: BackendError) -> None:
        """The database refused the statement: only the write at fault may fail for it."""
        self._metrics.database_error("refused")
        if len(batch) <= 1:
            batch.refuse(error)
            return
        logger.warning("the database refused a flush, sending its writes one by one: %s", error)
        for single in batch.split():
            await self._send(single)
