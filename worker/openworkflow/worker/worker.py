"""The worker: claims runs, executes many at once, drains on request.

worker = ow.new_worker(workflows=[send_welcome_email], concurrency=100)
await worker.start()
...
await worker.stop()
"""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from openworkflow.backend.backend import BackendPostgres, ClaimedRun, RecordedStep, WorkerSession
from openworkflow.core.errors import BackendError, ConfigurationError, PoisonPill
from openworkflow.core.failure import Failure
from openworkflow.core.serialization import DEFAULT_PAYLOAD_LIMIT
from openworkflow.core.workflow import Registry, Workflow
from openworkflow.engine.execution import Execution, Services
from openworkflow.engine.history import History
from openworkflow.engine.journal import DatabaseClock, Journal
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
from openworkflow.telemetry.logs import log_context
from openworkflow.telemetry.metrics import Metrics
from openworkflow.worker.heartbeat import Heartbeat
from openworkflow.worker.poller import Poller

logger = logging.getLogger(__name__)

LOOP_TICK_SECONDS = 0.25
ANNOUNCE_SECONDS = 0.5
"""A step function still running after this long gets its `running` row."""
HAND_BACK_SECONDS = 5.0
"""What is left of a drain for writing that the runs were handed back."""

DEFAULT_COLLECTOR_THRESHOLD = 2000
"""Python 3.13's; older ones have less."""
COLLECTOR_THRESHOLD = 50_000
"""Allocations between two collections."""

OUTCOMES = {
    Completed: "succeeded",
    Failed: "failed",
    Rescheduled: "retried",
    Parked: "parked",
    Released: "released",
    Lost: "lost",
}


class Worker:
    """Runs workflows of one namespace; made by `OpenWorkflow.new_worker`.

    `concurrency` is the number of runs in progress at once, `lease` how long a claim holds without
    a heartbeat (a third of it apart), `drain` how long `stop()` lets running steps go on.
    A run whose worker died `max_crashes` times without recording a step in between is failed.
    Raises ConfigurationError for values out of range or workflows given twice.
    """

    def __init__(
        self,
        backend: BackendPostgres,
        workflows: Iterable[Workflow[Any, Any]],
        *,
        concurrency: int = 100,
        lease: timedelta = timedelta(seconds=30),
        drain: timedelta = timedelta(seconds=30),
        worker_id: str | None = None,
        metrics: Metrics | None = None,
        payload_limit: int = DEFAULT_PAYLOAD_LIMIT,
        max_crashes: int = 5,
    ) -> None:
        self._registry = Registry(workflows)
        if not self._registry.keys():
            raise ConfigurationError("a worker needs at least one workflow: workflows=[...]")
        _check("concurrency", concurrency, 1, 10_000)
        _check("max_crashes", max_crashes, 1, 1_000_000)
        _check("lease (seconds)", lease.total_seconds(), 1, 86_400)
        _check("drain (seconds)", drain.total_seconds(), 0, 86_400)
        self.worker_id = worker_id or f"{socket.gethostname()}/{uuid4().hex[:8]}"
        self.concurrency, self._max_crashes = concurrency, max_crashes
        self._backend, self._lease, self._drain = backend, lease, drain
        self._payload_limit = payload_limit
        self.metrics = metrics or Metrics(backend.namespace_id)
        self.metrics.serve({workflow.name for workflow in self._registry})
        self._executions: dict[UUID, Execution] = {}
        self._draining, self._empty = asyncio.Event(), asyncio.Event()
        self._started: asyncio.Future[None] | None = None
        self._main: asyncio.Task[None] | None = None
        self._last_tick = time.monotonic()

    async def start(self) -> None:
        """Connect and begin to claim; returns once the worker is ready.

        Raises BackendError when the database cannot be reached.
        """
        if self._main is not None:
            raise ConfigurationError("this worker was started already; make a new one")
        loop = asyncio.get_running_loop()
        self._started = loop.create_future()
        self._main = loop.create_task(self._run(), name=f"openworkflow worker {self.worker_id}")
        await asyncio.wait({self._main, self._started}, return_when=asyncio.FIRST_COMPLETED)
        if self._main.done():
            await self._main
        logger.info("worker %s started, %d slots", self.worker_id, self.concurrency)

    async def stop(self) -> None:
        """Stop claiming, give running steps the grace period, hand back what is left."""
        if self._main is None:
            return
        self._draining.set()
        await asyncio.shield(self._main)
        logger.info("worker %s stopped", self.worker_id)

    async def run_until_signal(self) -> None:
        """Start, serve until SIGTERM or SIGINT, drain; a second signal cuts the drain short."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()

        def on_signal() -> None:
            if stop.is_set():
                self._interrupt_all(Released())
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        await self.start()
        assert self._main is not None
        stopping = loop.create_task(stop.wait())
        await asyncio.wait({self._main, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        await self.stop()

    @property
    def slots_used(self) -> int:
        """Runs in progress."""
        return len(self._executions)

    def live(self) -> tuple[bool, str]:
        """For `/livez`: whether the event loop still turns; says nothing of the database."""
        age = time.monotonic() - self._last_tick
        return age < 300, f"event loop last seen {age:.1f} s ago"

    def ready(self) -> tuple[bool, str]:
        """For `/readyz`: started, not draining, and the heartbeat reaches the database."""
        if self._draining.is_set():
            return False, "draining"
        if self._started is None or not self._started.done():
            return False, "starting"
        age = self._heartbeat.age()
        if age > self._lease.total_seconds():
            return False, f"no heartbeat reached the database for {age:.0f} s"
        return True, "ready"

    # -- the process -------------------------------------------------------------------------

    async def _run(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(patient_collector())
            session = await stack.enter_async_context(self._session())
            listener = await stack.enter_async_context(self._backend.listen())
            listener.on_work(self._on_work)
            listener.on_canceled(self._on_canceled)
            self._assemble(session, await self._backend.now())
            stack.enter_context(self._threads())
            self._heartbeat.start()
            stack.callback(self._heartbeat.stop)
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                services = [
                    tasks.create_task(self._journal.run()),
                    tasks.create_task(self._poller.run(lambda: listener.healthy)),
                    tasks.create_task(self._tick()),
                ]
                assert self._started is not None
                self._started.set_result(None)
                await self._draining.wait()
                await self._hand_back()
                for service in services:
                    service.cancel()

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[WorkerSession]:
        session = await self._backend.open_session(connections=2)
        try:
            yield session
        finally:
            await session.close()

    @contextlib.contextmanager
    def _threads(self) -> Any:
        # Not `with ThreadPoolExecutor()`: that would wait for threads nobody can stop.
        try:
            yield
        finally:
            for threads in (self._services.step_threads, self._services.workflow_threads):
                threads.shutdown(wait=False, cancel_futures=True)

    def _assemble(self, session: WorkerSession, now: Any) -> None:
        batch = max(1, self.concurrency // (4 if self.concurrency > 40 else 2))
        clock = DatabaseClock(now)
        self._claim_session = session
        self._poller = Poller(
            self._backend,
            clock,
            self.metrics,
            keys=self._registry.keys(),
            slots=self.concurrency,
            batch=batch,
            start=self._start,
        )
        self._journal = Journal(
            self._backend,
            session,
            self._poller,
            clock,
            self.metrics,
            worker_id=self.worker_id,
            lease=self._lease,
            batch=batch,
        )
        self._poller.kick = self._journal.kick
        self._services = Services(
            self._journal,
            self.metrics,
            ThreadPoolExecutor(self.concurrency, "openworkflow-step"),
            ThreadPoolExecutor(self.concurrency, "openworkflow-workflow"),
            self._payload_limit,
        )
        self._heartbeat = Heartbeat(
            self._backend,
            self.worker_id,
            self._lease,
            held=self._poller.claims,
            on_lost=self._on_lost,
            metrics=self.metrics,
        )

    async def _tick(self) -> None:
        while True:
            self._last_tick = time.monotonic()
            self.metrics.slots(self._poller.used, self.concurrency)
            for execution in list(self._executions.values()):
                execution.announce(ANNOUNCE_SECONDS)
            await asyncio.sleep(LOOP_TICK_SECONDS)
            self.metrics.event_loop_lag(
                max(0.0, time.monotonic() - self._last_tick - LOOP_TICK_SECONDS)
            )

    async def _hand_back(self) -> None:
        """Let running steps end within the grace period, then release what is left."""
        self._poller.stop()
        if self._executions:
            logger.info("draining: %d runs in progress", len(self._executions))
        for execution in list(self._executions.values()):
            execution.drain()
        await self._emptied(self._drain.total_seconds())
        self._interrupt_all(Released())
        if not await self._emptied(HAND_BACK_SECONDS):
            logger.warning("%d runs could not be handed back", len(self._executions))

    async def _emptied(self, seconds: float) -> bool:
        if self._executions:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), seconds)
        return not self._executions

    def _interrupt_all(self, outcome: Outcome) -> None:
        for execution in list(self._executions.values()):
            execution.interrupt(outcome)

    # -- runs --------------------------------------------------------------------------------

    def _start(self, claimed: list[ClaimedRun]) -> None:
        known = [run for run in claimed if run.has_history]
        for run in claimed:
            self.metrics.schedule_to_start(
                run.workflow_name, max(0.0, (run.claimed_at - run.due_at).total_seconds())
            )
            if not run.has_history:
                self._tasks.create_task(self._execute(run, ()))
        if known:
            self._tasks.create_task(self._start_known(known))

    async def _start_known(self, runs: list[ClaimedRun]) -> None:
        """Runs that were claimed before may have steps to replay."""
        while True:
            try:
                histories = await self._claim_session.load_histories([run.id for run in runs])
                break
            except BackendError as error:
                self.metrics.database_error("history")
                logger.warning("could not load the histories of %d runs: %s", len(runs), error)
                await asyncio.sleep(1.0)
        for run in runs:
            self._tasks.create_task(self._execute(run, histories.get(run.id, ())))

    async def _execute(self, run: ClaimedRun, steps: Iterable[RecordedStep]) -> None:
        workflow = self._registry.get(run.workflow_name, run.version)
        log_context.set(
            {
                "namespace_id": self._backend.namespace_id,
                "workflow": run.workflow_name,
                "run_id": run.id,
                "attempt": run.attempts + 1,
            }
        )
        execution = Execution(run, workflow, History(steps), self._services)
        self._executions[run.id] = execution
        started = time.perf_counter()
        try:
            outcome = await self._outcome(run, execution)
            self._poller.release_slot()
            await self._conclude(run, outcome, execution.progress, started)
        finally:
            if self._executions.get(run.id) is execution:
                del self._executions[run.id]
            self._poller.forget(run)
            if not self._executions:
                self._empty.set()

    async def _outcome(self, run: ClaimedRun, execution: Execution) -> Outcome:
        if run.crashes >= self._max_crashes:
            return Failed(_poisoned(run))
        try:
            return await execution.run()
        except Exception as error:  # a defect of ours: it may cost this run, not its neighbours
            logger.exception("internal error while executing a run")
            return Failed(Failure.from_exception(error))

    async def _conclude(
        self, run: ClaimedRun, outcome: Outcome, progress: bool, started: float
    ) -> None:
        end = run_end(run, outcome, progress=progress)
        if end is not None:
            try:
                written = await self._journal.end(end)
            except BackendError as error:
                failure = Failure.from_exception(error)
                end = run_end(run, Failed(failure), progress=progress)
                assert end is not None
                written, outcome = await self._journal.end(end), Failed(failure)
            if not written:
                outcome = Lost()
        if isinstance(outcome, Parked):
            self._poller.resume_at(outcome.resume_at)
        if isinstance(outcome, Failed):
            logger.warning("run failed: %s", outcome.failure.message)
        if isinstance(outcome, Lost):
            self.metrics.claim_lost(run.workflow_name)
            logger.info("the claim was lost, or the run canceled: nothing more is recorded")
        self.metrics.run_finished(
            run.workflow_name, OUTCOMES[type(outcome)], time.perf_counter() - started
        )

    def _on_lost(self, lost: set[tuple[UUID, int]]) -> None:
        for run_id, claim_no in lost:
            execution = self._executions.get(run_id)
            if execution is not None and execution.claim.claim_no == claim_no:
                execution.interrupt(Lost())

    def _on_canceled(self, run_id: UUID) -> None:
        execution = self._executions.get(run_id)
        if execution is not None:
            execution.interrupt(Lost())

    def _on_work(self) -> None:
        self._poller.wake()


@contextlib.contextmanager
def patient_collector() -> Iterator[None]:
    """Let the garbage collector look less often, unless somebody has tuned it already.

    A thousand runs in progress are some ten thousand objects, all alive; with Python's defaults
    the collector walks them again and again, which took half of a busy worker's time.
    """
    before = gc.get_threshold()
    if before[0] <= DEFAULT_COLLECTOR_THRESHOLD:
        gc.set_threshold(COLLECTOR_THRESHOLD, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _poisoned(run: ClaimedRun) -> Failure:
    return Failure.from_exception(
        PoisonPill(
            f"{run.crashes} workers died while they executed this run, and none recorded a step in "
            "between; it is not given to another one. Look at the workers' last logs (out of "
            "memory? a crash in native code?), then start it again: openworkflow runs retry "
            f"{run.id}"
        )
    )


def _check(what: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ConfigurationError(f"{what} must be between {least:g} and {most:g}, not {value:g}")
