"""Workers that die by SIGKILL, in real processes, at every boundary of a step's life."""

import asyncio
import contextlib
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from openworkflow import BackendPostgres, OpenWorkflow, WorkflowFailed

VICTIM = Path(__file__).with_name("victim.py")


@pytest.fixture
async def ledger(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the ledger of effects, which is not ours but the user's."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("CREATE TABLE ledger (step text, pid int)")
    yield connection
    await connection.close()


@contextlib.asynccontextmanager
async def victim(database_url: str, boundary: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker process, killed at the latest when the block ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(VICTIM), database_url, boundary
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.parametrize(
    ("boundary", "calls_of_the_step"),
    [
        ("claimed", 1),
        ("before", 1),
        ("during", 2),
        ("after", 2),
        ("before-commit", 2),
        ("after-commit", 1),
        ("ended", 1),
    ],
)
async def test_a_killed_worker_costs_no_run_and_repeats_no_recorded_step(
    ow: OpenWorkflow,
    database_url: str,
    ledger: asyncpg.Connection,
    boundary: str,
    calls_of_the_step: int,
) -> None:
    run = await ow.run_workflow("three-steps")
    async with victim(database_url, boundary) as process:
        assert -signal.SIGKILL == await asyncio.wait_for(process.wait(), 60)
    async with victim(database_url, "never"):
        result = await run.result(timeout=60)

    assert ["first done", "second done", "third done"] == result
    calls = Counter(row["step"] for row in await ledger.fetch("SELECT step FROM ledger"))
    assert {"first": 1, "second": calls_of_the_step, "third": 1} == calls
    steps = (await ow.get_run(run.id)).steps
    assert ["first", "second", "third"] == [s.step_name for s in steps if s.status == "succeeded"]


@pytest.mark.parametrize("early", [True, False], ids=["early", "late"])
@pytest.mark.parametrize("boundary", ["claimed", "after", "before-commit", "after-commit", "ended"])
async def test_a_killed_worker_loses_no_signal_and_takes_none_twice(
    ow: OpenWorkflow, database_url: str, ledger: asyncpg.Connection, boundary: str, early: bool
) -> None:
    """Late: the wait is recorded and parked before its signal comes, and dies at either write."""
    run = await ow.run_workflow("three-signals")
    sent = [("first", 1), ("second", 2), ("second", 4), ("third", 3)]
    if early:
        for name, value in sent:
            await run.signal(name, value)
    async with victim(database_url, boundary) as process:
        if not early:
            for name, value in sent:
                await run.signal(name, value)
                await asyncio.sleep(0.05)  # where the worker is by then is meant to vary
        assert -signal.SIGKILL == await asyncio.wait_for(process.wait(), 60)
    async with victim(database_url, "never"):
        assert [1, 2, 3] == await run.result(timeout=60)

    taken = await ledger.fetch(
        "SELECT context ->> 'message' AS message FROM step_attempts WHERE status = 'succeeded'"
    )
    assert 3 == len(taken) == len({row["message"] for row in taken})


@pytest.mark.parametrize("flow", ["three-children", "mapped-children"])
@pytest.mark.parametrize(
    "boundary", ["claimed", "before", "during", "after", "before-commit", "after-commit", "ended"]
)
async def test_a_killed_worker_starts_no_child_twice_and_loses_none(
    ow: OpenWorkflow, database_url: str, ledger: asyncpg.Connection, boundary: str, flow: str
) -> None:
    run = await ow.run_workflow(flow)
    async with victim(database_url, boundary) as process:
        assert -signal.SIGKILL == await asyncio.wait_for(process.wait(), 60)
    async with victim(database_url, "never"):
        result = await run.result(timeout=60)

    names = ["first", "second", "third"] if flow == "three-children" else MAPPED
    assert [f"{name} done" for name in names] == result
    children = await ledger.fetch(
        "SELECT input #>> '{}' AS name, status FROM workflow_runs WHERE parent_run_id = $1", run.id
    )
    assert {(name, "succeeded"): 1 for name in names} == Counter(
        (child["name"], child["status"]) for child in children
    )


MAPPED = ["first", "middle", "second", "last"]


@pytest.mark.parametrize(
    ("boundary", "calls_of_the_undo"),
    [
        ("before-decision", 1),
        ("after-decision", 1),
        ("before", 1),
        ("during", 2),
        ("after", 2),
        ("before-commit", 2),
        ("after-commit", 1),
        ("ended", 1),
    ],
)
async def test_a_killed_worker_leaves_nothing_to_undo_and_repeats_no_recorded_undo(
    ow: OpenWorkflow,
    database_url: str,
    ledger: asyncpg.Connection,
    boundary: str,
    calls_of_the_undo: int,
) -> None:
    run = await ow.run_workflow("three-undone")
    async with victim(database_url, boundary) as process:
        assert -signal.SIGKILL == await asyncio.wait_for(process.wait(), 60)
    async with victim(database_url, "never"):
        with pytest.raises(WorkflowFailed, match="no"):
            await run.result(timeout=60)

    calls = Counter(row["step"] for row in await ledger.fetch("SELECT step FROM ledger"))
    assert calls == {
        **dict.fromkeys(["start", "middle", "undo:start", "undo:end"], 1),
        "end": 1 + (boundary == "before-decision"),  # its record is in the same commit
        "undo:middle": calls_of_the_undo,
    }
    steps = (await ow.get_run(run.id)).steps
    undone = [s.step_name for s in steps if s.status == "succeeded" and s.kind == "undo"]
    assert ["undo", "undo:end", "undo:middle", "undo:start"] == undone


async def test_many_runs_survive_workers_killed_at_random_moments(
    ow: OpenWorkflow, backend: BackendPostgres, database_url: str, ledger: asyncpg.Connection
) -> None:
    """Whatever was recorded by a worker that died was not called again by its successors."""
    runs = await ow.run_workflows("three-steps", [None] * 60)
    for delay in (0.05, 0.15, 0.3):
        async with victim(database_url, "never") as process:
            await _some_progress(ledger)
            await asyncio.sleep(delay)  # the moment of death is meant to vary
            process.kill()
    async with victim(database_url, "never"):
        results = [await run.result(timeout=90) for run in runs]

    assert [["first done", "second done", "third done"]] * 60 == results
    recorded = await ledger.fetch(
        "SELECT step_name, count(*) AS n FROM step_attempts WHERE status = 'succeeded' "
        "GROUP BY step_name"
    )
    assert {"first": 60, "second": 60, "third": 60} == {r["step_name"]: r["n"] for r in recorded}
    calls = await ledger.fetchval("SELECT count(*) FROM ledger")
    in_flight_when_killed = 3 * 5
    assert 180 <= calls <= 180 + in_flight_when_killed


async def _some_progress(ledger: asyncpg.Connection) -> None:
    async with asyncio.timeout(60):
        before = await ledger.fetchval("SELECT count(*) FROM ledger")
        while await ledger.fetchval("SELECT count(*) FROM ledger") == before:
            await asyncio.sleep(0.01)
