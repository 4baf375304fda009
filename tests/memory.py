"""The engine without a database: a journal that keeps what is written in memory.

A write is durable once it is *flushed*: at once, or when the test says so. What was not flushed is
lost when an execution is killed, as it would be with its worker.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from openworkflow import Workflow
from openworkflow.backend.records import EventWrite, ProgressWrite, StepSuccess, StepWrite
from openworkflow.core.progress import DEFAULT_MAX_EVENTS, Told
from openworkflow.core.recorded import ClaimedRun, RecordedStep
from openworkflow.core.step_attempt import StepKind, StepStatus
from openworkflow.engine.execution import Execution
from openworkflow.engine.guard import LeaseGuard
from openworkflow.engine.history import History
from openworkflow.engine.journal import DatabaseClock, Written
from openworkflow.engine.library import Library
from openworkflow.engine.outcome import Outcome
from openworkflow.engine.services import Limits, Services
from openworkflow.engine.slot import NO_SLOT, Slot
from openworkflow.engine.threads import Threads
from openworkflow.telemetry.metrics import Metrics
from openworkflow.worker.slots import Slots


def _is_open_for(old: RecordedStep, row: StepWrite) -> bool:
    """See flush_updates in flush.sql."""
    newer = row.completion_no is not None and old.claim_no < row.claim_no
    return old.status == StepStatus.RUNNING or newer


class MemoryJournal:
    """Keeps the rows of one run; `held` False makes every further write find its claim lost."""

    def __init__(self) -> None:
        self.clock = DatabaseClock(datetime.now(UTC))
        self.rows: dict[UUID, RecordedStep] = {}
        self.events: dict[int, EventWrite] = {}
        self.told: Told | None = None
        self.statuses: list[str | None] = []
        """Those that were written, in their order."""
        self.tags: dict[str, str] = {}
        self.waiting: list[tuple[Any, Written]] = []
        self.loop: asyncio.AbstractEventLoop
        self.writes = 0
        """How many rows were written."""
        self.at_once = True
        self.held = True
        self.on_flush: Callable[[], None] = lambda: None

    def write(self, row: Any) -> Written:
        """See Journal.write."""
        written = Written(loop=self.loop)  # not that of the workflow, which may be the running one
        written.told = None
        written.rows = [row]
        self.waiting.append((row, written))
        self.writes += 1
        if self.at_once:
            self.loop.call_soon(self.flush)
        return written

    def write_together(self, rows: Any) -> Written:
        """See Journal.write_together."""
        return self.write(list(rows))

    def append(self, written: Written, row: Any) -> bool:
        """See Journal.append; nothing travels together here."""
        return False

    def flush(self, count: int | None = None) -> None:
        """Make the first writes durable; all of them by default."""
        sent, self.waiting = self.waiting[:count], [] if count is None else self.waiting[count:]
        for row, _ in sent:
            if self.held:
                self._store(row)
        for _, written in sent:
            written.settle(self.held)
        if sent:
            self.on_flush()

    def _store(self, row: Any) -> None:
        if isinstance(row, list):
            for each in row:
                self._store(each)
        elif isinstance(row, StepSuccess):
            self.rows[row.id] = RecordedStep(
                row.step_name,
                StepKind.RUN.value,
                StepStatus.SUCCEEDED.value,
                1,
                row.claim_no,
                row.output,
                None,
                row.context,
                None,
                row.id,
                row.completion_no,
            )
        elif isinstance(row, StepWrite):
            self._store_write(row)
        elif isinstance(row, EventWrite):
            self.events.setdefault(row.event_no, row)
        elif isinstance(row, ProgressWrite):
            self._store_progress(row)

    def _store_progress(self, row: ProgressWrite) -> None:
        counts = json.loads(row.counts)
        self.told = Told(row.claim_no, row.events, row.events_from, counts, False)
        if row.has_status:
            self.statuses.append(row.status)
        self.tags |= json.loads(row.tags or "{}")

    def _store_write(self, row: StepWrite) -> None:
        old = self.rows.get(row.id)
        if row.update and (old is None or not _is_open_for(old, row)):
            return
        context = row.context or (old.context if old is not None else None)
        marks = {
            name: f'"{name}": true' in (context or "")
            for name in ("final", "interrupted", "canceled", "reopened")
        }
        self.rows[row.id] = RecordedStep(
            old.step_name if old is not None else row.step_name,
            old.kind if old is not None else row.kind.value,
            row.status.value,
            old.attempt if old is not None else row.attempt,
            row.claim_no,
            row.output,
            row.error,
            context,
            row.resume_at or (old.resume_at if old is not None else None),
            row.id,
            row.completion_no,
            **marks,
        )


class Run:
    """One run of a workflow, executed again and again on the same rows."""

    def __init__(
        self, workflow: Workflow[Any, Any], input: str | None = None, *, limit: int = 0
    ) -> None:
        self.workflow, self.input, self.limit = workflow, input, limit
        self.id = uuid4()
        self.journal = MemoryJournal()
        self.guard = LeaseGuard()
        self.slots: Slots | None = None
        """Set it, and the run may rest in memory without a slot."""
        self.claim_no = 0
        """The number of the last claim."""
        self.threads = Threads(4, "test")
        self.rest_seconds = 0.0
        self.max_events = DEFAULT_MAX_EVENTS

    @property
    def steps(self) -> list[RecordedStep]:
        """The rows, in the order in which they were first written."""
        return list(self.journal.rows.values())

    def execution(self, rows: Iterable[RecordedStep] | None = None, **claim: Any) -> Execution:
        """An execution under a new claim; inside a running event loop."""
        now = self.journal.clock.now()
        self.claim_no += 1
        self.journal.loop = asyncio.get_running_loop()
        run = ClaimedRun(
            **{
                "id": self.id,
                "workflow_name": self.workflow.name,
                "version": None,
                "input": self.input,
                "claim_no": self.claim_no,
                "attempts": 0,
                "crashes": 0,
                "deadline_at": None,
                "due_at": now,
                "claimed_at": now,
                "recovered": False,
                "has_history": True,
                **claim,
            }
        )
        services = Services(
            self.journal,  # type: ignore[arg-type]
            Metrics("test"),
            self.threads,
            self.threads,
            1_000_000,
            self.guard,
            Limits(self.limit, self.max_events),
            self.rest_seconds,
            library=Library(self._told),
        )
        history = History(self.steps if rows is None else rows)
        slot: Slot = NO_SLOT
        if self.slots is not None:
            self.slots.reserve(1)
            slot = self.slots.fill(1, 1)[0]
        return Execution(run, self.workflow, history, services, slot)

    async def _told(self, _run_ids: Sequence[UUID]) -> dict[UUID, Told]:
        told = self.journal.told
        return {} if told is None else {self.id: told}

    def start(self, execution: Execution) -> asyncio.Task[Outcome]:
        """Execute it as a worker does: in a context that it knows."""
        execution.context = context = copy_context()
        return asyncio.get_running_loop().create_task(execution.run(), context=context)

    async def execute(self, **claim: Any) -> Outcome:
        """Execute once, to an outcome, and make what it wrote durable."""
        outcome = await self.start(self.execution(**claim))
        self.journal.flush()
        return outcome

    def wake(self) -> None:
        """Let every sleep and every retry be over."""
        past = self.journal.clock.now() - timedelta(seconds=1)
        for row in self.steps:
            if row.resume_at is not None and row.completion_no is None:
                self.journal.rows[row.id] = row._replace(resume_at=past)
