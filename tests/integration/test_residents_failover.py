"""A parked run in memory is not trusted on another server, which may have another history of it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from datetime import datetime, timedelta

import asyncpg
import pytest

from openworkflow import BackendPostgres, OpenWorkflow, Step, workflow
from tests.helpers import eventually
from tests.local_postgres import LocalPostgres
from tests.two_servers import two_servers

LATER = timedelta(seconds=3)
"""Longer than a run takes to be parked, and a pause to be stored."""


@pytest.fixture(scope="module")
def server() -> Iterator[LocalPostgres]:
    with two_servers() as (first, _):
        yield first


@pytest.mark.parametrize("is_another", [True, False])
async def test_a_run_goes_on_from_what_the_server_has_that_took_over(
    server: LocalPostgres, is_another: bool
) -> None:
    """The former one had not sent it the claim in which `draw` was called, and its park.

    Another worker made that claim anew there: the same number, and the same time to wait for, since
    the workflow names it; but another result.
    """
    begun: list[str] = []
    until = datetime.now().astimezone() + LATER

    @workflow
    async def drawing(step: Step) -> list[str]:
        begun.append("begins")
        drawn = await step.run("draw", str, "before")
        await step.sleep_until("appointment", until)
        return [drawn, await step.run("tell", str, drawn)]

    backend = await BackendPostgres.connect(server.url())
    ow = OpenWorkflow(backend)
    worker = ow.new_worker(workflows=[drawing], rest=timedelta(0), resident=10)
    await worker.start()
    try:
        run = await ow.run_workflow(drawing)

        async def is_parked() -> bool:
            return (await run.run()).status == "pending" and len(begun) == 1

        await eventually(is_parked)
        await ow.pause(run.id)
        assert datetime.now().astimezone() < until
        if is_another:
            await _another_takes_over(server)
        drawn = "after" if is_another else "before"
        await ow.resume(run.id)

        assert [drawn, drawn] == await run.result(timeout=30)
        assert 1 + is_another == len(begun)
    finally:
        await worker.stop()
        await backend.stop()


async def _another_takes_over(server: LocalPostgres) -> None:
    await asyncio.to_thread(server.restart, signal.SIGQUIT)
    connection = await asyncpg.connect(server.url())
    await connection.execute(
        "update step_attempts set output = '\"after\"' where step_name = 'draw'"
    )
    await connection.close()
