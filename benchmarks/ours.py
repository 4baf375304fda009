"""The worker of this repository, driven through its public names only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from benchmarks.workloads import Workload, trivial
from openworkflow import BackendPostgres, OpenWorkflow, Step, Workflow, workflow
from openworkflow.worker.options import WorkerSettings

CONCURRENCY = 1000


class Countdown:
    """Set once `count` runs have come to their last line in this process."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._reached = asyncio.Event()

    def one_done(self) -> None:
        """Called at the end of each run."""
        self._left -= 1
        if self._left <= 0:
            self._reached.set()

    async def wait(self) -> None:
        """Until the last run is about to be written."""
        await self._reached.wait()


def make_workflow(workload: Workload, countdown: Countdown | None = None) -> Workflow[int, int]:
    """The workflow of `workload`, telling `countdown` when a run of it ends."""

    @workflow(name=workload.workflow_name)
    async def run(input: int, step: Step) -> int:
        result = 0
        for number in range(workload.steps):
            result = await step.run(f"step-{number}", trivial, input)
        if countdown is not None:
            countdown.one_done()
        return result

    return run


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[OpenWorkflow]:
    """A client on a backend that is closed afterwards."""
    backend = await BackendPostgres.connect(url)
    try:
        yield OpenWorkflow(backend)
    finally:
        await backend.stop()


@asynccontextmanager
async def serving(
    client: OpenWorkflow, served: list[Workflow[Any, Any]], *, pinned: bool = False
) -> AsyncIterator[None]:
    """A started worker, drained afterwards."""
    build: WorkerSettings = {"build_id": "benchmark", "build_policy": "pinned"} if pinned else {}
    worker = client.new_worker(workflows=served, concurrency=CONCURRENCY, **build)
    await worker.start()
    try:
        yield
    finally:
        await worker.stop()


async def until_all_recorded(observer: asyncpg.Connection[asyncpg.Record]) -> None:
    """Until no run is pending or running: the clock stops at the commit, not at the function."""
    while await observer.fetchval(
        "SELECT EXISTS (SELECT 1 FROM workflow_runs WHERE status = 'running')"
        " OR EXISTS (SELECT 1 FROM workflow_runs WHERE status = 'pending')"
    ):
        await asyncio.sleep(0.002)
