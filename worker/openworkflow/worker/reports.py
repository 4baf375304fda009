"""What a worker says of its runs: the context of their log lines, their ends, when to poll next."""

import logging

from openworkflow.backend.records import ClaimedRun
from openworkflow.core.failure import Failure
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
from openworkflow.telemetry.logs import log_context, told
from openworkflow.telemetry.metrics import Metrics
from openworkflow.telemetry.seam import Observer
from openworkflow.worker.ends import OUTCOMES
from openworkflow.worker.poller import Poller

logger = logging.getLogger(__name__)
RUNS_LOGGER = logging.getLogger("openworkflow.runs")
"""Where each run begins and ends, at level DEBUG: a line for each, which development wants."""


class Reports:
    """Tells metrics, log, poller and observer of the beginning and the end of each execution."""

    def __init__(
        self,
        metrics: Metrics,
        poller: Poller,
        namespace_id: str,
        observer: Observer | None = None,
    ) -> None:
        self._metrics, self._poller, self._namespace_id = metrics, poller, namespace_id
        self._observer = observer
        self._tells = RUNS_LOGGER.isEnabledFor(logging.DEBUG)

    def begin(self, run: ClaimedRun) -> None:
        """Log lines of this context, from now on, are about this run.

        What it waited for before is counted here: to be let begin is the database's affair.
        """
        log_context.set(
            {
                "namespace_id": self._namespace_id,
                "workflow": run.workflow_name,
                "run_id": run.id,
                "attempt": run.attempts + 1,
            }
        )
        if self._observer is not None:
            self._observer.run_begins(run)
        if run.was_limited:
            self._metrics.wait_begun(run.workflow_name, "limit")
            if self._observer is not None:
                self._observer.wait_begins(run, "limit", None, None)
        if self._tells:
            word = "begins" if run.claim_no == 1 else "goes on"
            RUNS_LOGGER.debug("run %s of workflow %r %s", run.id, run.workflow_name, word)

    def end(self, run: ClaimedRun, outcome: Outcome, seconds: float) -> None:
        """The execution came to `outcome` after `seconds`."""
        self._metrics.run_finished(run.workflow_name, OUTCOMES[type(outcome)], seconds)
        if self._observer is not None:
            failure = getattr(outcome, "failure", None)
            self._observer.run_ends(run, OUTCOMES[type(outcome)], failure)
        if self._tells:
            word, name = OUTCOMES[type(outcome)], run.workflow_name
            RUNS_LOGGER.debug("run %s of workflow %r %s after %.1f s", run.id, name, word, seconds)
        match outcome:
            case Completed():  # what nearly all come to
                pass
            case Parked(resume_at):
                self._poller.resume_at(resume_at)
            case Continued():
                self._poller.wake()
            case Rescheduled(failure, delay):
                self._poller.resume_in(delay)
                text = "run %s of workflow %r failed, attempt %d, next in %.1f s: %s"
                rest = run.id, run.workflow_name, run.attempts + 1, delay, failure.summary
                told(logger, logging.INFO, text, *rest, traceback=failure.traceback)
            case Failed(failure, undo=undo):
                if undo is not None and undo["not_undone"]:
                    self._metrics.undo_failed(run.workflow_name)
                _failed(run, "failed", failure)
            case Undoing(failure):
                self._poller.wake()
                _failed(run, "failed, its steps are undone first", failure)
            case Canceled():
                logger.info("run canceled, its steps are undone")
            case Lost():
                self._metrics.claim_lost(run.workflow_name)
                logger.info(
                    "run canceled, deleted, or claimed by another worker: nothing more is recorded"
                )


def _failed(run: ClaimedRun, what: str, failure: Failure) -> None:
    """Named by the line itself, since an application's own format knows no run in progress."""
    names = run.id, run.workflow_name, what, failure.summary
    trace = failure.traceback
    told(logger, logging.WARNING, "run %s of workflow %r %s: %s", *names, traceback=trace)
