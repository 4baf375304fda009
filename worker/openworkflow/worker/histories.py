"""Loads what earlier claims recorded, so that one unreadable history costs only its own run."""

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from openworkflow.codecs.payloads import Payloads
from openworkflow.core.envelope import MARK, is_marked
from openworkflow.core.errors import BackendError, CodecError, Fault
from openworkflow.core.recorded import ClaimedRun, RecordedStep
from openworkflow.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from openworkflow.backend.backend import WorkerSession

logger = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 0.2
LONGEST_RETRY_SECONDS = 10.0

Loaded = dict[UUID, Sequence[RecordedStep] | Exception]
"""By run: its recorded steps, or why they cannot be read."""


Opened = dict[UUID, tuple[ClaimedRun, Sequence[RecordedStep]] | Exception]
"""By run: itself and its recorded steps, in plain JSON; or why they cannot be read."""


class Histories:
    """The histories of runs that were just claimed; `payloads` opens what is encoded of them."""

    def __init__(self, session: "WorkerSession", metrics: Metrics, payloads: Payloads) -> None:
        self._session, self._metrics, self._payloads = session, metrics, payloads

    async def opened(self, runs: Sequence[ClaimedRun]) -> Opened:
        """The runs, with their histories if they have any; cancel it to give up, as `load`."""
        known = [run.id for run in runs if run.has_history]
        loaded = await self.load(known) if known else {}
        found: Opened = {}
        sealed: list[tuple[ClaimedRun, Sequence[RecordedStep]]] = []
        for run in runs:
            steps = loaded.get(run.id) if run.has_history else ()
            if steps is None or isinstance(steps, Exception):
                found |= {} if steps is None else {run.id: steps}
            elif is_marked(run.input) or any(map(_is_marked, steps)):
                sealed.append((run, steps))
            else:
                found[run.id] = run, steps
        answers = await asyncio.gather(*(open_run(self._payloads, *each) for each in sealed))
        return found | {run.id: answer for (run, _), answer in zip(sealed, answers, strict=True)}

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


async def open_run(
    payloads: Payloads, run: ClaimedRun, steps: Sequence[RecordedStep]
) -> tuple[ClaimedRun, Sequence[RecordedStep]] | Exception:
    """A run and its history with plain values; or why some cannot be read."""
    try:
        text = await payloads.open(run.input, "input", run.workflow_name)
        opened = [
            step._replace(output=await payloads.open(step.output, "step", step.step_name))
            if _is_marked(step)
            else step
            for step in steps
        ]
    except CodecError as error:
        return error
    return run._replace(input=text), opened


def _is_marked(step: RecordedStep) -> bool:
    return (step.output or "")[: len(MARK)] == MARK


def _passes(error: Exception) -> bool:
    """Whether no history is at fault: the same may be read as it is, somewhat later."""
    return isinstance(error, BackendError) and error.fault in (Fault.SERVER, Fault.MOMENT)
