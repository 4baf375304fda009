"""Deletes finished runs whose time is over, by one walk through a database's table an hour.

The walk goes page by page in the order of the ids, as that of `openworkflow prune`, but a page is
so many rows looked at, not found: however few there are to delete, no statement takes long. It
rests as long as it works, has a connection of its own while it lasts, and goes on where it
stopped. Nothing else waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from openworkflow_operator.api.spec import Key
from openworkflow_operator.database.connection import ConnectOptions, Database, Kept
from openworkflow_operator.database.diagnosis import diagnose
from openworkflow_operator.database.dsn import Dsn
from openworkflow_operator.decide.observation import Pruning

logger = logging.getLogger(__name__)

PAGE: Final = 1000
#: A walk that takes longer goes on after a short rest, so that others get their turn.
TURN_SECONDS: Final = 60.0
WALKS_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class Rest:
    """Seconds until the next walk; each is varied, so that not all begin at once."""

    first: float = 30.0
    after_all: float = 3600.0
    after_turn: float = 60.0
    after_failure: float = 300.0


@dataclass(frozen=True, slots=True)
class Retention:
    """What to delete for one resource."""

    dsn: Dsn
    schema: str
    namespace_id: str
    seconds: Mapping[str, int]
    """By status."""
    spared_build: str | None = None
    """A build that is being proven, by its runs."""


Place = tuple[Dsn, str]


class Pruner:
    """Walks through every database that a resource with `retention` names. An async context."""

    def __init__(
        self,
        on_end: Callable[[Key], None],
        on_deleted: Callable[[Key, int], None] = lambda key, runs: None,
        on_failure: Callable[[str], None] = lambda reason: None,
        options: ConnectOptions | None = None,
        rest: Rest | None = None,
    ) -> None:
        self.on_end, self.on_deleted, self.on_failure = on_end, on_deleted, on_failure
        self.options, self.rest = options or ConnectOptions(), rest or Rest()
        self.turns = asyncio.Semaphore(WALKS_AT_ONCE)
        self._walkers: dict[Place, _Walker] = {}
        self._wanted: dict[Key, Retention] = {}

    async def __aenter__(self) -> Pruner:
        return self

    async def __aexit__(self, *_: object) -> None:
        for key in list(self._wanted):
            self.forget(key)

    def keep(self, key: Key, retention: Retention) -> None:
        """Delete this for the resource from now on."""
        known = self._wanted.get(key)
        if known == retention:
            return
        place = (retention.dsn, retention.schema)
        if known is not None and (known.dsn, known.schema) != place:
            self.forget(key)
        if place not in self._walkers:
            self._walkers[place] = _Walker(self, retention.dsn, retention.schema)
        self._wanted[key] = retention
        self._walkers[place].wanted[key] = retention

    def forget(self, key: Key) -> None:
        """Delete nothing more for the resource."""
        retention = self._wanted.pop(key, None)
        if retention is None:
            return
        place = (retention.dsn, retention.schema)
        walker = self._walkers[place]
        del walker.wanted[key]
        walker.ended.pop(key, None)
        if not walker.wanted:
            walker.task.cancel()
            del self._walkers[place]

    def last(self, key: Key) -> Pruning | None:
        """How the last walk ended, None before the first one."""
        retention = self._wanted.get(key)
        if retention is None:
            return None
        return self._walkers[(retention.dsn, retention.schema)].ended.get(key)


class _Walker:
    """The walks through one database."""

    def __init__(self, pruner: Pruner, dsn: Dsn, schema: str) -> None:
        self._pruner, self._dsn, self._schema = pruner, dsn, schema
        self._after, self._size = UUID(int=0), PAGE
        self.wanted: dict[Key, Retention] = {}
        self.ended: dict[Key, Pruning] = {}
        self.task = asyncio.create_task(self._run(), name="pruner")

    async def _run(self) -> None:
        rest = self._pruner.rest
        pause = rest.first
        while True:
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            async with self._pruner.turns:
                try:
                    is_through = await self._walk()
                except Exception as error:
                    problem = diagnose(error, pruning=True)
                    # The class is ours or asyncpg's; the text could hold what is secret.
                    logger.warning("pruning failed: %s (%s)", problem.reason, type(error).__name__)
                    self._pruner.on_failure(problem.reason)
                    self._end(Pruning(problem))
                    pause = rest.after_failure
                    # Runs may have very many steps: sooner or later a page is small enough.
                    self._size = max(1, self._size // 4)
                else:
                    self._end(Pruning())
                    pause = rest.after_all if is_through else rest.after_turn

    async def _walk(self) -> bool:
        """Go on where the last walk stopped; False if the turn was over before the table was."""
        ends = time.monotonic() + TURN_SECONDS
        database = await Database.connect(self._dsn, self._schema, self._pruner.options)
        try:
            while time.monotonic() < ends:
                began = time.monotonic()
                if not await self._page(database):
                    return True
                await asyncio.sleep(time.monotonic() - began)
            return False
        finally:
            database.terminate()

    async def _page(self, database: Database) -> bool:
        """False when there is no next one."""
        kept = [
            Kept(retention.namespace_id, status, seconds, retention.spared_build)
            for retention in self.wanted.values()
            for status, seconds in retention.seconds.items()
        ]
        pruned = await database.prune(kept, self._after, self._size)
        self._after, self._size = pruned.last or UUID(int=0), min(PAGE, 2 * self._size)
        for key, retention in self.wanted.items():
            if runs := pruned.deleted.get(retention.namespace_id, 0):
                self._pruner.on_deleted(key, runs)
        return pruned.last is not None

    def _end(self, how: Pruning) -> None:
        for key in self.wanted:
            if self.ended.get(key) != how:
                self.ended[key] = how
                self._pruner.on_end(key)
