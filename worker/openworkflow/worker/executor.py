"""The runs in progress of one worker: each from its claim to its recorded end."""

import asyncio
import logging
import time
from collections.abc import Iterable
from uuid import UUID

from openworkflow.backend.backend import (
    BackendPostgres,
    ClaimedRun,
    RecordedStep,
    WorkerSession,
)
from openworkflow.core.errors import BackendError, PoisonPill, SerializationError
from openworkflow.core.failure import Failure
from openworkflow.core.registry import Registry
from openworkflow.engine.execution import Execution
from openworkflow.engine.history import History
from openworkflow.engine.outcome import (
    Completed,
    Failed,
    Lost,
    Outcome,
    Parked,
    Released,
    Rescheduled,
    run_end,
)
from openworkflow.engine.recorder import Recorder
from openworkflow.engine.services import Services
from openworkflow.telemetry.logs import log_context
from openworkflow.worker.poller import Poller

logger = logging.getLogger(__name__)

ANNOUNCE_SECONDS = 0.5
"""A step function still running after this long gets its `running` row."""
HISTORY_RETRY_SECONDS = 1.0
HAND_BACK_SECONDS = 5.0
"""What is left of a drain for writing that the runs were handed back."""
OUTCOMES = {
    Completed: "succeeded",
    Failed: "failed",
    Rescheduled: "retried",
    Parked: "parked",
    Released: "released",
    Lost: "lost",
}


class Executor:
    """Executes claimed runs as tasks of `tasks`, the worker's group."""

    def __init__(
        self,
        backend: BackendPostgres,
        session: WorkerSession,
        registry: Registry,
        max_crashes: int,
    ) -> None:
        self._namespace_id, self._session = backend.namespace_id, session
        self._registry, self._max_crashes = registry, max_crashes
        self._executions: dict[UUID, Execution] = {}
        self._draining = False

    def attach(self, tasks: asyncio.TaskGroup, poller: Poller, services: Services) -> None:
        """What runs need, which itself needs to know where claimed runs go."""
        self._tasks, self._poller, self._services = tasks, poller, services
        self._metrics = services.metrics

    def __len__(self) -> int:
        return len(self._executions)

    def start(self, claimed: list[ClaimedRun]) -> None:
        """Execute runs that were just claimed."""
        for run in claimed:
            waited = (run.claimed_at - run.due_at).total_seconds()
            self._metrics.schedule_to_start(run.workflow_name, max(0.0, waited))
            if run.crashes:
                self._metrics.crashed(run.workflow_name)
            if not run.has_history:
                self._tasks.create_task(self._execute(run, ()))
        if known := [run for run in claimed if run.has_history]:
            self._tasks.create_task(self._start_known(known))

    def announce(self) -> None:
        """Make steps visible that have been running for a while."""
        young = time.perf_counter() - ANNOUNCE_SECONDS
        for execution in self._executions.values():  # the oldest first
            if execution.started > young:
                break
            execution.recorder.announce(ANNOUNCE_SECONDS)

    async def drain(self, seconds: float) -> None:
        """Let running steps end within the grace period, then hand back what is left."""
        self._draining = True
        if self._executions:
            logger.info("draining: %d runs in progress", len(self._executions))
        for execution in list(self._executions.values()):
            execution.drain()
        await self._poller.emptied(seconds)
        self.interrupt_all(Released())
        if not await self._poller.emptied(HAND_BACK_SECONDS):
            logger.warning("%d runs could not be handed back", len(self._executions))

    def interrupt_all(self, outcome: Outcome) -> None:
        """Stop all executions where they are."""
        for execution in list(self._executions.values()):
            execution.interrupt(outcome)

    def lose(self, claims: Iterable[tuple[UUID, int]]) -> None:
        """Stop what the heartbeat found to be claimed by others, or canceled."""
        for run_id, claim_no in claims:
            execution = self._executions.get(run_id)
            if execution is not None and execution.claim.claim_no == claim_no:
                execution.interrupt(Lost())

    def cancel(self, run_id: UUID) -> None:
        """Stop a run that was canceled."""
        if (execution := self._executions.get(run_id)) is not None:
            execution.interrupt(Lost())

    async def _start_known(self, runs: list[ClaimedRun]) -> None:
        """Runs that were claimed before may have steps to replay."""
        histories = None
        while histories is None:
            try:
                histories = await self._session.load_histories([run.id for run in runs])
            except BackendError as error:
                self._metrics.database_error("history")
                logger.warning("could not load the histories of %d runs: %s", len(runs), error)
                await asyncio.sleep(HISTORY_RETRY_SECONDS)
        for run in runs:
            self._tasks.create_task(self._execute(run, histories.get(run.id, ())))

    async def _execute(self, run: ClaimedRun, steps: Iterable[RecordedStep]) -> None:
        log_context.set(
            {
                "namespace_id": self._namespace_id,
                "workflow": run.workflow_name,
                "run_id": run.id,
                "attempt": run.attempts + 1,
            }
        )
        workflow = self._registry.get(run.workflow_name, run.version)
        execution = Execution(run, workflow, History(steps), self._services)
        self._executions[run.id] = execution
        if self._draining:
            execution.drain()
        try:
            outcome = await self._outcome(run, execution)
            self._poller.release_slot()
            outcome = await self._record(run, outcome, execution.recorder)
            self._report(run, outcome, time.perf_counter() - execution.started)
        finally:
            self._poller.forget(run)
            if self._executions.get(run.id) is execution:
                del self._executions[run.id]

    async def _outcome(self, run: ClaimedRun, execution: Execution) -> Outcome:
        if run.crashes >= self._max_crashes:
            return Failed(_poisoned(run))
        try:
            return await execution.run()
        except Exception as error:  # a defect of ours: it may cost this run, not its neighbours
            logger.exception("internal error while executing a run")
            return Failed(Failure.from_exception(error))

    async def _record(self, run: ClaimedRun, outcome: Outcome, recorder: Recorder) -> Outcome:
        """Write the end; returns what became of it."""
        try:
            return outcome if await self._end(run, outcome, recorder) else Lost()
        except (BackendError, SerializationError) as error:
            # PostgreSQL refuses a result: the run's own, or that of its last step.
            failed = Failed(Failure.from_exception(await _cause(error, recorder)))
            return failed if await self._end(run, failed, recorder) else Lost()

    async def _end(self, run: ClaimedRun, outcome: Outcome, recorder: Recorder) -> bool:
        end = run_end(run, outcome, progress=recorder.progress or not recorder.settled)
        return end is not None and await recorder.end(end)

    def _report(self, run: ClaimedRun, outcome: Outcome, seconds: float) -> None:
        self._metrics.run_finished(run.workflow_name, OUTCOMES[type(outcome)], seconds)
        match outcome:
            case Parked(resume_at):
                self._poller.resume_at(resume_at)
            case Rescheduled(failure, delay):
                self._poller.resume_in(delay)
                logger.info("run failed, next attempt in %.1f s: %s", delay, failure.summary)
            case Failed(failure):
                logger.warning("run failed: %s", failure.summary)
            case Lost():
                self._metrics.claim_lost(run.workflow_name)
                logger.info("run canceled, or claimed by another worker: nothing more is recorded")


async def _cause(error: Exception, recorder: Recorder) -> Exception:
    """The step's refusal, where that is why the end was refused."""
    try:
        await recorder.durable()
    except SerializationError as refused:
        return refused
    return error


def _poisoned(run: ClaimedRun) -> Failure:
    return Failure.from_exception(
        PoisonPill(
            f"{run.crashes} workers died while they executed this run, and none recorded a step in "
            "between; it is not given to another one. Look at the workers' last logs (out of "
            "memory? a crash in native code?), then start it again: openworkflow runs retry "
            f"{run.id}"
        )
    )
