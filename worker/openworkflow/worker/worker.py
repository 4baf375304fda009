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
import os
import re
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from openworkflow.backend.backend import BackendPostgres, WorkerSession
from openworkflow.backend.records import ClaimRequest, claim_key
from openworkflow.core.errors import BackendError, ConfigurationError
from openworkflow.core.registry import Registry
from openworkflow.core.serialization import DEFAULT_PAYLOAD_LIMIT
from openworkflow.core.workflow import BuildPolicy, Workflow
from openworkflow.engine.journal import DatabaseClock, Journal
from openworkflow.engine.outcome import Released
from openworkflow.engine.services import Services
from openworkflow.telemetry.metrics import Metrics
from openworkflow.worker.executor import HAND_BACK_SECONDS, Executor
from openworkflow.worker.heartbeat import Heartbeat
from openworkflow.worker.poller import Poller

logger = logging.getLogger(__name__)

LOOP_TICK_SECONDS = 0.25
LIVE_SECONDS = 300.0
"""Without a turn of the event loop for so long, the worker calls itself dead."""
LEAVE_SECONDS = 3.0
"""After a drain, how long a process waits for runs that do not let themselves be stopped."""
DEFAULT_COLLECTOR_THRESHOLD = 2000
"""Python 3.13's; older ones have less."""
_BUILD_ID = re.compile(r"[\w.:/@+-]{1,128}", re.ASCII)
COLLECTOR_THRESHOLD = 50_000
"""Allocations between two collections."""


class Worker:
    """Runs workflows of one namespace; made by `OpenWorkflow.new_worker`.

    `concurrency` is the number of runs in progress at once, `lease` how long a claim holds without
    a heartbeat (a third of it apart), `drain` how long `stop()` lets running steps go on.
    A run whose worker died `max_crashes` times without recording a step in between is failed.
    `build_id` names the code this worker runs; with the `build_policy` "pinned" its runs, unless
    their workflow says otherwise, are finished by workers of that build only.
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
        build_id: str | None = None,
        build_policy: BuildPolicy = "moving",
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
        self._build_id, self._build_policy = _valid_build(build_id), build_policy
        self.metrics = metrics or Metrics(backend.namespace_id)
        self.metrics.serve({workflow.name for workflow in self._registry})
        self._executor: Executor | None = None
        self._draining = asyncio.Event()
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
        """Start, serve until SIGTERM or SIGINT, drain; a second signal cuts the drain short.

        For a process of its own: it is ended, with code 1, if a run catches every interruption.
        """
        loop, stop = asyncio.get_running_loop(), asyncio.Event()

        def on_signal() -> None:
            if stop.is_set() and self._executor is not None:
                self._executor.interrupt_all(Released())
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        await self.start()
        assert self._main is not None
        stopping = loop.create_task(stop.wait())
        await asyncio.wait({self._main, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        await self._stop_or_leave()

    @property
    def slots_used(self) -> int:
        """Runs in progress."""
        return 0 if self._executor is None else len(self._executor)

    def live(self) -> tuple[bool, str]:
        """For `/livez`: whether the event loop still turns; says nothing of the database."""
        age = time.monotonic() - self._last_tick
        return age < LIVE_SECONDS, f"event loop last seen {age:.1f} s ago"

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

    async def _stop_or_leave(self) -> None:
        stopped = asyncio.ensure_future(self.stop())
        patience = self._drain.total_seconds() + HAND_BACK_SECONDS + LEAVE_SECONDS
        await asyncio.wait({stopped}, timeout=patience)
        if stopped.done():
            await stopped
            return
        logger.error("%d runs do not let themselves be stopped, leaving them", self.slots_used)
        with contextlib.suppress(BackendError, TimeoutError):
            await asyncio.wait_for(self._backend.release_unknown(self.worker_id, ()), LEAVE_SECONDS)
        logging.shutdown()
        os._exit(1)

    async def _run(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(patient_collector())
            session = await stack.enter_async_context(self._session())
            if self._build_id is not None:
                await self._backend.builds.register(self._build_id)
            listener = await stack.enter_async_context(self._backend.listen())
            executor = self._executor = Executor(
                self._backend, session, self._registry, self._max_crashes
            )
            self._assemble(session, executor, await self._backend.now())
            stack.enter_context(self._threads())
            listener.on_work(self._poller.wake)
            listener.on_canceled(executor.cancel)
            self._heartbeat.start()
            stack.callback(self._heartbeat.stop)
            async with asyncio.TaskGroup() as tasks:
                executor.attach(tasks, self._poller, self._services)
                services = [
                    tasks.create_task(self._journal.run()),
                    tasks.create_task(self._poller.run(lambda: listener.healthy)),
                    tasks.create_task(self._tick(executor)),
                ]
                assert self._started is not None
                self._started.set_result(None)
                await self._draining.wait()
                self._poller.stop()
                await executor.drain(self._drain.total_seconds())
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

    def _assemble(self, session: WorkerSession, executor: Executor, now: datetime) -> None:
        batch = max(1, self.concurrency // (4 if self.concurrency > 40 else 2))
        clock = DatabaseClock(now)
        self._poller = Poller(
            self._backend,
            clock,
            self.metrics,
            claim=self._claim_request(batch),
            slots=self.concurrency,
            start=executor.start,
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
            on_lost=executor.lose,
            metrics=self.metrics,
        )

    def _claim_request(self, limit: int) -> ClaimRequest:
        keys = [claim_key(*workflow.key) for workflow in self._registry]
        pinned = [
            claim_key(*workflow.key)
            for workflow in self._registry
            if self._build_id and (workflow.build_policy or self._build_policy) == "pinned"
        ]
        return ClaimRequest(limit, keys, self._build_id, pinned)

    async def _tick(self, executor: Executor) -> None:
        while True:
            self._last_tick = time.monotonic()
            self.metrics.slots(self._poller.used, self.concurrency)
            executor.announce()
            await asyncio.sleep(LOOP_TICK_SECONDS)
            self.metrics.event_loop_lag(
                max(0.0, time.monotonic() - self._last_tick - LOOP_TICK_SECONDS)
            )


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


def _valid_build(build_id: str | None) -> str | None:
    """An image's digest or tag, a commit: what a label of Prometheus and a URL can carry."""
    if build_id and not _BUILD_ID.fullmatch(build_id):
        raise ConfigurationError(
            "a build id is 1 to 128 letters, digits and -_.:/@+, "
            f"such as a commit or an image's digest, not {build_id!r:.80}"
        )
    return build_id or None


def _check(what: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ConfigurationError(f"{what} must be between {least:g} and {most:g}, not {value:g}")
