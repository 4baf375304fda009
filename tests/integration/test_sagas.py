"""`undo=`: what a run did is undone when it does not end well."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from openworkflow import (
    NonRetryableError,
    OpenWorkflow,
    ResultTimeout,
    RetryPolicy,
    Step,
    SyncStep,
    Undo,
    WorkflowCanceled,
    WorkflowFailed,
    current_step,
    step,
    workflow,
)
from openworkflow.backend.backend import BackendPostgres
from openworkflow.cli import histories
from openworkflow.core.workflow_run import RunStatus
from openworkflow.engine.replay import Replayer
from tests.helpers import StartWorker, eventually

DONE: list[str] = []
"""The effects, in their order."""
HOLD = asyncio.Event()


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    global HOLD
    HOLD = asyncio.Event()
    DONE.clear()


async def book(what: str) -> str:
    DONE.append(f"book {what}")
    return f"{what}-1"


async def free(booking: str) -> None:
    DONE.append(f"free {booking}")


async def refuse(_: Any = None) -> None:
    raise ValueError("no seats")


ONCE = RetryPolicy(max_attempts=1)


@workflow
async def trip(where: str, step: Step) -> None:
    await step.run("hotel", book, "hotel", undo=free)
    await step.run("flight", book, "flight", undo=free)
    await step.run("car", refuse, retry=ONCE)


async def test_a_failure_undoes_what_was_done_in_reverse(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(trip)
    run = await ow.run_workflow(trip, "x")
    with pytest.raises(WorkflowFailed, match="no seats"):
        await run.result(timeout=20)

    assert ["book hotel", "book flight", "free flight-1", "free hotel-1"] == DONE
    found = await ow.get_run(run.id)
    assert found.run.error["undo"] == {"undone": ["flight", "hotel"], "not_undone": {}}
    assert found.run.error["message"] == "no seats"
    undos = [each.step_name for each in found.steps if each.kind == "undo"]
    assert ["undo", "undo:flight", "undo:hotel"] == undos


def book_now(what: str) -> str:
    DONE.append(f"book {what}")
    return f"{what}-1"


def free_now(booking: str) -> None:
    DONE.append(f"free {booking}")


@step(undo=free_now)
def book_by_decorator(what: str) -> str:
    return book_now(what)


@workflow
def plain_trip(step: SyncStep) -> None:
    step.run("hotel", book_now, "hotel", undo=free_now)
    book_by_decorator("flight")
    raise LookupError("in the workflow itself")


@workflow(retry=ONCE)
async def decorated_trip(step: Step) -> None:
    await book_by_decorator("flight")
    raise LookupError("in the workflow itself")


@pytest.mark.parametrize(("flow", "undone"), [(plain_trip, 2), (decorated_trip, 1)])
async def test_plain_functions_and_decorated_ones_are_undone_too(
    ow: OpenWorkflow, start_worker: StartWorker, flow: Any, undone: int
) -> None:
    await start_worker(flow)
    run = await ow.run_workflow(flow)
    with pytest.raises(WorkflowFailed, match="in the workflow itself"):
        await run.result(timeout=20)
    assert ["free flight-1", "free hotel-1"][:undone] == DONE[undone:]


@workflow
async def good_trip(step: Step) -> str:
    await step.run("hotel", book, "hotel", undo=free)
    return await step.run("flight", book, "flight", undo=free)


async def test_a_run_that_ends_well_keeps_what_it_did(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(good_trip)
    assert await (await ow.run_workflow(good_trip)).result(timeout=20) == "flight-1"
    assert ["book hotel", "book flight"] == DONE


@workflow
async def asking(step: Step) -> Any:
    await step.run("hotel", book, "hotel", undo=free)
    return await step.wait_for_signal("go on")


async def parked(ow: OpenWorkflow, flow: Any, **options: Any) -> Any:
    run = await ow.run_workflow(flow, **options)

    async def waits() -> bool:
        found = await ow.get_run(run.id)
        return found.run.status == "pending" and bool(found.steps) and found.run.claim_no > 0

    await eventually(waits)
    return run


async def test_a_canceled_run_is_undone_before_it_ends(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    worker = await start_worker(asking)
    run = await parked(ow, asking)
    await worker.stop()

    assert (await ow.cancel(run.id)).status == RunStatus.PENDING
    assert (await ow.cancel(run.id)).status == RunStatus.PENDING
    told = await ow.explain(run.id)
    assert "was canceled, and its steps are undone before it ends" in told.sentence
    assert () == told.waits, "it waits for no signal any more"
    assert 0 == told.waits_in_all
    assert ["book hotel"] == DONE

    await start_worker(asking)
    with pytest.raises(WorkflowCanceled):
        await run.result(timeout=20)
    assert ["book hotel", "free hotel-1"] == DONE
    assert (await ow.cancel(run.id)).status == RunStatus.CANCELED
    found = await ow.get_run(run.id)
    assert all(each.status != "running" for each in found.steps)


async def test_a_forced_cancellation_undoes_nothing(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    worker = await start_worker(asking)
    run, other = await parked(ow, asking), await parked(ow, asking)
    await worker.stop()
    assert (await ow.cancel(run.id, force=True)).status == RunStatus.CANCELED
    await ow.cancel(other.id)
    assert (await ow.cancel(other.id, force=True)).status == RunStatus.CANCELED
    assert ["book hotel", "book hotel"] == DONE


async def test_a_run_that_has_begun_nothing_to_undo_is_canceled_at_once(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    run = await ow.run_workflow(asking)
    assert (await ow.cancel(run.id)).status == RunStatus.CANCELED


@workflow(deadline="1s")
async def too_late(step: Step) -> None:
    await step.run("hotel", book, "hotel", undo=free)
    await step.sleep("long", "1d")


async def test_a_deadline_undoes(ow: OpenWorkflow, start_worker: StartWorker) -> None:
    await start_worker(too_late)
    run = await ow.run_workflow(too_late)
    with pytest.raises(WorkflowFailed, match="did not end by"):
        await run.result(timeout=20)
    assert ["book hotel", "free hotel-1"] == DONE


TRIES: list[int] = []


async def free_late(booking: str) -> None:
    TRIES.append(1)
    if len(TRIES) < 2:
        raise ConnectionError("not now")
    DONE.append(f"free {booking}")


@workflow(deadline="1s")
async def undone_late(step: Step) -> None:
    again = RetryPolicy(initial="3s", max_attempts=3)
    await step.run("hotel", book, "hotel", undo=Undo(free_late, retry=again))
    await step.sleep("long", "1d")


async def test_an_undo_is_tried_again_after_the_deadline_and_waits_for_that(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    """A deadline that has passed does not make a run due that waits to be undone."""
    TRIES.clear()
    await start_worker(undone_late)
    run = await ow.run_workflow(undone_late)
    with pytest.raises(WorkflowFailed):
        await run.result(timeout=20)
    assert ["book hotel", "free hotel-1"] == DONE
    # Begun, parked by the deadline, undone in part, and to the end.
    assert (await ow.get_run(run.id)).run.claim_no <= 5


async def hold(what: str) -> str:
    DONE.append(f"{what} {current_step().key.partition('/')[2]}")
    await HOLD.wait()
    return what


async def find(key: str) -> None:
    DONE.append(f"find {key.partition('/')[2]}")


@workflow
async def held(step: Step) -> None:
    await step.run("hotel", hold, "hotel", undo=Undo(free, uncertain=find))


@workflow
async def held_for_nobody(step: Step) -> None:
    await step.run("flight", book, "flight", undo=free)
    await step.run("hotel", hold, "hotel", undo=free)


async def test_what_was_cut_short_is_undone_by_its_key(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(held)
    run = await ow.run_workflow(held)
    await eventually(lambda: DONE)
    await ow.cancel(run.id)
    with pytest.raises(WorkflowCanceled):
        await run.result(timeout=20)
    assert ["hotel hotel", "find hotel"] == DONE


async def test_what_cannot_be_undone_says_so(
    ow: OpenWorkflow, backend: BackendPostgres, start_worker: StartWorker
) -> None:
    worker = await start_worker(held_for_nobody)
    run = await ow.run_workflow(held_for_nobody)
    await eventually(lambda: len(DONE) == 2)
    await ow.cancel(run.id)
    with pytest.raises(WorkflowFailed, match=r"'hotel' .it was cut short.*uncertain") as failed:
        await run.result(timeout=20)
    assert failed.value.failure.type.endswith(":UndoFailed")
    assert ["book flight", "hotel hotel", "free flight-1"] == DONE
    assert [run.id] == [each.id for each in (await ow.list_runs(where="undo_failed:yes")).runs]
    assert not (await ow.list_runs(where="-undo_failed:yes")).runs
    told = worker.metrics.registry.get_sample_value(
        "openworkflow_undo_failed_total",
        {"namespace_id": backend.namespace_id, "workflow": "held-for-nobody"},
    )
    assert told == 1


async def free_never(booking: str) -> None:
    raise PermissionError(f"{booking} may not be freed")


@workflow
async def stuck(step: Step) -> None:
    await step.run("hotel", book, "hotel", undo=free)
    await step.run("flight", book, "flight", undo=Undo(free_never, retry=ONCE))
    await step.run("car", book, "car", undo=free)
    await step.run("refuse", refuse, retry=ONCE)


async def test_an_undo_that_fails_keeps_no_other_back(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(stuck)
    run = await ow.run_workflow(stuck)
    with pytest.raises(WorkflowFailed, match=r"no seats .not undone: 'flight' .PermissionError"):
        await run.result(timeout=20)
    assert ["free car-1", "free hotel-1"] == DONE[3:]
    error = (await ow.get_run(run.id)).run.error
    assert error["undo"]["undone"] == ["car", "hotel"]
    assert list(error["undo"]["not_undone"]) == ["flight"]


async def refuse_soon() -> None:
    await eventually(lambda: any(each.startswith("hotel hotel") for each in DONE))
    asyncio.get_running_loop().call_later(0.3, HOLD.set)
    raise ValueError("no seats")


@workflow
async def gathered(step: Step) -> None:
    await asyncio.gather(
        step.run("hotel", hold, "hotel", undo=free),
        step.run("refuse", refuse_soon, retry=ONCE),
    )


@workflow
async def grouped(step: Step) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(step.run("hotel", hold, "hotel", undo=free))
        group.create_task(step.run("refuse", refuse_soon, retry=ONCE))


@pytest.mark.parametrize("flow", [gathered, grouped], ids=lambda flow: flow.name)
async def test_a_branch_that_is_in_flight_is_seen_through_and_undone(
    ow: OpenWorkflow, start_worker: StartWorker, flow: Any
) -> None:
    await start_worker(flow)
    run = await ow.run_workflow(flow)
    with pytest.raises(WorkflowFailed):
        await run.result(timeout=20)
    assert "free hotel" == DONE[-1]


async def free_slowly(booking: str) -> None:
    DONE.append(f"free {booking}")
    if booking == "flight-1":
        await asyncio.sleep(0.5)


@workflow
async def slow_trip(step: Step) -> None:
    await step.run("hotel", book, "hotel", undo=free_slowly)
    await step.run("flight", book, "flight", undo=free_slowly)
    raise NonRetryableError("no")


async def test_a_drain_hands_over_what_is_left_to_undo(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    first = await start_worker(slow_trip)
    run = await ow.run_workflow(slow_trip)
    await eventually(lambda: "free flight-1" in DONE)
    await first.stop()
    assert "free hotel-1" not in DONE
    assert not (await ow.get_run(run.id)).run.status.finished
    await start_worker(slow_trip)
    with pytest.raises(WorkflowFailed):
        await run.result(timeout=20)
    assert ["free flight-1", "free hotel-1"] == DONE[2:]


MENDED: list[bool] = []
KEYS: list[str] = []


async def charge() -> str:
    KEYS.append(current_step().key)
    DONE.append("charge")
    return "receipt"


async def label() -> None:
    DONE.append("label")


async def maybe() -> str:
    if not MENDED:
        raise ValueError("no stock")
    return "shipped"


async def refund(_: str) -> None:
    KEYS.append(current_step().key)
    DONE.append("refund")


@workflow
async def order(step: Step) -> str:
    await step.run("charge", charge, undo=refund)
    await step.run("label", label)
    return await step.run("ship", maybe, retry=ONCE)


async def test_a_retry_does_again_what_was_undone_and_nothing_else(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    """Under another key: else the second charge would be taken for the one that was refunded."""
    MENDED.clear()
    KEYS.clear()
    await start_worker(order)
    run = await ow.run_workflow(order)
    for _ in range(2):
        with pytest.raises(WorkflowFailed, match="no stock"):
            await run.result(timeout=20)
        await ow.retry(run.id)
    with pytest.raises(WorkflowFailed, match="no stock"):
        await run.result(timeout=20)
    MENDED.append(True)
    await ow.retry(run.id)
    assert await run.result(timeout=20) == "shipped"
    assert ["charge", "label", "refund", *["charge", "refund"] * 2, "charge"] == DONE
    assert len(set(KEYS)) == len(KEYS)


@pytest.mark.parametrize("from_step", ["charge", "label", "ship"])
async def test_a_retry_from_a_step_does_again_what_was_undone_before_it(
    ow: OpenWorkflow, start_worker: StartWorker, from_step: str
) -> None:
    MENDED.clear()
    await start_worker(order)
    run = await ow.run_workflow(order)
    with pytest.raises(WorkflowFailed, match="no stock"):
        await run.result(timeout=20)
    MENDED.append(True)
    await ow.retry(run.id, from_step=from_step)
    assert await run.result(timeout=20) == "shipped"
    assert DONE[3:] == ["charge", "label"][: 2 if from_step != "ship" else 1]


async def test_a_fork_does_again_what_was_undone(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    MENDED.clear()
    await start_worker(order)
    run = await ow.run_workflow(order)
    with pytest.raises(WorkflowFailed, match="no stock"):
        await run.result(timeout=20)
    MENDED.append(True)
    fork = await ow.fork(run.id, from_step="ship")
    assert await fork.result(timeout=20) == "shipped"
    assert ["charge"] == DONE[3:]


async def test_a_fork_undoes_only_what_it_did_itself(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    MENDED[:] = [True]
    await start_worker(order)
    run = await ow.run_workflow(order)
    assert await run.result(timeout=20) == "shipped"
    MENDED.clear()
    fork = await ow.fork(run.id, from_step="ship")
    with pytest.raises(WorkflowFailed, match="no stock"):
        await fork.result(timeout=20)
    assert ["charge", "label"] == DONE
    assert "undo" not in (await ow.get_run(fork.id)).run.error


@workflow
async def rounds(left: int, step: Step) -> None:
    await step.run("hotel", book, f"hotel-{left}", undo=free)
    if left:
        await step.continue_as_new(left - 1)
    raise NonRetryableError("no")


async def test_a_run_that_continues_as_new_keeps_what_it_did_before(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(rounds)
    run = await ow.run_workflow(rounds, 1)
    with pytest.raises(WorkflowFailed):
        await run.result(timeout=20)
    assert ["book hotel-1", "book hotel-0", "free hotel-0-1"] == DONE


def version_of(undo: Any) -> Any:
    async def changed(step: Step) -> Any:
        await step.run("hotel", book, "hotel", **({"undo": undo} if undo else {}))
        return await step.wait_for_signal("go on")

    return workflow(name="changed")(changed)


async def test_an_undo_that_the_code_has_no_more_is_told(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    before, after = version_of(free), version_of(None)
    worker = await start_worker(before)
    run = await parked(ow, before)
    await worker.stop()
    await start_worker(after)
    await ow.cancel(run.id)
    with pytest.raises(WorkflowFailed, match=r"'hotel' .the code has no undo for it any more"):
        await run.result(timeout=20)


async def test_a_pause_holds_an_undo_back(ow: OpenWorkflow, start_worker: StartWorker) -> None:
    await start_worker(asking)
    run = await parked(ow, asking)
    await ow.pause(run.id)
    await ow.cancel(run.id)
    with pytest.raises(ResultTimeout):
        await run.result(timeout=0.5)
    assert ["book hotel"] == DONE
    await ow.resume(run.id)
    with pytest.raises(WorkflowCanceled):
        await run.result(timeout=20)
    assert ["book hotel", "free hotel-1"] == DONE


async def test_a_poison_pill_is_not_undone_and_says_so(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any
) -> None:
    worker = await start_worker(asking)
    run = await parked(ow, asking)
    await worker.stop()
    await sql.execute(
        "update workflow_runs set status = 'running', worker_id = 'gone', crashes = 4,"
        " claim_no = claim_no + 1,"
        " available_at = now() - interval '1 hour' where id = $1",
        run.id,
    )
    await start_worker(asking)
    with pytest.raises(WorkflowFailed, match=r"'hotel' .nothing is called of a run that killed"):
        await run.result(timeout=30)
    assert ["book hotel"] == DONE


async def test_a_replay_check_of_an_undone_run_calls_nothing(
    ow: OpenWorkflow, backend: BackendPostgres, start_worker: StartWorker
) -> None:
    await start_worker(trip, asking)
    run = await ow.run_workflow(trip, "x")
    with pytest.raises(WorkflowFailed):
        await run.result(timeout=20)
    other = await parked(ow, asking)
    await ow.cancel(other.id)
    with pytest.raises(WorkflowCanceled):
        await other.result(timeout=20)
    done = len(DONE)
    flows = {flow.name: flow for flow in (trip, asking)}
    with Replayer() as replayer:
        checked = 0
        for status in RunStatus:
            async for each in histories.recorded(
                backend, workflow=None, statuses=[status], limit=10
            ):
                replayed = await replayer.replay(each, flows[each.run.workflow_name])
                assert replayed.found is None
                checked += 1
    assert (checked, len(DONE)) == (2, done)


@workflow
def threaded(step: SyncStep) -> None:
    def branch(name: str) -> None:
        step.run(f"book {name}", book_now, name, undo=free_now)
        step.wait_for_signal(name)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(branch, ["a", "b"]))


async def test_what_other_threads_of_a_plain_function_did_is_undone(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(threaded)
    run = await ow.run_workflow(threaded)

    async def both() -> bool:
        steps = (await ow.get_run(run.id)).steps
        return sum(each.kind == "signal" for each in steps) == 2

    await eventually(both)
    await ow.cancel(run.id)
    with pytest.raises(WorkflowCanceled):
        await run.result(timeout=30)
    assert {"free a-1", "free b-1"} == set(DONE[2:])
