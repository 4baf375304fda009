"""Keeps the leases of a worker's runs, from a thread and a connection of its own.

User code that blocks the event loop must not cost the worker its runs. One statement extends all
leases; claims it finds gone are reported to the event loop, which stops their executions. The guard
is renewed by each heartbeat; where it had fallen, only after those executions were stopped.
"""

import asyncio
import contextlib
import logging
import random
import threading
from collections.abc import Callable
from datetime import timedelta

from openworkflow.backend.backend import BackendPostgres, HeartbeatSession
from openworkflow.core.errors import BackendError
from openworkflow.engine.guard import LeaseGuard
from openworkflow.telemetry.metrics import Metrics
from openworkflow.telemetry.troubles import Troubles
from openworkflow.worker.claimer import Claim
from openworkflow.worker.hints import Patience

logger = logging.getLogger(__name__)

BEATS_PER_LEASE = 3
"""A beat that hangs is given up after as long, so that a lease survives two lost ones."""
OPEN_SECONDS = 5.0
"""A connection has at least so long to be opened, however short the lease is."""
HURRY_SECONDS = 0.05, 1.0
"""Between two heartbeats that were asked for and found nothing: at first, and at most."""
FIRST_RETRY_SECONDS = 0.2
CLOSE_SECONDS = 1.0
STOP_SECONDS = 5.0
"""How long `stop` waits for the thread; it is a daemon, and does not outlive the process."""


class Heartbeat:
    """`held` is called in the thread; `on_lost` in the event loop that called `start`."""

    def __init__(
        self,
        backend: BackendPostgres,
        worker_id: str,
        lease: timedelta,
        guard: LeaseGuard,
        *,
        held: Callable[[], list[Claim]],
        on_lost: Callable[[set[Claim]], None],
        metrics: Metrics,
    ) -> None:
        self._backend, self._worker_id, self._lease = backend, worker_id, lease
        self._guard, self._metrics = guard, metrics
        self._held, self._on_lost = held, on_lost
        self._pause = lease.total_seconds() / BEATS_PER_LEASE
        self._troubles = Troubles(logger, "a heartbeat did not reach the database")
        self._patience, self._found = Patience(*HURRY_SECONDS), False
        self._lost: set[Claim] = set()
        self._stopping, self._hurried = asyncio.Event(), asyncio.Event()
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; it beats at once."""
        self._worker_loop = asyncio.get_running_loop()
        self._own_loop = self._runner.get_loop()
        self._thread = threading.Thread(
            target=self._run, name=f"openworkflow heartbeat {self._worker_id}", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop, even in the middle of a beat; returns when the connection is closed."""
        if self._thread is not None:
            self.end()
            self._thread.join(STOP_SECONDS)

    def end(self) -> None:
        """Stop soon, once started: waits for nothing."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: stopped before
            self._own_loop.call_soon_threadsafe(self._stopping.set)

    def hurry(self) -> None:
        """Beat at once, to see which claims still stand."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._own_loop.call_soon_threadsafe(self._hurried.set)

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
                    if session is None:
                        session = await self._open()
                    async with asyncio.timeout(self._pause):
                        await self._beat(session)
                except Exception as error:  # whatever it is, the leases need the next beat
                    pause = self._failed(error)
                    await _closed(session)
                    session = None
                await self._wait(pause * random.uniform(0.9, 1.0))
        finally:
            await _closed(session)

    async def _open(self) -> HeartbeatSession:
        async with asyncio.timeout(max(self._pause, OPEN_SECONDS)):
            return await self._backend.open_heartbeat()

    async def _beat(self, session: HeartbeatSession) -> None:
        sent = self._guard.now()
        claims = self._held()
        standing = await session.beat(self._worker_id, self._lease, claims)
        lost = set(claims) - standing
        if self._troubles.count and not lost <= self._lost:
            await self._take_back_crashes(session, lost - self._lost)
        self._found, self._lost = not lost <= self._lost, lost
        self._guard.lost = frozenset(lost)
        if self._guard.stands:
            # Here too: the event loop may be blocked for longer than a lease.
            self._guard.renew(sent)
        self._succeeded()
        with contextlib.suppress(RuntimeError):  # the worker's loop has ended
            self._worker_loop.call_soon_threadsafe(self._report, lost, sent)

    async def _take_back_crashes(self, session: HeartbeatSession, lost: set[Claim]) -> None:
        """An outage is no crash: whoever took these runs over counted one for each.

        Only after beats that failed. A worker that did not try to beat was frozen, and what froze
        it may be the run.
        """
        try:
            await session.take_back_crashes(list(lost))
        except BackendError as error:
            logger.warning("crashes that were none stay counted: %s", error)

    async def _wait(self, pause: float) -> None:
        """Pause, or until somebody is in a hurry."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._hurried.wait()
                await asyncio.sleep(self._patience.wait(led_to_something=self._found))
                self._patience.looked()
        self._hurried.clear()

    def _report(self, lost: set[Claim], sent: float) -> None:
        """In the worker's event loop: first stop what is lost, then let the others go on."""
        if lost:
            self._on_lost(lost)
        self._guard.renew(sent)
        self._guard.release()

    def _succeeded(self) -> None:
        self._troubles.succeeded()
        self._metrics.heartbeat()

    def _failed(self, error: Exception) -> float:
        """Report it, and return the seconds until the next try."""
        self._metrics.database_error("heartbeat")
        if not isinstance(error, BackendError | TimeoutError):
            logger.error("a heartbeat failed", exc_info=error)
        self._troubles.failed(str(error) or f"no answer within {self._pause:.1f} s")
        return min(self._pause, FIRST_RETRY_SECONDS * 2.0 ** min(self._troubles.count - 1, 10))


async def _closed(session: HeartbeatSession | None) -> None:
    """Disconnect, whatever state the connection is in."""
    if session is None:
        return
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await session.close()
    except Exception as error:
        logger.debug("the connection of the heartbeat was left as it is: %r", error)
