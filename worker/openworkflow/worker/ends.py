"""Records how executions end, whatever the database says to it.

An end whose value cannot be stored becomes a failure that says so; a failure that is refused
becomes one in plain words; and then the run is handed back, due again in a while. So is one that is
refused for another reason, which is no fault of the run's. Each is tried once: no run may keep its
worker busy, or end it.
"""

import logging
from collections.abc import Awaitable, Callable
from uuid import UUID

from openworkflow.backend.records import ClaimedRun, Completion
from openworkflow.core.errors import (
    BackendError,
    CodecError,
    Fault,
    PoisonPill,
    SerializationError,
)
from openworkflow.core.failure import Failure
from openworkflow.engine.journal import Journal, Written
from openworkflow.engine.outcome import (
    Canceled,
    Completed,
    Continued,
    Failed,
    Lost,
    Outcome,
    Parked,
    Released,
    Rescheduled,
    Undoing,
    run_end,
)
from openworkflow.engine.recorder import Recorder
from openworkflow.engine.undoing import begin

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 30.0
"""A run that this worker cannot read, or cannot record the end of, is due again after so long."""
MOST_REFUSALS = 1000
"""Refused steps of one run that are looked at for the reason of a refused end."""
PLAIN = Failure(
    "UnrecordedOutcome",
    "the database refused to store how this run ended; the log of its worker has the reason",
)


OUTCOMES = {
    Completed: "succeeded",
    Failed: "failed",
    Undoing: "undoing",
    Canceled: "canceled",
    Rescheduled: "retried",
    Parked: "parked",
    Released: "released",
    Continued: "continued",
    Lost: "lost",
}
"""What the metrics call them."""


Adopt = Callable[[UUID, int, str], Awaitable[None]]
"""Hands back a run by its claim, so that it waits for the limits that it is told to name."""


class Unrecorded(Exception):
    """Nothing at all could be written about a run; its claim stands as before."""


class Ends:
    """Writes the ends of runs by way of the journal."""

    def __init__(self, journal: Journal, adopt: Adopt | None = None) -> None:
        self._journal, self._adopt = journal, adopt

    @staticmethod
    def send(run: ClaimedRun, outcome: Outcome, recorder: Recorder) -> Written | None:
        """Send a usual end together with the last step; None if it takes more, as `record` does.

        What comes of it is for `record`, unless it is durable.
        """
        if type(outcome) is not Completed:
            return None
        return recorder.end_with_step(Completion(run.id, run.claim_no, outcome.output))

    async def record(
        self,
        run: ClaimedRun,
        outcome: Outcome,
        recorder: Recorder,
        sent: Written | None = None,
    ) -> Outcome:
        """Write the end, unless it was `sent`; returns what became of it.

        That is Lost where the claim did not stand. Raises Unrecorded when the database takes
        neither the outcome nor a hand-back.
        """
        try:
            writing = (
                self._write(run, outcome, recorder) if sent is None else recorder.settled(sent)
            )
            return outcome if await writing else Lost()
        except Exception as error:
            refused = await _cause(error, recorder)
        if isinstance(refused, BackendError) and refused.fault is not Fault.VALUE:
            logger.error("the end of a run is refused, so it is handed back: %s", refused)
            return await self.hand_back(run, AGAIN_SECONDS)
        for failed in (Failed(Failure.from_exception(refused)), Failed(PLAIN)):
            fallback = begin(recorder, failed)
            logger.warning("the database refused the end of a run: %s", refused)
            recorder.close_all("the run ended")
            try:
                return fallback if await self._write(run, fallback, recorder) else Lost()
            except Exception as error:
                refused = await _cause(error, recorder)
        return await self.hand_back(run, AGAIN_SECONDS)

    async def hand_back(self, run: ClaimedRun, delay: float, limits: str | None = None) -> Outcome:
        """Give up the claim without an attempt spent; the run names `limits` then. Raises
        Unrecorded.
        """
        outcome = Released(delay)
        try:
            if limits is not None and self._adopt is not None:
                await self._adopt(run.id, run.claim_no, limits)
                return outcome
            end = run_end(run, outcome, progress=False)
            return outcome if end is not None and await self._journal.write(end) else Lost()
        except Exception as error:
            raise Unrecorded(str(error)) from error

    @staticmethod
    def _write(run: ClaimedRun, outcome: Outcome, recorder: Recorder) -> Awaitable[bool]:
        end = run_end(run, outcome, progress=recorder.progress or bool(recorder.pending))
        return _not_held() if end is None else recorder.end(end)


async def _not_held() -> bool:
    return False


async def _cause(error: Exception, recorder: Recorder) -> Exception:
    """The refusal of a step, where that is why the end was refused; else the error itself."""
    cause = error
    for _ in range(MOST_REFUSALS):
        try:
            await recorder.durable()
            break
        except SerializationError as refused:
            cause = refused if cause is error else cause
        except Exception:
            break
    return cause


def unreadable(run: ClaimedRun, error: Exception) -> None:
    """Say why this worker hands a run back for a while."""
    ours = isinstance(error, BackendError | CodecError)
    advice = "" if ours else "; a newer worker may be able to"
    text = "cannot read run %s, handing it back for %g s%s: %s"
    logger.error(text, run.id, AGAIN_SECONDS, advice, error, exc_info=None if ours else error)


def poisoned(run: ClaimedRun) -> Failed:
    """What a run ends with that no worker has survived."""
    error = PoisonPill(
        f"{run.crashes} workers died while they executed this run, and none recorded a step in "
        "between; it is not given to another one. Look at the workers' last logs (out of "
        "memory? a crash in native code?), then start it again: openworkflow runs retry "
        f"{run.id}"
    )
    return Failed(Failure.from_exception(error))
