"""Workers say what they serve; nothing of theirs depends on it."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from openworkflow import OpenWorkflow, Step, workflow
from openworkflow.backend.backend import BackendPostgres
from openworkflow.worker import served
from tests.helpers import StartWorker, eventually

SERVED = "select workflow_name, version from workflow_served where namespace_id = 'default'"


@workflow
async def one(step: Step) -> str:
    return "done"


@workflow(name="two", version="3")
async def two(step: Step) -> None: ...


async def test_a_worker_says_what_it_serves(
    start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    await start_worker(one, two)

    assert await eventually(lambda: sql.fetch(SERVED))
    assert {("one", ""), ("two", "3")} == {tuple(row) for row in await sql.fetch(SERVED)}


async def test_it_says_so_again_and_a_whole_fleet_that_starts_writes_once(
    backend: BackendPostgres, sql: asyncpg.Connection[Any]
) -> None:
    versions = "select array_agg(xmin::text) from workflow_served"
    await backend.builds.serve([("a", ""), ("b", "")])
    first = await sql.fetchval(versions)
    await backend.builds.serve([("b", ""), ("a", "")])
    second = await sql.fetchval(versions)
    await sql.execute("update workflow_served set seen_at = seen_at - interval '2 min'")

    await backend.builds.serve([("a", "")])

    fresh = "select workflow_name from workflow_served where seen_at > now() - interval '1 min'"
    assert first == second
    assert ["a"] == [row["workflow_name"] for row in await sql.fetch(fresh)]


async def test_a_worker_whose_role_may_not_say_it_works_all_the_same(
    ow: OpenWorkflow,
    start_worker: StartWorker,
    sql: asyncpg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(served, "REPEAT_SECONDS", 0.01)
    await sql.execute("alter table workflow_served rename to elsewhere")

    await start_worker(one)

    run = await ow.run_workflow(one)
    assert "done" == await run.result(timeout=20)
    await eventually(lambda: caplog.text.count("could not say which workflows are served") > 1)


async def test_no_error_of_saying_it_ends_the_worker(
    ow: OpenWorkflow,
    start_worker: StartWorker,
    backend: BackendPostgres,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(*_: Any) -> None:
        raise KeyError("a column")

    monkeypatch.setattr(served, "REPEAT_SECONDS", 0.01)
    monkeypatch.setattr(backend.builds, "serve", fail)

    await start_worker(one)

    await eventually(lambda: caplog.text.count("could not say which workflows are served") > 1)
    run = await ow.run_workflow(one)
    assert "done" == await run.result(timeout=20)
