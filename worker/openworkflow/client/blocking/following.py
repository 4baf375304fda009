"""See client/following.py; `python -m tools.sync_client` wrote this from it."""

from collections.abc import Iterator
from uuid import UUID

from openworkflow.client.blocking.base import SyncPart
from openworkflow.core.duration import Duration
from openworkflow.core.progress import (
    RunEvent,
    RunProgress,
)
from openworkflow.core.workflow_run import WorkflowRun


class SyncRunFollowing(SyncPart):
    """The part of the client that follows runs in the namespace of `_backend`."""

    def wait(self, run_id: UUID, timeout: Duration | None = None) -> WorkflowRun:
        """The run once it has finished, however; an outage of the database is waited out.

        Raises RunNotFound, ResultTimeout at most two seconds after `timeout`, and BackendError
        where a database that answers refuses the look, for half a minute, or was stopped.
        """
        return self._line.call(lambda ow: ow.wait(run_id, timeout))

    def progress(self, run_id: UUID) -> RunProgress:
        """What a run says of itself: the status that it set last. Raises RunNotFound."""
        return self._line.call(lambda ow: ow.progress(run_id))

    def events(
        self, run_id: UUID, topic: str | None = None, *, from_offset: int = 0
    ) -> Iterator[RunEvent]:
        """The events that a run has emitted, and those that it emits until it ends, in order.

        Of one topic or of all, from an offset on: to go on after an event, give its offset + 1. An
        outage of the database is waited out, for as long as it takes. Raises ConfigurationError;
        and as they are asked for RunNotFound, and BackendError where a database that answers
        refuses, for half a minute, or was stopped; PayloadUnreadable for an event that this client
        has not the codec, or the key, for.
        """
        return self._line.each(lambda ow: ow.events(run_id, topic, from_offset=from_offset))
