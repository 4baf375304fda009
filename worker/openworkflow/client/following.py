"""What runs come to, and what they tell, as their starters hear it."""

from collections.abc import AsyncIterator
from uuid import UUID

from openworkflow.backend.backend import BackendPostgres
from openworkflow.client.looks import looks_of
from openworkflow.client.plain import opened_event, plain_progress, plain_run
from openworkflow.client.streams import streams_of
from openworkflow.client.subject import checked_id
from openworkflow.codecs.payloads import Payloads
from openworkflow.core.duration import Duration, parse_duration
from openworkflow.core.errors import ConfigurationError, ResultTimeout, RunNotFound
from openworkflow.core.progress import (
    NOTHING_TOLD,
    EventsAsked,
    RunEvent,
    RunProgress,
    checked_topic,
)
from openworkflow.core.shown import shown
from openworkflow.core.workflow_run import WorkflowRun


class RunFollowing:
    """The part of the client that follows runs in the namespace of `_backend`."""

    _backend: BackendPostgres
    _payloads: Payloads

    async def wait(self, run_id: UUID, timeout: Duration | None = None) -> WorkflowRun:
        """The run once it has finished, however; an outage of the database is waited out.

        Raises RunNotFound, ResultTimeout at most two seconds after `timeout`, and BackendError
        where a database that answers refuses the look, for half a minute, or was stopped.
        """
        checked_id(run_id)
        limit = None if timeout is None else parse_duration(timeout).total_seconds()
        looks = looks_of(self._backend)
        run = await looks.run(run_id, limit)
        if run is not None and run.status.finished:
            return await plain_run(self._payloads, run)
        assert limit is not None
        if run is None:
            unknown = str(looks.trouble or "the database did not answer in time")
            raise ResultTimeout(run_id, limit, unknown=unknown) from looks.trouble
        raise ResultTimeout(run_id, limit, run.workflow_name if run.started_at is None else None)

    async def progress(self, run_id: UUID) -> RunProgress:
        """What a run says of itself: the status that it set last. Raises RunNotFound."""
        checked_id(run_id)
        found = await self._backend.progress.of_runs([run_id])
        if run_id in found:
            return await plain_progress(self._payloads, found[run_id])
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
        refuses, for half a minute, or was stopped; PayloadUnreadable for an event that this client
        has not the codec, or the key, for.
        """
        checked_id(run_id)
        if topic is not None:
            checked_topic(topic)
        if type(from_offset) is not int or not 0 <= from_offset < 2**31:
            raise ConfigurationError(f"from_offset is a number from 0, not {shown(from_offset)}")
        return self._opened(self._follow(run_id, topic, from_offset))

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

    async def _opened(self, events: AsyncIterator[RunEvent]) -> AsyncIterator[RunEvent]:
        async for event in events:
            yield await opened_event(self._payloads, event)
