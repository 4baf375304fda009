"""See client/control.py; `python -m tools.sync_client` wrote this from it."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from openworkflow.backend.filtering import Action
from openworkflow.backend.pausing import Pause
from openworkflow.client.blocking.base import SyncPart
from openworkflow.client.bulk import BulkProgress
from openworkflow.core.workflow import Workflow
from openworkflow.core.workflow_run import WorkflowRun


class SyncRunControl(SyncPart):
    """The part of the client that changes runs in the namespace of `backend`."""

    def get_workflow_run(self, run_id: UUID) -> WorkflowRun:
        """A run as it is now. Raises RunNotFound."""
        return self._line.call(lambda ow: ow.get_workflow_run(run_id))

    def cancel(self, run_id: UUID, *, force: bool = False) -> WorkflowRun:
        """Cancel a run. Its async code hears at once; a thread is left to end, in vain.

        One that has begun steps with an undo goes on to undo them, and is canceled after that;
        with `force` nothing is undone, or no more than has been. Raises RunNotFound, or
        InvalidRunState if it has succeeded or failed.
        """
        return self._line.call(lambda ow: ow.cancel(run_id, force=force))

    def retry(self, run_id: UUID, *, from_step: str | None = None) -> WorkflowRun:
        """Start a failed or canceled run again, from the step that failed.

        With `from_step`, the key of a step that it recorded, from there: the results that came
        before that one stay, and all that came after is done anew. Raises RunNotFound,
        InvalidRunState, or ConfigurationError for a step that was not recorded.
        """
        return self._line.call(lambda ow: ow.retry(run_id, from_step=from_step))

    def count_runs(self, where: str, action: Action | None = None) -> int:
        """How many runs a filter means; with an `action`, those that it would do anything to."""
        return self._line.call(lambda ow: ow.count_runs(where, action))

    def bulk(
        self,
        action: Action,
        where: str,
        *,
        per_second: float | None = None,
        cursor: str | None = None,
        reason: str | None = None,
        by: str | None = None,
    ) -> Iterator[BulkProgress]:
        """Retry, cancel, pause, resume or delete the runs of a filter; yields how far it is.

        In chunks, which are over when they are told of, and no more than `per_second`. Runs that
        come to be meanwhile are not meant, nor those that it has retried itself. One that was cut
        short goes on from the last `cursor`. Only runs that have ended are deleted.
        """
        return self._line.each(
            lambda ow: ow.bulk(
                action, where, per_second=per_second, cursor=cursor, reason=reason, by=by
            )
        )

    def pause(
        self,
        run_id: UUID | None = None,
        *,
        workflow: Workflow[Any, Any] | str | None = None,
        everything: bool = False,
        reason: str | None = None,
        by: str | None = None,
    ) -> int:
        """Hold back a run, all runs of a workflow, or `everything` in the namespace.

        From their next claim on, in all workers: what is executed goes on until it waits, new runs
        are stored and not begun, deadlines and timeouts go on. It holds until `resume`. Returns
        how many runs are held that were not. A name that holds none and that no worker serves is a
        warning in the log. Raises RunNotFound, InvalidRunState for a run that has ended,
        ConfigurationError or BackendError.
        """
        return self._line.call(
            lambda ow: ow.pause(
                run_id, workflow=workflow, everything=everything, reason=reason, by=by
            )
        )

    def resume(
        self,
        run_id: UUID | None = None,
        *,
        workflow: Workflow[Any, Any] | str | None = None,
        everything: bool = False,
    ) -> bool:
        """End a pause of this same kind; False if there was none.

        What no other pause holds is due when it would have been, or now. Raises RunNotFound,
        ConfigurationError or BackendError.
        """
        return self._line.call(
            lambda ow: ow.resume(run_id, workflow=workflow, everything=everything)
        )

    def pauses(self) -> list[Pause]:
        """The pauses of workflows, and of the namespace, with the runs that they hold."""
        return self._line.call(lambda ow: ow.pauses())
