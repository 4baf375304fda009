"""The worker: claims runs, executes many at once, drains on request.

worker = ow.new_worker(workflows=[send_welcome_email], concurrency=100)
await worker.start()
...
await worker.stop()
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any, Self
from uuid import UUID, uuid4

from openworkflow.backend.backend import BackendPostgres, WorkerSession
from openworkflow.backend.liveness import RELEASE_SECONDS
from openworkflow.backend.notifications import Listener
from openworkflow.core.asked import check_is
from openworkflow.core.errors import BackendError, ConfigurationError
from openworkflow.core.guesses import AnswersGuesses
from openworkflow.core.options import OF_A_WORKER, refuse_unknown
from openworkflow.core.registry import Registry
from openworkflow.core.stopping import StopsAtExit
from openworkflow.core.workflow import Workflow
from openworkflow.engine.outcome import Released
from openworkflow.telemetry.metrics import Metrics
from openworkflow.worker.collector import patient_collector
from openworkflow.worker.declared import SealedWishes, declared, keep_schedules
from openworkflow.worker.executor import HAND_BACK_SECONDS
from openworkflow.worker.limited import declared_limits, keep_limits
from openworkflow.worker.options import WorkerOptions
from openworkflow.worker.orphans import end_orphans
from openworkflow.worker.parts import Parts
from openworkflow.worker.served import say_what_is_served

logger = logging.getLogger(__name__)

LOOP_TICK_SECONDS = 0.25
LIVE_SECONDS = 300.0
"""A worker calls itself dead without a turn of the event loop, or a thread to give, for so long."""
CANCEL_SECONDS = RELEASE_SECONDS + 0.5
"""After a drain, how long canceled tasks have to end: those that ask a silent database take 2 s."""
RETURN_SECONDS = 2.0  # for runs that are handed back in the end
LEAVE_SECONDS = RELEASE_SECONDS + CANCEL_SECONDS + RETURN_SECONDS
"""After a drain, how long a worker waits for what does not let itself be stopped."""
CLOSE_SECONDS = 5.0  # for the connections
STOP_SECONDS = 24.0
"""`stop` returns so long after the grace period: 5 s, 6.5 s to leave, 5 s twice to disconnect."""
STOPPED = "stopped"


class Worker(AnswersGuesses, StopsAtExit):
    """Runs workflows of one namespace; made by `OpenWorkflow.new_worker`.

    The `options` are those of WorkerOptions. `concurrency` is the number of runs in progress at
    once, `lease` how long a claim holds without a heartbeat (a third of it apart), `drain` how long
    `stop()` lets running steps go on, `rest` how long a run may wait in memory instead of being
    parked. A run whose worker died `max_crashes` times without recording
    a step in between is failed, and so is one with more than `max_step_attempts` attempts of steps
    (0: no limit). `build_id` names the code this worker runs; with the `build_policy` "pinned" its
    runs, unless their workflow says otherwise, are finished by workers of that build only.
    Raises ConfigurationError for values out of range or workflows given twice.
    """

    parts_of: type[Parts] = Parts

    def __init__(
        self,
        backend: BackendPostgres,
        workflows: Iterable[Workflow[Any, Any]],
        *,
        worker_id: str | None = None,
        metrics: Metrics | None = None,
        **options: Any,
    ) -> None:
        self._registry = Registry(workflows)
        if not self._registry.keys():
            raise ConfigurationError("a worker needs at least one workflow: workflows=[...]")
        known = ("workflows", "worker_id", "metrics", *WorkerOptions.__annotations__)
        refuse_unknown("Worker", options, known, OF_A_WORKER)
        self._options = WorkerOptions(**options)
        self._payloads = self._options.payloads(backend.namespace_id)
        self._declared = declared(self._registry, self._payloads.plain_limit)
        self._limits = declared_limits(self._registry)
        self._backend = backend
        self.worker_id = worker_id or f"{socket.gethostname()}/{uuid4().hex[:8]}"
        if metrics is not None:
            check_is("metrics", metrics, Metrics, "the Metrics of another worker")
        self.metrics = metrics or Metrics(backend.namespace_id)
        self.metrics.serve({workflow.name for workflow in self._registry})
        self._parts: Parts | None = None
        self._draining = asyncio.Event()
        self._started: asyncio.Future[None] | None = None
        self._main: asyncio.Task[None] | None = None
        self._last_tick = self._last_thread = time.monotonic()
        self._left = 0
        self._handed_back = False

    def __repr__(self) -> str:
        names = ", ".join(sorted({workflow.name for workflow in self._registry}))
        return f"<Worker {self.worker_id!r} of {names:.80}>"

    async def start(self) -> None:
        """Connect and begin to claim; returns once the worker is ready.

        Raises BackendError when the database cannot be reached. Cancelling it ends the worker.
        """
        if self._main is not None:
            raise ConfigurationError("this worker was started already; make a new one")
        loop = asyncio.get_running_loop()
        self._started = loop.create_future()
        self._main = loop.create_task(self._run(), name=f"openworkflow worker {self.worker_id}")
        try:
            await asyncio.wait({self._main, self._started}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # nobody has a worker to stop
            self._main.cancel()
            await asyncio.wait({self._main})
            raise
        if self._main.done():
            await self._main
        self._main.add_done_callback(self._log_end)
        logger.info("worker %s started, %d slots", self.worker_id, self.concurrency)

    async def stop(self) -> None:
        """Stop claiming, give running steps the grace period, hand back what is left.

        Returns within the grace period and STOP_SECONDS, whatever the workflows and the database
        do; what does not let itself be stopped is left alone. Raises what ended the worker before.
        """
        if self._main is None:
            return
        self._draining.set()
        await asyncio.wait({self._main}, timeout=self._grace + STOP_SECONDS)
        if not self._main.done():
            logger.error("the worker does not let itself be stopped, leaving it")
            self._left = max(1, self._left)
            self._main.cancel()
            return
        if self._main.cancelled():  # by a start that was given up, or an earlier stop
            return
        await self._main
        logger.info("worker %s stopped", self.worker_id)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def run_until_signal(self) -> None:
        """Start, serve until SIGTERM or SIGINT, drain; a second signal cuts the drain short.

        For a process of its own: it is ended, with code 1, if something does not let itself be
        stopped, since asyncio would wait for it.
        """
        loop, stop = asyncio.get_running_loop(), asyncio.Event()

        def on_signal() -> None:
            if stop.is_set() and self._parts is not None:
                self._parts.executor.interrupt_all(Released())
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        await self.start()
        assert self._main is not None
        stopping = loop.create_task(stop.wait())
        await asyncio.wait({self._main, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        stopped = asyncio.ensure_future(self.stop())
        await asyncio.wait({stopped}, timeout=self._grace + HAND_BACK_SECONDS + LEAVE_SECONDS)
        # The run of a step that swallows its cancellation is over; the step's own task is not.
        if strays := sum(task.cancelling() > 0 for task in asyncio.all_tasks()):
            logger.error("%d tasks do not let themselves be stopped, leaving them", strays)
        if self._left or strays or not stopped.done():
            logging.shutdown()
            os._exit(1)
        await stopped

    @property
    def concurrency(self) -> int:
        """Runs in progress at once."""
        return self._options.concurrency

    @property
    def slots_used(self) -> int:
        """Runs in this process: in progress, or resting."""
        return 0 if self._parts is None else len(self._parts.executor)

    def live(self) -> tuple[bool, str]:
        """For `/livez`: the event loop turns, and a restart would mend nothing.

        Says nothing of the database. A worker that has ended by itself is dead, one that was
        stopped is not.
        """
        if (ended := self._ended()) is not None:
            return ended == STOPPED, ended
        now = time.monotonic()
        if now - self._last_tick >= LIVE_SECONDS:
            return False, f"event loop last seen {now - self._last_tick:.1f} s ago"
        if now - self._last_thread >= LIVE_SECONDS:
            return False, self._obstacle() or "no threads for sync functions"
        return True, f"event loop last seen {now - self._last_tick:.1f} s ago"

    def ready(self) -> tuple[bool, str]:
        """For `/readyz`: started, not draining, and nothing keeps it from claiming and writing."""
        if (ended := self._ended()) is not None:
            return False, ended
        if self._draining.is_set():
            return False, "draining"
        if self._started is None or not self._started.done():
            return False, "starting"
        obstacle = None if self._parts is None else self._parts.trouble()
        return obstacle is None, obstacle or "ready"

    # -- the process -------------------------------------------------------------------------

    async def _run(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(patient_collector())
            session = await stack.enter_async_context(self._session())
            for each in await session.distortions():
                level = logging.WARNING if each.may_be_meant else logging.ERROR
                logger.log(level, "%s; %s", each.found, each.advice)
            if self._options.build_id:
                await self._backend.builds.register(self._options.build_id)
            listener = await stack.enter_async_context(self._backend.listen())
            parts = self._parts = self.parts_of(
                self.worker_id,
                self._options,
                self._registry,
                self._backend,
                session,
                self.metrics,
                await self._backend.now(),
            )
            parts.heartbeat.start()
            stack.push_async_callback(asyncio.to_thread, parts.heartbeat.stop)
            stack.callback(parts.heartbeat.end)  # to wait for its end may be cancelled
            stack.callback(parts.pools.close)
            try:
                await self._serve(parts, listener)
            finally:
                await self._leave(parts, session)

    async def _serve(self, parts: Parts, listener: Listener) -> None:
        def look(run_id: UUID) -> None:
            """The message may be older than the claim: the heartbeat finds out what stands."""
            if parts.executor.executes(run_id):
                parts.heartbeat.hurry()

        listener.on_work(parts.poller.hear)
        listener.on_canceled(look)
        listener.on_woken(parts.mail.hear)
        orphans, build_id = asyncio.Event(), self._options.build_id
        listener.on_orphans(orphans.set)
        async with asyncio.TaskGroup() as tasks:
            services = [
                tasks.create_task(parts.flusher.run()),
                tasks.create_task(parts.poller.run(lambda: listener.healthy)),
                tasks.create_task(parts.executor.run()),
                tasks.create_task(self._tick(parts)),
                tasks.create_task(parts.mail.poll(lambda: listener.healthy)),
                tasks.create_task(
                    say_what_is_served(self._backend.builds, self._registry.keys(), build_id)
                ),
                tasks.create_task(self._keep_schedules()),
                tasks.create_task(end_orphans(self._backend.families, orphans)),
                tasks.create_task(
                    keep_limits(
                        self._backend.limits, self._limits, self._registry.keys(), self.metrics
                    )
                ),
            ]
            assert self._started is not None
            self._started.set_result(None)
            await self._draining.wait()
            parts.claimer.stop()
            self._handed_back = await parts.executor.drain(self._grace)
            if not self._handed_back:
                logger.warning("%d runs could not be handed back", self.slots_used)
            for service in services:
                service.cancel()

    async def _keep_schedules(self) -> None:
        served, build_id = self._registry.keys(), self._options.build_id or None
        schedules, metrics = self._backend.schedules, self.metrics
        wishes = SealedWishes(self._declared, self._payloads)
        await keep_schedules(schedules, wishes, served, build_id, metrics)

    async def _leave(self, parts: Parts, session: WorkerSession) -> None:
        """Leave what is still running to itself, and its runs to other workers."""
        self._left = await parts.executor.leave(CANCEL_SECONDS)
        if self._left:
            logger.error("%d runs do not let themselves be stopped, leaving them", self._left)
        if self._handed_back and not parts.flusher.strays.in_doubt:
            return
        try:
            async with asyncio.timeout(RETURN_SECONDS):
                await session.release_unknown(self.worker_id, ())
        except (BackendError, TimeoutError) as error:
            logger.warning("others take the runs when their leases end: %s", error)

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[WorkerSession]:
        session = await self._backend.open_session(connections=2)
        try:
            yield session
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await session.close()

    async def _tick(self, parts: Parts) -> None:
        while True:
            self._last_tick = time.monotonic()
            if not parts.pools.exhausted:
                self._last_thread = self._last_tick
            elif parts.pools.starved:
                parts.executor.interrupt_all(Released())
            parts.measure()
            parts.executor.announce()
            await asyncio.sleep(LOOP_TICK_SECONDS)
            self.metrics.event_loop_lag(
                max(0.0, time.monotonic() - self._last_tick - LOOP_TICK_SECONDS)
            )

    @property
    def _grace(self) -> float:
        return self._options.drain.total_seconds()

    def _obstacle(self) -> str | None:
        return None if self._parts is None else self._parts.obstacle()

    def _ended(self) -> str | None:
        """How the worker ended; None if it has not, or never began."""
        if self._main is None or not self._main.done():
            return None
        if self._main.cancelled():
            return "canceled"
        error = self._main.exception()
        return STOPPED if error is None else f"ended by {error!r}"

    def _log_end(self, main: asyncio.Task[None]) -> None:
        if (ended := self._ended()) not in (None, STOPPED):
            error = None if main.cancelled() else main.exception()
            logger.critical("worker %s: %s", self.worker_id, ended, exc_info=error)
