"""What a signal costs: its round trip, and many of them at once.

    python -m benchmarks.signals --runs 2000 --samples 300

Starts a PostgreSQL of its own. The round trip is from `run.signal` to `run.result()` of a run that
was parked for it, in the process of the worker. Then as many runs as asked for wait, each for one
signal, and are all sent theirs, in one transaction of SQL: statements, commits and WAL for each are
the server's own count. The same runs without a wait are the yardstick.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from datetime import timedelta
from typing import Any

import asyncpg

from benchmarks.database import DURABLE
from openworkflow import BackendPostgres, OpenWorkflow, Step, workflow
from tests.local_postgres import LocalPostgres, embedded_programs

_COUNTS = """
select (select xact_commit from pg_stat_database where datname = current_database()) as commits,
       pg_current_wal_lsn() - '0/0'::pg_lsn as wal
"""


async def nothing() -> None: ...


@workflow
async def waits(step: Step) -> Any:
    return await step.wait_for_signal("go")


@workflow
async def works(step: Step) -> None:
    await step.run("work", nothing)


class Counter:
    """Commits and bytes of WAL since it was made."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def start(self) -> None:
        """Count from here."""
        await self._settled()
        self._before = await self._connection.fetchrow(_COUNTS)

    async def each(self, runs: int) -> tuple[float, float]:
        """Commits and bytes of WAL, for each of so many runs."""
        await self._settled()
        after = await self._connection.fetchrow(_COUNTS)
        commits, wal = (float(after[name] - self._before[name]) for name in ("commits", "wal"))
        return commits / runs, wal / runs

    async def _settled(self) -> None:
        """Backends send their counts once a second at most."""
        await asyncio.sleep(1.5)
        await self._connection.execute("select pg_stat_clear_snapshot()")


async def count(connection: Any, status: str) -> int:
    """Runs that have this status and have been claimed."""
    sql = "select count(*) from workflow_runs where status = $1 and claim_no > 0"
    found: int = await connection.fetchval(sql, status)
    return found


async def until(connection: Any, status: str, runs: int) -> None:
    while await count(connection, status) < runs:
        await asyncio.sleep(0.02)


async def round_trips(ow: OpenWorkflow, connection: Any, samples: int) -> list[float]:
    took = []
    for _ in range(samples):
        run = await ow.run_workflow(waits)
        await until(connection, "pending", 1)
        started = time.perf_counter()
        await run.signal("go")
        await run.result()
        took.append((time.perf_counter() - started) * 1000)
        await connection.execute("delete from workflow_runs")
    return took


async def many(ow: OpenWorkflow, connection: Any, runs: int) -> list[str]:
    lines = []
    counter = Counter(connection)
    await counter.start()
    started = time.perf_counter()
    await ow.run_workflows(works, [None] * runs)
    await until(connection, "succeeded", runs)
    seconds = time.perf_counter() - started
    lines.append(_line("one step, nothing to wait for", runs / seconds, *await counter.each(runs)))
    await connection.execute("truncate workflow_runs, step_attempts")

    await counter.start()
    started = time.perf_counter()
    await ow.run_workflows(waits, [None] * runs)
    await until(connection, "pending", runs)
    seconds = time.perf_counter() - started
    lines.append(_line("started, and parked", runs / seconds, *await counter.each(runs)))

    await counter.start()
    started = time.perf_counter()
    sent = "select openworkflow_signal(id, 'go', '1') from workflow_runs"
    await connection.execute(f"do $$ begin perform {sent.removeprefix('select ')}; end $$")
    await until(connection, "succeeded", runs)
    seconds = time.perf_counter() - started
    lines.append(_line("sent, taken, and ended", runs / seconds, *await counter.each(runs)))
    return lines


def _line(what: str, rate: float, commits: float, wal: float) -> str:
    return f"| {what} | {rate:,.0f} | {commits:.2f} | {wal:,.0f} |"


async def measure(url: str, runs: int, samples: int) -> None:
    backend = await BackendPostgres.connect(url)
    connection = await asyncpg.connect(url)
    ow = OpenWorkflow(backend)
    worker = ow.new_worker(workflows=[waits, works], rest=timedelta(0))
    await worker.start()
    took = await round_trips(ow, connection, samples)
    print(f"a signal's round trip: p50 {statistics.median(took):.1f} ms, ", end="")
    print(f"p99 {statistics.quantiles(took, n=100)[98]:.1f} ms ({samples} samples)\n")
    print(f"| {runs:,} runs | a second | commits each | bytes of WAL each |\n|---|---:|---:|---:|")
    print("\n".join(await many(ow, connection, runs)))
    await worker.stop()
    await ow.stop()
    await connection.close()
    await backend.stop()


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=300)
    options = parser.parse_args()
    programs = embedded_programs()
    library = programs.parent / "lib"
    server = LocalPostgres(programs, library if library.is_dir() else None, DURABLE).start()
    try:
        asyncio.run(measure(server.url(), options.runs, options.samples))
    finally:
        server.stop()


if __name__ == "__main__":
    main()
