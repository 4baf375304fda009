"""Group commit: what all runs of a worker want written travels in shared statements.

Two flushers take turns. Each sends what has gathered as one statement, one round trip, one commit,
and starts again as soon as that is back. There is no timer: an idle worker has the latency of a
single commit, a busy one shares each commit among hundreds of runs. Claims of new runs ride along.
Batches are capped at a quarter of the worker's slots, so that Python works on one part of the runs
while PostgreSQL works on the others.

What is refused is sent again without the claim, then in halves, until the row at fault is found.
What becomes of that one, the error's `Fault` says; the others are durable by then.
"""

import asyncio
import logging
import random
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from openworkflow.backend.records import (
    ClaimedRun,
    ClaimRequest,
    Completion,
    Continuation,
    Flush,
    Flushed,
    RunEnd,
    Write,
)
from openworkflow.core.errors import BackendError, Fault
from openworkflow.engine.claims import Claims
from openworkflow.engine.journal import (
    Batch,
    Journal,
    Refused,
    Written,
    by_type,
    divisible,
    separated,
)
from openworkflow.engine.strays import Strays
from openworkflow.engine.verdict import HOPELESS, KINDS, proven, refusal
from openworkflow.engine.waiting import WaitingWrites, is_step
from openworkflow.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from openworkflow.backend.backend import WorkerSession

logger = logging.getLogger(__name__)

RECONNECT_FIRST_SECONDS = 0.1
RECONNECT_MAX_SECONDS = 5.0
MOST_LOSSES = 2
"""A statement in the middle of which the connection broke so often is sent in parts: it may be
more than the server, a pooler or the network bears."""
MOST_LOSSES_ALONE = 4
"""A single row that cannot be sent in parts waits apart from the others from then on."""
LOCKED_PARTS = 32
"""Into how many parts a statement is cut that waited for a lock in vain: each part that meets the
lock again takes seconds, each other one milliseconds."""
Missing = dict[UUID, Refused | None]
"""Runs that lack a step, and so must not end: why it was refused, or None where it waits."""
CLAIM_LEASES = 1 / 2
"""The part of a lease after which a claim's answer is too old: no heartbeat knows of its runs yet,
and the next one comes within a third of a lease. What was asked for may be others' by now."""


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
        self._lease, self._most = lease, batch
        self._stale = CLAIM_LEASES * lease.total_seconds()
        self._limit = batch
        """How many entries share a statement: fewer after one that was too much."""
        self.strays = Strays(
            journal, session, claims.held, metrics, worker_id=worker_id, lease=lease
        )
        self._waiting = WaitingWrites(metrics)
        self._troubles: dict[str, str] = {}
        self._claims_lost = 0
        """In a row, with the connection: their runs may be more than it bears."""

    @property
    def trouble(self) -> str | None:
        """What keeps this worker from writing or claiming, in words for people; None if nothing."""
        return next(iter(self._troubles.values()), None)

    async def run(self) -> None:
        """Flush until canceled; what is unwritten then counts as lost."""
        try:
            async with asyncio.TaskGroup() as flushers:
                for _ in range(2):
                    flushers.create_task(self._flush_forever())
                flushers.create_task(self._send_waiting_forever())
                flushers.create_task(self.strays.look_forever())
        finally:
            self._journal.abandon()
            self._waiting.abandon()

    async def _flush_forever(self) -> None:
        while True:
            await self._journal.wanted()
            if self.strays.in_doubt:
                await self.strays.hand_back()
            batch = self._journal.take(self._limit)
            batch.claim = None if self.strays.in_doubt else self._claims.take()
            if not batch.entries and batch.claim is None:
                self._journal.rest()
                continue
            try:
                await self._send(batch)
            except BaseException as error:
                batch.abandon()  # no effect on what was settled
                if not isinstance(error, Exception):
                    raise
                self._give_up(batch, error)

    def _give_up(self, batch: Batch, error: Exception) -> None:
        """A mistake of ours costs the runs that travelled together, and not their worker."""
        logger.error("internal error in a flush; its runs are handed back", exc_info=error)
        self.strays.doubt()
        if batch.claim is not None:
            self._claims.settled(batch.claim, [])

    async def _send_waiting_forever(self) -> None:
        """Send what was refused again, apart from what others want written."""
        while True:
            try:
                await self._send_again(await self._waiting.due())
            except Exception:  # a mistake of ours: it still waits
                logger.exception("internal error while sending what was refused, will retry")
            self._note("writes", self._waiting.sort_out())

    async def _send_again(self, entries: list[Written]) -> None:
        missing: Missing = {}
        while entries:
            together, deferred = separated(entries[: self._limit])
            entries = deferred + entries[self._limit :]
            await self._send_part(together, missing)

    async def _send(self, batch: Batch) -> None:
        claimed, set_aside = list[ClaimedRun](), 0
        if self._waiting:
            batch.keep(self._complete(batch.entries, {**self._waiting.runs}))
            if not batch.entries and batch.claim is None:
                return  # ends of runs only, whose steps wait
        try:
            flushed = await self._deliver(batch.rows, batch.claim)
        except Exception as error:
            refused = refusal(error)
            if batch.claim is None:
                await self._send_apart(batch.entries, refused, {**self._waiting.runs})
            else:
                await self._send_without_claim(batch, refused)
                if not isinstance(error, BackendError):
                    self.strays.doubt()  # what PostgreSQL refused took no run; this may have
        else:
            batch.settle(flushed.lost)
            claimed, set_aside = flushed.claimed, flushed.set_aside
            if self._claims_lost >= MOST_LOSSES and batch.claim is not None:
                self._claims_lost = 0
                self._claims.refused(await self._refusing_run(batch.claim))
            if batch.claim is not None and self._troubles:
                self._note("claims", None)
        claim, batch.claim = batch.claim, None
        if claim is not None:
            self._claims.settled(claim, claimed, set_aside)

    # -- until the database answers --------------------------------------------------------------

    async def _deliver(
        self, rows: Mapping[type[Write], Sequence[Any]], claim: ClaimRequest | None = None
    ) -> Flushed:
        """Send these rows until the database answers; each is safe to repeat.

        Whether a lost statement committed is unknown. Its steps keep their ids, its ends find
        their fence gone; runs that it may have claimed are in doubt, since nobody runs them.
        Raises BackendError, of any fault but the server's, if the database refuses them.
        """
        delay, losses = RECONNECT_FIRST_SECONDS, 0
        while True:
            try:
                return await self._flush(rows, claim)
            except BackendError as error:
                if error.fault is not Fault.SERVER:
                    raise
                losses += error.in_doubt
                if claim is not None and error.in_doubt:
                    self._claims_lost += 1
                    self.strays.doubt()
                self._metrics.database_error("connection")
                self._note("connection", f"the database does not answer: {error}")
                alone = sum(map(len, rows.values())) == 1
                if losses >= (MOST_LOSSES_ALONE if alone else MOST_LOSSES) and rows:
                    raise BackendError(str(error)).of(Fault.SIZE) from error
            claim = None
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, RECONNECT_MAX_SECONDS)

    async def _flush(
        self, rows: Mapping[type[Write], Sequence[Any]], claim: ClaimRequest | None
    ) -> Flushed:
        started = time.perf_counter()
        self.strays.claiming(claim is not None)
        try:
            flushed = await self._session.flush(Flush(self._worker_id, self._lease, rows, claim))
        finally:
            # Nothing runs between here and `settled`: what came is held before anybody looks.
            self.strays.claiming(-(claim is not None))
        size, seconds = sum(map(len, rows.values())), time.perf_counter() - started
        self._metrics.flushed(size, seconds)
        if claim is not None:
            self._claims_lost = 0
        if flushed.claimed and seconds > self._stale:
            logger.warning("handing back runs of a claim that took %.1f s", seconds)
            flushed.claimed.clear()
            self.strays.doubt()
        self._journal.clock.set(flushed.now)
        if self._troubles:
            self._note("connection", None)
        if self._waiting:
            self._waiting.took(rows)
        if size >= self._limit < self._most:
            self._limit += 1
        return flushed

    # -- what is refused -------------------------------------------------------------------------

    async def _send_without_claim(self, batch: Batch, error: BackendError) -> None:
        """Whether the claim was refused, or a row, shows when the rows are sent alone."""
        if batch.entries and not await self._send_part(batch.entries, {**self._waiting.runs}):
            return
        self._metrics.database_error(KINDS[error.fault])
        self._note("claims", f"the database does not let runs be claimed: {error}")
        if batch.claim is not None and error.fault in (Fault.TABLE, Fault.VALUE, Fault.SIZE):
            self._claims.refused(await self._refusing_run(batch.claim))

    async def _refusing_run(self, claim: ClaimRequest) -> UUID | None:
        """Which run it was, of a claim of one alone; another worker may have taken it by now."""
        if claim.limit > 1:
            return None
        try:
            found = await self._session.claimable(self._worker_id, self._lease, claim)
        except Exception as error:
            logger.debug("could not find out which run cannot be claimed: %s", error)
            return None
        return found[0] if found else None

    async def _send_part(self, entries: Sequence[Written], missing: Missing) -> bool:
        """Send these, but for the ends of runs that lack a step; False if not all were taken."""
        left = self._complete(entries, missing)
        if not left:
            return False
        try:
            flushed = await self._deliver(by_type(row for each in left for row in each.rows))
        except Exception as error:
            await self._send_apart(left, refusal(error), missing)
            return False
        for written in left:
            written.settle(flushed.lost.isdisjoint(row[0] for row in written.rows))
        return len(left) == len(entries)

    async def _send_apart(
        self, entries: Sequence[Written], error: BackendError, missing: Missing
    ) -> None:
        """A statement with these was refused: only what is at fault may pay for it."""
        if len(entries) > 1:
            parts = LOCKED_PARTS if error.fault is Fault.MOMENT else 2
            size = max(1, len(entries) // parts)
            if error.fault is Fault.SIZE:
                self._limit = min(self._limit, size)
            for start in range(0, len(entries), size):
                await self._send_part(entries[start : start + size], missing)
        elif divisible(entries[0]):
            await self._send_rows(entries[0], missing)
        else:
            await self._refuse(entries[0], entries[0].rows[0], error, missing)

    async def _send_rows(self, written: Written, missing: Missing) -> None:
        """The rows before the one at fault are then durable, those after it were not sent."""
        for row in written.rows:
            try:
                flushed = await self._deliver(by_type([row]))
            except Exception as error:
                await self._refuse(written, row, refusal(error), missing)
                return
            if flushed.lost:
                written.settle(False)
                return
        written.settle(True)

    async def _refuse(
        self, written: Written, row: Write, error: BackendError, missing: Missing
    ) -> None:
        """This row is at fault; it fails, or waits."""
        if error.fault is Fault.VALUE:
            # What travels together is refused together: any of it may be at fault.
            rows = [row] if divisible(written) else written.rows
            error = await proven(self._session, rows, error)
        self._metrics.database_error(KINDS[error.fault])
        if error.fault in HOPELESS or self._waiting.gives_up(written, row):
            written.refuse(error, row)
        else:
            written.rows = written.rows[written.rows.index(row) :]
            self._waiting.put_off(written, row, str(error))
        if is_step(row):
            refused = written.exception() if written.done() else None
            missing[row.run_id] = refused if isinstance(refused, Refused) else None

    def _complete(self, entries: Sequence[Written], missing: Missing) -> list[Written]:
        """Entries that end no run which lacks a step; the others fail or wait like that."""
        if not missing:
            return list(entries)
        return [written for written in entries if not self._holds_up(written, missing)]

    def _holds_up(self, written: Written, missing: Missing) -> bool:
        """A run does not end without its last step."""
        for row in written.rows:
            if isinstance(row, Completion | RunEnd | Continuation) and row.run_id in missing:
                if (refused := missing[row.run_id]) is not None:
                    written.refuse(refused, refused.row)
                else:
                    self._waiting.put_off(written, row, "a step of the run is not recorded yet")
                return True
        return False

    def _note(self, what: str, trouble: str | None) -> None:
        """Report what is wrong once, and once that it is over."""
        known = self._troubles.pop(what, None)
        if trouble is not None:
            self._troubles[what] = trouble
            if known is None:
                logger.warning("%s", trouble)
        elif known is not None:
            logger.info("the database is well again: no longer so that %s", known)
