"""A worker's own connection for its leases: extended one by one where that is what it takes."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from openworkflow.backend.link import Link
from openworkflow.core.errors import BackendError, Fault

logger = logging.getLogger(__name__)

UNKNOWN_TRIES, UNKNOWN_SECONDS = 4, 0.05
"""How often, and after which pause, it is asked again about claims of which nothing is known."""


class HeartbeatSession:
    """A connection for the heartbeat alone; use it in the event loop that opened it."""

    def __init__(self, link: Link, queries: Mapping[str, str]) -> None:
        self._link, self._sql = link, queries
        self._unknown: set[tuple[UUID, int]] = set()
        """Claims whose lease is over and whose rows somebody held locked, as of the last look."""

    async def beat(
        self, worker_id: str, lease: timedelta, claims: Sequence[tuple[UUID, int]]
    ) -> set[tuple[UUID, int]]:
        """Extend the leases of these claims; returns those that are not known to be lost.

        A lease that the database does not let be extended costs only its own run. One that was over
        when somebody held its row locked is looked at again, for a moment: it may have been taken.
        """
        self._unknown = set()
        standing, refused, refusal = await self._extend_apart(worker_id, lease, claims)
        for _ in range(UNKNOWN_TRIES):
            if not (unknown := standing & self._unknown):
                break
            await asyncio.sleep(UNKNOWN_SECONDS)
            standing -= unknown - await self._extend(worker_id, lease, list(unknown))
        if refusal is not None:
            if not standing:
                if len(claims) > 1:
                    raise refusal
                await self._extend(worker_id, lease, ())  # else it is more than this one row
            logger.warning("the leases of %d runs cannot be extended: %s", len(refused), refusal)
        return standing.union(refused)

    async def take_back_crashes(self, claims: Sequence[tuple[UUID, int]]) -> None:
        """Others took these claims over as those of a dead worker, which is alive."""
        ids, numbers = zip(*claims, strict=True)
        await self._link.fetch(self._sql["take_back_crashes"], (ids, numbers))

    async def _extend_apart(
        self, worker_id: str, lease: timedelta, claims: Sequence[tuple[UUID, int]]
    ) -> tuple[set[tuple[UUID, int]], list[tuple[UUID, int]], BackendError | None]:
        """What stands, what cannot be extended, and why: found in halves."""
        try:
            return await self._extend(worker_id, lease, claims), [], None
        except BackendError as error:
            # Locked rows are passed over: a lock that is waited for is one of the whole table.
            if error.fault in (Fault.SERVER, Fault.OURS, Fault.MOMENT) or not claims:
                raise
            if len(claims) == 1:
                return set(), list(claims), error
            refusal = error
        middle = len(claims) // 2
        standing: set[tuple[UUID, int]] = set()
        refused: list[tuple[UUID, int]] = []
        for half in (claims[:middle], claims[middle:]):
            stand, refuse, _ = await self._extend_apart(worker_id, lease, half)
            standing |= stand
            refused += refuse
        return standing, refused, refusal if refused else None

    async def _extend(
        self, worker_id: str, lease: timedelta, claims: Sequence[tuple[UUID, int]]
    ) -> set[tuple[UUID, int]]:
        ids, numbers = zip(*claims, strict=True) if claims else ((), ())
        rows = await self._link.fetch(self._sql["extend_leases"], (ids, numbers, lease, worker_id))
        self._unknown -= set(claims)
        self._unknown |= {(row["run_id"], row["claim_no"]) for row in rows if row["unknown"]}
        return {(row["run_id"], row["claim_no"]) for row in rows}

    async def close(self) -> None:
        """Disconnect."""
        await self._link.close()
