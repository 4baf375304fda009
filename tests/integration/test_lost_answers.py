"""An enqueue whose answer is lost: what is stored, what the caller hears, and what a retry does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Any

import asyncpg
import pytest

from openworkflow import BackendPostgres, OpenWorkflow, Step, workflow
from openworkflow.backend.backend import NewRun
from openworkflow.backend.failures import ConnectionLost
from tests.helpers import eventually

COMMIT = b"COMMIT"


class Network:
    """Between the program and its server; it loses the answers to what it is told to."""

    def __init__(self, port: int) -> None:
        self._port, self.port = port, 0
        self.loses, self.losses = b"", 0
        """What statements hold whose answer is lost, and how many of them."""

    def lose(self, statement: bytes, losses: int) -> None:
        self.loses, self.losses = statement, losses

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self._port)
        lost = asyncio.Event()

        async def forward() -> None:
            while data := await reader.read(65536):
                if self.losses and self.loses in data:
                    self.losses -= 1
                    lost.set()
                upstream.write(data)

        async def answer() -> None:
            while data := await upstream_reader.read(65536):
                if lost.is_set():
                    return  # the server has done it
                writer.write(data)

        both = [asyncio.create_task(forward()), asyncio.create_task(answer())]
        with contextlib.suppress(OSError):
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)
        for end in (writer, upstream):
            end.transport.abort()


@pytest.fixture
async def network(database_url: str) -> AsyncIterator[Network]:
    network = Network(int(database_url.rsplit(":", 1)[1].split("/", maxsplit=1)[0]))
    server = await asyncio.start_server(network.connected, "127.0.0.1", 0)
    network.port = server.sockets[0].getsockname()[1]
    yield network
    server.close()


@pytest.fixture
async def backend(database_url: str, network: Any) -> AsyncIterator[BackendPostgres]:
    head, name = database_url.rsplit(":", 1)[0], database_url.rsplit("/", 1)[1]
    connected = await BackendPostgres.connect(f"{head}:{network.port}/{name}")
    yield connected
    await connected.stop()


async def test_an_enqueue_without_a_key_whose_answer_is_lost_may_be_stored(
    backend: BackendPostgres, network: Network, sql: asyncpg.Connection[Any]
) -> None:
    """The docstring said that nothing was."""
    client = OpenWorkflow(backend)
    await client.run_workflow("w")  # prepares the statement, so that one message executes it
    network.lose(b"lost-workflow", 1)

    with pytest.raises(ConnectionLost):
        await client.run_workflow("lost-workflow")

    assert 2 == await sql.fetchval("select count(*) from workflow_runs")


@pytest.mark.parametrize("losses", [1, 2])
async def test_with_a_key_a_lost_answer_is_asked_for_again(
    losses: int, backend: BackendPostgres, network: Network, sql: asyncpg.Connection[Any]
) -> None:
    network.lose(COMMIT, losses)

    run = await OpenWorkflow(backend).run_workflow("w", idempotency_key="k")
    again = await OpenWorkflow(backend).run_workflow("w", idempotency_key="k")

    assert 0 == network.losses
    assert (True, False) == (run.created, again.created)
    assert (
        [run.id] == [again.id] == [r["id"] for r in await sql.fetch("select id from workflow_runs")]
    )


async def test_a_batch_with_keys_whose_answer_is_lost_is_stored_once(
    backend: BackendPostgres, network: Network, sql: asyncpg.Connection[Any]
) -> None:
    (before,) = await backend.create_workflow_runs([NewRun("w", idempotency_key="0")])
    network.lose(COMMIT, 1)

    runs = await backend.create_workflow_runs(
        [NewRun("w", idempotency_key=str(number)) for number in (0, 1, 2, 2)]
    )

    assert [False, True, True, False] == [run.created for run in runs]
    assert before.id == runs[0].id
    assert runs[2].id == runs[3].id
    assert 3 == await sql.fetchval("select count(*) from workflow_runs")


async def test_a_key_that_is_forgotten_too_soon_is_not_relied_on(
    backend: BackendPostgres, network: Network, sql: asyncpg.Connection[Any]
) -> None:
    network.lose(COMMIT, 1)

    with pytest.raises(ConnectionLost):
        await backend.create_workflow_runs(
            [NewRun("w", idempotency_key="k")], idempotency_period=timedelta(seconds=1)
        )

    assert 1 == await sql.fetchval("select count(*) from workflow_runs")


async def test_a_database_that_does_not_come_back_is_told_soon(
    backend: BackendPostgres, network: Network
) -> None:
    network.lose(COMMIT, 100)

    async with asyncio.timeout(15):
        with pytest.raises(ConnectionLost):
            await OpenWorkflow(backend).run_workflow("w", idempotency_key="k")


async def test_parks_whose_answers_are_lost_have_no_step_called_again(
    backend: BackendPostgres, network: Network, sql: asyncpg.Connection[Any]
) -> None:
    """A park that is sent again finds no claim; by then the run may be claimed here once more."""
    called: list[tuple[int, int]] = []

    def note(run: int, number: int) -> int:
        called.append((run, number))
        return number

    def came_to(calls: int) -> bool:
        return len(called) >= calls

    @workflow
    async def napping(step: Step, run: int) -> int:
        total = 0
        for number in range(10):
            total += await step.run("note", note, run, number)
            await step.sleep("nap", "80ms")
        return total

    client = OpenWorkflow(backend)
    worker = client.new_worker(workflows=[napping], rest=timedelta(0), resident=10)
    async with worker:
        runs = [await client.run_workflow(napping, number) for number in range(4)]
        for calls in (8, 14, 20):
            await eventually(partial(came_to, calls))
            network.lose(b"pending", 1)  # the status that a park gives its run

        assert [45] * 4 == [await run.result(timeout=60) for run in runs]
    assert 0 == network.losses
    assert 4 * 10 == len(called) == len(set(called))
    assert {"succeeded"} == {row[0] for row in await sql.fetch("select status from step_attempts")}
    assert 0 == await sql.fetchval("select max(crashes) from workflow_runs")
