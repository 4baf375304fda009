"""Keeps the schedules of resources in their databases, beside the reconciliations.

One clerk per database, over one connection while it works; one that is slow or fails is asked less
and less often, and nobody else waits for it. What is there as desired is only looked at, now and
then, in case somebody deleted it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import asyncpg

from openworkflow_operator.api.schedules import ScheduleEntry
from openworkflow_operator.api.spec import Key
from openworkflow_operator.database.connection import ConnectOptions, Database
from openworkflow_operator.database.diagnosis import SchemaMissing, diagnose
from openworkflow_operator.database.dsn import Dsn
from openworkflow_operator.database.schedule_rows import keep
from openworkflow_operator.decide.observation import DatabaseProblem, DatabaseReason
from openworkflow_operator.decide.schedules import Kept

logger = logging.getLogger(__name__)

#: For all entries of one resource; what is left is done the next time.
KEEP_SECONDS: Final = 120.0

#: Where advice differs from that on reading.
_ADVICE: Final = {
    DatabaseReason.PERMISSION_DENIED: "the role may not keep schedules: grant SELECT, INSERT and "
    "UPDATE on `workflow_schedules` and `workflow_runs`",
    DatabaseReason.QUERY_FAILED: "the schedules could not be stored",
}


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between two rounds of one resource; each is varied."""

    after_all: float = 300.0
    after_failure: float = 1.0
    """Doubled each time."""
    longest: float = 60.0


@dataclass(frozen=True, slots=True)
class Declared:
    """The schedules that one resource declares, and where."""

    dsn: Dsn
    schema: str
    namespace_id: str
    entries: Sequence[ScheduleEntry]


@dataclass(slots=True)
class _Desk:
    """What there is to do for one resource, and how it went the last time."""

    declared: Declared
    due: float = 0.0
    failures: int = 0
    kept: Kept | None = None


Place = tuple[Dsn, str]


class ScheduleKeeper:
    """Keeps the schedules of every resource that declares some. Use as an async context.

    `on_end` hears of each resource for which it went otherwise than the last time.
    """

    def __init__(
        self,
        on_end: Callable[[Key], None],
        options: ConnectOptions | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.on_end, self.options, self.pace = on_end, options or ConnectOptions(), pace or Pace()
        self._clerks: dict[Place, _Clerk] = {}
        self._places: dict[Key, Place] = {}

    async def __aenter__(self) -> ScheduleKeeper:
        return self

    async def __aexit__(self, *_: object) -> None:
        for key in list(self._places):
            self.forget(key)

    def keep(self, key: Key, declared: Declared) -> None:
        """Have these stored for the resource, and no others, from now on."""
        place = (declared.dsn, declared.schema)
        if self._places.get(key, place) != place:
            self.forget(key)
        if place not in self._clerks:
            self._clerks[place] = _Clerk(self)
        self._places[key] = place
        self._clerks[place].set(key, declared)

    def forget(self, key: Key) -> None:
        """Leave what is stored for the resource as it is."""
        place = self._places.pop(key, None)
        if place is None:
            return
        clerk = self._clerks[place]
        del clerk.desks[key]
        if not clerk.desks:
            clerk.task.cancel()
            del self._clerks[place]

    def last(self, key: Key) -> Kept | None:
        """How it went with what is declared now; None before it is known."""
        place = self._places.get(key)
        return None if place is None else self._clerks[place].desks[key].kept


class _Clerk:
    """The schedules in one database."""

    def __init__(self, keeper: ScheduleKeeper) -> None:
        self._keeper, self._wake = keeper, asyncio.Event()
        self._database: Database | None = None
        self.desks: dict[Key, _Desk] = {}
        self.task = asyncio.create_task(self._run(), name="schedules")

    def set(self, key: Key, declared: Declared) -> None:
        known = self.desks.get(key)
        if known is None or known.declared != declared:
            self.desks[key] = _Desk(declared, failures=known.failures if known else 0)
            self._wake.set()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                for key, desk in list(self.desks.items()):
                    if desk.due <= time.monotonic() and self.desks.get(key) is desk:
                        await self._serve(key, desk)
            finally:
                self._disconnect()
            # However often a resource is changed, a login each second is enough.
            await asyncio.sleep(self._keeper.pace.after_failure)
            pause = min(desk.due for desk in self.desks.values()) - time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, pause)):
                    await self._wake.wait()

    async def _serve(self, key: Key, desk: _Desk) -> None:
        pace = self._keeper.pace
        try:
            async with asyncio.timeout(KEEP_SECONDS):
                kept = await self._keep(desk.declared)
            desk.failures, pause = 0, pace.after_all
        except Exception as error:
            kept = Kept(problem=(problem := _problem(error)))
            self._disconnect()
            # The class is ours or asyncpg's; the text could hold what is secret.
            name = type(error).__name__
            logger.warning("%s: schedules are not stored: %s (%s)", key, problem.reason, name)
            pause = min(pace.longest, pace.after_failure * 2.0 ** min(desk.failures, 10))
            desk.failures += 1
        desk.due = time.monotonic() + pause * random.uniform(0.8, 1.0)
        if desk.kept != kept and self.desks.get(key) is desk:
            desk.kept = kept
            self._keeper.on_end(key)

    async def _keep(self, declared: Declared) -> Kept:
        try:
            if self._database is None or self._database.is_closed:
                options = self._keeper.options
                self._database = await Database.connect(declared.dsn, declared.schema, options)
            return await keep(self._database, declared.namespace_id, declared.entries)
        except (SchemaMissing, asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError):
            if declared.entries:
                raise
            return Kept()  # where nothing can be stored, nothing was

    def _disconnect(self) -> None:
        if self._database is not None:
            self._database.terminate()
            self._database = None


def _problem(error: Exception) -> DatabaseProblem:
    problem = diagnose(error)
    return replace(problem, message=_ADVICE.get(problem.reason, problem.message))
