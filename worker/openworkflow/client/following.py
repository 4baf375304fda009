"""What runs tell, as their starters hear it."""

from collections.abc import AsyncIterator
from uuid import UUID

from openworkflow.backend.backend import BackendPostgres
from openworkflow.client.streams import streams_of
from openworkflow.client.subject import checked_id
from openworkflow.core.errors import ConfigurationError, RunNotFound
from openworkflow.core.progress import (
    NOTHING_TOLD,
    EventsAsked,
    RunEvent,
    RunProgress,
    checked_topic,
)
from openworkflow.core.shown import shown


class RunFollowing:
    """The part of the client that follows runs in the namespace of `_backend`."""

    _backend: BackendPostgres

    async def progress(self, run_id: UUID) -> RunProgress:
        """What a run says of itself: the status that it set last. Raises RunNotFound."""
        checked_id(run_id)
        found = await self._backend.progress.of_runs([run_id])
        if run_id in found:
            return found[run_id]
        if await self._backend.get_workflow_run(run_id) is None:
            raise RunNotFound(run_id)
        return NOTHING_TOLD

    def events(
        self, run_id: UUID, topic: str | None = None, *, from_offset: int = 0
    ) -> AsyncIterator[RunEvent]:
        """The events that a run has emitted, and those that it emits until it ends, in order.

        Of one topic or of all, from an offset on: to go on after an event, give its offset + 1. An
        outage of the database is waited out, for as long as it takes. Raises ConfigurationError;
        and as they are asked for RunNotFound, and BackendError where a database that answers
        refuses, for half a minute, or was stopped.
        """
        checked_id(run_id)
        if topic is not None:
            checked_topic(topic)
        if type(from_offset) is not int or not 0 <= from_offset < 2**31:
            raise ConfigurationError(f"from_offset is a number from 0, not {shown(from_offset)}")
        return self._follow(run_id, topic, from_offset)

    async def _follow(
        self, run_id: UUID, topic: str | None, offset: int
    ) -> AsyncIterator[RunEvent]:
        streams = streams_of(self._backend)
        while True:
            found = await streams.next(EventsAsked(run_id, offset, topic))
            if not found.events:
                return
            for event in found.events:
                yield event
                offset = event.offset + 1
