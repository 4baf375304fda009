"""A worker's own traffic: flushes, histories, heartbeats. The hot path of the whole system."""

import asyncio
import logging
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from openworkflow.backend import children, distortions, messages, progress, reading
from openworkflow.backend import flush as flushes
from openworkflow.backend.failures import UnreadableAnswer, is_of_messages
from openworkflow.backend.flush import Shape
from openworkflow.backend.incarnation import Compared, Fetch, Held, Incarnation, keep_whole
from openworkflow.backend.link import Link
from openworkflow.backend.records import (
    ClaimedRun,
    ClaimRequest,
    Delivery,
    Flush,
    Flushed,
    RecordedStep,
    Waiting,
    Write,
)
from openworkflow.core.errors import BackendError, Fault
from openworkflow.core.progress import Told
from openworkflow.core.recorded import UNREADABLE, Awaited, ChildState
from openworkflow.core.step_attempt import StepStatus

logger = logging.getLogger(__name__)

_CLAIM_COLUMNS = (
    "id",
    "workflow_name",
    "version",
    "input",
    "claim_no",
    "attempts",
    "crashes",
    "deadline_at",
    "wake_no",
    "history_from",
)
_DUE_AT = operator.attrgetter("due_at")
_run: Any = tuple.__new__


class WorkerSession:
    """A few connections that take turns, each with one statement at a time.

    `place` is what every flush needs to know of where it goes: the namespace and its channels.
    """

    def __init__(
        self,
        links: Iterable[Link],
        queries: Mapping[str, str],
        place: Mapping[str, str],
        incarnation: Incarnation | None = None,
    ) -> None:
        self._links, self._incarnation = list(links), incarnation
        self._sql, self._place = queries, place
        self._statements: dict[Shape, tuple[str, tuple[str, ...]]] = {}
        self._urgent = False
        """Whether runs with a priority waited when a claim last looked."""
        self._idle: asyncio.Queue[Link] = asyncio.LifoQueue()
        for link in self._links:
            self._idle.put_nowait(link)

    async def open(self) -> None:
        """Connect, with all or none; raises BackendError."""
        try:
            for link in self._links:
                await link.open()
        except BaseException:
            self._end()
            raise

    def when_elsewhere(
        self,
        worker_id: str,
        held: Callable[[], Iterable[Held]],
        settle: Callable[[Compared], None],
    ) -> None:
        """Compare what is `held` with what another server has; `settle` is told what stands."""

        async def compare(fetch: Fetch) -> None:
            settle(await keep_whole(fetch, self._sql, worker_id, held()))

        if self._incarnation is not None:
            self._incarnation.on_another = compare

    async def flush(self, flush: Flush) -> Flushed:
        """Record, end, wake and claim in one statement and one commit.

        Raises ConnectionLost if the database does not answer. If that is in doubt, it may have
        taken effect: sending the same rows again is safe, runs it may have claimed are to be
        released. Raises BackendError if PostgreSQL refused it: nothing of it took effect.
        """
        shape = flushes.shape_of(flush, urgent=self._urgent)
        sql, parameters = self._statement(shape)
        values = {**self._place, **flushes.values(flush, shape)}
        arguments = [values[name] for name in parameters]
        try:
            (row,) = await self._fetch(sql, arguments)
        except BackendError as error:
            if not is_of_messages(error):
                raise
            # What is told only saves time: whoever would have heard of it polls.
            (row,) = await self._fetch(flushes.untold(sql), arguments)
        lost = flushes.lost(flush, shape, row)
        if not shape.claim:
            return Flushed(row["now"], lost, [])
        self._urgent = row["is_urgent"]
        claimed = _claimed(row, shape)
        return Flushed(row["now"], lost, claimed, row["held"] if shape.limited else 0)

    async def reads(self, row: Write) -> bool:
        """See reading.reads. Raises as `flush` does where that cannot be known."""
        return await reading.reads(self._fetch, self._sql, row)

    async def claimable(self, worker_id: str, lease: timedelta, claim: ClaimRequest) -> list[UUID]:
        """The runs that this claim would take now, without taking them. Raises as `flush` does."""
        flush = Flush(worker_id, lease, claim=claim)
        shape = flushes.shape_of(flush, urgent=self._urgent)
        sql, parameters = flushes.candidates(self._sql, shape)
        values = {**self._place, **flushes.values(flush, shape)}
        rows = await self._fetch(sql, [values[name] for name in parameters])
        return [row["id"] for row in rows]

    async def load_histories(self, run_ids: Sequence[UUID]) -> dict[UUID, list[RecordedStep]]:
        """What was recorded for each of these runs, in the order results reached the workflow.

        A history that cannot be read is one step of the kind `UNREADABLE` that says why.
        """
        try:
            rows = await self._fetch(self._sql["load_histories"], (list(run_ids),))
        except BackendError as error:
            if not _is_of_a_value(error):
                raise
            if len(run_ids) == 1:
                return {run_ids[0]: [_unreadable(run_ids[0], error)]}
            apart = [await self.load_histories([run_id]) for run_id in run_ids]
            return {run_id: steps for one in apart for run_id, steps in one.items()}
        histories: dict[UUID, list[asyncpg.Record]] = {run_id: [] for run_id in run_ids}
        for row in rows:
            histories[row["workflow_run_id"]].append(row)
        return {run_id: _current(history) for run_id, history in histories.items()}

    async def read_inboxes(self, waiting: Sequence[Waiting]) -> dict[UUID, Delivery]:
        """See messages.read_inboxes. Raises as `flush` does."""
        return await messages.read_inboxes(self._fetch, self._sql, waiting)

    async def subscribe(self, pairs: Iterable[tuple[UUID, str]]) -> set[str]:
        """See messages.subscribe. Raises as `flush` does."""
        place = self._place["namespace_id"], self._place["schema"]
        return await messages.subscribe(self._fetch, self._sql, place, pairs)

    async def read_children(
        self, pairs: Sequence[tuple[UUID, Awaited]]
    ) -> dict[UUID, tuple[int, dict[Awaited, ChildState]]]:
        """See children.read_children. Raises as `flush` does."""
        return await children.read_children(self._fetch, self._sql, pairs)

    async def await_children(self, pairs: Iterable[tuple[UUID, UUID]]) -> set[UUID]:
        """See children.await_children. Raises as `flush` does."""
        return await children.await_children(self._fetch, self._sql, pairs)

    async def read_wakes(self, run_ids: Sequence[UUID]) -> dict[UUID, int]:
        """See messages.read_wakes. Raises as `flush` does."""
        return await messages.read_wakes(self._fetch, self._sql, run_ids)

    async def read_told(self, run_ids: Sequence[UUID]) -> dict[UUID, Told]:
        """See progress.read_told. Raises as `flush` does."""
        return await progress.read_told(self._fetch, self._sql, run_ids)

    async def distortions(self) -> list[distortions.Distortion]:
        """See distortions.find. Raises as `flush` does."""
        schema = self._place["schema"]
        return await distortions.find(lambda s, *a: self._fetch(s, a), self._sql, schema)

    async def release_unknown(
        self, worker_id: str, held: Iterable[UUID], *, expired: bool = False
    ) -> list[UUID]:
        """Hand back runs claimed for this worker that it does not hold; returns their ids.

        For claims whose answer never arrived, and runs whose end could not be written: a worker
        leaves its own expired leases to others. `expired` spares what a claim under way may have
        taken: those with a lease that goes on. Raises as `flush` does.
        """
        namespace, spared = self._place["namespace_id"], list(held)
        try:
            return await self._release(namespace, worker_id, spared, expired)
        except BackendError as error:
            if error.fault not in (Fault.TABLE, Fault.VALUE):
                raise
            refusal = error
        arguments = (namespace, worker_id, spared, expired)
        rows = await self._fetch(self._sql["list_unknown_runs"], arguments)
        unknown, released = [row["id"] for row in rows], []
        for run_id in unknown:
            others = [*spared, *(other for other in unknown if other != run_id)]
            try:
                released += await self._release(namespace, worker_id, others, expired)
            except BackendError as error:
                if error.fault not in (Fault.TABLE, Fault.VALUE):
                    raise
        if unknown:
            logger.warning("some of %d runs cannot be handed back: %s", len(unknown), refusal)
        return released

    async def _release(self, *arguments: Any) -> list[UUID]:
        rows = await self._fetch(self._sql["release_workflow_runs"], arguments)
        return [row["id"] for row in rows]

    async def close(self) -> None:
        """Disconnect; all at once where this is cancelled."""
        try:
            for link in self._links:
                await link.close()
        finally:
            self._end()

    def _end(self) -> None:
        for link in self._links:
            link.end()

    def _statement(self, shape: Shape) -> tuple[str, tuple[str, ...]]:
        found = self._statements.get(shape)
        if found is None:
            found = flushes.statement(self._sql, shape), shape.parameters
            self._statements[shape] = found
        return found

    async def _fetch(self, sql: str, arguments: Sequence[Any]) -> list[asyncpg.Record]:
        link = await self._idle.get()
        try:
            return await link.fetch(sql, arguments)
        finally:
            self._idle.put_nowait(link)


def _claimed(row: asyncpg.Record, shape: flushes.Shape) -> list[ClaimedRun]:
    """The runs that were claimed, those that waited longest first."""
    if row["id"] is None:
        return []
    due_at: dict[UUID, datetime] = dict(zip(row["taken_ids"], row["taken_at"], strict=True))
    claimed_at, server, count = row["claimed_at"], row["server_started_at"], len(row["id"])
    recovered, columns = frozenset(row["recovered_ids"]), [row[name] for name in _CLAIM_COLUMNS]
    columns.append(row["names_limits"] if shape.limited else [True] * count)
    columns.append(row["came_due_at"] if shape.limited else [None] * count)
    columns.append(row["traces"] if shape.traced else [None] * count)
    runs = [
        # A run is claimed so often that the frame of the class's own __new__ would show.
        _run(
            ClaimedRun,
            (
                run_id,
                name,
                version,
                # In a database without an encoding it may be no UTF-8: then it is no JSON either.
                None if input is None else input.decode("utf-8", "backslashreplace"),
                claim_no,
                *counts,
                due_at[run_id],
                claimed_at,
                run_id in recovered,
                claim_no > 1 and claim_no != first,
                wake_no,
                first,
                None,  # of which schedule, is asked for apart from the claim
                named,
                since is not None and since < due_at[run_id],
                None if told is None else told.decode("utf-8", "backslashreplace"),
                server,
            ),
        )
        for run_id, name, version, input, claim_no, *counts, wake_no, first, named, since, told in (
            zip(*columns, strict=True)
        )
    ]
    runs.sort(key=_DUE_AT)
    return runs


def _current(rows: list[asyncpg.Record]) -> list[RecordedStep]:
    """The history without what a claim recorded in the moment it was lost, or before a retry.

    Where the next claim settled a step again, only that one went on from its own result. Attempts
    of a step that was given new ones are not counted against these.
    """
    steps = [RecordedStep._make(row[2:]) for row in rows]
    newest: dict[str, int] = {}
    reopened: dict[str, datetime] = {}
    repeated = False
    for row, step in zip(rows, steps, strict=True):
        if step.reopened:
            at = row["created_at"]
            reopened[step.step_name] = max(at, reopened.get(step.step_name, at))
        elif _settles(step):
            repeated = repeated or step.step_name in newest
            newest[step.step_name] = max(step.claim_no, newest.get(step.step_name, 0))
    if repeated:
        kept = [not _settles(s) or s.claim_no == newest[s.step_name] for s in steps]
    elif reopened:
        kept = [True] * len(steps)
    else:
        return steps
    return [
        step
        for step, keep, row in zip(steps, kept, rows, strict=True)
        if keep and not _forgiven(step, row["created_at"], reopened)
    ]


def _settles(step: RecordedStep) -> bool:
    return step.final or step.canceled or step.status == StepStatus.SUCCEEDED


def _forgiven(step: RecordedStep, created_at: datetime, reopened: Mapping[str, datetime]) -> bool:
    """A failed attempt from before the step was reopened."""
    if step.status != StepStatus.FAILED or step.reopened or step.completion_no is not None:
        return False
    return step.step_name in reopened and created_at < reopened[step.step_name]


def _is_of_a_value(error: BackendError) -> bool:
    """Whether some row is at fault, and not the database or what we may do there."""
    return isinstance(error, UnreadableAnswer) or error.fault is Fault.VALUE


def _unreadable(run_id: UUID, error: Exception) -> RecordedStep:
    return RecordedStep(
        step_name="",
        kind=UNREADABLE,
        status=UNREADABLE,
        attempt=1,
        claim_no=0,
        output=None,
        error=str(error),
        context=None,
        resume_at=None,
        id=run_id,
    )
