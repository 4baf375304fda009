"""Several builds at once, switched under load, whose workers die by SIGKILL."""

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg

from openworkflow import BackendPostgres, OpenWorkflow, RunHandle

BUILD_WORKER = Path(__file__).with_name("build_worker.py")
SLOTS = 5


@contextlib.asynccontextmanager
async def workers(database_url: str, *builds: str) -> AsyncIterator[None]:
    """A worker process of each build, killed when the block ends."""
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, str(BUILD_WORKER), database_url, build)
        for build in builds
    ]
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        for process in processes:
            await process.wait()


async def test_no_run_changes_its_build_and_no_recorded_step_is_repeated(
    ow: OpenWorkflow, backend: BackendPostgres, database_url: str, sql: asyncpg.Connection
) -> None:
    await sql.execute("CREATE TABLE ledger (step text)")  # of effects: not ours but the user's
    for build in ("v1", "v2"):
        await backend.builds.register(build)
    runs: list[RunHandle[str]] = []
    deaths = 0
    for build in ("v1", "v2", "v1", "v2"):
        await backend.builds.promote(build)
        runs += await ow.run_workflows("relay", range(len(runs), len(runs) + 20))
        async with workers(database_url, "v1", "v2"):
            await _calls_made_since(sql, await _calls(sql), 10)
        deaths += 2
    async with workers(database_url, "v1", "v2"):
        results = [await run.result(timeout=90) for run in runs]

    assert {"v1", "v2"} == set(results)
    bound = await sql.fetch("SELECT (input #>> '{}')::int AS number, build_id FROM workflow_runs")
    assert dict(enumerate(results)) == {row["number"]: row["build_id"] for row in bound}
    recorded = await sql.fetch(
        "SELECT r.build_id, s.step_name, count(*) AS n"
        " FROM step_attempts s JOIN workflow_runs r ON r.id = s.workflow_run_id"
        " WHERE s.status = 'succeeded' GROUP BY 1, 2"
    )
    names = ("first", "second", "pause", "third")
    expected = {(b, f"{b} {name}"): n for b, n in Counter(results).items() for name in names}
    assert expected == {(row["build_id"], row["step_name"]): row["n"] for row in recorded}
    assert 3 * len(runs) <= await _calls(sql) <= 3 * len(runs) + deaths * SLOTS


async def _calls(sql: asyncpg.Connection) -> int:
    return int(await sql.fetchval("SELECT count(*) FROM ledger"))


async def _calls_made_since(sql: asyncpg.Connection, before: int, calls: int) -> None:
    async with asyncio.timeout(60):
        while await _calls(sql) < before + calls:
            await asyncio.sleep(0.01)
