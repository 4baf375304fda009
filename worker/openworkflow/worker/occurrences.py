"""Occurrences of schedules among the runs that a claim brings: do they run, and what comes next?

Told by their ids, which are of UUID's version 5: what no schedule has started is not looked at.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from openworkflow.backend.records import Begun, ClaimedOccurrence
from openworkflow.core.errors import BackendError, Fault, OpenWorkflowError
from openworkflow.core.recorded import ClaimedRun, Occurrence
from openworkflow.core.registry import Registry
from openworkflow.engine.outcome import Canceled, Completed, Failed, Lost, Outcome
from openworkflow.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from openworkflow.backend.schedules import Schedules

logger = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 0.2
LONGEST_RETRY_SECONDS = 10.0
_LATER = (Fault.SERVER, Fault.MOMENT)

Decided = dict[UUID, ClaimedRun | Exception]
"""By run: the run as it is to be executed, or why it cannot be; one that is missing is gone."""


class Occurrences:
    """What one worker does about occurrences."""

    def __init__(
        self,
        schedules: "Schedules",
        cancel: Callable[[UUID], Awaitable[object]],
        worker_id: str,
        registry: Registry,
        metrics: Metrics,
    ) -> None:
        self._schedules, self._cancel_run, self._worker_id = schedules, cancel, worker_id
        self._registry, self._metrics = registry, metrics
        self._ended: set[str] = set()
        self._releasing = False

    async def begin(self, runs: Sequence[ClaimedRun]) -> Decided:
        """Decide about claimed runs, as long as the database does not answer; cancel to give up."""
        delay = FIRST_RETRY_SECONDS
        while True:
            try:
                begun = await self._schedules.occurrences.begin(
                    self._worker_id, [self._claimed(run) for run in runs]
                )
                return await self._superseding(runs, begun)
            except Exception as error:
                self._metrics.database_error("schedule")
                if isinstance(error, BackendError) and error.fault in _LATER:
                    logger.warning("could not look at %d occurrences: %s", len(runs), error)
                    await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                    delay = min(delay * 2, LONGEST_RETRY_SECONDS)
                    continue
                if len(runs) == 1:  # one row must not keep the others
                    return {runs[0].id: error}
                apart = [await self.begin([run]) for run in runs]
                return {run_id: each for one in apart for run_id, each in one.items()}

    async def after(self, occurrence: Occurrence, outcome: Outcome) -> None:
        """An execution of an occurrence is over: if so is its run, let begin what waits for it.

        One whose claim was lost may have ended it: an end that is sent again since its answer was
        lost does not find its claim any more.
        """
        if not (occurrence.serial and isinstance(outcome, Completed | Failed | Canceled | Lost)):
            return
        self._ended.add(occurrence.schedule_name)
        if self._releasing:
            return
        self._releasing = True
        try:
            while self._ended:
                names, self._ended = self._ended, set()
                await self._release(names)
        finally:
            self._releasing = False

    async def _release(self, names: set[str]) -> None:
        """Let begin what waits for occurrences of these schedules; cancel it to give up.

        The next occurrence, or the next look at all schedules, then finds that nobody is left.
        """
        delay = FIRST_RETRY_SECONDS
        while True:
            try:
                await self._schedules.occurrences.release(sorted(names))
                return
            except BackendError as error:
                logger.warning("could not release what waits for occurrences: %s", error)
                if error.fault not in _LATER:
                    return
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, LONGEST_RETRY_SECONDS)

    async def _superseding(
        self, runs: Sequence[ClaimedRun], begun: dict[UUID, Begun | Exception]
    ) -> Decided:
        """The runs that begin, once those are canceled that must not go on beside them."""
        decided: Decided = {}
        for run in runs:
            answer = begun.get(run.id)
            if answer is None:
                continue
            if isinstance(answer, Exception):
                decided[run.id] = answer
                continue
            for earlier in answer.supersedes:
                await self._cancel(earlier)
            occurrence = None
            if answer.schedule_name is not None and answer.scheduled_for is not None:
                occurrence = Occurrence(answer.schedule_name, answer.scheduled_for, answer.serial)
            decided[run.id] = run._replace(deadline_at=answer.deadline_at, occurrence=occurrence)
        return decided

    async def _cancel(self, run_id: UUID) -> None:
        try:
            await self._cancel_run(run_id)
        except OpenWorkflowError as error:
            if isinstance(error, BackendError) and error.fault is Fault.SERVER:
                raise
            logger.info("an earlier occurrence was not canceled, it may have ended: %s", error)

    def _claimed(self, run: ClaimedRun) -> ClaimedOccurrence:
        workflow = self._registry.find(run.workflow_name, run.version)
        limit = None if workflow is None else workflow.deadline
        deadline = None if limit is None else limit.total_seconds()
        return ClaimedOccurrence(run.id, run.claim_no, run.claimed_at, deadline)
