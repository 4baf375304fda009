"""A worker process of one build, whose steps no other build could replay.

    python build_worker.py DATABASE_URL BUILD

Each call of a step function adds a row to the table `ledger`, in a transaction of its own.
"""

import asyncio
import sys
from datetime import timedelta

import asyncpg

from openworkflow import BackendPostgres, OpenWorkflow, Step, workflow

URL, BUILD = sys.argv[1:3]


@workflow
async def relay(step: Step, number: int) -> str:
    """Two steps, a sleep and a third step, all named after the build."""
    for name in ("first", "second"):
        await step.run(f"{BUILD} {name}", note, f"{number} {name}")
    await step.sleep(f"{BUILD} pause", "200ms")
    await step.run(f"{BUILD} third", note, f"{number} third")
    return BUILD


async def note(name: str) -> None:
    """A step: what it does is one row in the ledger."""
    connection = await asyncpg.connect(URL)
    try:
        await connection.execute("INSERT INTO ledger (step) VALUES ($1)", name)
    finally:
        await connection.close()


async def main() -> None:
    """Work until killed."""
    backend = await BackendPostgres.connect(URL)
    worker = OpenWorkflow(backend).new_worker(
        workflows=[relay],
        concurrency=5,
        lease=timedelta(seconds=1),
        build_id=BUILD,
        build_policy="pinned",
    )
    await worker.run_until_signal()
    await backend.stop()


if __name__ == "__main__":
    asyncio.run(main())
