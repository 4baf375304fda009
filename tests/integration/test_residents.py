"""A parked run stays in memory, and goes on without a replay where nothing happened to it."""

from __future__ import annotations

import asyncio
import gc
from datetime import timedelta
from typing import Any
from weakref import WeakSet

import asyncpg
import pytest

from openworkflow import OpenWorkflow, Step, Workflow, WorkflowFailed, workflow
from openworkflow.backend.backend import WorkerSession
from openworkflow.backend.records import ClaimedRun
from openworkflow.core.serialization import Codec
from openworkflow.worker.ends import Ends
from openworkflow.worker.executor import Executor
from openworkflow.worker.reports import Reports
from tests.helpers import StartWorker, eventually

PARKS: Any = {"concurrency": 2, "rest": timedelta(0), "resident": 100}


@pytest.mark.parametrize("resident", [0, 1])
async def test_a_run_that_sleeps_again_and_again_is_not_replayed_and_records_the_same(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection, resident: int
) -> None:
    begun: list[str] = []

    @workflow
    async def looping(step: Step) -> int:
        begun.append("begins")
        total = 0
        for number in range(5):
            total += await step.run("add", int, number)
            await step.sleep("nap", "100ms")
        return total

    await start_worker(looping, **PARKS | {"resident": resident})
    run = await ow.run_workflow(looping)

    assert 10 == await run.result(timeout=20)
    claims = (await run.run()).claim_no  # a sleep that is over once it is recorded needs none
    assert claims > 1
    assert ["begins"] * (1 if resident else claims) == begun
    rows = await sql.fetch(
        "select step_name, claim_no, completion_no, status from step_attempts"
        " where workflow_run_id = $1 order by completion_no",
        run.id,
    )
    numbers = [row["claim_no"] for row in rows]
    assert (sorted(numbers), 1, claims) == (numbers, numbers[0], numbers[-1])
    assert list(range(1, 11)) == [row["completion_no"] for row in rows]
    assert {"succeeded"} == {row["status"] for row in rows}


async def test_branches_go_on_one_after_the_other(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    begun: list[str] = []

    @workflow
    async def branching(step: Step) -> list[str]:
        begun.append("begins")
        seen: list[str] = []

        async def branch(name: str, duration: str) -> None:
            await step.sleep(name, duration)
            seen.append(await step.run(f"see {name}", str, name))

        await asyncio.gather(branch("c", "400ms"), branch("a", "50ms"), branch("b", "200ms"))
        return seen

    await start_worker(branching, **PARKS)

    assert ["a", "b", "c"] == await (await ow.run_workflow(branching)).result(timeout=20)
    assert ["begins"] == begun


def _napping(nap: str) -> Workflow[None, int]:
    """A workflow that sleeps, and returns how often its function was begun."""
    begun: list[str] = []

    @workflow
    async def napping(step: Step) -> int:
        begun.append("begins")
        await step.sleep("nap", nap)
        return len(begun)

    return napping


async def _parked(ow: OpenWorkflow, run: Any) -> None:
    async def is_parked() -> bool:
        seen = await run.run()
        return bool(seen.claim_no > 0 and seen.status == "pending")

    await eventually(is_parked)


@pytest.mark.parametrize(
    "change",
    [
        "update workflow_runs set claim_no = claim_no + 1, available_at = now()",
        "update workflow_runs set claim_no = claim_no + 1",
        "update workflow_runs set available_at = now()",
        "update workflow_runs set wake_no = wake_no + 1",
        "update workflow_runs set attempts = attempts + 1",
    ],
)
async def test_a_run_that_something_happened_to_is_replayed(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection, change: str
) -> None:
    begun: list[str] = []

    @workflow
    async def napping(step: Step) -> int:
        begun.append("begins")
        await step.sleep("nap", "1s")
        return await step.run("count", len, begun)

    await start_worker(napping, **PARKS)
    run = await ow.run_workflow(napping)
    await _parked(ow, run)
    await sql.execute(f"{change} where id = $1", run.id)

    assert await run.result(timeout=20) >= 2


async def test_a_run_that_is_canceled_and_retried_is_replayed(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    napping = _napping("700ms")
    await start_worker(napping, **PARKS)
    run = await ow.run_workflow(napping)
    await _parked(ow, run)
    await run.cancel()
    await ow.retry(run.id)

    assert 2 <= await run.result(timeout=20)


class Held:
    """Something that a workflow function holds while it waits."""


async def test_no_more_stay_than_the_worker_has_room_for_and_none_after_a_drain(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    held: WeakSet[Held] = WeakSet()
    left: list[int] = []

    @workflow
    async def napping(step: Step) -> None:
        mine = Held()
        held.add(mine)
        try:
            await step.sleep("nap", "1h")
        finally:
            left.append(id(mine))

    worker = await start_worker(napping, **PARKS | {"resident": 2})
    runs = [await ow.run_workflow(napping) for _ in range(5)]
    for run in runs:
        await _parked(ow, run)

    async def three_are_gone() -> bool:
        gc.collect()
        return len(held) == 2

    await eventually(three_are_gone)
    assert 3 == len(left)
    await worker.stop()
    gc.collect()
    assert 0 == len(held)
    assert ["pending"] * 5 == [(await run.run()).status for run in runs]


async def test_without_room_every_run_is_replayed(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    napping = _napping("500ms")
    await start_worker(napping, **PARKS | {"resident": 0})

    assert 2 == await (await ow.run_workflow(napping)).result(timeout=20)


async def test_a_loop_of_steps_and_sleeps_reads_nothing_again(
    ow: OpenWorkflow, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    load = WorkerSession.load_histories

    async def counted(self: WorkerSession, run_ids: Any) -> Any:
        found = await load(self, run_ids)
        read.append(sum(map(len, found.values())))
        return found

    monkeypatch.setattr(WorkerSession, "load_histories", counted)
    steps: list[int] = []

    @workflow
    async def looping(step: Step) -> int:
        for number in range(200):
            await step.run("add", steps.append, number)
            await step.sleep("nap", "1ms")
        return len(steps)

    await start_worker(looping, **PARKS)
    run = await ow.run_workflow(looping)

    assert 200 == await run.result(timeout=60)
    claims = (await run.run()).claim_no
    # A wait that is over by the time it is recorded needs no park at all.
    assert claims > 20
    assert [] == read


async def test_runs_that_wander_between_workers_call_each_step_once(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection
) -> None:
    called: list[tuple[int, int, str]] = []

    def note(run: int, number: int, branch: str) -> int:
        called.append((run, number, branch))
        return number

    @workflow
    async def wandering(step: Step, run: int) -> int:
        total = 0
        for number in range(8):

            async def branch(name: str, number: int = number) -> int:
                await step.sleep(f"nap {name}", timedelta(milliseconds=(run * 7 + number) % 30))
                return await step.run(f"note {name}", note, run, number, name)

            total += sum(await asyncio.gather(branch("a"), branch("b")))
        return total

    # The first can keep few; the second is drained in the middle, the third begins then.
    await start_worker(wandering, **PARKS | {"concurrency": 5, "resident": 3})
    leaving = await start_worker(wandering, **PARKS | {"concurrency": 5})
    runs = [await ow.run_workflow(wandering, number) for number in range(20)]
    await eventually(lambda: len(called) > 60)
    await leaving.stop()
    await start_worker(wandering, **PARKS | {"concurrency": 5})

    assert [56] * 20 == [await run.result(timeout=60) for run in runs]
    assert 20 * 16 == len(called) == len(set(called))
    left = "select count(*) from step_attempts where status <> 'succeeded'"
    assert 0 == await sql.fetchval(left)


async def test_a_heartbeat_that_overtakes_the_answer_to_a_park_costs_no_replay(
    ow: OpenWorkflow, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds that the claim does not stand, before the worker hears that it has given it up."""
    executors: list[Executor] = []
    start, record = Executor.run, Ends.record

    async def run(self: Executor) -> None:
        executors.append(self)
        await start(self)

    async def overtaken(self: Ends, run: ClaimedRun, outcome: Any, *more: Any) -> Any:
        written = await record(self, run, outcome, *more)
        executors[0].lose([(run.id, run.claim_no)])
        return written

    monkeypatch.setattr(Executor, "run", run)
    napping = _napping("50ms")
    await start_worker(napping, **PARKS)
    monkeypatch.setattr(Ends, "record", overtaken)

    assert 1 == await (await ow.run_workflow(napping)).result(timeout=20)


async def test_a_run_that_fails_where_it_is_to_be_parked_is_told_as_failed(
    ow: OpenWorkflow, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database refuses a result that was on its way when nothing was left to do but wait."""
    encode = Codec.encode

    def unfit(self: Any, value: Any, *args: Any, **kwargs: Any) -> str | None:
        return '"\\u0000"' if value == -1 else encode(self, value, *args, **kwargs)

    monkeypatch.setattr(Codec, "encode", unfit)
    told: list[str] = []
    end = Reports.end

    def ends(self: Reports, run: ClaimedRun, outcome: Any, seconds: float) -> None:
        told.append(type(outcome).__name__)
        end(self, run, outcome, seconds)

    monkeypatch.setattr(Reports, "end", ends)

    @workflow
    async def storing(step: Step) -> None:
        await asyncio.gather(step.sleep("nap", "1h"), step.run("bad", int, -1))

    await start_worker(storing, **PARKS)
    run = await ow.run_workflow(storing)
    with pytest.raises(WorkflowFailed):
        await run.result(timeout=20)

    assert ["Failed"] == told
