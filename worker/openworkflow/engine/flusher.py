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
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from openworkflow.backend.records import (
    ClaimedRun,
    ClaimRequest,
    Completion,
    Continuation,
    Flush,
    Flushed,
    RunEnd,
    StepSuccess,
    StepWrite,
    Write,
)
from openworkflow.core.errors import BackendError, ConnectionLost
from openworkflow.engine.journal import Batch, Journal, Refused, Written, by_type
from openworkflow.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from openworkflow.backend.backend import WorkerSession

logger = logging.getLogger(__name__)

RECONNECT_FIRST_SECONDS = 0.1
RECONNECT_MAX_SECONDS = 5.0


class Claims(Protocol):
    """Decides when a flush asks for runs, and takes those it got."""

    def take(self) -> ClaimRequest | None:
        """What the flush about to leave should claim, if anything."""

    def settled(self, request: ClaimRequest, claimed: list[ClaimedRun]) -> None:
        """Runs claimed for `request`; none if the flush failed."""

    def held(self) -> list[UUID]:
        """The ids of all runs this worker knows that it holds."""


class Flusher:
    """Sends a journal's entries, `batch` at a time, and settles them."""

    def __init__(
        self,
        journal: Journal,
        session: "WorkerSession",
        claims: Claims,
        metrics: Metrics,
        *,
        worker_id: str,
        lease: timedelta,
        batch: int,
    ) -> None:
        self._journal, self._claims, self._metrics = journal, claims, metrics
        self._session, self._worker_id = session, worker_id
        self._lease, self._limit = lease, batch
        self._claiming = 0
        """Statements under way that may bring runs."""
        self._handing_back = False
        self.in_doubt = False
        """Whether the database may think that this worker holds runs which nobody executes here."""

    def doubt(self) -> None:
        """Hand back, before anything more is claimed, the runs that this worker does not hold."""
        self.in_doubt = True
        self._journal.kick()

    async def run(self) -> None:
        """Flush until canceled; what is unwritten then counts as lost."""
        try:
            async with asyncio.TaskGroup() as flushers:
                for _ in range(2):
                    flushers.create_task(self._flush_forever())
                flushers.create_task(self._look_for_strays())
        finally:
            self._journal.abandon()

    async def _flush_forever(self) -> None:
        while True:
            await self._journal.wanted()
            if self.in_doubt:
                await self._hand_back()
            batch = self._journal.take(self._limit)
            batch.claim = None if self.in_doubt else self._claims.take()
            if not batch.entries and batch.claim is None:
                self._journal.rest()
                continue
            try:
                await self._send(batch)
            finally:
                batch.abandon()  # no effect on what was settled

    async def _send(self, batch: Batch) -> None:
        claimed: list[ClaimedRun] = []
        try:
            flushed = await self._deliver(batch.rows, batch.claim)
        except Exception as error:
            if batch.claim is not None and not isinstance(error, BackendError):
                self.doubt()  # what PostgreSQL refused took no run; what we failed on may have
            await self._send_one_by_one(batch, _refusal(error))
        else:
            batch.settle(flushed.lost)
            claimed = flushed.claimed
        if batch.claim is not None:
            self._claims.settled(batch.claim, claimed)

    async def _deliver(
        self, rows: Mapping[type[Write], Sequence[Any]], claim: ClaimRequest | None = None
    ) -> Flushed:
        """Send these rows until the database answers; each is safe to repeat.

        Whether a lost statement committed is unknown. Its steps keep their ids, its ends find
        their fence gone; runs that it may have claimed are in doubt, since nobody runs them.
        Raises BackendError if the database refuses them.
        """
        try:
            return await self._flush(rows, claim)
        except ConnectionLost as error:
            logger.warning("lost the connection to the database, will retry: %s", error)
        if claim is not None:
            self.doubt()
        delay = RECONNECT_FIRST_SECONDS
        while True:
            self._metrics.database_error("connection")
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, RECONNECT_MAX_SECONDS)
            try:
                flushed = await self._flush(rows, None)
            except ConnectionLost:
                continue
            logger.info("the database answers again")
            return flushed

    async def _flush(
        self, rows: Mapping[type[Write], Sequence[Any]], claim: ClaimRequest | None
    ) -> Flushed:
        started = time.perf_counter()
        self._claiming += claim is not None
        try:
            flushed = await self._session.flush(Flush(self._worker_id, self._lease, rows, claim))
        finally:
            # Nothing runs between here and `settled`: what came is held before anybody looks.
            self._claiming -= claim is not None
            if self.in_doubt:
                self._journal.kick()
        size = sum(map(len, rows.values()))
        self._metrics.flushed(size, time.perf_counter() - started)
        self._journal.clock.set(flushed.now)
        return flushed

    async def _hand_back(self) -> None:
        """Release what nobody here holds, while no claim is out whose runs are not held yet.

        Nothing is claimed before that has succeeded; the polls see to it that it is tried again.
        """
        if self._claiming or self._handing_back:
            return
        self._handing_back = True
        try:
            await self._session.release_unknown(self._worker_id, self._claims.held())
            self.in_doubt = False
        except Exception as error:
            self._metrics.database_error("connection")
            logger.warning("could not hand back runs that are not held, will retry: %r", error)
        finally:
            self._handing_back = False

    async def _look_for_strays(self) -> None:
        """Hand back, once a lease, expired runs of this worker that nobody here executes.

        A statement whose connection was lost may live on in the server, and claim in the end.
        """
        while True:
            await asyncio.sleep(self._lease.total_seconds())
            try:
                held = self._claims.held()
                found = await self._session.release_unknown(self._worker_id, held, expired=True)
            except Exception as error:
                logger.warning("could not look for runs that are not held: %r", error)
                continue
            if found:
                logger.warning("handed back %d runs of a claim that was given up", len(found))

    async def _send_one_by_one(self, batch: Batch, error: BackendError) -> None:
        """The database refused the statement: only the row at fault may fail for it."""
        self._metrics.database_error("refused")
        if len(batch) == 1:
            batch.entries[0].refuse(error, batch.entries[0].rows[0])
            return
        logger.warning("the database refused a flush, sending its entries one by one: %s", error)
        refused: dict[UUID, Refused] = {}
        for written in batch.entries:
            if missing := [refused[run_id] for run_id in _ended(written) if run_id in refused]:
                # A run does not end without its last step.
                written.refuse(missing[0], missing[0].row)
                continue
            await self._send_alone(written)
            found = written.exception()
            if isinstance(found, Refused) and isinstance(found.row, StepSuccess | StepWrite):
                refused[found.row.run_id] = found

    async def _send_alone(self, written: Written) -> None:
        """Send one entry by itself, and only if it is refused row by row.

        The rows before the one at fault are then durable, those after it were not sent.
        """
        rows, held = written.rows, True
        while rows and held:
            held, error = await self._try(rows)
            if error is not None and len(rows) > 1:
                sent, rows = rows[:1], rows[1:]
                held, error = await self._try(sent)
            else:
                sent, rows = rows, []
            if error is not None:
                written.refuse(error, sent[0])
                return
        written.settle(held)

    async def _try(self, rows: list[Write]) -> tuple[bool, BackendError | None]:
        """Whether the claim of these rows held, or why they were refused."""
        try:
            flushed = await self._deliver(by_type(rows))
        except Exception as error:
            return False, _refusal(error)
        return flushed.lost.isdisjoint(row[0] for row in rows), None


def _refusal(error: Exception) -> BackendError:
    """What went wrong with a flush; a mistake of ours costs the row it is about, not the worker."""
    if isinstance(error, BackendError):
        return error
    logger.error("a flush failed in this program, not in the database", exc_info=error)
    return BackendError(f"cannot be sent to the database: {type(error).__name__}: {error}")


def _ended(written: Written) -> list[UUID]:
    """The runs that an entry ends."""
    ends = Completion | RunEnd | Continuation
    return [row.run_id for row in written.rows if isinstance(row, ends)]
