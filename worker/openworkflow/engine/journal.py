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
import sys
import time
from collections.abc import Iterator, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from openworkflow.backend.backend import BackendPostgres, ConnectionLost, WorkerSession
from openworkflow.backend.records import (
    ClaimedRun,
    ClaimRequest,
    Completion,
    Flush,
    RunEnd,
    StepSuccess,
    StepWrite,
    Write,
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


class Lane:
    """Writes of one kind in the order they came, and who waits for each."""

    __slots__ = ("rows", "waiters")

    def __init__(self, rows: list[Any], waiters: list[Written]) -> None:
        self.rows, self.waiters = rows, waiters

    def add(self, row: Write, waiter: Written) -> None:
        """Append one."""
        self.rows.append(row)
        self.waiters.append(waiter)

    def take(self, limit: int) -> "Lane":
        """Remove and return the first ones."""
        taken = Lane(self.rows[:limit], self.waiters[:limit])
        del self.rows[:limit], self.waiters[:limit]
        return taken


KINDS: tuple[type[Write], ...] = (StepSuccess, StepWrite, Completion, RunEnd)
"""In the order in which they are sent one by one: a run's end after its steps."""


class Final(NamedTuple):
    """The last step of a run and its end."""

    step: StepSuccess
    recorded: Written
    end: Completion | RunEnd
    ended: Written


@dataclass(slots=True)
class Batch:
    """What one flush carries, and who waits for it."""

    lanes: dict[type[Write], Lane]
    claim: ClaimRequest | None = None

    def __len__(self) -> int:
        return sum(len(lane.rows) for lane in self.lanes.values())

    def rows(self, kind: type[Any]) -> list[Any]:
        """The writes of one kind."""
        lane = self.lanes.get(kind)
        return lane.rows if lane is not None else []

    def settle(self, lost: Set[UUID]) -> None:
        """Tell each waiter whether its claim still held."""
        for row, written in self:
            written.settle(not lost or row[0] not in lost)

    def abandon(self) -> None:
        """Nobody will send this any more: to its waiters that is a lost claim."""
        for _, written in self:
            written.settle(False)

    def refuse(self, error: BackendError) -> None:
        """The database will not take this."""
        for _, written in self:
            if not written.done():
                written.set_exception(error)

    def __iter__(self) -> Iterator[tuple[Write, Written]]:
        for lane in self.lanes.values():
            yield from zip(lane.rows, lane.waiters, strict=True)

    def split(self) -> Iterator["Batch"]:
        """One batch for each write."""
        for row, written in self:
            yield Batch({type(row): Lane([row], [written])})


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
        self._lanes: dict[type[Write], Lane] = {kind: Lane([], []) for kind in KINDS}
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._uncertain_claims = False
        self._finals: list[Final] = []
        self.newest: Written | None = None
        """The last write, while it is still here and the usual success of a step."""

    def write(self, row: Write) -> Written:
        """Have it written; resolves once that is durable, to False if the claim was lost."""
        written = Written(loop=self._loop)
        self._lanes[type(row)].add(row, written)
        self.newest = written if type(row) is StepSuccess else None
        self._wake.set()
        return written

    def write_with_newest(self, end: Completion | RunEnd) -> Written:
        """The same for an end that is to travel with the step before it, the newest write.

        Were they in two flushes, the end could overtake the step, which would then be refused.
        """
        steps = self._lanes[StepSuccess]
        written = Written(loop=self._loop)
        self._finals.append(Final(steps.rows.pop(), steps.waiters.pop(), end, written))
        self.newest = None
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
            self._gather(sys.maxsize).abandon()

    async def _flush_forever(self) -> None:
        while True:
            await self._wake.wait()
            batch = self._gather(self._limit)
            batch.claim = self._claims.take()
            if not batch and batch.claim is None:
                self._wake.clear()
                continue
            try:
                await self._send(batch)
            finally:
                batch.abandon()  # no effect on what was settled

    def _gather(self, limit: int) -> Batch:
        """Up to `limit` writes of each kind."""
        self.newest = None
        batch = Batch({kind: lane.take(limit) for kind, lane in self._lanes.items()})
        for final in self._finals[:limit]:
            batch.lanes[StepSuccess].add(final.step, final.recorded)
            batch.lanes[type(final.end)].add(final.end, final.ended)
        del self._finals[:limit]
        return batch

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
                batch.rows(StepWrite),
                batch.rows(RunEnd),
                batch.claim if claim else None,
                batch.rows(StepSuccess),
                batch.rows(Completion),
            )
        )
        self._metrics.flushed(len(batch), time.perf_counter() - started)
        self.clock.set(flushed.now)
        batch.settle(flushed.lost)
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
        incomplete: set[UUID] = set()
        for single in batch.split():
            ((row, written),) = single
            if row.run_id in incomplete:
                single.refuse(error)  # a run does not end without its last step
                continue
            await self._send(single)
            if written.exception() is not None:
                incomplete.add(row.run_id)
