"""The version before works on while the tables are migrated, and starts again afterwards."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from openworkflow import BackendPostgres
from openworkflow.backend.blueprint import known
from tests.migrating import Program, migration

BEFORE = "7e5f44e"
"""The last commit whose programs know the schema by its version and not by its contract."""
HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
AN_INDEX = migration(
    known()[-1].version + 1,
    "an_index",
    "CREATE INDEX CONCURRENTLY idx_of_a_later_version ON workflow_runs (worker_id);",
    "additive, concurrently",
)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the version before."""
    git = ["git", "-C", str(REPOSITORY)]
    there = subprocess.run([*git, "cat-file", "-e", f"{BEFORE}^{{commit}}"], capture_output=True)
    if there.returncode:
        pytest.skip(
            f"NOT TESTED with the version before: commit {BEFORE} is not in the history of this "
            f"clone (git fetch --unshallow): {there.stderr.decode().strip()}"
        )
    folder = tmp_path_factory.mktemp("before")
    archive = subprocess.run(
        [*git, "archive", "--format=tar", BEFORE, "worker", "operator"], stdout=PIPE, check=True
    )
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


class Programs:
    """Processes of the version before."""

    def __init__(self, url: str, folder: Path) -> None:
        self._arguments = url, str(folder)
        path = os.pathsep.join(str(folder / wing) for wing in ("worker", "operator"))
        self._environment = os.environ | {"PYTHONPATH": path}
        self.running: list[Process] = []

    async def start(self, script: str) -> Process:
        """Start one, and wait for its first line."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(HERE / script),
            *self._arguments,
            env=self._environment,
            stdout=PIPE,
        )
        assert process.stdout is not None
        self.running.append(process)
        async with asyncio.timeout(30):
            assert await process.stdout.readline(), f"{script} did not start"
        return process

    async def restart(self, how: signal.Signals) -> None:
        """Replace the worker that has run for longest."""
        oldest = self.running.pop(0)
        assert oldest.returncode is None, "a worker ended by itself"
        oldest.send_signal(how)
        await oldest.wait()
        await self.start("old_worker.py")

    async def kill(self) -> None:
        """End all."""
        for process in self.running:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@pytest.fixture
async def workers(empty_database_url: str, before: Path) -> AsyncIterator[Programs]:
    programs = Programs(empty_database_url, before)
    yield programs
    await programs.kill()


@pytest.fixture
async def operator(empty_database_url: str, before: Path) -> AsyncIterator[Programs]:
    programs = Programs(empty_database_url, before)
    yield programs
    await programs.kill()


async def feed(sql: asyncpg.Connection) -> None:
    """Keep some runs unfinished, so that some are in progress whatever happens."""
    while True:
        await sql.execute(
            "INSERT INTO workflow_runs (workflow_name, status, available_at, input)"
            " SELECT 'relay', 'pending', now(), to_jsonb(n) FROM generate_series(1, 20) AS n"
            " WHERE 60 > (SELECT count(*) FROM workflow_runs WHERE completed_at IS NULL)"
        )
        await asyncio.sleep(0.05)


async def statuses(sql: asyncpg.Connection) -> Counter[str]:
    rows = await sql.fetch("SELECT status, count(*) AS n FROM workflow_runs GROUP BY 1")
    return Counter({row["status"]: row["n"] for row in rows})


async def more_succeed(sql: asyncpg.Connection) -> None:
    """Wait until the workers have ended some more runs, and are in the middle of others."""
    before = (await statuses(sql))["succeeded"]
    async with asyncio.timeout(60):
        while (seen := await statuses(sql))["succeeded"] < before + 20 or not seen["running"]:
            assert not seen["failed"]
            await asyncio.sleep(0.02)


async def test_workers_and_operator_of_the_version_before_outlive_a_migration_under_load(
    empty_database_url: str, workers: Programs, operator: Programs, program: Program
) -> None:
    for _ in range(2):
        await workers.start("old_worker.py")  # the first makes the tables of its version
    looking = await operator.start("old_operator.py")
    sql = await asyncpg.connect(empty_database_url)
    other = await asyncpg.connect(empty_database_url)
    feeding = asyncio.create_task(feed(other))
    await more_succeed(sql)

    program.knows(*known(), AN_INDEX)
    migrating = asyncio.create_task(BackendPostgres.connect(empty_database_url))
    await workers.restart(signal.SIGKILL)
    await (await migrating).stop()
    for how in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
        await more_succeed(sql)
        await workers.restart(how)
    await more_succeed(sql)
    feeding.cancel()
    async with asyncio.timeout(60):
        while {"succeeded"} != set(await statuses(sql)):
            await asyncio.sleep(0.05)

    assert all(process.returncode is None for process in workers.running)
    assert not await sql.fetchval("SELECT count(*) FROM workflow_runs WHERE output <> input")
    await operator.kill()
    assert looking.stdout is not None
    seen = set((await looking.stdout.read()).split())
    assert {b"Reachable"} == seen - {b"TimedOut"}  # a busy machine may be slow
    ledger = await sql.fetch("SELECT version FROM openworkflow_migrations")
    assert {one.number for one in (*known(), AN_INDEX)} == {row["version"] for row in ledger}
    await sql.close()
    await other.close()
