"""What a scenario and a campaign work with: a database, a fleet, and a note of what was done."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg

from openworkflow import BackendPostgres, OpenWorkflow, RunHandle
from openworkflow.core.errors import BackendError, InvalidRunState
from openworkflow.core.workflow import Workflow
from tests.chaos import ledger, shapes, tables
from tests.chaos.controlled import APART_SECONDS
from tests.chaos.evidence import Evidence, Fault, Fork, Group, Job
from tests.chaos.fleet import Fleet
from tests.chaos.mutations import MUTATIONS
from tests.helpers import eventually

BROKEN_PATIENCE = 10.0
"""Seconds for runs of a broken copy, some of which never end."""
RECENT_CALLS = 10_000
"""Where a call is looked for that has just been made."""
SUCCEEDS = frozenset({"succeeded"})


@dataclass
class Notes:
    """What was asked for and answered, beside runs: see Evidence."""

    windows: dict[str, int] = field(default_factory=dict)
    groups: dict[str, Sequence[Group]] = field(default_factory=dict)
    wanted: list[tuple[str, datetime]] = field(default_factory=list)
    newest: dict[str, int] = field(default_factory=dict)
    followed: dict[str, Sequence[int]] = field(default_factory=dict)
    pauses: list[tuple[str, int, int]] = field(default_factory=list)
    forks: list[Fork] = field(default_factory=list)
    reopened: dict[str, float] = field(default_factory=dict)


@dataclass
class Stage:
    """The database at `url`, reached directly; `fleet` may reach it another way."""

    url: str
    fleet: Fleet
    client: OpenWorkflow
    backend: BackendPostgres
    jobs: dict[str, Job] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    notes: Notes = field(default_factory=Notes)
    _names: int = 0
    _ledger: ledger.Reader | None = None

    def name(self) -> str:
        """A name that no other job has."""
        self._names += 1
        return f"job-{self._names}"

    async def enqueue(
        self,
        workflow: Workflow[Any, Any],
        *,
        name: str = "",
        ends: frozenset[str] = SUCCEEDS,
        error: str | None = None,
        values: dict[str, Any] | None = None,
        **options: Any,
    ) -> tuple[str, RunHandle[Any]]:
        """Start a run; it counts once the client was told that it exists."""
        name = name or self.name()
        handle = await self.client.run_workflow(
            workflow, {"job": name, "generation": 0, **(values or {})}, **options
        )
        self.jobs[name] = Job(name, ends, error)
        return name, handle

    @contextlib.asynccontextmanager
    async def orders(self) -> AsyncIterator[asyncpg.Connection[Any]]:
        """A connection of somebody who has a table of his own beside the runs."""
        connection = await asyncpg.connect(self.url)
        try:
            yield connection
        finally:
            connection.terminate()

    async def order(self, connection: asyncpg.Connection[Any], *, commit: bool) -> None:
        """Start a run in the transaction that stores what it is about; some are rolled back."""
        name = f"order-{self.name()}"
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("INSERT INTO chaos_orders VALUES ($1)", name)
        given = {"job": name, "generation": 0}
        await self.client.run_workflow(shapes.sequential, given, connection=connection)
        if commit:
            await transaction.commit()
            self.jobs[name] = Job(name)
        else:
            await transaction.rollback()

    async def cancel(self, name: str, handle: RunHandle[Any]) -> None:
        """Cancel a run; it may have ended before."""
        self.jobs[name] = Job(name, frozenset({"canceled", "succeeded"}))
        await handle.cancel()
        self.jobs[name] = Job(name, frozenset({"canceled"}), canceled_at=time.monotonic())

    async def signal(self, handle: RunHandle[Any], number: int, key: str) -> None:
        """Send a run of `signaled` a number, until it is known to be sent."""
        in_doubt = False
        while True:
            try:
                await handle.signal("number", number, idempotency_key=key)
                return
            except BackendError:
                in_doubt = True
                await asyncio.sleep(0.2)
            except InvalidRunState:  # the run got it, and has ended since
                if not in_doubt:
                    raise
                return

    @contextlib.contextmanager
    def fault(self, kind: str, pids: Sequence[int] = ()) -> Any:
        """Note a fault that lasts as long as the block."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self.faults.append(Fault(kind, begin, time.monotonic(), tuple(pids)))

    def calls(self) -> list[ledger.Call]:
        """The ledger so far."""
        if self._ledger is None:
            self._ledger = ledger.Reader(self.fleet.folder)
        return self._ledger.read()

    def ended(self) -> dict[str, float]:
        """When calls were over, of those in the ledger that say so."""
        self.calls()
        assert self._ledger is not None
        return self._ledger.ended

    def beats(self) -> dict[int, list[ledger.Beat]]:
        """By process: the heartbeats that were answered."""
        self.calls()
        assert self._ledger is not None
        return self._ledger.beats

    def has_called(self, job: str, key: str) -> bool:
        """Whether that step of that job has been called."""
        newest = itertools.islice(reversed(self.calls()), RECENT_CALLS)
        return any(call.job == job and call.key == key for call in newest)

    async def called(self, key: str, times: int = 1, deadline: float = 20.0) -> None:
        """Wait until a step has been called so often."""

        def enough() -> bool:
            return sum(call.key == key for call in self.calls()) >= times

        await eventually(enough, deadline)

    async def settle(self, patience: float) -> bool:
        """Wait until every run has ended; False if the patience is over before."""
        connection = await asyncpg.connect(self.url)

        async def none_left() -> bool:
            return await tables.unfinished(connection) == 0

        try:
            await eventually(none_left, patience)
        except AssertionError:
            return False
        finally:
            await connection.close()
        return True

    async def evidence(self, patience: float = 15.0) -> Evidence:
        """Let the runs end, stop the workers and collect what there is to know."""
        if self.fleet.defect:
            patience = min(patience, BROKEN_PATIENCE)
        settled = await self.settle(patience)
        for schedule in await self.client.schedules.list():  # and so its next run
            await self.client.schedules.delete(schedule.name)
        if settled:
            await self.settle(patience)
        await self.fleet.heal(len(self.fleet.processes))
        await self.fleet.stop()
        connection = await asyncpg.connect(self.url)
        try:
            return Evidence(
                lease=self.fleet.lease,
                jobs=list(self.jobs.values()),
                calls=self.calls(),
                runs=await tables.runs(connection),
                rows=await tables.rows(connection),
                faults=self.faults,
                exits=self.fleet.exits,
                changes=await tables.changes(connection),
                broken=await tables.broken(connection),
                connections=await tables.connections_left(connection),
                orders=await tables.orders(connection),
                told=await tables.told(connection),
                statuses=await tables.statuses(connection),
                build_of=self.fleet.build_of,
                ended=self.ended(),
                beats=self.beats(),
                kin=await tables.kin(connection),
                begun=await tables.begun(connection),
                apart=APART_SECONDS,
                occurrences=await tables.occurrences(connection),
                **{each.name: getattr(self.notes, each.name) for each in fields(self.notes)},
            )
        finally:
            await connection.close()


@contextlib.asynccontextmanager
async def stage(
    url: str,
    folder: Path,
    *,
    lease: float,
    workers_url: str = "",
    rest: float = 0,
    defect: str = "",
    **more: Any,
) -> AsyncIterator[Stage]:
    """A stage on a database of its own; no worker of it outlives the block.

    `more` is of the fleet: poolers, builds and clocks.
    """
    backend = await BackendPostgres.connect(url)
    connection = await asyncpg.connect(url)
    await tables.watch(connection)
    if defect and (sql := MUTATIONS[defect].sql):
        await connection.execute(sql)
    await connection.close()
    fleet = Fleet(workers_url or url, folder, lease, rest, defect, **more)
    client = OpenWorkflow(backend)
    try:
        yield Stage(url, fleet, client, backend)
    finally:
        fleet.abandon()
        await client.stop()
        await backend.stop()


async def until(moment: Callable[[], bool], seconds: float) -> bool:
    """Whether it came true within so many seconds."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        if moment():
            return True
        await asyncio.sleep(0.02)
    return False
