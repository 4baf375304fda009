"""Children: how they stand, and the cancellation of those that nobody needs any more."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg

from openworkflow.backend.namespace import Namespace
from openworkflow.backend.requests import Requests
from openworkflow.core.errors import BackendError
from openworkflow.core.recorded import Awaited, ChildState, MapItem

logger = logging.getLogger(__name__)

AT_ONCE = 8
"""Cancellations under way: few, so that workers and others go on."""
MOST_AT_ONCE = 100
"""Orphans that are looked up at once."""

Fetch = Callable[[str, Sequence[Any]], Awaitable[list[asyncpg.Record]]]


class Families:
    """The children of one namespace: what those of a map came to, and the end of orphans."""

    def __init__(
        self,
        requests: Requests,
        queries: Mapping[str, str],
        namespace: Namespace,
        cancel: Callable[[UUID], Awaitable[Sequence[Any]]],
    ) -> None:
        """`cancel` cancels a run, and answers with nothing if that had ended."""
        self._requests, self._sql, self._namespace = requests, queries, namespace
        self._cancel = cancel

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
            for start in range(0, len(ids), AT_ONCE):
                part = ids[start : start + AT_ONCE]
                canceled += sum(map(bool, await asyncio.gather(*map(self._cancel, part))))
            # What is undone before it ends is canceled as soon as that is decided.
            await self._requests.fetch(self._sql["forget_orphans"], namespace_id, ids)

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
            [awaited.tolerated for _, awaited in pairs],
        ),
    )
    found: dict[UUID, tuple[int, dict[Awaited, ChildState]]] = {}
    for row in rows:
        is_map = row["started"] is not None
        _, states = found.setdefault(row["run_id"], (row["wake_no"], {}))
        told = ChildState(
            row["status"],
            row["output"],
            row["error"],
            row["started"] or 0,
            row["open"] or 0,
            row["failed"] or 0,
            row["ended_at"],
        )
        states[Awaited(row["id"], is_map, row["tolerated"])] = told
    return found


async def await_children(
    fetch: Fetch, queries: Mapping[str, str], pairs: Iterable[tuple[UUID, UUID]]
) -> set[UUID]:
    """Have the ends of children, second, wake their parents; answers those that are of others."""
    asked = list(pairs)
    columns = [child for _, child in asked], [run_id for run_id, _ in asked]
    rows = await fetch(queries["await_children"], columns)
    return {row["id"] for row in rows}
