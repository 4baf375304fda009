"""Keeps the leases of a worker's runs, from a thread and a connection of its own.

User code that blocks the event loop must not cost the worker its runs. One statement extends all
leases; claims it finds gone are reported to the event loop, which stops their executions.
"""

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from openworkflow.backend.backend import BackendPostgres, HeartbeatSession
from openworkflow.core.errors import BackendError
from openworkflow.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

BEATS_PER_LEASE = 3
"""A beat that hangs is given up after as long, so that a lease survives two lost ones."""
FIRST_RETRY_SECONDS = 0.2
STOP_SECONDS = 5.0
"""How long `stop` waits for the thread; it is a daemon, and does not outlive the process."""

Claim = tuple[UUID, int]
"""A run and the number of the claim that fences it."""


class Heartbeat:
    """`held` is called in the thread; `on_lost` in the event loop that called `start`."""

    def __init__(
        self,
        backend: BackendPostgres,
        worker_id: str,
        lease: timedelta,
        *,
        held: Callable[[], list[Claim]],
        on_lost: Callable[[set[Claim]], None],
        metrics: Metrics,
    ) -> None:
        self._backend, self._worker_id, self._lease = backend, worker_id, lease
        self._held, self._on_lost, self._metrics = held, on_lost, metrics
        self._pause = lease.total_seconds() / BEATS_PER_LEASE
        self._last = time.monotonic()
        self._failures = 0
        self._stopping = asyncio.Event()
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; it beats at once."""
        self._worker_loop = asyncio.get_running_loop()
        self._own_loop = self._runner.get_loop()
        self._last = time.monotonic()
        self._thread = threading.Thread(
            target=self._run, name=f"openworkflow heartbeat {self._worker_id}", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop, even in the middle of a beat; returns when the connection is closed."""
        if self._thread is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: stopped before
            self._own_loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(STOP_SECONDS)

    def age(self) -> float:
        """Seconds since the last heartbeat that reached the database, or since the start."""
        return time.monotonic() - self._last

    def _run(self) -> None:
        with self._runner as runner:
            runner.run(self._beat_until_stopped())

    async def _beat_until_stopped(self) -> None:
        beating = asyncio.ensure_future(self._beat_forever())
        await self._stopping.wait()
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beating

    async def _beat_forever(self) -> None:
        session: HeartbeatSession | None = None
        try:
            while True:
                pause = self._pause
                try:
                    async with asyncio.timeout(self._pause):
                        session = session or await self._backend.open_heartbeat()
                        await self._beat(session)
                    self._succeeded()
                except Exception as error:  # whatever it is, the leases need the next beat
                    pause = self._failed(error)
                await asyncio.sleep(pause * random.uniform(0.9, 1.0))
        finally:
            if session is not None:
                await session.close()

    async def _beat(self, session: HeartbeatSession) -> None:
        claims = self._held()
        standing = await session.beat(self._worker_id, self._lease, claims)
        if lost := set(claims) - standing:
            with contextlib.suppress(RuntimeError):  # the worker's loop has ended
                self._worker_loop.call_soon_threadsafe(self._on_lost, lost)

    def _succeeded(self) -> None:
        if self._failures:
            logger.info("the heartbeat reaches the database again after %.1f s", self.age())
        self._failures, self._last = 0, time.monotonic()
        self._metrics.heartbeat()

    def _failed(self, error: Exception) -> float:
        """Report it, and return the seconds until the next try."""
        self._failures += 1
        self._metrics.database_error("heartbeat")
        if isinstance(error, BackendError | TimeoutError):
            reason = str(error) or f"no answer within {self._pause:.1f} s"
            logger.warning("a heartbeat did not reach the database: %s", reason)
        else:
            logger.error("a heartbeat failed", exc_info=error)
        return min(self._pause, FIRST_RETRY_SECONDS * 2.0 ** min(self._failures - 1, 10))
