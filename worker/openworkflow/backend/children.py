"""Children: how they stand, and the cancellation of those that nobody needs any more."""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg

from openworkflow.backend.namespace import Namespace
from openworkflow.backend.requests import Requests
from openworkflow.core.errors import BackendError
from openworkflow.core.recorded import Awaited, ChildState, MapItem

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 100
"""Orphans that are looked up at once."""

Fetch = Callable[[str, Sequence[Any]], Awaitable[list[asyncpg.Record]]]


class Families:
    """The children of one namespace: what those of a map came to, and the end of orphans."""

    def __init__(
        self, requests: Requests, queries: Mapping[str, str], namespace: Namespace
    ) -> None:
        self._requests, self._sql, self._namespace = requests, queries, namespace

    async def cancel_orphans(self) -> int:
        """Cancel children that outlive what they were started for, and theirs; returns how many.

        Any number may do this at once. Raises BackendError.
        """
        canceled = 0
        while True:
            sql, namespace_id = self._sql["find_orphans"], self._namespace.id
            rows = await self._requests.fetch(sql, namespace_id, MOST_AT_ONCE)
            if not rows:
                return canceled
            ids = [row["id"] for row in rows]
            ended, forgotten = await self._requests.repeat(partial(self._cancel, ids), safe=True)
            canceled += ended
            if not (ended or forgotten):
                return canceled  # what these are, a newer version knows

    async def after_cancel(self) -> None:
        """Cancel them now, as far as that can be done: any worker does the rest."""
        try:
            await self.cancel_orphans()
        except BackendError as error:
            logger.warning("workers will cancel the children of a canceled run: %s", error)

    async def read_map(self, step_id: UUID, start: int, limit: int) -> list[MapItem]:
        """What the children of a map came to, from this item on. Raises BackendError."""
        sql = self._sql["read_map"]
        rows = await self._requests.fetch(sql, self._namespace.id, step_id, start, limit)
        return [
            MapItem(
                row["number"], row["id"], ChildState(row["status"], row["output"], row["error"])
            )
            for row in rows
        ]

    async def _cancel(self, ids: Sequence[UUID]) -> tuple[int, int]:
        """As cancel_workflow_run: first the locks, then what can be seen under them."""
        which = self._namespace.id, ids
        channels = self._namespace.work_channel, self._namespace.done_channel
        async with self._requests.borrow() as connection, connection.transaction():
            await connection.fetch(self._sql["lock_orphans"], *which)
            ended = await connection.fetch(self._sql["cancel_orphans"], *which, *channels)
            forgotten = await connection.fetch(self._sql["forget_orphans"], *which)
        return len(ended), len(forgotten)


async def read_children(
    fetch: Fetch, queries: Mapping[str, str], pairs: Sequence[tuple[UUID, Awaited]]
) -> dict[UUID, tuple[int, dict[Awaited, ChildState]]]:
    """How the children stand that these runs wait for; a run that is gone is left out."""
    rows = await fetch(
        queries["read_children"],
        (
            [run_id for run_id, _ in pairs],
            [awaited.id for _, awaited in pairs],
            [awaited.is_map for _, awaited in pairs],
        ),
    )
    found: dict[UUID, tuple[int, dict[Awaited, ChildState]]] = {}
    for row in rows:
        is_map = row["started"] is not None
        _, states = found.setdefault(row["run_id"], (row["wake_no"], {}))
        counts = (row["started"], row["open"], row["failed"]) if is_map else (0, 0, 0)
        told = ChildState(row["status"], row["output"], row["error"], *counts)
        states[Awaited(row["id"], is_map)] = told
    return found


async def await_children(
    fetch: Fetch, queries: Mapping[str, str], pairs: Iterable[tuple[UUID, UUID]]
) -> set[UUID]:
    """Have the ends of children, second, wake their parents; answers those that are of others."""
    asked = list(pairs)
    columns = [child for _, child in asked], [run_id for run_id, _ in asked]
    rows = await fetch(queries["await_children"], columns)
    return {row["id"] for row in rows}
