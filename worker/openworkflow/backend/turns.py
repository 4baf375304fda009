"""Turns of steps at a rate: when each call may begin, asked for together.

A turn is a moment that the database gives; nothing is held until it comes, and nothing is given
back. Those of a worker that want one of the same limit share a statement.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from openworkflow.backend.namespace import Namespace
from openworkflow.backend.requests import Requests
from openworkflow.core.limits import LimitRule, StepRate

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 500


class Turn(NamedTuple):
    """A step that waits until it may be called, at a rate."""

    step: str
    limit_name: str
    at: datetime


class Turns:
    """The turns of one namespace."""

    def __init__(
        self,
        requests: Requests,
        queries: Mapping[str, str],
        namespace: Namespace,
        tell: Callable[[LimitRule], Awaitable[None]],
    ) -> None:
        self._fetch, self._sql, self._namespace_id = requests.fetch, queries, namespace.id
        self._tell = tell
        self._waiting: dict[str, dict[tuple[UUID, str], asyncio.Future[datetime | None]]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._unknown: set[str] = set()

    async def take(self, rate: StepRate, run_id: UUID, step: str) -> datetime | None:
        """When this step may begin, to be asked again then; None for now. Raises BackendError."""
        if rate.rule is not None:
            await self._tell(rate.rule)
        waiting = self._waiting.setdefault(rate.name, {})
        asked = waiting.get((run_id, step))
        if asked is None:
            asked = waiting[run_id, step] = asyncio.get_running_loop().create_future()
        if rate.name not in self._tasks:
            self._tasks[rate.name] = asyncio.create_task(self._ask(rate.name))
        return await asyncio.shield(asked)

    async def of_run(self, run_id: UUID) -> list[Turn]:
        """The steps of a run that wait for their turns, the next first. Raises BackendError."""
        rows = await self._fetch(self._sql["turns_of_run"], self._namespace_id, run_id)
        return [Turn(**row) for row in rows]

    async def pause(self, name: str, until: datetime | None, seconds: float | None) -> None:
        """Let nothing of a limit begin until then, or for some seconds. Raises BackendError."""
        await self._fetch(self._sql["hold_limit"], self._namespace_id, name, until, seconds)

    async def _ask(self, name: str) -> None:
        try:
            while waiting := self._waiting.pop(name, None):
                asked = list(waiting.items())
                for start in range(0, len(asked), MOST_AT_ONCE):
                    await self._ask_for(name, dict(asked[start : start + MOST_AT_ONCE]))
        finally:
            del self._tasks[name]

    async def _ask_for(
        self, name: str, asked: dict[tuple[UUID, str], "asyncio.Future[datetime | None]"]
    ) -> None:
        runs, steps = [run_id for run_id, _ in asked], [step for _, step in asked]
        try:
            rows: list[Any] = await self._fetch(
                self._sql["take_turns"], self._namespace_id, name, runs, steps
            )
        except Exception as error:
            for future in asked.values():
                future.set_exception(error)
                future.exception()  # whoever asked may be gone
            return
        for row in rows:
            asked[row["run_id"], row["step"]].set_result(row["at"])
        if rows and not rows[0]["is_known"] and name not in self._unknown:
            self._unknown.add(name)
            logger.warning(
                "there is no limit %r, so that steps which name it are not limited; openworkflow "
                "limits set makes it, or rate=Rate(20, per='1m', name=...)",
                name,
            )
