"""Row security that nobody arranged hides rows without a word; that costs time and nothing else."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import asyncpg
import pytest

from openworkflow import OpenWorkflow, Step, workflow
from openworkflow.backend.roles import Kind, Role
from openworkflow.core.errors import BackendError
from openworkflow.worker.worker import Worker
from tests.database_roles import Roles, client_of, connected, name_in, roles_of
from tests.helpers import eventually

calls: Counter[str] = Counter()
PLACES = ["direct", "pooled"]


class Here:
    """What the steps of a test wait for."""

    gate: asyncio.Event


def call(name: str) -> str:
    calls[name] += 1
    return name


@workflow
async def told_to_go_on(step: Step) -> list[str]:
    first = await step.run("first", call, "first")
    await step.wait_for_signal("go")
    return [first, await step.run("second", call, "second")]


async def wait_at_the_gate() -> str:
    calls["held"] += 1
    await Here.gate.wait()
    return "done"


@workflow
async def held(step: Step) -> str:
    return await step.run("held", wait_at_the_gate)


REFUSED = "openworkflow_writes_refused", {"namespace_id": "default"}


@pytest.fixture(autouse=True)
def _as_at_first() -> None:
    calls.clear()
    Here.gate = asyncio.Event()


@pytest.fixture
async def roles(database_url: str) -> AsyncIterator[Roles]:
    async with roles_of(database_url) as roles:
        yield roles


@dataclass
class Place:
    """A worker and a client that are not the owner of the tables."""

    roles: Roles
    url: str
    ow: OpenWorkflow
    worker: Worker

    async def is_at_rest(self) -> bool:
        """Whether the run was claimed, and nobody has it."""
        run = "select claim_no = 1 and worker_id is null from workflow_runs"
        connection = await asyncpg.connect(self.roles.url)
        try:
            return bool(await connection.fetchval(run))
        finally:
            await connection.close()

    async def secure(self, table: str, word: str = "enable") -> None:
        """As somebody clicks on it in a console."""
        await self.roles.execute(f"alter table {table} {word} row level security")


@asynccontextmanager
async def at_work(roles: Roles, place: str) -> AsyncIterator[Place]:
    await roles.arrange()
    url = await roles.login(roles.shared(Kind.OPERATOR))
    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(connected(url, migrate=False))
        backend.pooled = place == "pooled"
        ow = await stack.enter_async_context(client_of(backend))
        worker = ow.new_worker(workflows=[told_to_go_on, held])
        await worker.start()
        stack.push_async_callback(worker.stop)
        yield Place(roles, url, ow, worker)


@pytest.mark.parametrize("place", PLACES)
async def test_a_history_that_is_hidden_is_not_taken_for_none(roles: Roles, place: str) -> None:
    """Recorded steps were called again: the run seemed to have none."""
    async with at_work(roles, place) as here:
        run = await here.ow.run_workflow(told_to_go_on)
        await eventually(lambda: here.is_at_rest())

        await here.secure("step_attempts")
        await run.signal("go")
        await eventually(lambda: not here.worker.ready()[0] or calls["first"] > 1)
        await here.secure("step_attempts", "disable")

        assert ["first", "second"] == await run.result(timeout=100)
        assert {"first": 1, "second": 1} == calls


@pytest.mark.parametrize("place", PLACES)
async def test_a_run_that_is_hidden_is_not_taken_for_lost(roles: Roles, place: str) -> None:
    """Its worker dropped it, and the step that it was in was called again after its lease."""
    async with at_work(roles, place) as here:
        run = await here.ow.run_workflow(held)
        await eventually(lambda: calls["held"])

        await here.secure("workflow_runs")
        Here.gate.set()
        await eventually(lambda: here.worker.metrics.registry.get_sample_value(*REFUSED))
        await here.secure("workflow_runs", "disable")

        assert "done" == await run.result(timeout=100)
        assert {"held": 1} == calls


async def test_who_waits_for_a_run_that_is_hidden_is_not_told_that_there_is_none(
    roles: Roles,
) -> None:
    async with at_work(roles, "direct") as here:
        run = await here.ow.run_workflow(held)
        await eventually(lambda: calls["held"])
        waiting = asyncio.ensure_future(run.result(timeout=100))

        await here.secure("workflow_runs")
        with pytest.raises(BackendError, match="row-level security"):
            await run.run()
        await here.secure("workflow_runs", "disable")
        Here.gate.set()

        assert "done" == await waiting


async def test_workers_go_on_when_namespaces_are_set_apart_while_they_work(roles: Roles) -> None:
    """Row security that is arranged shows each role what it may see, and is no fault."""
    async with at_work(roles, "direct") as here:
        run = await here.ow.run_workflow(held)
        await eventually(lambda: calls["held"])

        bound = await roles.login()
        await roles.arrange(bind=[Role(name_in(bound), (Kind.WORKER,), "tenant")])
        Here.gate.set()

        assert "done" == await run.result(timeout=100)
        assert {"held": 1} == calls


async def test_row_security_that_nobody_arranged_is_told_by_a_worker_that_starts(
    roles: Roles, caplog: pytest.LogCaptureFixture
) -> None:
    async with at_work(roles, "direct") as here:
        await here.secure("step_attempts")
        async with here.ow.new_worker(workflows=[held]):
            assert "row security of step_attempts is on" in caplog.text
