"""What is done with runs that others execute: cancel, retry, pause and resume, one or many."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from openworkflow.backend.backend import BackendPostgres
from openworkflow.backend.filtering import Action, check_action
from openworkflow.backend.pausing import Pause
from openworkflow.client import repairs
from openworkflow.client.bulk import BulkProgress, act
from openworkflow.client.misspellings import Misspellings
from openworkflow.client.plain import plain_run
from openworkflow.client.subject import checked_id, subject
from openworkflow.codecs.payloads import Payloads
from openworkflow.core.asked import check_is
from openworkflow.core.errors import ConfigurationError, InvalidRunState, RunNotFound
from openworkflow.core.filters import parse_filter
from openworkflow.core.workflow import Workflow
from openworkflow.core.workflow_run import WorkflowRun
from openworkflow.telemetry import tracing


class RunControl:
    """The part of the client that changes runs in the namespace of `backend`."""

    def __init__(self, backend: BackendPostgres, payloads: Payloads) -> None:
        self._backend, self._payloads = backend, payloads
        self._misspellings = Misspellings(lambda: backend.control.served())

    async def get_workflow_run(self, run_id: UUID) -> WorkflowRun:
        """A run as it is now. Raises RunNotFound."""
        checked_id(run_id)
        run = await self._backend.get_workflow_run(run_id)
        if run is None:
            raise RunNotFound(run_id)
        return await plain_run(self._payloads, run)

    async def cancel(self, run_id: UUID, *, force: bool = False) -> WorkflowRun:
        """Cancel a run. Its async code hears at once; a thread is left to end, in vain.

        One that has begun steps with an undo goes on to undo them, and is canceled after that;
        with `force` nothing is undone, or no more than has been. Raises RunNotFound, or
        InvalidRunState if it has succeeded or failed.
        """
        checked_id(run_id)
        check_is("force", force, bool, "True or False")
        with tracing.canceling(self._backend.namespace_id, run_id):
            canceled = await self._backend.cancel_workflow_run(run_id, force=force)
        return await plain_run(self._payloads, canceled)

    async def retry(self, run_id: UUID, *, from_step: str | None = None) -> WorkflowRun:
        """Start a failed or canceled run again, from the step that failed.

        With `from_step`, the key of a step that it recorded, from there: the results that came
        before that one stay, and all that came after is done anew. Raises RunNotFound,
        InvalidRunState, or ConfigurationError for a step that was not recorded.
        """
        checked_id(run_id)
        if from_step is None:
            retried = await self._backend.control.retry(run_id)
        else:
            check_is("from_step", from_step, str, "the key of a step")
            retried = await repairs.retry_from(self._backend, run_id, from_step)
        return await plain_run(self._payloads, retried)

    async def count_runs(self, where: str, action: Action | None = None) -> int:
        """How many runs a filter means; with an `action`, those that it would do anything to."""
        if action is not None:
            check_action(action)
        return await self._backend.filtering.count(parse_filter(where), action)

    def bulk(
        self,
        action: Action,
        where: str,
        *,
        per_second: float | None = None,
        cursor: str | None = None,
        reason: str | None = None,
        by: str | None = None,
    ) -> AsyncIterator[BulkProgress]:
        """Retry, cancel, pause, resume or delete the runs of a filter; yields how far it is.

        In chunks, which are over when they are told of, and no more than `per_second`. Runs that
        come to be meanwhile are not meant, nor those that it has retried itself. One that was cut
        short goes on from the last `cursor`. Only runs that have ended are deleted.
        """
        subject(None, None, True, reason=reason, by=by)
        if not (terms := parse_filter(where)):
            raise ConfigurationError("a filter that says nothing means every run; say which")
        return act(
            self._backend,
            action,
            terms,
            per_second=per_second,
            cursor=cursor,
            reason=reason,
            by=by,
        )

    async def pause(
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
        name = subject(run_id, workflow, everything, reason=reason, by=by)
        if name is not None:
            held = await self._backend.pauses.pause(name, reason=reason, by=by)
            if not (held or everything):
                await self._misspellings.warn_of_pause(name)
            return held
        assert run_id is not None
        paused = await self._backend.pauses.pause_runs([run_id], reason=reason, by=by)
        if not paused:
            run = await self.get_workflow_run(run_id)
            raise InvalidRunState(run_id, run.status, "paused")
        return len(paused)

    async def resume(
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
        name = subject(run_id, workflow, everything)
        if name is not None:
            return await self._backend.pauses.resume(name)
        assert run_id is not None
        run = await self.get_workflow_run(run_id)
        await self._backend.pauses.resume_runs([run_id])
        return run.pause is not None

    async def pauses(self) -> list[Pause]:
        """The pauses of workflows, and of the namespace, with the runs that they hold."""
        return await self._backend.pauses.list()
