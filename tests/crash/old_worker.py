"""A worker process of an older version, whose code is on PYTHONPATH.

    python old_worker.py DATABASE_URL FOLDER

It refuses to run with any other code than that of the folder, and works until it is told to stop.
"""

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

import openworkflow
from openworkflow import BackendPostgres, OpenWorkflow, Step, workflow

URL, FOLDER = sys.argv[1:3]
assert Path(openworkflow.__file__).is_relative_to(FOLDER), openworkflow.__file__


@workflow
async def relay(step: Step, number: int) -> int:
    """Steps in a row, steps side by side, a sleep that parks the run, and one more step."""
    for name in ("first", "second"):
        await step.run(name, passing, number)
    await asyncio.gather(*(step.run(f"side {n}", passing, n) for n in range(3)))
    await step.sleep("pause", "300ms")
    return await step.run("last", passing, number)


async def passing(number: int) -> int:
    """A step."""
    await asyncio.sleep(0.02)
    return number


async def main() -> None:
    """Work until told to stop."""
    backend = await BackendPostgres.connect(URL)
    worker = OpenWorkflow(backend).new_worker(
        workflows=[relay], concurrency=10, lease=timedelta(seconds=2)
    )
    print("started", flush=True)
    await worker.run_until_signal()
    await backend.stop()


if __name__ == "__main__":
    asyncio.run(main())
