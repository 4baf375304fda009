"""DBOS Transact: workflows on a queue, a result for each step."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from dbos import DBOS, DBOSClient

from benchmarks.compare.drivers.protocol import STEPS, Enqueuer, Tally, main

QUEUE = "bench"
CONCURRENCY = 50
#: Of the queue in the worker, and of the result in the caller; a second by default for both.
POLLING = 0.02
POOL = 20


class Dbos:
    """One queue; a client that is no worker enqueues on it."""

    async def set_up(self, url: str) -> None:
        """Launching makes the tables; a queue is a row of them."""
        await asyncio.to_thread(launch, url, Tally(0))
        await asyncio.to_thread(
            DBOS.register_queue,
            QUEUE,
            worker_concurrency=CONCURRENCY,
            polling_interval_sec=POLLING,
        )
        await asyncio.to_thread(DBOS.destroy)

    @asynccontextmanager
    async def enqueuing(self, url: str, workflow: str) -> AsyncIterator[Enqueuer]:
        """One call a run; there is none for many."""
        client = connect(url)
        options = {"queue_name": QUEUE, "workflow_name": workflow}
        yield Enqueuer(one=lambda _: client.enqueue_async(options, 1), many=None, callers=POOL)
        client.destroy()

    @asynccontextmanager
    async def serving(self, url: str, tally: Tally) -> AsyncIterator[None]:
        """One process."""
        await asyncio.to_thread(launch, url, tally)
        yield
        await asyncio.to_thread(DBOS.destroy)

    @asynccontextmanager
    async def calling(
        self, url: str, workflow: str
    ) -> AsyncIterator[Callable[[int], Awaitable[object]]]:
        """The client and its handle."""
        client = connect(url)
        options = {"queue_name": QUEUE, "workflow_name": workflow}

        async def one(_: int) -> None:
            handle = await client.enqueue_async(options, 1)
            await handle.get_result(polling_interval_sec=POLLING)

        yield one
        client.destroy()


def connect(url: str) -> DBOSClient:
    """A client with a pool for its callers."""
    return DBOSClient(system_database_url=url, system_database_pool_size=POOL)


def launch(url: str, tally: Tally) -> None:
    """Start DBOS in this process, all workflows registered."""
    DBOS(
        config={
            "name": "bench",
            "system_database_url": url,
            "sys_db_pool_size": POOL,
            "application_version": "1",
            "log_level": "ERROR",
        }
    )

    @DBOS.step()
    async def trivial(number: int) -> int:
        tally.step()
        return number

    for name, steps in STEPS.items():
        register(name, steps, trivial, tally)
    DBOS.launch()


def register(name: str, steps: int, trivial: Callable[[int], Awaitable[int]], tally: Tally) -> None:
    """A workflow of so many steps."""

    @DBOS.workflow(name=name)
    async def run(number: int) -> int:
        result = 0
        for _ in range(steps):
            result = await trivial(number)
        tally.run()
        return result


if __name__ == "__main__":
    asyncio.run(main(Dbos(), *sys.argv[1:]))
