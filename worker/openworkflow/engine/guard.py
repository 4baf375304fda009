"""Whether this worker can still vouch for its claims: its heartbeat reached the database in time.

A claim is good for one lease after the last heartbeat that carried it. A worker that cannot reach
the database for longer must expect that others have its runs: it starts nothing new until a
heartbeat has told which claims still stand. Only lengths of time are measured, by this process's
monotonic clock; whose claim it is, the database decides.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from uuid import UUID

SETTLING_LEASES = 2 / 3
"""After an outage, the part of a lease in which this worker takes nobody's expired runs.

An outage longer than a lease lets every lease expire at once, also those of workers that are alive
and well. The first one to reconnect would take all their runs. Each of them is heard within two
beats, of a third of a lease each: one try that still hangs, and the pause before the next.
"""
OUTAGE_LEASES = 1 / 2
"""Without a heartbeat for this part of a lease, there is an outage: at least one beat failed."""


class LeaseGuard:
    """Knows when the last heartbeat reached the database.

    `lease` is in seconds; an infinite one makes a guard that always stands. `renew` and the
    properties may be called from any thread, the rest belongs to the event loop of the worker.
    """

    def __init__(
        self, lease: float = math.inf, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lease, self.now = lease, clock
        self._lock = threading.Lock()
        self._last = clock()
        self.until = self._last + lease
        """Until when, by `now`, the claims of this worker can be taken for its own."""
        self.lost: frozenset[tuple[UUID, int]] = frozenset()
        """Claims that the last heartbeat found lost; its thread replaces them as a whole. The event
        loop may be held up, and what is next in it would begin a step."""
        self._recovers_from = self._last
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def age(self) -> float:
        """Seconds since the last heartbeat that reached the database was sent, or since start."""
        return self.now() - self._last

    @property
    def stands(self) -> bool:
        """Whether the claims of this worker can be taken for its own."""
        return self.now() < self.until

    @property
    def may_recover(self) -> bool:
        """Whether this worker may take runs whose lease expired: not in, nor just after, an outage.

        See SETTLING_LEASES for the reason.
        """
        return not self._is_outage(self.age) and self.now() >= self._recovers_from

    async def renewed(self) -> None:
        """Wait until the guard stands, and until the claims that do not were interrupted."""
        while not self.stands:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.add(waiting)
            try:
                await waiting
            finally:
                self._waiting.discard(waiting)

    def renew(self, sent: float) -> None:
        """A heartbeat sent at `sent`, by the guard's clock, has reached the database."""
        with self._lock:
            if self._is_outage(sent - self._last):
                self._recovers_from = self.now() + SETTLING_LEASES * self._lease
            self._last = max(self._last, sent)
            self.until = self._last + self._lease

    def release(self) -> None:
        """Let go of all that wait in `renewed`; they look whether the guard stands."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    def _is_outage(self, gap: float) -> bool:
        return gap > OUTAGE_LEASES * self._lease
