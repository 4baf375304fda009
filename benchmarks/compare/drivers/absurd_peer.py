"""Absurd: durable tasks; its engine is SQL functions, its worker a thin loop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from absurd_sdk import AsyncAbsurd
from absurdctl import BUNDLED_SCHEMA_SQL

from benchmarks.compare.drivers.protocol import STEPS, Enqueuer, Tally, main

CONCURRENCY = 50
#: Connections of the concurrent callers: a client has one, on which statements queue up.
CLIENTS = 10


class Absurd:
    """The queue `default`, the workflows as tasks."""

    async def set_up(self, url: str) -> None:
        """The schema that its command installs, without psql."""
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute(BUNDLED_SCHEMA_SQL)
        client = AsyncAbsurd(url)
        await client.create_queue("default")
        await client.close()

    @asynccontextmanager
    async def enqueuing(self, url: str, workflow: str) -> AsyncIterator[Enqueuer]:
        """One call a run; there is none for many."""
        clients = [AsyncAbsurd(url) for _ in range(CLIENTS)]
        for client in clients:
            await client.list_queues()  # it connects at its first call
        yield Enqueuer(
            one=lambda number: clients[number % CLIENTS].spawn(workflow, {"n": 1}, queue="default"),
            many=None,
        )
        for client in clients:
            await client.close()

    @asynccontextmanager
    async def serving(self, url: str, tally: Tally) -> AsyncIterator[None]:
        """One asynchronous worker."""
        client = AsyncAbsurd(url)
        for name, steps in STEPS.items():
            client.register_task(name=name)(make_task(steps, tally))
        working = asyncio.create_task(
            client.start_worker(concurrency=CONCURRENCY, poll_interval=0.01)
        )
        yield
        client.stop_worker()
        await working
        await client.close()

    @asynccontextmanager
    async def calling(
        self, url: str, workflow: str
    ) -> AsyncIterator[Callable[[int], Awaitable[object]]]:
        """Absurd's client asks after 50 ms, 100 ms and so on, which cannot be set."""
        clients = [AsyncAbsurd(url) for _ in range(CLIENTS)]

        async def one(number: int) -> None:
            client = clients[number % CLIENTS]
            spawned = await client.spawn(workflow, {"n": 1}, queue="default")
            await client.await_task_result(spawned["task_id"])

        yield one
        for client in clients:
            await client.close()


def make_task(steps: int, tally: Tally) -> Callable[[Any, Any], Awaitable[int]]:
    """A task of so many steps."""

    async def trivial() -> int:
        tally.step()
        return 1

    async def run(params: Any, context: Any) -> int:
        result = 0
        for number in range(steps):
            result = await context.step(f"step-{number}", trivial)
        tally.run()
        return result

    return run


if __name__ == "__main__":
    asyncio.run(main(Absurd(), *sys.argv[1:]))
