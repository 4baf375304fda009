"""What telling costs: how long an event takes to a reader, and what many of them cost.

    python -m benchmarks.progress --runs 500 --samples 200

Starts a PostgreSQL of its own. The time is from `current_step().emit` to the next line of a reader
in the same process. Then runs of one step each tell nothing, one event or a hundred: commits and
WAL for each run are the server's own count.
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
from benchmarks.signals import Counter, until
from openworkflow import BackendPostgres, OpenWorkflow, Step, current_step, workflow
from tests.local_postgres import LocalPostgres, embedded_programs

EVENT = {"text": "forty bytes of a token or of a progress"}


async def emit_times(count: int) -> None:
    for _ in range(count):
        current_step().emit("t", time.perf_counter())
        await asyncio.sleep(0.05)


async def emit(count: int) -> None:
    for _ in range(count):
        current_step().emit("t", EVENT)


@workflow
async def tells_times(count: int, step: Step) -> None:
    await step.run("emit", emit_times, count)


@workflow
async def tells(count: int, step: Step) -> None:
    await step.run("emit", emit, count)


@workflow
async def tells_itself(count: int, step: Step) -> None:
    for _ in range(count):
        step.emit("t", EVENT)
    await step.run("emit", emit, 0)


async def delays(ow: OpenWorkflow, samples: int) -> list[float]:
    """Milliseconds from each event to its reader."""
    run = await ow.run_workflow(tells_times, samples)
    return [(time.perf_counter() - event.value) * 1000 async for event in run.events("t")]


async def many(ow: OpenWorkflow, connection: Any, runs: int) -> list[str]:
    lines = []
    counter = Counter(connection)
    for what, flow, count in (
        ("nothing", tells, 0),
        ("one event of the workflow", tells_itself, 1),
        ("one event of the step", tells, 1),
        ("100 events of the step", tells, 100),
    ):
        await counter.start()
        started = time.perf_counter()
        await ow.run_workflows(flow, [count] * runs)
        await until(connection, "succeeded", runs)
        seconds = time.perf_counter() - started
        commits, wal = await counter.each(runs)
        lines.append(f"| {what} | {runs / seconds:,.0f} | {commits:.2f} | {wal:,.0f} |")
        await connection.execute(
            "truncate workflow_runs, step_attempts, workflow_progress, workflow_events"
        )
    return lines


async def measure(url: str, runs: int, samples: int) -> None:
    backend = await BackendPostgres.connect(url)
    connection = await asyncpg.connect(url)
    ow = OpenWorkflow(backend)
    worker = ow.new_worker(workflows=[tells_times, tells, tells_itself], rest=timedelta(0))
    await worker.start()
    took = await delays(ow, samples)
    print(f"from an event to its reader: p50 {statistics.median(took):.1f} ms, ", end="")
    print(f"p99 {statistics.quantiles(took, n=100)[98]:.1f} ms ({samples} samples)\n")
    print(f"| {runs:,} runs that tell | a second | commits each | bytes of WAL each |")
    print("|---|---:|---:|---:|")
    print("\n".join(await many(ow, connection, runs)))
    await worker.stop()
    await ow.stop()
    await connection.close()
    await backend.stop()


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--samples", type=int, default=200)
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
