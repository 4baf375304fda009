"""What each feature costs a run that uses it, beside one that does not.

    python -m benchmarks.features --runs 2000 --map 10000 --rounds 1

Starts a PostgreSQL of its own, and a worker of 100 slots in this process; a database for each case.
Cases take turns, so that a slow minute meets all. What waits for a time is moved in time by SQL.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import asyncpg

from benchmarks.costs import HEAD, measured
from benchmarks.database import Bench, Preload, start_server
from openworkflow import BackendPostgres, Limit, OpenWorkflow, Rate, Step, workflow

_LEFT = "select count(*) from workflow_runs where completed_at is null"
#: The turns of those that wait have come, and so has their time.
_COME = """
with come as (update workflow_turns set at = now() - interval '1 ms' returning run_id)
update workflow_runs set available_at = now() where id in (select run_id from come)
   and status = 'pending'
"""
CHUNK = 5000


async def nothing() -> None: ...


async def forget(_: None) -> None: ...


@workflow
async def plain(number: int, step: Step) -> None:
    await step.run("work", nothing)


@workflow
async def undone(number: int, step: Step) -> None:
    await step.run("work", nothing, undo=forget)


@workflow
async def undone_at_last(number: int, step: Step) -> None:
    await step.run("work", nothing, undo=forget)
    raise LookupError("so that it is undone")


@workflow(priority=3)
async def urgent(number: int, step: Step) -> None:
    await step.run("work", nothing)


@workflow(limits=[Limit(1, key=lambda number: number % 1000)])
async def keyed(number: int, step: Step) -> None:
    await step.run("work", nothing)


@workflow(rate=Rate(1_000_000, per=1, burst=1000))
async def begun_at_a_rate(number: int, step: Step) -> None:
    await step.run("work", nothing)


@workflow
async def step_at_a_rate(number: int, step: Step) -> None:
    await step.run("work", nothing, rate=Rate(1_000_000, per=1, burst=100_000, name="free"))


@workflow
async def step_that_waits(number: int, step: Step) -> None:
    await step.run("work", nothing, rate=Rate(1, per="1h", name="tight"))


@workflow
async def child(number: int | None) -> None: ...


@workflow
async def mapped(count: int, step: Step) -> None:
    await step.map("child", child, [None] * count, concurrency=200)


@workflow
async def started(count: int, step: Step) -> None:
    for start in range(0, count, 100):
        await asyncio.gather(
            *(step.start_workflow(f"child-{n}", child, n) for n in range(start, start + 100))
        )


class Case(NamedTuple):
    """One row of the table."""

    what: str
    workflow: Any
    inputs: Sequence[int]
    each: int
    """How many of what is told about."""
    meanwhile: Callable[[Any], Awaitable[Any]] | None = None


async def come(sql: Any) -> None:
    """Have what waits for a turn go on, until nothing does."""
    while await sql.fetchval(_LEFT):
        await sql.execute(_COME)
        await asyncio.sleep(0.2)


def cases(runs: int, items: int) -> list[Case]:
    """All that is measured."""
    numbers = range(runs)
    plainly = [
        (plain, "one step"),
        (undone, "one step with an undo"),
        (undone_at_last, "the same, failed and undone"),
        (urgent, "one step, the workflow has a priority"),
        (keyed, "one step, one slot for each of 1,000 keys"),
        (begun_at_a_rate, "one step, begun at a rate that holds nobody up"),
        (step_at_a_rate, "one step at a rate that holds nobody up"),
    ]
    return [
        *(Case(what, which, numbers, runs) for which, what in plainly),
        Case("one step that waits for its turn", step_that_waits, numbers, runs, come),
        *(
            Case(f"a child of a map over {size:,}", mapped, [size], size)
            for size in (items // 10, items)
        ),
        *(
            Case(f"a child that is started, of {size:,}", started, [size], size)
            for size in (items // 10, items)
        ),
    ]


async def measure(bench: Bench, database: str, case: Case) -> str:
    """A row of the table."""
    url = bench.server.url(database)
    backend, sql = await BackendPostgres.connect(url), await asyncpg.connect(url)
    ow = OpenWorkflow(backend)
    worker = ow.new_worker(workflows=[case.workflow, child], concurrency=100, max_step_attempts=0)
    async with measured(bench, sql) as cost:
        for start in range(0, len(case.inputs), CHUNK):
            await ow.run_workflows(case.workflow, case.inputs[start : start + CHUNK])
        await worker.start()
        if case.meanwhile is not None:
            await case.meanwhile(sql)
        await cost.until_none(sql, _LEFT)
        await worker.stop()
        await backend.stop()
    await sql.close()
    return cost.line(case.what, case.each)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--map", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", default="", help="cases that have this in their names")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # of runs that fail on purpose
    server = start_server()
    bench = Bench(server)
    try:
        print(HEAD)
        for _ in range(options.rounds):
            for case in cases(options.runs, options.map):
                if options.only in case.what:
                    with bench.database(Preload()) as name:
                        print(asyncio.run(measure(bench, name, case)), flush=True)
    finally:
        server.stop()


if __name__ == "__main__":
    main()
