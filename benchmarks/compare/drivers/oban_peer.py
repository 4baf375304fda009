"""Oban's port to Python: jobs without steps and without results."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import uvloop
from oban import Oban, worker
from oban.job import Job
from oban.schema import install
from psycopg_pool import AsyncConnectionPool

from benchmarks.compare.drivers.protocol import Enqueuer, Tally, main

CONCURRENCY = 250
POOL = 20


class ObanPeer:
    """One worker class, `one-step`, on the queue `default`."""

    async def set_up(self, url: str) -> None:
        """Types, tables and indexes."""
        async with pool(url) as connections:
            await install(connections)

    @asynccontextmanager
    async def enqueuing(self, url: str, workflow: str) -> AsyncIterator[Enqueuer]:
        """A hundred callers share the pool."""
        async with pool(url) as connections, Oban(pool=connections) as oban:
            yield Enqueuer(
                one=lambda _: oban.enqueue(make_job()),
                many=lambda count: oban.enqueue_many([make_job() for _ in range(count)]),
            )

    @asynccontextmanager
    async def serving(self, url: str, tally: Tally) -> AsyncIterator[None]:
        """One process, one queue."""
        OneStep.tally = tally
        queues = {"default": CONCURRENCY}
        async with pool(url) as connections, Oban(pool=connections, queues=queues):
            yield

    @asynccontextmanager
    async def calling(
        self, url: str, workflow: str
    ) -> AsyncIterator[Callable[[int], Awaitable[object]]]:
        """Asking is the only way to learn of an end; each millisecond here."""
        async with pool(url) as connections, Oban(pool=connections) as oban:

            async def one(_: int) -> None:
                job = await oban.enqueue(make_job())
                while (found := await oban.get_job(job.id)) and found.state != "completed":
                    await asyncio.sleep(0.001)

            yield one


@worker(queue="default")
class OneStep:
    """The job; `tally` counts its calls."""

    tally = Tally(0)

    async def process(self, job: Job) -> None:
        """Count, and nothing else."""
        self.tally.step()
        self.tally.run()


def make_job() -> Job:
    """A job to enqueue."""
    return OneStep.new({"number": 1})  # type: ignore[attr-defined]  # the decorator's


def pool(url: str) -> AsyncConnectionPool:
    """Connections, all of them there from the start."""
    return AsyncConnectionPool(url, min_size=POOL, max_size=POOL, open=False)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(ObanPeer(), *sys.argv[1:]))
