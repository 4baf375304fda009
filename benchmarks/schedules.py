"""What a thousand schedules cost that are due in the same second, beside as many ordinary runs.

    python -m benchmarks.schedules --schedules 1000

Starts a PostgreSQL of its own. Statements are those of the worker's process, BEGIN and COMMIT
among them; the log is PostgreSQL's.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from typing import Any, TypeAlias

import asyncpg

from benchmarks.database import DURABLE
from openworkflow import BackendPostgres, Cron, OpenWorkflow, workflow
from tests.local_postgres import LocalPostgres, embedded_programs

Sql: TypeAlias = "asyncpg.Connection[Any]"
OVERLAPS = ("allow", "skip")
# Another id than that of the instant they were made for, which comes next.
_ID = "overlay(overlay(md5({0}::text) placing '5' from 13) placing 'a' from 17)::uuid"
_DUE = f"""
update workflow_runs set available_at = now(), id = {_ID.format("id")}
 where schedule_name is not null"""
_TICK = f"""
update workflow_schedules set next_at = now(), next_run_id = {_ID.format("next_run_id")}"""
_LEFT = """
select count(*) from workflow_runs where status <> 'succeeded' and available_at < 'infinity'
   and available_at <= now()"""
_WAL = "select (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint"


@workflow
async def nothing() -> None: ...


class Counting:
    """Counts what asyncpg sends while it is entered."""

    def __init__(self) -> None:
        self.statements = Counter[str]()
        self._before = {name: getattr(asyncpg.Connection, name) for name in ("fetch", "execute")}

    def __enter__(self) -> Counting:
        for name, method in self._before.items():
            setattr(asyncpg.Connection, name, self._counting(method))
        return self

    def __exit__(self, *_: object) -> None:
        for name, method in self._before.items():
            setattr(asyncpg.Connection, name, method)

    def _counting(self, method: Any) -> Any:
        async def counted(connection: Any, query: str, *args: Any, **options: Any) -> Any:
            self.statements[query.split(None, 1)[0].lower()] += 1
            return await method(connection, query, *args, **options)

        return counted


async def measure(server: str, count: int, overlap: Any) -> tuple[float, int, int]:
    """Seconds, statements and bytes of WAL until all have ended; ordinary runs without overlap."""
    name = f"schedules_{overlap or 'none'}"
    admin: Sql = await asyncpg.connect(server)
    await admin.execute(f"create database {name}")
    await admin.close()
    url = f"{server.rsplit('/', 1)[0]}/{name}"
    backend = await BackendPostgres.connect(url)
    ow, sql = OpenWorkflow(backend), await asyncpg.connect(url)
    if overlap is None:
        await ow.run_workflows(nothing, [None] * count)
    else:
        for number in range(count):
            await ow.schedules.create(f"s{number}", nothing, Cron("0 0 1 1 *", overlap=overlap))
        await sql.execute(_TICK)
        await sql.execute(_DUE)
    await sql.execute("vacuum analyze")
    await sql.execute("checkpoint")
    wal = await sql.fetchval(_WAL)
    worker = ow.new_worker(workflows=[nothing], concurrency=100)
    begin = time.perf_counter()
    with Counting() as counting:
        await worker.start()
        while await sql.fetchval(_LEFT):  # fetchval is not counted
            await asyncio.sleep(0.01)
        seconds = time.perf_counter() - begin
        await worker.stop()
    written = await sql.fetchval(_WAL) - wal
    await sql.close()
    await backend.stop()
    return seconds, counting.statements.total(), written


async def compare(server: str, count: int) -> None:
    """Print a line for each case."""
    print("| 1 worker, 100 slots | seconds | statements, of each | WAL bytes, of each |")
    print("|---|---:|---:|---:|")
    for overlap in (None, *OVERLAPS):
        seconds, statements, wal = await measure(server, count, overlap)
        what = "ordinary runs" if overlap is None else f"schedules, overlap={overlap}"
        print(
            f"| {count:,} {what} | {seconds:.2f} | {statements:,}, {statements / count:.2f} "
            f"| {wal:,}, {wal / count:,.0f} |"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--schedules", type=int, default=1000)
    arguments = parser.parse_args()
    programs = embedded_programs()
    library = programs.parent / "lib"
    server = LocalPostgres(programs, library if library.is_dir() else None, DURABLE).start()
    try:
        asyncio.run(compare(server.url(), arguments.schedules))
    finally:
        server.stop()


if __name__ == "__main__":
    main()
