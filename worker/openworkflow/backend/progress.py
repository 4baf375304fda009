"""What runs tell: reads it for those who follow them, and for workers that go on with them."""

import json
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg

from openworkflow.backend.requests import Requests
from openworkflow.backend.rows import as_json
from openworkflow.core.progress import EventsAsked, EventsFound, RunEvent, RunProgress, Told

Fetch = Callable[[str, Sequence[Any]], Awaitable[list[asyncpg.Record]]]


class Progress:
    """Reads what the runs of a namespace tell."""

    def __init__(self, requests: Requests, queries: Mapping[str, str], namespace_id: str) -> None:
        self._fetch = requests.fetch
        self._sql, self._namespace_id = queries, namespace_id

    async def of_runs(self, run_ids: Collection[UUID]) -> dict[UUID, RunProgress]:
        """What these runs say of themselves; those that have said nothing are left out."""
        rows = await self._fetch(self._sql["read_progress"], self._namespace_id, list(run_ids))
        return {
            row["workflow_run_id"]: RunProgress(
                None if row["status"] is None else as_json(row["status"]),
                row["status_at"],
                row["events"],
            )
            for row in rows
        }

    async def events(
        self, asked: Sequence[EventsAsked], most: int, *, seconds: float | None = None
    ) -> list[EventsFound | None]:
        """For each of these the next events, up to `most`; None for a run that there is not."""
        rows = await self._fetch(
            self._sql["read_events"],
            self._namespace_id,
            list(range(len(asked))),
            [each.run_id for each in asked],
            [each.event_no for each in asked],
            most,
            [each.topic for each in asked],
            seconds=seconds,
        )
        found: list[EventsFound | None] = [None] * len(asked)
        for row in rows:
            answer = found[row["place"]]
            if answer is None:
                answer = found[row["place"]] = EventsFound(row["ended"], [])
            if row["event_no"] is not None:
                answer.events.append(_event(row))
        return found


async def read_told(
    fetch: Fetch, queries: Mapping[str, str], run_ids: Sequence[UUID]
) -> dict[UUID, Told]:
    """What these runs have told in earlier claims."""
    rows = await fetch(queries["read_told"], (list(run_ids),))
    return {
        row["workflow_run_id"]: Told(
            row["claim_no"],
            row["events"],
            row["events_from"],
            json.loads(row["counts"]),
            row["retried"],
        )
        for row in rows
    }


def _event(row: asyncpg.Record) -> RunEvent:
    value = row["value"]
    return RunEvent(
        row["event_no"],
        row["topic"],
        None if value is None else as_json(value),
        row["step_name"],
        row["attempt"],
        row["created_at"],
    )
