"""Limits under whatever comes in whatever order: none is exceeded, and in the end all is done."""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from openworkflow import BackendPostgres, OpenWorkflow
from openworkflow.backend.backend import NewRun, WorkerSession
from openworkflow.core.limits import LimitRule
from openworkflow.core.recorded import ClaimedRun
from openworkflow.core.workflow_run import RunStatus
from tests.flushes import claim, end_of, flush

RULES = [LimitRule(name=name, slots=slots) for name, slots in (("one", 1), ("two", 2), ("key", 1))]
LIMITS = ["one", "two", "one\x1etwo", "key\x1fx", "key\x1fy\x1etwo"]
NAMES = "abc"
OPEN = "select count(*) from workflow_runs where completed_at is null"
EXCEEDED = (
    "select limit_key from workflow_limit_runs, unnest(limits) each (limit_key) where has_slot"
    " group by 1 having count(*) > case limit_key when 'two' then 2 else 1 end"
)
SOME = "(select id from workflow_runs where status = 'pending' order by id desc limit 1)"
OLDER = "update workflow_served set seen_at = seen_at - interval '%s min'"
LONG_DUE = (
    "update workflow_runs set available_at = available_at - interval '50 min'"
    " where status = 'pending' and available_at <= now() and not paused"
)
WEIGHTS = {"start": 2, "claim": 2, "end": 2} | dict.fromkeys(
    ("park", "hand back", "serve", "age", "look", "pause", "resume", "cancel", "pin"), 1
)


class World:
    """One namespace, one worker's session, and what it executes."""

    def __init__(
        self,
        ow: OpenWorkflow,
        backend: BackendPostgres,
        session: WorkerSession,
        sql: asyncpg.Connection[Any],
        seed: int,
    ) -> None:
        self.ow, self.backend, self.session, self.sql = ow, backend, session, sql
        self.random = random.Random(seed)
        self.running: dict[UUID, ClaimedRun] = {}

    async def do(self, what: str) -> None:
        """One thing that somebody does."""
        name, some = self.random.choice(NAMES), self.random.randrange(1, 4)
        match what:
            case "start":
                limits = self.random.choices(LIMITS, k=some)
                await self.backend.create_workflow_runs(
                    [NewRun(name, limits=each, priority=some % 3 or None) for each in limits]
                )
            case "claim":
                names = self.random.sample(NAMES, self.random.randrange(1, 3))
                claimed = await claim(self.session, *names, limit=some)
                self.running.update((run.id, run) for run in claimed)
            case "end" | "park" | "hand back" if self.running:
                run = self.running.pop(self.random.choice(list(self.running)))
                delay = {"park": some / 100, "hand back": 0.0}.get(what)
                await self.end(run, delay)
            case "serve":
                await self.sql.execute(OLDER % 2)
                build = self.random.choice([None, "b1"])
                await self.backend.builds.serve([(name, "")], build)
            case "age":
                await self.sql.execute(OLDER % 50)
                await self.sql.execute(LONG_DUE)
            case "look":
                minute = "update workflow_limits set updated_at = updated_at - interval '1 min'"
                await self.sql.execute(minute)
                await self.backend.limits.declare(RULES, [])
            case "pause":
                await self.ow.pause(workflow=name)
            case "resume":
                await self.ow.resume(workflow=name)
            case "cancel":
                if found := await self.sql.fetchval(SOME):
                    await self.ow.cancel(found)
            case "pin":
                await self.sql.execute(
                    f"update workflow_runs set pinned = true, build_id = 'b1' where id = {SOME}"
                )

    async def end(self, run: ClaimedRun, delay: float | None = None) -> None:
        """End it, or have it go on after so many seconds."""
        status = RunStatus.SUCCEEDED if delay is None else RunStatus.PENDING
        await flush(self.session, ends=[end_of(run, status, delay=delay)])

    async def check(self, what: str) -> None:
        """Nothing is broken, and no limit exceeded."""
        assert [] == (await self.backend.diagnostics()).violations, what
        assert [] == await self.sql.fetch(EXCEEDED), what

    async def finish(self) -> None:
        """Hold nothing back, and execute what is due until nothing is left."""
        for name in NAMES:
            await self.ow.resume(workflow=name)
        await self.sql.execute("update workflow_runs set pinned = false")
        idle = 0
        while await self.sql.fetchval(OPEN):
            claimed = [*self.running.values()] or await claim(self.session, *NAMES)
            self.running.clear()
            idle = 0 if claimed else idle + 1
            assert idle < 100, "what is left is never due"
            for run in claimed:
                await self.end(run)
            if not claimed:
                await self.sql.execute("select pg_sleep(0.02)")  # until what is parked is due


@pytest.mark.parametrize("seed", range(3))
async def test_limits_hold_and_all_gets_done_whatever_is_served_when(
    ow: OpenWorkflow, backend: BackendPostgres, sql: asyncpg.Connection[Any], seed: int
) -> None:
    session = await backend.open_session(1)
    await backend.limits.ensure(RULES)
    await backend.builds.register("b1")
    world = World(ow, backend, session, sql, seed)
    for what in world.random.choices(list(WEIGHTS), list(WEIGHTS.values()), k=120):
        await world.do(what)
        await world.check(what)

    await world.finish()

    await world.check("in the end")
    await session.close()
