"""This repository's worker, as `benchmarks.ours` configures it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import uvloop

from benchmarks import ours
from benchmarks.compare.drivers.protocol import STEPS, Enqueuer, Tally, main
from openworkflow import BackendPostgres, Step, Workflow, workflow


class Ours:
    """Driven through its public names only."""

    async def set_up(self, url: str) -> None:
        """Connecting makes the tables."""
        await (await BackendPostgres.connect(url)).stop()

    @asynccontextmanager
    async def enqueuing(self, url: str, workflow: str) -> AsyncIterator[Enqueuer]:
        """A hundred callers share one client."""
        spec = make_workflow(workflow, Tally(0))
        async with ours.connected(url) as client:
            yield Enqueuer(
                one=lambda _: client.run_workflow(spec, 1),
                many=lambda count: client.run_workflows(spec, [1] * count),
            )

    @asynccontextmanager
    async def serving(self, url: str, tally: Tally) -> AsyncIterator[None]:
        """A worker of 1,000 slots."""
        served = [make_workflow(name, tally) for name in STEPS]
        async with ours.connected(url) as client, ours.serving(client, list(served)):
            yield

    @asynccontextmanager
    async def calling(
        self, url: str, workflow: str
    ) -> AsyncIterator[Callable[[int], Awaitable[object]]]:
        """`run_workflow` and `result`."""
        spec = make_workflow(workflow, Tally(0))
        async with ours.connected(url) as client:

            async def one(_: int) -> None:
                await (await client.run_workflow(spec, 1)).result(timeout=30)

            yield one


def make_workflow(name: str, tally: Tally) -> Workflow[int, int]:
    """The workflow of that name; `tally` counts its calls."""

    async def trivial(number: int) -> int:
        tally.step()
        return number

    @workflow(name=name)
    async def run(input: int, step: Step) -> int:
        result = 0
        for number in range(STEPS[name]):
            result = await step.run(f"step-{number}", trivial, input)
        tally.run()
        return result

    return run


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(Ours(), *sys.argv[1:]))
