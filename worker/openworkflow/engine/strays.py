"""Runs that the database takes for this worker's, and that nobody here executes.

A claim whose connection was lost may have committed, or may yet. Its runs are handed back: at once
where that is known, and once a lease where it is not.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from openworkflow.engine.journal import Journal
from openworkflow.telemetry.metrics import Metrics
from openworkflow.telemetry.troubles import Troubles

if TYPE_CHECKING:
    from openworkflow.backend.backend import WorkerSession

logger = logging.getLogger(__name__)


class Strays:
    """Hands back what is not among `held`, the runs that this worker knows that it holds."""

    def __init__(
        self,
        journal: Journal,
        session: "WorkerSession",
        held: Callable[[], list[UUID]],
        metrics: Metrics,
        *,
        worker_id: str,
        lease: timedelta,
    ) -> None:
        self._journal, self._session, self._held = journal, session, held
        self._metrics, self._worker_id, self._lease = metrics, worker_id, lease
        self._claiming = 0
        """Statements under way that may bring runs."""
        self._handing_back, self._doubts = False, 0
        self._unreturned = Troubles(logger, "could not hand back runs that are not held")
        self._unseen = Troubles(logger, "could not look for runs that are not held")
        self.in_doubt = False
        """Whether the database may think that this worker holds runs which nobody executes here."""

    def doubt(self) -> None:
        """Hand back, before anything more is claimed, the runs that this worker does not hold."""
        self.in_doubt = True
        self._doubts += 1
        self._journal.kick()

    def claiming(self, number: int) -> None:
        """So many more claims are under way, or fewer; what one brings is held by then."""
        self._claiming += number
        if self.in_doubt:
            self._journal.kick()

    async def hand_back(self) -> None:
        """Release what nobody here holds, while no claim is out whose runs are not held yet.

        Nothing is claimed before that has succeeded; the polls see to it that it is tried again.
        """
        if self._claiming or self._handing_back:
            return
        self._handing_back = True
        try:
            while self.in_doubt:
                doubts = self._doubts
                await self._session.release_unknown(self._worker_id, self._held())
                # A doubt that came meanwhile is of runs that were held when this was sent.
                self.in_doubt = doubts != self._doubts
            self._unreturned.succeeded()
        except Exception as error:
            self._metrics.database_error("connection")
            self._unreturned.failed(error)
        finally:
            self._handing_back = False

    async def look_forever(self) -> None:
        """Hand back, once a lease, expired runs of this worker that nobody here executes.

        A statement whose connection was lost may live on in the server, and claim in the end.
        """
        while True:
            await asyncio.sleep(self._lease.total_seconds())
            try:
                held = self._held()
                found = await self._session.release_unknown(self._worker_id, held, expired=True)
            except Exception as error:
                self._unseen.failed(error)
                continue
            self._unseen.succeeded()
            if found:
                logger.warning("handed back %d runs of a claim that was given up", len(found))
