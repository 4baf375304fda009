"""What a worker says of its runs: the context of their log lines, their ends, when to poll next."""

import logging

from openworkflow.backend.records import ClaimedRun
from openworkflow.engine.outcome import (
    Canceled,
    Completed,
    Continued,
    Failed,
    Lost,
    Outcome,
    Parked,
    Rescheduled,
    Undoing,
)
from openworkflow.telemetry.logs import log_context
from openworkflow.telemetry.metrics import Metrics
from openworkflow.worker.ends import OUTCOMES
from openworkflow.worker.poller import Poller

logger = logging.getLogger(__name__)


class Reports:
    """Tells metrics, log and poller of the beginning and the end of each execution."""

    def __init__(self, metrics: Metrics, poller: Poller, namespace_id: str) -> None:
        self._metrics, self._poller, self._namespace_id = metrics, poller, namespace_id

    def begin(self, run: ClaimedRun) -> None:
        """Log lines of this context, from now on, are about this run."""
        log_context.set(
            {
                "namespace_id": self._namespace_id,
                "workflow": run.workflow_name,
                "run_id": run.id,
                "attempt": run.attempts + 1,
            }
        )

    def end(self, run: ClaimedRun, outcome: Outcome, seconds: float) -> None:
        """The execution came to `outcome` after `seconds`."""
        self._metrics.run_finished(run.workflow_name, OUTCOMES[type(outcome)], seconds)
        match outcome:
            case Completed():  # what nearly all come to
                pass
            case Parked(resume_at):
                self._poller.resume_at(resume_at)
            case Continued():
                self._poller.wake()
            case Rescheduled(failure, delay):
                self._poller.resume_in(delay)
                logger.info("run failed, next attempt in %.1f s: %s", delay, failure.summary)
            case Failed(failure, undo=undo):
                if undo is not None and undo["not_undone"]:
                    self._metrics.undo_failed(run.workflow_name)
                logger.warning("run failed: %s", failure.summary)
            case Undoing(failure):
                self._poller.wake()
                logger.warning("run failed, its steps are undone first: %s", failure.summary)
            case Canceled():
                logger.info("run canceled, its steps are undone")
            case Lost():
                self._metrics.claim_lost(run.workflow_name)
                logger.info("run canceled, or claimed by another worker: nothing more is recorded")
