"""PgQueuer: jobs without steps; a job's row is deleted at its end, and logged."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.core.completion import CompletionWatcher
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from benchmarks.compare.drivers.protocol import Enqueuer, Tally, main

#: Its own benchmark has five queue managers, each with its connection.
MANAGERS = 5
#: "Increase batch_size when jobs are short-lived".
BATCH = 100


class PgQueuerPeer:
    """One entrypoint, `one-step`."""

    async def set_up(self, url: str) -> None:
        """The tables, durable ones as by default."""
        connection = await asyncpg.connect(url)
        await Queries(AsyncpgDriver(connection)).install()
        await connection.close()

    @asynccontextmanager
    async def enqueuing(self, url: str, workflow: str) -> AsyncIterator[Enqueuer]:
        """A pool, as its page on tuning advises."""
        async with asyncpg.create_pool(url, min_size=20, max_size=20) as pool:
            queries = Queries(AsyncpgPoolDriver(pool))
            yield Enqueuer(
                one=lambda _: queries.enqueue(workflow, b"1"),
                many=lambda count: queries.enqueue([workflow] * count, [b"1"] * count, [0] * count),
            )

    @asynccontextmanager
    async def serving(self, url: str, tally: Tally) -> AsyncIterator[None]:
        """Five managers in one process."""
        async with AsyncExitStack() as stack:
            managers = [await self._manager(url, tally, stack) for _ in range(MANAGERS)]
            running = [
                asyncio.create_task(
                    manager.run(batch_size=BATCH, dequeue_timeout=timedelta(seconds=30))
                )
                for manager in managers
            ]
            yield
            for manager in managers:
                manager.shutdown.set()
            await asyncio.gather(*running)

    async def _manager(self, url: str, tally: Tally, stack: AsyncExitStack) -> PgQueuer:
        connection = await asyncpg.connect(url)
        stack.push_async_callback(connection.close)
        manager = PgQueuer.from_asyncpg_connection(connection)

        @manager.entrypoint("one-step")
        async def run(job: Job) -> None:
            tally.step()
            tally.run()

        return manager

    @asynccontextmanager
    async def calling(
        self, url: str, workflow: str
    ) -> AsyncIterator[Callable[[int], Awaitable[object]]]:
        """PgQueuer's watcher, which listens; jobs have no results."""
        listening, enqueuing = await asyncpg.connect(url), await asyncpg.connect(url)
        queries = Queries(AsyncpgDriver(enqueuing))
        watcher = CompletionWatcher(
            AsyncpgDriver(listening),
            queries=Queries(AsyncpgDriver(listening)),
            debounce=timedelta(milliseconds=1),
        )
        async with watcher:

            async def one(_: int) -> None:
                (job_id,) = await queries.enqueue(workflow, b"1")
                status = await watcher.wait_for(job_id)
                assert status == "successful", status

            yield one
        await listening.close()
        await enqueuing.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(PgQueuerPeer(), *sys.argv[1:]))
