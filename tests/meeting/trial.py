"""One try of a program on a real worker, interrupted at a write of its choice."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

from openworkflow import BackendPostgres
from openworkflow.backend.backend import WorkerSession
from openworkflow.cli import histories
from openworkflow.core.workflow_run import RunStatus
from openworkflow.engine.replay import Replayer
from openworkflow.testing import Environment, environment
from tests.meeting.world import Program, World

HOWS = ("stored", "lost", "crashed", "drained")
"""The claims are lost, once a write is durable or before it is; the same by the end of their
leases; the worker hands its runs to another."""
_STOLEN = """
update workflow_runs set status = 'pending', worker_id = null, available_at = now()
 where status = 'running'
"""
_EXPIRED = "update workflow_runs set available_at = now() - interval '1 s' where status = 'running'"
_RECORDED = """
select workflow_run_id::text as run, step_name from step_attempts
 where status = 'succeeded' and kind = 'run' and claim_no >= 0
"""
_ENDED = """
select workflow_name, status, output::text, error->>'type' as kind, error->>'message' as said,
       tags::text
  from workflow_runs order by workflow_name, input::text, id
"""
_TOLD = """
select topic, value::text from workflow_events
 where workflow_run_id = $1 and step_name is null order by event_no
"""
_OPEN = """
select step_name from step_attempts join workflow_runs run on run.id = workflow_run_id
 where step_attempts.status = 'running' and run.completed_at is not null
"""
_OURS = ("internal error", "nothing could be", "never awaited", "was destroyed", "never retrieved")
"""What the log says of a mistake of ours."""
_BY_THE_CLOCK = ":DeadlineExceeded"


@dataclass
class Trial:
    """A program, and at which write that carries rows something happens to its worker."""

    program: Program
    at: int = 0
    how: str = ""
    delayed: bool = False
    flushed: int = 0
    happened: bool = False
    recorded: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often the steps were called that had been recorded when it happened."""

    async def came_to(self) -> dict[str, Any]:
        """Execute it; what can be seen of it at its end."""
        self.world = world = World(self.delayed)
        async with environment(timeout=25) as env, self._watched(env):
            world.ow = await env.client()
            self.sql = await asyncpg.connect(env.url)
            try:
                flows = self.program.workflows(world)
                await env.serve(*flows)
                if self.how == "crashed":
                    await self._other_workers(env)
                run = await env.start(flows[0], self.program.input)
                found = await self.program.drive(env, run, world)
                await run.end()
                await env.settle()
                return await self._seen(run.id, found, flows)
            finally:
                await self.sql.close()

    async def _seen(self, run_id: Any, found: Any, flows: list[Any]) -> dict[str, Any]:
        world, backend = self.world, self.world.ow._backend
        if not self.program.again:
            again = [key for key, n in self.recorded.items() if world.calls[key] != n]
            assert [] == again, again
        assert [] == await self.sql.fetch(_OPEN)
        assert [] == (await backend.diagnostics()).violations
        await self._replays(backend, {flow.key: flow for flow in flows})
        told = [tuple(row) for row in await self.sql.fetch(_TOLD, run_id)]
        progress = await world.ow.handle(run_id).progress()
        return {
            "runs": sorted(map(_ended, await self.sql.fetch(_ENDED)), key=repr),
            "told": sorted(told) if self.program.threads else told,
            "status": progress.status,
            "undone": world.undone,
            "found": found,
        }

    async def _replays(self, backend: BackendPostgres, flows: dict[Any, Any]) -> None:
        """Every history that has ended is replayed by the code that has made it."""
        ended = (RunStatus.SUCCEEDED, RunStatus.FAILED)
        with Replayer() as replayer:
            async for each in histories.recorded(backend, workflow=None, statuses=ended, limit=100):
                flow = flows.get((each.run.workflow_name, each.run.version or ""))
                if flow is not None and not str(each.error_type).endswith(_BY_THE_CLOCK):
                    replayed = await replayer.replay(each, flow)
                    assert replayed.found is None, (each.run.workflow_name, replayed.found)

    @contextlib.asynccontextmanager
    async def _watched(self, env: Environment) -> AsyncIterator[None]:
        """Flushes go by way of this trial, and nothing of the run is a mistake of ours."""
        real, trial, said = WorkerSession.flush, self, []

        async def flush(session: WorkerSession, batch: Any) -> Any:
            if not batch.rows or trial.happened or trial.at == 0:
                trial.flushed += bool(batch.rows)
                return await real(session, batch)
            trial.flushed += 1
            if trial.flushed != trial.at:
                return await real(session, batch)
            trial.happened = True
            return await trial._happen(env, lambda: real(session, batch))

        class Heard(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if record.levelno >= logging.WARNING:
                    said.append(logging.Formatter().format(record))

        heard = Heard()
        logging.getLogger().addHandler(heard)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(WorkerSession, "flush", flush)
            try:
                yield
            finally:
                logging.getLogger().removeHandler(heard)
        wrong = [each for each in said if any(words in each for words in _OURS)]
        assert [] == wrong, wrong

    async def _happen(self, env: Environment, write: Any) -> Any:
        if self.how == "drained":
            self._later(env, self._drain(env))
            return await write()
        answer = await write() if self.how == "stored" else None
        for row in await self.sql.fetch(_RECORDED):
            key = row["run"], row["step_name"]
            self.recorded[key] = self.world.calls[key]
        await self._lose_claims()
        return await write() if answer is None else answer

    async def _lose_claims(self) -> None:
        while True:  # who else writes to several runs may have them in another order
            with contextlib.suppress(asyncpg.DeadlockDetectedError):
                await self.sql.execute(_EXPIRED if self.how == "crashed" else _STOLEN)
                return

    def _later(self, env: Environment, work: Any) -> None:
        assert env._opened is not None
        env._opened.crew._later(work)

    async def _drain(self, env: Environment) -> None:
        assert env._opened is not None
        crew = env._opened.crew
        for workers in crew._sets:
            old, workers[:] = workers[:], []
            await asyncio.gather(*(worker.stop() for worker in old))
            await crew._start(workers, list(crew._workflows.values()))

    async def _other_workers(self, env: Environment) -> None:
        assert env._opened is not None
        crew = env._opened.crew
        crew._sets.append([])
        await crew._start(crew._sets[1], list(crew._workflows.values()))


def _ended(row: Any) -> tuple[Any, ...]:
    name, status, output, kind, said, tags = row
    return name, status, output, kind, said and said.split(",")[0], tags
