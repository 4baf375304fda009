"""What a child costs: its round trip, and many of them at once.

    python -m benchmarks.children --runs 2000 --samples 200 --map 10000

Starts a PostgreSQL of its own. The round trip is that of a run whose only step is a child, beside a
run whose only step is a function. Then as many parents as asked for run one child each, and one run
maps over as many; commits and WAL for each are the server's own count.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from typing import Any

import asyncpg

from benchmarks.database import DURABLE
from benchmarks.signals import Counter, works
from openworkflow import BackendPostgres, OpenWorkflow, Step, workflow
from tests.local_postgres import LocalPostgres, embedded_programs


@workflow
async def parent(step: Step) -> None:
    await step.run_workflow("child", works)


@workflow
async def mapped(count: int, step: Step) -> int:
    return len(await step.map("child", works, [None] * count, concurrency=200))


async def measured(url: str, options: argparse.Namespace) -> None:
    """Measure, and print what came of it."""
    backend = await BackendPostgres.connect(url)
    connection = await asyncpg.connect(url)
    ow = OpenWorkflow(backend)
    worker = ow.new_worker(workflows=[parent, mapped, works], concurrency=100)
    await worker.start()
    for flow in (works, parent):
        took = []
        for _ in range(options.samples):
            began = time.perf_counter()
            await (await ow.run_workflow(flow)).result(timeout=60)
            took.append((time.perf_counter() - began) * 1000)
        print(f"round trip of {flow.name}: p50 {statistics.median(took):.1f} ms")
    counter: Any = Counter(connection)
    for flow in (works, parent):
        await counter.start()
        began = time.perf_counter()
        runs = await ow.run_workflows(flow, [None] * options.runs)
        await asyncio.gather(*(run.result(timeout=600) for run in runs))
        seconds = time.perf_counter() - began
        commits, wal = await counter.each(options.runs)
        print(
            f"{options.runs} of {flow.name}: {options.runs / seconds:.0f}/s, each "
            f"{commits:.2f} commits and {wal / 1000:.1f} kB of WAL"
        )
    await counter.start()
    began = time.perf_counter()
    run = await ow.run_workflow(mapped, options.map)
    await run.result(timeout=1800)
    seconds = time.perf_counter() - began
    commits, wal = await counter.each(options.map)
    claims = (await run.run()).claim_no
    print(
        f"a map over {options.map}: {options.map / seconds:.0f}/s, {claims} claims of its run, "
        f"each {commits:.2f} commits and {wal / 1000:.1f} kB of WAL"
    )
    deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
    print(f"deadlocks: {await connection.fetchval(deadlocks)}")
    await worker.stop()
    await connection.close()
    await backend.stop()


def main() -> None:
    """Measure on a server of its own."""
    parser = argparse.ArgumentParser(prog="benchmarks.children", description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--map", type=int, default=10_000)
    options = parser.parse_args()
    programs = embedded_programs()
    library = programs.parent / "lib"
    server = LocalPostgres(programs, library if library.is_dir() else None, DURABLE).start()
    try:
        asyncio.run(measured(server.url(), options))
    finally:
        server.stop()


if __name__ == "__main__":
    main()
