"""What limits cost: many runs behind many keys, beside as many runs without a limit.

    python -m benchmarks.limits --runs 100000 --keys 1000

Starts a PostgreSQL of its own and one worker in this process; the log is PostgreSQL's. A limit has
one slot for each key, and one for all of them together.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from typing import Any, TypeAlias

import asyncpg

from benchmarks.database import DURABLE
from openworkflow import BackendPostgres, Limit, OpenWorkflow, workflow
from tests.local_postgres import LocalPostgres, embedded_programs

Sql: TypeAlias = "asyncpg.Connection[Any]"
CHUNK = 5000
_WAL = "select (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint"
_LEFT = "select count(*) from workflow_runs where completed_at is null"
_MOST = "select coalesce(max(taken), 0) from workflow_limit_keys"


@workflow
async def free(key: int) -> None: ...


@workflow(limits=[Limit(1, key=lambda key: key)])
async def keyed(key: int) -> None: ...


@workflow(limits=[Limit(1, key=lambda key: key), Limit(100)])
async def keyed_and_shared(key: int) -> None: ...


async def measure(server: str, which: Any, inputs: Sequence[int], slots: int) -> None:
    """Print what starting these runs, and executing them, takes."""
    name = which.name.replace("-", "_")
    admin: Sql = await asyncpg.connect(server)
    await admin.execute(f"create database {name}")
    await admin.close()
    url = f"{server.rsplit('/', 1)[0]}/{name}"
    backend = await BackendPostgres.connect(url)
    ow, sql = OpenWorkflow(backend), await asyncpg.connect(url)
    before, started = await sql.fetchval(_WAL), time.perf_counter()
    for start in range(0, len(inputs), CHUNK):
        await ow.run_workflows(which, inputs[start : start + CHUNK])
    enqueued, stored = time.perf_counter() - started, await sql.fetchval(_WAL)
    await sql.execute("vacuum analyze")
    worker = ow.new_worker(workflows=[which], concurrency=slots)
    before_drain, started = await sql.fetchval(_WAL), time.perf_counter()
    await worker.start()
    most = 0
    while await sql.fetchval(_LEFT):
        most = max(most, await sql.fetchval(_MOST))
        await asyncio.sleep(0.2)
    drained, done = time.perf_counter() - started, await sql.fetchval(_WAL)
    await worker.stop()
    count = len(inputs)
    print(
        f"{which.name}: started {count / enqueued:,.0f} runs/s, {(stored - before) / count:,.0f} B "
        f"of WAL each; done {count / drained:,.0f} runs/s, {(done - before_drain) / count:,.0f} B "
        f"of WAL each; slots in use of one key at most {most}",
        flush=True,
    )
    await sql.close()
    await backend.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--keys", type=int, default=1_000)
    parser.add_argument("--slots", type=int, default=100, help="of the worker")
    options = parser.parse_args()
    programs = embedded_programs()
    library = programs.parent / "lib"
    server = LocalPostgres(programs, library if library.is_dir() else None, DURABLE).start()
    inputs = [number % options.keys for number in range(options.runs)]
    try:
        for which in (free, keyed, keyed_and_shared):
            asyncio.run(measure(server.url(), which, inputs, options.slots))
    finally:
        server.stop()


if __name__ == "__main__":
    main()
