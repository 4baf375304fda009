"""Carries out in a tenant's database what a rollout decided: shares, canaries, retired builds.

Each action is safe to repeat: an operator that was killed after half of them is followed by one
that decides anew from what is there. No visit waits for it, since a slow database would hold a
visitor for minutes, and a few of them all.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, assert_never

from openworkflow_contract.retirement import BATCH, error_of
from openworkflow_operator.api.spec import Key
from openworkflow_operator.database.connection import ConnectOptions, Database
from openworkflow_operator.database.diagnosis import diagnose
from openworkflow_operator.database.dsn import Dsn
from openworkflow_operator.database.observatory import Observatory
from openworkflow_operator.decide.observation import DatabaseProblem
from openworkflow_operator.decide.rollout import (
    Action,
    Hold,
    Promote,
    Retire,
    StartCanary,
    StopCanary,
)

logger = logging.getLogger(__name__)

#: Batches of left-over runs that are moved or failed at once; the next look leads to more.
BATCHES_OF_A_VISIT: Final = 10
#: For all actions that one look led to; what is left is decided anew.
ROUTE_SECONDS: Final = 120.0


@dataclass(slots=True)
class _Work:
    """What is being done for one resource, or was last."""

    task: asyncio.Task[None] | None = None
    serial: int = -1
    """The last look that may have missed it."""
    problem: DatabaseProblem | None = None


class Router:
    """Carries out decisions, those of one resource at a time. Use as an async context.

    `on_end` hears of each resource whose decisions were carried out, or not.
    """

    def __init__(self, observatory: Observatory, on_end: Callable[[Key], None]) -> None:
        self._observatory, self._on_end = observatory, on_end
        self._work: dict[Key, _Work] = {}

    async def __aenter__(self) -> Router:
        return self

    async def __aexit__(self, *_: object) -> None:
        for key in list(self._work):
            self.forget(key)

    def start(
        self, key: Key, actions: Sequence[Action], dsn: Dsn, schema: str, namespace_id: str
    ) -> None:
        """Begin with these, unless something is under way for the resource."""
        work = self._work.setdefault(key, _Work())
        if work.task is None:
            doing = self._do(key, work, actions, (dsn, schema, namespace_id))
            work.task = asyncio.create_task(doing, name="router")

    def is_busy(self, key: Key) -> bool:
        """Whether something is being done for the resource."""
        return self._work.get(key, _Work()).task is not None

    def acted(self, key: Key) -> int:
        """The last look that may have missed what was done; while it is being done, all may."""
        return sys.maxsize if self.is_busy(key) else self._work.get(key, _Work()).serial

    def problem(self, key: Key) -> DatabaseProblem | None:
        """Why the database did not take the last decision."""
        return self._work.get(key, _Work()).problem

    def settle(self, key: Key) -> None:
        """A look from after the last decision left nothing to do."""
        if key in self._work:
            self._work[key].problem = None

    def forget(self, key: Key) -> None:
        """The resource is gone, or another one acts."""
        work = self._work.pop(key, None)
        if work is not None and work.task is not None:
            work.task.cancel()

    async def _do(
        self, key: Key, work: _Work, actions: Sequence[Action], where: tuple[Dsn, str, str]
    ) -> None:
        try:
            async with asyncio.timeout(ROUTE_SECONDS):
                await carry_out(actions, *where, self._observatory.options)
            work.problem = None
        except Exception as error:
            # The class is ours or asyncpg's; the text could hold what is secret. The next look
            # decides anew.
            work.problem = diagnose(error)
            logger.warning("%s: a rollout cannot go on: %s", key, work.problem.reason)
        work.task, work.serial = None, self._observatory.serial
        self._observatory.hurry(key)
        self._on_end(key)


async def carry_out(
    actions: Sequence[Action], dsn: Dsn, schema: str, namespace_id: str, options: ConnectOptions
) -> None:
    """Do these, over a connection of their own.

    Raises what `diagnosis.diagnose` understands.
    """
    database = await Database.connect(dsn, schema, options)
    try:
        for action in actions:
            logger.info("namespace %s: %s", namespace_id, action)
            await _carry_out(database, action, namespace_id)
    finally:
        database.terminate()


async def _carry_out(database: Database, action: Action, namespace_id: str) -> None:
    match action:
        case Promote(build, share):
            await _route(database, "promote_build", namespace_id, build, share)
        case Hold(build):
            await _route(database, "hold_build", namespace_id, build)
        case StartCanary(build, workflow):
            async with database.writing() as fetch:
                await fetch("start_canary", namespace_id, build, workflow)
        case StopCanary(build):
            async with database.writing() as fetch:
                await fetch("lock_canary", namespace_id, build)
                await fetch("stop_canary", namespace_id, build)
        case Retire(build, leftover):
            if leftover != "refuse":
                await _settle(database, leftover, namespace_id, build)
            await _route(database, "delete_build", namespace_id, build)
        case _:
            assert_never(action)


async def _route(database: Database, name: str, namespace_id: str, *arguments: object) -> None:
    """Change who takes new runs, when it is this change's turn."""
    async with database.writing() as fetch:
        await fetch("lock_builds", namespace_id)
        await fetch(name, namespace_id, *arguments)


async def _settle(
    database: Database, leftover: Literal["move", "fail"], namespace_id: str, build: str
) -> None:
    end = move_batch if leftover == "move" else fail_batch
    for _ in range(BATCHES_OF_A_VISIT):
        if not await end(database, namespace_id, build):
            return


async def move_batch(database: Database, namespace_id: str, build: str) -> int:
    """Let any build continue some of the runs that are left; returns how many."""
    async with database.writing() as fetch:
        return len(await fetch("unpin_build", namespace_id, build, BATCH))


async def fail_batch(database: Database, namespace_id: str, build: str) -> int:
    """Fail some of the runs that are left; returns how many."""
    async with database.writing() as fetch:
        locked = await fetch("lock_pinned_runs", namespace_id, build, BATCH)
        return len(await fetch("fail_build", [row["id"] for row in locked], error_of(build)))
