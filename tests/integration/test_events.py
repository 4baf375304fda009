"""Following a run: its events as they come, in order, each once, until it ends."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from openworkflow import OpenWorkflow, RunHandle, Step, current_step, workflow
from openworkflow.backend.backend import BackendPostgres
from openworkflow.client import streams
from openworkflow.core.errors import BackendError, ConfigurationError, RunNotFound
from openworkflow.core.progress import EventsAsked, RunEvent
from tests.helpers import StartWorker, eventually

GATES: dict[str, asyncio.Event] = {}


async def gate(name: str) -> None:
    await GATES[name].wait()


@pytest.fixture(autouse=True)
def gates() -> None:
    GATES.clear()
    GATES.update({name: asyncio.Event() for name in ("one", "two")})


@workflow
async def in_parts(step: Step) -> None:
    step.emit("t", 0)
    await step.run("one", gate, "one")
    step.emit("t", 1)
    step.emit("other", "x")
    await step.run("two", gate, "two")
    step.emit("t", 2)


async def tokens(count: int) -> None:
    for number in range(count):
        current_step().emit("tokens", f"token {number}")
        if number % 100 == 99:
            await asyncio.sleep(0)


@workflow
async def many(count: int, step: Step) -> None:
    await step.run("model", tokens, count)


async def values(run: RunHandle[Any], *topic: str, **options: Any) -> list[Any]:
    return [event.value async for event in run.events(*topic, **options)]


async def test_events_come_as_they_are_emitted_and_end_with_the_run(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(in_parts)
    run = await ow.run_workflow(in_parts)
    events = run.events("t")

    async with asyncio.timeout(20):
        first = await anext(events)
        assert (0, "t", 0, None, None) == (
            *(first.offset, first.topic, first.value),
            *(first.step, first.attempt),
        )
        GATES["one"].set()
        assert 1 == (await anext(events)).value
        GATES["two"].set()
        assert [2] == [event.value async for event in events]


async def test_events_of_the_past_are_read_from_any_offset(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(in_parts)
    for each in GATES.values():
        each.set()
    run = await ow.run_workflow(in_parts)
    await run.result(timeout=20)

    async with asyncio.timeout(20):
        assert [0, 1, "x", 2] == await values(run)
        assert [0, 1, 2] == await values(run, "t")
        assert ["x"] == await values(run, "other")
        assert ["x", 2] == await values(run, from_offset=2)
        assert [2] == await values(run, "t", from_offset=2)
        assert [] == await values(run, from_offset=10)
        assert [] == await values(run, "no such topic")


async def test_thousands_are_followed_while_they_are_emitted(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(many)
    run = await ow.run_workflow(many, 3000)
    async with asyncio.timeout(60):
        events = [event async for event in run.events("tokens")]

    assert list(range(3000)) == [event.offset for event in events]
    assert [f"token {number}" for number in range(3000)] == [event.value for event in events]
    assert {("model", 1)} == {(event.step, event.attempt) for event in events}


async def test_large_events_come_in_answers_of_bounded_size(
    ow: OpenWorkflow, backend: BackendPostgres, start_worker: StartWorker
) -> None:
    import os

    async def large() -> None:
        for _ in range(20):
            current_step().emit("t", os.urandom(30_000).hex())

    @workflow
    async def emits(step: Step) -> None:
        await step.run("large", large)

    await start_worker(emits)
    run = await ow.run_workflow(emits)
    await run.result(timeout=20)

    (found,) = await backend.progress.events([EventsAsked(run.id, 0, None)], 1000)
    assert found is not None
    assert 1 < len(found.events) < 20
    async with asyncio.timeout(20):
        assert 20 == len(await values(run))


async def test_all_who_follow_share_a_look(
    ow: OpenWorkflow,
    backend: BackendPostgres,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    real = backend.progress.events

    async def counted(wanted: Any, *rest: Any, **options: Any) -> Any:
        asked.append(len(wanted))
        return await real(wanted, *rest, **options)

    monkeypatch.setattr(backend.progress, "events", counted)
    await start_worker(in_parts)
    runs = [await ow.run_workflow(in_parts) for _ in range(5)]
    followed = [asyncio.create_task(values(run, "t")) for run in runs for _ in range(10)]
    await eventually(lambda: any(count >= 40 for count in asked))
    for each in GATES.values():
        each.set()

    async with asyncio.timeout(20):
        assert [[0, 1, 2]] * 50 == await asyncio.gather(*followed)
    assert len(asked) < 200


async def test_a_run_that_is_canceled_ends_its_events(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(in_parts)
    run = await ow.run_workflow(in_parts)
    events = run.events("t")
    async with asyncio.timeout(20):
        await anext(events)
        await run.cancel()
        assert [] == [event async for event in events]


async def test_there_are_no_events_of_a_run_that_there_is_not(ow: OpenWorkflow) -> None:
    with pytest.raises(RunNotFound):
        await anext(ow.events(uuid4()))
    with pytest.raises(RunNotFound):
        await ow.progress(uuid4())
    with pytest.raises(ConfigurationError):
        ow.events(uuid4(), from_offset=-1)
    with pytest.raises(ConfigurationError):
        ow.events(uuid4(), "")


async def test_events_outlive_connections_that_are_cut(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    await start_worker(in_parts)
    run = await ow.run_workflow(in_parts)
    seen: list[RunEvent] = []

    async def follow() -> None:
        seen.extend([event async for event in run.events()])

    following = asyncio.create_task(follow())
    await asyncio.sleep(0.3)
    for name in ("one", "two"):
        await sql.fetch(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where pid <> pg_backend_pid() and datname = current_database()"
        )
        GATES[name].set()
    async with asyncio.timeout(40):
        await following

    assert [0, 1, "x", 2] == [event.value for event in seen]


async def test_who_stops_to_follow_is_not_looked_for(
    ow: OpenWorkflow, backend: BackendPostgres, start_worker: StartWorker
) -> None:
    await start_worker(in_parts)
    run = await ow.run_workflow(in_parts)
    task = asyncio.create_task(values(run))
    await asyncio.sleep(0.3)
    task.cancel()
    await asyncio.wait({task})

    assert not streams.streams_of(backend)._followers
    await ow.stop()
    await run.cancel()


async def test_a_backend_that_is_stopped_ends_what_follows(
    database_url: str, start_worker: StartWorker
) -> None:
    backend = await BackendPostgres.connect(database_url)
    ow = OpenWorkflow(backend)
    await start_worker(in_parts)
    run = await ow.run_workflow(in_parts)
    task = asyncio.create_task(values(run))
    await asyncio.sleep(0.3)
    await backend.stop()

    with pytest.raises(BackendError):
        await task
    for each in GATES.values():
        each.set()
