"""Loads what earlier claims recorded, so that one unreadable history costs only its own run."""

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from openworkflow.core.errors import BackendError, Fault
from openworkflow.core.recorded import RecordedStep
from openworkflow.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from openworkflow.backend.backend import WorkerSession

logger = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 0.2
LONGEST_RETRY_SECONDS = 10.0

Loaded = dict[UUID, Sequence[RecordedStep] | Exception]
"""By run: its recorded steps, or why they cannot be read."""


class Histories:
    """The histories of runs that were just claimed."""

    def __init__(self, session: "WorkerSession", metrics: Metrics) -> None:
        self._session, self._metrics = session, metrics

    async def load(self, run_ids: Sequence[UUID]) -> Loaded:
        """Read them all; cancel it to give up.

        It waits as long as the database does not answer, or somebody holds the table.
        """
        delay = FIRST_RETRY_SECONDS
        while True:
            try:
                return {**await self._session.load_histories(run_ids)}
            except Exception as error:  # the driver decodes an answer whole, or not at all
                self._metrics.database_error("history")
                if not _passes(error):
                    return await self._load_one_by_one(run_ids, error)
                logger.warning("could not load the histories of %d runs: %s", len(run_ids), error)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, LONGEST_RETRY_SECONDS)

    async def _load_one_by_one(self, run_ids: Sequence[UUID], error: Exception) -> Loaded:
        if len(run_ids) == 1:
            return {run_ids[0]: error}
        logger.warning("reading %d histories each by itself: %s", len(run_ids), error)
        loaded: Loaded = {}
        for run_id in run_ids:
            loaded |= await self.load([run_id])
        return loaded


def _passes(error: Exception) -> bool:
    """Whether no history is at fault: the same may be read as it is, somewhat later."""
    return isinstance(error, BackendError) and error.fault in (Fault.SERVER, Fault.MOMENT)
