"""Procrastinate: jobs without steps and without results."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from procrastinate import App, PsycopgConnector

from benchmarks.compare.drivers.protocol import Enqueuer, Tally, main

#: The figure of its page on concurrency.
CONCURRENCY = 30


class Procrastinate:
    """One task, `one-step`."""

    async def set_up(self, url: str) -> None:
        """The tables, functions and triggers."""
        async with make_app(url, Tally(0)).open_async() as app:
            await app.schema_manager.apply_schema_async()

    @asynccontextmanager
    async def enqueuing(self, url: str, workflow: str) -> AsyncIterator[Enqueuer]:
        """A hundred callers share the app's pool."""
        async with make_app(url, Tally(0)).open_async() as app:
            task = app.configure_task(workflow)
            yield Enqueuer(
                one=lambda _: task.defer_async(number=1),
                many=lambda count: task.batch_defer_async(*[{"number": 1}] * count),
            )

    @asynccontextmanager
    async def serving(self, url: str, tally: Tally) -> AsyncIterator[None]:
        """One worker that listens."""
        async with make_app(url, tally).open_async() as app:
            working = asyncio.create_task(
                app.run_worker_async(concurrency=CONCURRENCY, install_signal_handlers=False)
            )
            yield
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    @asynccontextmanager
    async def calling(
        self, url: str, workflow: str
    ) -> AsyncIterator[Callable[[int], Awaitable[object]]]:
        """Asking is the only way to learn of an end; each millisecond here."""
        async with make_app(url, Tally(0)).open_async() as app:
            task = app.configure_task(workflow)

            async def one(_: int) -> None:
                job_id = await task.defer_async(number=1)
                while (await app.job_manager.get_job_status_async(job_id)).value != "succeeded":
                    await asyncio.sleep(0.001)

            yield one


def make_app(url: str, tally: Tally) -> App:
    """An app with the task; a connection for each job in progress."""
    app = App(connector=PsycopgConnector(conninfo=url, min_size=10, max_size=CONCURRENCY))

    @app.task(name="one-step")
    async def run(number: int) -> None:
        tally.step()
        tally.run()

    return app


if __name__ == "__main__":
    asyncio.run(main(Procrastinate(), *sys.argv[1:]))
