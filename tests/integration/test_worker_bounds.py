"""What a worker does at its bounds: outages, late messages, functions that hang, the end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from openworkflow import BackendPostgres, OpenWorkflow, RetryPolicy, Step, StepTimeout, workflow
from openworkflow.backend.backend import HeartbeatSession, WorkerSession
from openworkflow.engine.flusher import Flusher
from openworkflow.worker import executor
from openworkflow.worker import worker as worker_module
from openworkflow.worker.worker import Worker
from tests.helpers import StartWorker, eventually

LEASE = timedelta(seconds=1)
ONCE = RetryPolicy(max_attempts=1)


class Outage:
    """Keeps heartbeats, and nothing else, from the database."""

    def __init__(self) -> None:
        self.lasts = False
        self._beat = HeartbeatSession.beat

    async def beat(self, session: HeartbeatSession, *arguments: Any) -> Any:
        if self.lasts:
            raise ConnectionError("no connection for the heartbeat")
        return await self._beat(session, *arguments)


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Outage:
    made = Outage()

    async def beat(session: HeartbeatSession, *arguments: Any) -> Any:
        return await made.beat(session, *arguments)

    monkeypatch.setattr(HeartbeatSession, "beat", beat)
    return made


@pytest.fixture
def hang() -> Iterator[threading.Event]:
    """Functions that wait for it hang until the test is over."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
async def gate() -> AsyncIterator[asyncio.Event]:
    event = asyncio.Event()
    yield event
    event.set()


def is_ready(worker: Worker) -> bool:
    return worker.ready()[0]


# -- outages ---------------------------------------------------------------------------------


async def test_a_worker_without_a_heartbeat_claims_nothing_and_starts_no_step(
    ow: OpenWorkflow, start_worker: StartWorker, outage: Outage, gate: asyncio.Event
) -> None:
    calls: list[str] = []

    @workflow
    async def two_steps(step: Step) -> str:
        await step.run("first", gate.wait)
        await step.run("second", calls.append, "second")
        return "done"

    worker = await start_worker(two_steps, lease=LEASE)
    begun = await ow.run_workflow(two_steps)
    await eventually(lambda: worker.slots_used == 1)
    outage.lasts = True
    await eventually(lambda: not is_ready(worker))
    waiting = await ow.run_workflow(two_steps)
    gate.set()
    await asyncio.sleep(0.3)  # that nothing happens can only be waited for

    assert "no heartbeat reached the database for 1 s" == worker.ready()[1]
    assert [] == calls
    assert "pending" == (await ow.get_run(waiting.id)).run.status

    outage.lasts = False
    assert "done" == await begun.result(timeout=20)
    assert "done" == await waiting.result(timeout=20)
    assert is_ready(worker)


async def test_claims_lost_in_an_outage_are_stopped_as_soon_as_the_heartbeat_is_back(
    ow: OpenWorkflow, start_worker: StartWorker, outage: Outage, sql: asyncpg.Connection[Any]
) -> None:
    stopped: list[str] = []

    @workflow
    async def waits(name: str, step: Step) -> None:
        async def wait() -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                stopped.append(name)
                raise

        await step.run("wait", wait)

    worker = await start_worker(waits, lease=LEASE, drain=timedelta(0))
    lost, kept = await ow.run_workflows(waits, ["lost", "kept"])
    await eventually(lambda: worker.slots_used == 2)
    outage.lasts = True
    await eventually(lambda: not is_ready(worker))
    await sql.execute(
        "UPDATE workflow_runs SET claim_no = claim_no + 1, worker_id = 'other', "
        "available_at = now() + interval '1 hour' WHERE id = $1",
        lost.id,
    )

    outage.lasts = False

    await eventually(lambda: is_ready(worker) and worker.slots_used == 1)
    assert ["lost"] == stopped
    assert "running" == (await ow.get_run(kept.id)).run.status


# -- messages --------------------------------------------------------------------------------


async def test_a_late_message_of_a_cancellation_does_not_stop_the_claim_made_since(
    ow: OpenWorkflow,
    backend: BackendPostgres,
    start_worker: StartWorker,
    sql: asyncpg.Connection[Any],
    gate: asyncio.Event,
) -> None:
    @workflow
    async def waits(step: Step) -> str:
        await step.run("wait", gate.wait)
        return "done"

    worker = await start_worker(waits)
    run = await ow.run_workflow(waits)
    await eventually(lambda: worker.slots_used == 1)
    for _ in range(12):
        await sql.execute(
            "SELECT pg_notify($1, $2)", backend._namespace.work_channel, f"canceled {run.id}"
        )
        await asyncio.sleep(0.02)
    gate.set()

    assert "done" == await run.result(timeout=20)
    assert 1 == await sql.fetchval("SELECT claim_no FROM workflow_runs")


async def test_a_cancellation_stops_its_run_long_before_the_next_heartbeat_is_due(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    @workflow
    async def waits(step: Step) -> None:
        await step.run("wait", asyncio.sleep, 60)

    worker = await start_worker(waits, lease=timedelta(seconds=60))
    run = await ow.run_workflow(waits)
    await eventually(lambda: worker.slots_used == 1)

    await run.cancel()

    await eventually(lambda: worker.slots_used == 0, deadline=15)


# -- threads ---------------------------------------------------------------------------------


async def test_steps_that_hang_do_not_take_the_threads_of_other_workflows(
    ow: OpenWorkflow, start_worker: StartWorker, hang: threading.Event
) -> None:
    @workflow
    async def hangs(step: Step) -> str:
        try:
            await step.run("hang", lambda: hang.wait(60), timeout=0.05, retry=ONCE)
        except StepTimeout:
            return "timed out"
        return "returned"

    @workflow
    async def quick(step: Step) -> int:
        return await step.run("quick", len, "four", timeout=5, retry=ONCE)

    worker = await start_worker(hangs, quick, concurrency=4)
    for handle in await ow.run_workflows(hangs, [None] * 3):
        assert "timed out" == await handle.result(timeout=20)
    for run in await ow.run_workflows(quick, [None] * 8):
        assert 4 == await run.result(timeout=20)
    left_behind = worker.metrics.registry.get_sample_value
    await eventually(
        lambda: left_behind("openworkflow_threads_left_behind", {"namespace_id": "default"}) == 3
    )
    assert is_ready(worker)


async def test_a_worker_with_too_many_threads_left_behind_says_so_and_claims_nothing(
    ow: OpenWorkflow, start_worker: StartWorker, hang: threading.Event
) -> None:
    @workflow
    async def hangs(step: Step) -> str:
        try:
            await step.run("hang", lambda: hang.wait(60), timeout=0.05, retry=ONCE)
        except StepTimeout:
            return "timed out"
        return "returned"

    worker = await start_worker(hangs, concurrency=2)
    for run in await ow.run_workflows(hangs, [None] * 2):
        assert "timed out" == await run.result(timeout=20)
    assert (
        "2 threads are held by sync steps that do not return, and no more than 2 are replaced; "
        "restart the worker"
    ) == worker.ready()[1]
    waiting = await ow.run_workflow(hangs)
    await asyncio.sleep(0.3)  # that nothing happens can only be waited for
    assert "pending" == (await ow.get_run(waiting.id)).run.status

    hang.set()

    assert "returned" == await waiting.result(timeout=20)
    assert is_ready(worker)


async def test_a_worker_that_has_had_no_threads_for_long_wants_a_restart(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    @workflow
    async def idle() -> None: ...

    worker = await start_worker(idle)
    assert worker.live()[0]
    assert worker._parts is not None
    monkeypatch.setattr(worker._parts.pools.steps, "left_behind", 1_000)

    monkeypatch.setattr(worker_module, "LIVE_SECONDS", 0.5)

    await eventually(lambda: not worker.live()[0])
    assert "1000 threads are held by sync steps" in worker.live()[1]
    monkeypatch.undo()


# -- the end ---------------------------------------------------------------------------------


async def test_stop_returns_though_a_step_swallows_every_cancellation(
    ow: OpenWorkflow,
    monkeypatch: pytest.MonkeyPatch,
    gate: asyncio.Event,
) -> None:
    monkeypatch.setattr(executor, "HAND_BACK_SECONDS", 0.1)
    monkeypatch.setattr(worker_module, "CANCEL_SECONDS", 0.1)

    async def swallow() -> None:
        while not gate.is_set():
            try:
                await gate.wait()
            except BaseException:
                continue

    @workflow
    async def stubborn(step: Step) -> None:
        await step.run("swallow", swallow)

    worker = ow.new_worker(workflows=[stubborn], drain=timedelta(0))
    await worker.start()
    run = await ow.run_workflow(stubborn)
    await eventually(lambda: worker.slots_used == 1)

    began = time.monotonic()
    await asyncio.wait_for(worker.stop(), worker_module.STOP_SECONDS)

    assert time.monotonic() - began < 15
    assert "pending" == (await ow.get_run(run.id)).run.status
    assert (False, "stopped") == worker.ready()


async def test_a_second_stop_of_a_worker_that_was_left_behind_cancels_nobody(
    ow: OpenWorkflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It raised CancelledError, which ended whoever had called it."""

    @workflow
    async def idle(step: Step) -> None: ...

    worker = ow.new_worker(workflows=[idle], drain=timedelta(0))
    await worker.start()
    with monkeypatch.context() as patch:
        patch.setattr(worker_module, "STOP_SECONDS", 0.0)
        await worker.stop()

    await worker.stop()

    assert (False, "canceled") == worker.ready()


async def test_a_start_that_is_given_up_leaves_no_worker_behind(
    ow: OpenWorkflow, sql: asyncpg.Connection[Any], database_url: str
) -> None:
    """It went on, and claimed runs once the database let it."""

    @workflow
    async def idle(step: Step) -> None: ...

    worker = ow.new_worker(workflows=[idle], build_id="b1")
    blocker = await asyncpg.connect(database_url)
    async with blocker.transaction():
        await blocker.execute("LOCK TABLE workflow_builds")
        starting = asyncio.create_task(worker.start())
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        await eventually(lambda: sql.fetchval(waiting))
        starting.cancel()
        await asyncio.wait({starting})
    await blocker.close()

    await worker.stop()
    assert starting.cancelled()
    assert (False, "canceled") == worker.ready()


async def test_a_worker_that_was_stopped_is_alive_and_not_ready(start_worker: StartWorker) -> None:
    @workflow
    async def idle() -> None: ...

    worker = await start_worker(idle)
    await worker.stop()

    assert ((True, "stopped"), (False, "stopped")) == (worker.live(), worker.ready())


async def test_a_worker_that_ended_by_itself_is_dead_and_its_runs_are_handed_back(
    ow: OpenWorkflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = asyncio.Event()

    async def run(self: Flusher) -> None:
        flusher = asyncio.ensure_future(running(self))
        await broken.wait()
        flusher.cancel()
        raise RuntimeError("a defect of the flusher")

    running = Flusher.run
    monkeypatch.setattr(Flusher, "run", run)

    @workflow
    async def waits(step: Step) -> None:
        await step.run("wait", asyncio.sleep, 60)

    worker = ow.new_worker(workflows=[waits])
    await worker.start()
    handle = await ow.run_workflow(waits)
    await eventually(lambda: worker.slots_used == 1)

    broken.set()

    await eventually(lambda: not worker.live()[0])
    assert not worker.ready()[0]
    assert "ended by" in worker.live()[1]
    assert "pending" == (await ow.get_run(handle.id)).run.status
    with pytest.raises(ExceptionGroup):
        await worker.stop()


# -- the promise -----------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["on", "off"])
async def test_a_worker_says_so_if_commits_are_not_durable(
    backend: BackendPostgres,
    database_url: str,
    sql: asyncpg.Connection[Any],
    caplog: pytest.LogCaptureFixture,
    setting: str,
) -> None:
    @workflow
    async def nothing(step: Step) -> None:
        return None

    database = backend.url.database
    await sql.execute(f'ALTER DATABASE "{database}" SET synchronous_commit = {setting}')

    worker = OpenWorkflow(backend).new_worker(workflows=[nothing])
    await worker.start()
    await worker.stop()

    assert ("synchronous_commit is off" in caplog.text) == (setting == "off")


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_lock_that_lasts_longer_than_a_lease_has_no_step_called_twice(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any, workers: int
) -> None:
    called: Counter[tuple[int, int]] = Counter()

    async def note(run: int, number: int) -> None:
        called[run, number] += 1
        await asyncio.sleep(0.05)

    @workflow
    async def four_steps(input: int, step: Step) -> None:
        for number in range(4):
            await step.run("note", note, input, number)

    for _ in range(workers):
        await start_worker(four_steps, lease=timedelta(seconds=1), concurrency=20)
    runs = [await ow.run_workflow(four_steps, number) for number in range(10)]
    await eventually(lambda: len(called) > 10)
    async with sql.transaction():
        await sql.execute("lock table workflow_runs, step_attempts in access exclusive mode")
        await sql.execute("select pg_sleep(2.5)")  # so that every lease is over

    for run in runs:
        await run.result(timeout=60)
    assert {1} == set(called.values())


async def test_stop_returns_though_histories_do_not_come(
    ow: OpenWorkflow, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def never(*_: Any) -> None:
        asked.set()
        await asyncio.Event().wait()

    @workflow
    async def sleeps(step: Step) -> None:
        await step.sleep("nap", 0.05)

    monkeypatch.setattr(WorkerSession, "load_histories", never)
    worker = await start_worker(sleeps)
    run = await ow.run_workflow(sleeps)
    await asyncio.wait_for(asked.wait(), 25)

    await asyncio.wait_for(worker.stop(), 25)

    assert "pending" == await run.status()
