"""Signals through the real worker: early or late, once, in order, typed, or too late."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from openworkflow import (
    OpenWorkflow,
    RunHandle,
    SignalTimeout,
    Step,
    SyncStep,
    WorkflowFailed,
    workflow,
)
from openworkflow.backend import requests
from openworkflow.core.errors import InvalidRunState, RunNotFound, SerializationError
from openworkflow.core.workflow_run import RunStatus
from openworkflow.engine.operations import signal as signals
from tests.helpers import StartWorker, eventually

REFUSE = """
create function refuse() returns trigger language plpgsql as
$$ begin raise exception 'no room' using errcode = '53100'; end $$;
create trigger refuse before insert on workflow_messages for each row execute function refuse();
"""


@workflow
async def waits_for_go(step: Step) -> int:
    return await step.wait_for_signal("go", type=int)


@dataclass
class Approval:
    by: str
    amount: int


async def parked(run: RunHandle[Any]) -> None:
    """Wait until the run waits for a signal, and for no time."""

    async def waits() -> bool:
        row = await run.run()
        return row.status is RunStatus.PENDING and row.claim_no > 0

    await eventually(waits)


@workflow
async def approved(step: Step) -> str:
    approval = await step.wait_for_signal("approval", timeout="7d", type=Approval)
    return f"{approval.by}: {approval.amount}"


@workflow
def approved_in_a_thread(step: SyncStep) -> str:
    approval = step.wait_for_signal("approval", type=Approval)
    return f"{approval.by}: {approval.amount}"


@pytest.mark.parametrize("flow", [approved, approved_in_a_thread], ids=lambda flow: flow.name)
@pytest.mark.parametrize("early", [True, False], ids=["early", "late"])
async def test_a_signal_is_taken_whenever_it_came(
    ow: OpenWorkflow, start_worker: StartWorker, flow: Any, early: bool
) -> None:
    run = await ow.run_workflow(flow)
    if early:
        await run.signal("approval", Approval("ann", 7))
    await start_worker(flow)
    if not early:
        await parked(run)
        await run.signal("approval", Approval("ann", 7))

    assert "ann: 7" == await run.result(timeout=20)
    (step,) = (await ow.get_run(run.id)).steps
    assert ("signal", "succeeded", {"by": "ann", "amount": 7}) == (
        step.kind,
        step.status,
        step.output,
    )


@workflow
async def collected(count: int, step: Step) -> list[int]:
    return [await step.wait_for_signal("n", type=int) for _ in range(count)]


async def test_signals_are_taken_in_order_and_each_once(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    run = await ow.run_workflow(collected, 40)
    for n in range(20):
        await run.signal("n", n)
    await start_worker(collected)
    await parked(run)
    for n in range(20, 40):
        await run.signal("n", n)

    assert list(range(40)) == await run.result(timeout=20)


async def test_as_many_as_are_read_at_once_and_more_are_taken(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    run = await ow.run_workflow(collected, 250)
    await sql.execute(
        "select openworkflow_signal($1, 'n', to_jsonb(n)) from generate_series(1, 250) n", run.id
    )
    await start_worker(collected)

    assert list(range(1, 251)) == await run.result(timeout=20)


@workflow
async def impatient(default: bool, step: Step) -> Any:
    if default:
        return await step.wait_for_signal("s", timeout="50ms", type=int, default=None)
    try:
        return await step.wait_for_signal("s", timeout="50ms")
    except SignalTimeout as error:
        await step.sleep("replay", "10ms")
        return str(error)


async def test_a_wait_that_is_over_raises_or_returns_its_default(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(impatient)
    runs = await ow.run_workflows(impatient, [True, False])

    assert await runs[0].result(timeout=20) is None
    assert "no signal 's' came in time" in await runs[1].result(timeout=20)


@workflow
async def untended(step: Step) -> Any:
    return await step.wait_for_signal("s", timeout="50ms")


async def test_a_run_that_failed_for_want_of_a_signal_waits_again_when_it_is_retried(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(untended)
    run = await ow.run_workflow(untended)
    with pytest.raises(WorkflowFailed) as caught:
        await run.result(timeout=20)
    assert isinstance(caught.value.__cause__, SignalTimeout)
    with pytest.raises(InvalidRunState, match="cannot be signaled"):
        await run.signal("s")

    await ow.retry(run.id)
    await run.signal("s", "yes")

    assert "yes" == await run.result(timeout=20)


@workflow
async def picky(step: Step) -> str:
    try:
        await step.wait_for_signal("approval", type=Approval)
    except SerializationError as error:
        again = await step.wait_for_signal("approval", type=Approval)
        return f"{error} / {again.by}"
    return "not refused"


async def test_a_signal_that_does_not_fit_is_taken_and_the_next_one_is_the_next(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(picky)
    run = await ow.run_workflow(picky)
    await run.signal("approval", {"by": "ann"})
    await run.signal("approval", {"by": "bob", "amount": 1})

    assert (
        "signal 'approval' does not fit Approval: amount: Field required / bob"
        == await run.result(timeout=20)
    )


@workflow
async def either(step: Step) -> list[Any]:
    """Two branches that wait, and one that works."""

    async def work() -> int:
        for n in range(3):
            await step.run(f"work-{n}", asyncio.sleep, 0.01)
        return 3

    return list(
        await asyncio.gather(
            step.wait_for_signal("a", type=int), step.wait_for_signal("b", type=int), work()
        )
    )


@pytest.mark.parametrize("rest", [0, 2])
async def test_branches_wait_for_signals_beside_others_that_work(
    ow: OpenWorkflow, start_worker: StartWorker, rest: int
) -> None:
    from datetime import timedelta

    await start_worker(either, rest=timedelta(seconds=rest))
    run = await ow.run_workflow(either)
    await parked(run)
    await run.signal("b", 2)
    await run.signal("a", 1)

    assert [1, 2, 3] == await run.result(timeout=20)


@workflow
async def awake(step: Step) -> list[Any]:
    """Held in memory by a long step, while the signal comes."""
    told = await asyncio.gather(
        step.wait_for_signal("a", type=int), step.run("hold", _hold), return_exceptions=True
    )
    return list(told)


async def _hold() -> str:
    await HOLD.wait()
    return "held"


HOLD = asyncio.Event()


async def test_a_run_in_memory_hears_of_a_signal(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    HOLD.clear()
    await start_worker(awake)
    run = await ow.run_workflow(awake)
    waits = "select count(*) from step_attempts where kind = 'signal' and status = $1"
    await eventually(lambda: sql.fetchval(waits, "running"))

    await run.signal("a", 1)

    await eventually(lambda: sql.fetchval(waits, "succeeded"))
    assert RunStatus.RUNNING is await run.status()
    HOLD.set()
    assert [1, "held"] == await run.result(timeout=20)


@workflow
async def broadcast(topic: str, step: Step) -> Any:
    return await step.wait_for_signal(topic)


async def test_a_topic_reaches_all_that_wait_and_all_that_come(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(broadcast)
    early = await ow.run_workflows(broadcast, ["approval:42"] * 5)
    other = await ow.run_workflow(broadcast, "approval:43")
    for run in (*early, other):
        await parked(run)

    await ow.signal("approval:42", "yes")
    late = await ow.run_workflow(broadcast, "approval:42")

    assert ["yes"] * 6 == [await run.result(timeout=20) for run in (*early, late)]
    assert RunStatus.PENDING is await other.status()


@workflow
async def rounds(n: int, step: Step) -> list[Any]:
    got = await step.wait_for_signal("n")
    if n:
        await step.continue_as_new(n - 1)
    return [got, await step.wait_for_signal("t", timeout=0, default="none"), step.key]


async def test_what_was_not_taken_survives_continuing_as_new_and_what_was_does_not(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    run = await ow.run_workflow(rounds, 2)
    for n in range(2):
        await run.signal("n", n)
    await ow.signal("n", "topic")
    await start_worker(rounds)

    got, none, key = await run.result(timeout=20)

    assert ("topic", "none") == (got, none)
    assert key.startswith(f"{run.id}+")
    left = await sql.fetch("select workflow_run_id from workflow_messages")
    assert [None] == [row[0] for row in left], "what a run has taken goes when it begins afresh"


@workflow
async def twice_of_a_topic(n: int, step: Step) -> Any:
    got = await step.wait_for_signal("t", timeout="100ms", default="none")
    if n:
        await step.continue_as_new(n - 1)
    return got


async def test_a_topics_signal_reaches_a_run_once_also_if_it_continues_as_new(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await ow.signal("t", "once")
    await start_worker(twice_of_a_topic)

    run = await ow.run_workflow(twice_of_a_topic, 2)

    assert "none" == await run.result(timeout=20)


@workflow
async def pinging(to: UUID, step: Step) -> UUID:
    sent = await step.signal(to, "n", 1)
    await step.sleep("replay", "1ms")
    await step.signal(to, "n", 2)
    await step.signal("topic", 3)
    return sent


@workflow(name="pinging-in-a-thread")
def pinging_in_a_thread(to: UUID, step: SyncStep) -> UUID:
    return step.signal(to, "n", 1)


async def test_a_workflow_signals_another(ow: OpenWorkflow, start_worker: StartWorker) -> None:
    await start_worker(collected, pinging, pinging_in_a_thread, broadcast)
    to = await ow.run_workflow(collected, 3)
    topic = await ow.run_workflow(broadcast, "topic")
    ping = await ow.run_workflow(pinging, to.id)

    assert isinstance(await ping.result(timeout=20), UUID)
    await (await ow.run_workflow(pinging_in_a_thread, to.id)).result(timeout=20)
    assert [1, 2, 1] == await to.result(timeout=20)
    assert 3 == await topic.result(timeout=20)


async def test_no_run_fails_because_the_database_takes_no_signals_for_now(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten attempts were made, over five minutes, and then the run was failed for good."""
    moment = replace(
        signals._RETRY, initial=timedelta(milliseconds=1), max_delay=timedelta(milliseconds=1)
    )
    monkeypatch.setattr(signals, "_RETRY", moment)
    monkeypatch.setattr(requests, "PAUSES", ())

    @workflow
    async def sender(input: str, step: Step) -> str:
        return str(await step.signal(UUID(input), "go", 1))

    await start_worker(sender, waits_for_go)
    waiting = await ow.run_workflow(waits_for_go)
    await sql.execute(REFUSE)
    run = await ow.run_workflow(sender, str(waiting.id))

    async def tried_often() -> bool:
        failed = "select count(*) > 12 from step_attempts where workflow_run_id = $1"
        return bool(await sql.fetchval(failed, run.id))

    await eventually(tried_often, deadline=30)
    await sql.execute("drop trigger refuse on workflow_messages")

    await run.result(timeout=20)
    assert 1 == await waiting.result(timeout=20)
    assert 1 == await sql.fetchval("select count(*) from workflow_messages")


async def test_a_signal_that_can_never_be_stored_fails_its_step_at_once(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any
) -> None:
    @workflow
    async def sender(input: str, step: Step) -> None:
        await step.signal(UUID(input), "go", 1)

    await start_worker(sender, waits_for_go)
    waiting = await ow.run_workflow(waits_for_go)
    await sql.execute(REFUSE.replace("53100", "22P05"))
    run = await ow.run_workflow(sender, str(waiting.id))

    with pytest.raises(WorkflowFailed, match="SerializationError: signal 'go'"):
        await run.result(timeout=20)


async def test_a_step_that_signals_nobody_fails_at_once(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(pinging)
    run = await ow.run_workflow(pinging, UUID(int=7))

    with pytest.raises(WorkflowFailed) as caught:
        await run.result(timeout=20)

    assert isinstance(caught.value.__cause__, RunNotFound)
