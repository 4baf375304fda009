"""A worker process with two workflows: one kills the process it runs in, one does its work.

python suspects.py DATABASE_URL
"""

import asyncio
import os
import signal
import sys
from datetime import timedelta

from openworkflow import BackendPostgres, OpenWorkflow, Step, workflow

URL = sys.argv[1]


async def kill() -> None:
    """End this process as a kernel or an out-of-memory killer would, in the midst of its work."""
    await asyncio.sleep(0.1)
    os.kill(os.getpid(), signal.SIGKILL)


@workflow
async def culprit(step: Step) -> None:
    """Kills whatever worker executes it."""
    await step.run("kill", kill)


@workflow
async def innocent(step: Step) -> str:
    """Takes longer than the culprit: it never records anything in the same process."""
    await step.run("work", asyncio.sleep, 0.3)
    return "done"


async def main() -> None:
    """Work until killed."""
    backend = await BackendPostgres.connect(URL)
    worker = OpenWorkflow(backend).new_worker(
        workflows=[culprit, innocent], concurrency=40, lease=timedelta(seconds=1)
    )
    await worker.run_until_signal()
    await backend.stop()


if __name__ == "__main__":
    asyncio.run(main())
