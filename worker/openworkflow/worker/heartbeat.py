"""Keeps the leases of a worker's runs, from a thread and a connection of its own.

User code that blocks the event loop must not cost the worker its runs. One statement extends all
leases; claims it finds gone are reported to the event loop, which stops their executions.
"""

import asyncio
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
Claim = tuple[UUID, int]


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
        self._stopping: asyncio.Event | None = None
        self._thread_loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"openworkflow heartbeat {worker_id}", daemon=True
        )

    def start(self) -> None:
        """Start the thread."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """Stop the thread; returns when its connection is closed, or after 5 s without it."""
        if self._thread_loop is not None and self._stopping is not None:
            self._thread_loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(timeout=5)

    def age(self) -> float:
        """Seconds since the last heartbeat that reached the database."""
        return time.monotonic() - self._last

    def _run(self) -> None:
        asyncio.run(self._beat_forever())

    async def _beat_forever(self) -> None:
        self._thread_loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        session: HeartbeatSession | None = None
        failures = 0
        while not self._stopping.is_set():
            try:
                session = session or await self._backend.open_heartbeat()
                await self._beat(session)
                failures, pause = 0, self._pause
            except BackendError as error:
                failures += 1
                pause = min(self._pause, 0.1 * 2 ** min(failures, 10))
                self._metrics.database_error("heartbeat")
                logger.warning("a heartbeat did not reach the database: %s", error)
            await self._sleep(pause * random.uniform(0.9, 1.0))
        if session is not None:
            await session.close()

    async def _sleep(self, seconds: float) -> None:
        assert self._stopping is not None
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return

    async def _beat(self, session: HeartbeatSession) -> None:
        claims = self._held()
        async with asyncio.timeout(self._lease.total_seconds()):
            standing = await session.beat(self._worker_id, self._lease, claims)
        self._last = time.monotonic()
        self._metrics.heartbeat()
        if lost := set(claims) - standing:
            self._loop.call_soon_threadsafe(self._on_lost, lost)
