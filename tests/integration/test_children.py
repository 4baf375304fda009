"""Children through the real worker: started once, awaited by a parked run, ended with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from openworkflow import (
    BackendPostgres,
    ChildFailed,
    ChildTimeout,
    OpenWorkflow,
    RetryPolicy,
    RunHandle,
    Step,
    SyncStep,
    Undo,
    WorkflowFailed,
    workflow,
)
from openworkflow.backend import queries
from openworkflow.backend.backend import NewRun
from openworkflow.core.ids import uuid7
from openworkflow.core.workflow_run import RunStatus
from openworkflow.engine.operations import child as children
from tests.helpers import StartWorker, eventually


@dataclass
class Bill:
    customer: str
    total: int


@dataclass
class Receipt:
    text: str


@workflow
async def billing(bill: Bill, step: Step) -> Receipt:
    return Receipt(f"{bill.customer}: {bill.total}")


@workflow
async def order(bill: Bill, step: Step) -> str:
    receipt = await step.run_workflow("bill", billing, bill)
    return receipt.text


@workflow
def order_in_a_thread(bill: Bill, step: SyncStep) -> str:
    receipt = step.run_workflow("bill", billing, bill)
    return receipt.text


@pytest.mark.parametrize("flow", [order, order_in_a_thread], ids=lambda flow: flow.name)
async def test_a_child_gives_its_typed_result(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any], flow: Any
) -> None:
    await start_worker(flow, billing)
    run = await ow.run_workflow(flow, Bill("ann", 7))

    assert "ann: 7" == await run.result(timeout=20)
    (step,) = (await ow.get_run(run.id)).steps
    assert ("child", "succeeded", {"text": "ann: 7"}) == (step.kind, step.status, step.output)
    child = await ow.get_workflow_run(step.id)
    assert ("billing", run.id) == (child.workflow_name, child.parent_run_id)


@workflow
async def waits(step: Step) -> Any:
    return await step.wait_for_signal("go")


@workflow
async def parent(options: dict[str, Any], step: Step) -> Any:
    return await step.run_workflow("child", waits, **options)


async def child_of(ow: OpenWorkflow, sql: asyncpg.Connection[Any], run: RunHandle[Any]) -> Any:
    """The handle of the only child, once its parent is parked for it and it waits itself."""
    found = "select id from workflow_runs where parent_run_id = $1"
    child = await eventually(lambda: sql.fetchval(found, run.id))

    async def parked() -> bool:
        rows = [await ow.get_workflow_run(each) for each in (run.id, child)]
        return all(row.status is RunStatus.PENDING and row.claim_no > 0 for row in rows)

    await eventually(parked)
    return ow.handle(child)


async def test_a_parent_is_parked_until_its_child_ends(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    await start_worker(parent, waits)
    run = await ow.run_workflow(parent, {})
    child = await child_of(ow, sql, run)

    assert "infinity" == await sql.fetchval(
        "select available_at::text from workflow_runs where id = $1", run.id
    )
    await child.signal("go", "gone")

    assert "gone" == await run.result(timeout=20)
    assert 2 == (await run.run()).claim_no


async def test_a_parent_that_is_canceled_takes_its_children_with_it(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    await start_worker(parent, waits)
    run, other = [await ow.run_workflow(parent, o) for o in ({}, {"parent_close": "abandon"})]
    child, abandoned = [await child_of(ow, sql, each) for each in (run, other)]

    await run.cancel()
    await other.cancel()

    assert RunStatus.CANCELED is await child.status()
    assert RunStatus.PENDING is await abandoned.status()


@workflow
async def doubled(n: int, step: Step) -> int:
    if n == 13:
        raise ValueError("unlucky")
    return 2 * n


async def twice(n: int) -> int:
    if n == 13:
        raise ValueError("unlucky")
    return 2 * n


NO_RETRY = RetryPolicy(max_attempts=1)


@workflow
async def mapped(options: dict[str, Any], step: Step) -> list[Any]:
    count = options.pop("count")
    if options.pop("workflow"):
        found = await step.map("double", doubled, range(count), **options)
    else:
        found = await step.map("double", twice, range(count), retry=NO_RETRY, **options)
    return [each if isinstance(each, int) else type(each).__name__ for each in found]


@workflow
def mapped_in_a_thread(options: dict[str, Any], step: SyncStep) -> list[Any]:
    count = options.pop("count")
    over: Any = doubled if options.pop("workflow") else twice
    more: dict[str, Any] = {} if over is doubled else {"retry": NO_RETRY}
    found: list[Any] = step.map("double", over, range(count), **options, **more)
    return [each if isinstance(each, int) else type(each).__name__ for each in found]


@pytest.mark.parametrize("flow", [mapped, mapped_in_a_thread], ids=lambda flow: flow.name)
@pytest.mark.parametrize("over", [True, False], ids=["workflow", "function"])
async def test_a_map_answers_in_the_order_of_its_items(
    ow: OpenWorkflow, start_worker: StartWorker, flow: Any, over: bool
) -> None:
    await start_worker(flow, doubled)
    wish = {"count": 30, "workflow": over, "concurrency": 7, "tolerate_failures": 1}
    run = await ow.run_workflow(flow, wish)

    found = await run.result(timeout=60)

    failed = "ChildFailed" if over else "ValueError"
    assert [failed if n == 13 else 2 * n for n in range(30)] == found
    if over:
        assert [("map", "succeeded")] == [
            (step.kind, step.status) for step in (await ow.get_run(run.id)).steps
        ]


@pytest.mark.parametrize("over", [True, False], ids=["workflow", "function"])
async def test_a_map_fails_with_the_first_item_that_it_does_not_tolerate(
    ow: OpenWorkflow, start_worker: StartWorker, over: bool
) -> None:
    await start_worker(mapped, doubled)
    run = await ow.run_workflow(mapped, {"count": 20, "workflow": over, "min_successful": 20})

    with pytest.raises(WorkflowFailed, match="map 'double': 1 of 20 items failed") as caught:
        await run.result(timeout=60)

    assert "unlucky" in str(caught.value.failure.cause)


@workflow
async def fails(step: Step) -> None:
    await step.run("break", _break, retry=NO_RETRY)


async def _break() -> None:
    raise LookupError("no such customer")


@workflow
async def middle(step: Step) -> None:
    await step.run_workflow("below", fails)


@workflow
async def catches(step: Step) -> str:
    try:
        await step.run_workflow("child", middle)
    except ChildFailed as error:
        below = error.__cause__
        cause = error.failure.cause
        return f"{error.status}, {type(below).__name__}: {cause.summary if cause else ''}"
    return "no error"


async def test_a_failure_reaches_the_parent_with_its_whole_chain(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(catches, middle, fails)
    run = await ow.run_workflow(catches)
    uncaught = await ow.run_workflow(middle)

    assert "failed, ChildFailed: LookupError: no such customer" == await run.result(timeout=30)
    with pytest.raises(
        WorkflowFailed, match=r"child 'below', run .*, failed: LookupError"
    ) as caught:
        await uncaught.result(timeout=30)
    assert isinstance(caught.value.__cause__, ChildFailed)
    assert isinstance(caught.value.__cause__.__cause__, LookupError)


TRIED: list[UUID] = []


@workflow
async def third_time(step: Step) -> str:
    TRIED.append(step.run_id)
    if len(TRIED) < 3:
        raise RuntimeError("not yet")
    return "at last"


@workflow
async def patient(step: Step) -> str:
    policy = RetryPolicy(max_attempts=3, initial="10ms", jitter=0)
    return await step.run_workflow("child", third_time, retry=policy)


async def test_a_child_is_started_again_as_its_policy_says(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(patient, third_time)
    run = await ow.run_workflow(patient)

    assert "at last" == await run.result(timeout=30)
    steps = (await ow.get_run(run.id)).steps
    assert [("failed", 1), ("failed", 2), ("succeeded", 3)] == [
        (step.status, step.attempt) for step in steps
    ]
    assert TRIED == [step.id for step in steps]


@workflow
async def impatient(step: Step) -> str:
    try:
        await step.run_workflow("child", waits, timeout="300ms")
    except ChildTimeout as error:
        return error.step_name
    return "in time"


async def test_a_child_that_is_too_late_is_canceled(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    await start_worker(impatient, waits)
    run = await ow.run_workflow(impatient)

    assert "child" == await run.result(timeout=30)
    kid = await sql.fetchval("select id from workflow_runs where parent_run_id = $1", run.id)

    async def is_canceled() -> bool:
        return (await ow.get_workflow_run(kid)).status is RunStatus.CANCELED

    await eventually(is_canceled)


@workflow
async def first_of_two(step: Step) -> str:
    slow = asyncio.create_task(step.run_workflow("slow", waits))
    fast = asyncio.create_task(step.run_workflow("fast", billing, Bill("ann", 1)))
    await asyncio.wait({slow, fast}, return_when=asyncio.FIRST_COMPLETED)
    slow.cancel()
    receipt = await fast
    await step.sleep("on", "1h")
    return receipt.text


async def test_a_branch_that_is_cancelled_cancels_its_child(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    await start_worker(first_of_two, waits, billing)
    run = await ow.run_workflow(first_of_two)
    slow = (
        "select child.status from workflow_runs child join step_attempts step on step.id = child.id"
        " where step.workflow_run_id = $1 and step_name = 'slow'"
    )

    async def is_canceled() -> bool:
        return bool("canceled" == await sql.fetchval(slow, run.id))

    await eventually(is_canceled)
    assert not (await run.status()).finished


@workflow
async def by_hand(how: str, step: Step) -> Any:
    child = await step.start_workflow("child", waits, tags={"of": "child"})
    await step.start_workflow("other", waits, parent_close="abandon")
    if how == "signal":
        await child.signal("go", 7)
        return await child.result()
    if how == "cancel":
        await child.cancel()
        await child.cancel()
        try:
            await child.result()
        except ChildFailed as error:
            return error.status
    if how == "late":
        try:
            await child.result(timeout="100ms")
        except ChildTimeout:
            await child.signal("go", "after all")
            return await child.result()
    return str(child.id)


@pytest.mark.parametrize(
    ("how", "result"), [("signal", 7), ("cancel", "canceled"), ("late", "after all")]
)
async def test_a_started_child_is_waited_for_signaled_and_canceled(
    ow: OpenWorkflow, start_worker: StartWorker, how: str, result: Any
) -> None:
    await start_worker(by_hand, waits)
    run = await ow.run_workflow(by_hand, how, tags={"customer": "acme"})

    assert result == await run.result(timeout=30)
    child, other, *_ = (await ow.get_run(run.id)).steps
    assert "child-start" == child.kind
    assert {"customer": "acme", "of": "child"} == (await ow.get_workflow_run(child.id)).tags
    assert {"customer": "acme"} == (await ow.get_workflow_run(other.id)).tags


async def test_the_end_of_a_run_ends_the_children_that_it_did_not_abandon(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    await start_worker(by_hand, waits)
    run = await ow.run_workflow(by_hand, "neither")
    child = await run.result(timeout=30)

    async def is_canceled() -> bool:
        return (await ow.get_workflow_run(UUID(child))).status is RunStatus.CANCELED

    await eventually(is_canceled)
    abandoned = (
        "select count(*) from workflow_runs run join workflow_children using (id)"
        " where on_close = 'abandon' and completed_at is null"
    )
    assert 1 == await sql.fetchval(abandoned)


@workflow
async def nested(depth: int, step: Step) -> int:
    return await step.run_workflow("deeper", nested, depth + 1) if depth < 40 else depth


async def test_a_workflow_that_starts_itself_for_ever_is_stopped(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(nested)
    run = await ow.run_workflow(nested, 0)

    with pytest.raises(WorkflowFailed, match="children nest 32 deep at most"):
        await run.result(timeout=60)


@workflow
async def in_a_hurry(options: dict[str, Any], step: Step) -> None:
    await step.start_workflow("child", waits, **options)
    await step.wait_for_signal("never")


@pytest.mark.parametrize(("own", "seconds"), [(None, 60), ("10s", 10), ("1h", 60)])
async def test_a_child_has_no_later_deadline_than_its_parent(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any, own: str | None, seconds: float
) -> None:
    await start_worker(in_a_hurry, waits)
    before = datetime.now(UTC)
    run = await ow.run_workflow(in_a_hurry, {"deadline": own}, deadline="60s")
    found = "select deadline_at from workflow_runs where parent_run_id = $1"

    deadline = await eventually(lambda: sql.fetchval(found, run.id))

    assert seconds - 5 < (deadline - before).total_seconds() < seconds + 20


async def test_that_nobody_serves_a_child_is_said_of_its_parent(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    await start_worker(parent)
    run = await ow.run_workflow(parent, {})
    kid = await eventually(
        lambda: sql.fetchval("select id from workflow_runs where parent_run_id = $1", run.id)
    )

    async def said() -> Any:
        told = await ow.explain(run.id)
        return told if "no worker serves workflow 'waits'" in told.sentence else None

    told = await eventually(said)
    assert f"it waits for child {kid} of step 'child' since" in told.sentence
    assert kid == told.waits[0].child
    page = await ow.list_runs(where=f"parent:{run.id}")
    assert [kid] == [each.id for each in page.runs]


async def test_a_child_is_kept_as_long_as_its_parent_goes_on(
    ow: OpenWorkflow, backend: Any, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    await start_worker(in_a_hurry, waits)
    run = await ow.run_workflow(in_a_hurry, {})
    kid: UUID = await eventually(
        lambda: sql.fetchval("select id from workflow_runs where parent_run_id = $1", run.id)
    )
    await ow.cancel(kid)
    ended = [status for status in RunStatus if status.finished]

    async def pruned() -> int:
        return sum([count async for count in backend.prune(ended, timedelta(0))])

    assert 0 == await pruned()
    assert "DELETE 0" == await sql.execute("delete from workflow_runs where id = $1", kid)
    await run.cancel()
    assert 2 == await pruned()
    assert 0 == await sql.fetchval("select count(*) from workflow_children")


@workflow
async def two_children(step: Step) -> None:
    await step.start_workflow("kept", waits, parent_close="abandon")
    await step.run_workflow("dropped", waits)


async def test_the_children_of_a_parent_that_somebody_deletes_do_not_outlive_it(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    """They waited, or went on, forever, and nobody was left to end them."""
    await start_worker(two_children, waits)
    run = await ow.run_workflow(two_children)
    named = "select name.step_name, child.id from workflow_children child"
    named += " join step_attempts name on name.id = child.step_id where name.workflow_run_id = $1"
    await eventually(lambda: sql.fetchval(f"select count(*) = 2 from ({named}) found", run.id))
    children = dict(await sql.fetch(named, run.id))

    await sql.execute("delete from workflow_runs where id = $1", run.id)

    assert RunStatus.CANCELED == (await ow.wait(children["dropped"], timeout=20)).status
    assert not (await ow.get_workflow_run(children["kept"])).status.finished


@workflow
async def started_then_waits(step: Step) -> Any:
    child = await step.start_workflow("child", waits)
    await step.wait_for_signal("on")
    return await child.result()


async def test_a_fork_waits_for_the_child_of_the_other_run(
    ow: OpenWorkflow,
    start_worker: StartWorker,
    sql: asyncpg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its end wakes its parent only, so the fork looks again."""
    monkeypatch.setattr(children, "FOREIGN_AGAIN", timedelta(milliseconds=200))
    await start_worker(started_then_waits, waits)
    run = await ow.run_workflow(started_then_waits)
    found = "select id from workflow_runs where parent_run_id = $1"
    kid: RunHandle[Any] = ow.handle(await eventually(lambda: sql.fetchval(found, run.id)))
    await run.signal("on")
    waited = "select count(*) from step_attempts where step_name = 'result:child'"
    await eventually(lambda: sql.fetchval(waited))
    forked = await ow.fork(run.id, from_step="result:child")

    await kid.signal("go", "both")

    assert "both" == await run.result(timeout=30)
    assert "both" == await forked.result(timeout=30)


async def test_a_map_over_many_is_replayed_about_twice_for_each_window(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(mapped, doubled)
    count, window = 400, 20
    wish = {"count": count, "workflow": True, "concurrency": window, "tolerate_failures": 1}
    run = await ow.run_workflow(mapped, wish)

    found = await run.result(timeout=120)

    assert count == len(found)
    claims = (await run.run()).claim_no
    assert claims <= 2 * count / window + window / 2 + 5, claims


async def test_a_map_over_a_function_has_a_bounded_history(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(mapped)
    wish = {"count": 2000, "workflow": False, "concurrency": 50, "tolerate_failures": 1}
    run = await ow.run_workflow(mapped, wish)

    found = await run.result(timeout=120)

    assert ["ValueError" if n == 13 else 2 * n for n in range(2000)] == found
    assert 400 == len((await ow.get_run(run.id)).steps)


@workflow
async def in_time(step: Step) -> str:
    try:
        async with asyncio.timeout(0.3):
            return str(await step.run_workflow("child", waits))
    except TimeoutError:
        return "given up"


@workflow
async def one_of_a_group(step: Step) -> str:
    found = "no error"
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(step.run_workflow("slow", waits))
            group.create_task(step.run_workflow("bad", fails))
    except* ChildFailed as errors:
        found = str(errors.exceptions[0])
    return found


@workflow
async def gathered(step: Step) -> list[str]:
    found = await asyncio.gather(
        *(step.run_workflow("same", flow) for flow in (fails, empty, empty)),
        return_exceptions=True,
    )
    return [type(each).__name__ for each in found]


@workflow
async def as_they_come(step: Step) -> list[int]:
    doing = [asyncio.create_task(step.run_workflow("double", doubled, n)) for n in range(5)]
    return [await each for each in asyncio.as_completed(doing)]


@workflow
async def empty(step: Step) -> None:
    return None


@workflow
async def maps_of_maps(step: Step) -> int:
    sums = await step.map("rows", row, range(3), concurrency=2)
    return sum(sums)


@workflow
async def row(n: int, step: Step) -> int:
    return sum(await step.map("cells", doubled, range(n), concurrency=2))


@workflow
async def twice_the_handle(step: Step) -> list[Any]:
    child = await step.start_workflow("child", doubled, 4)
    return list(await asyncio.gather(child.result(), child.result(), child.result(timeout="1d")))


@workflow
async def goes_on_for_ever(n: int, step: Step) -> int:
    found = await step.run_workflow("double", doubled, n)
    if n < 3:
        await step.continue_as_new(n + 1)
    return found


@pytest.mark.parametrize(
    ("flow", "value", "expected"),
    [
        (in_time, None, "given up"),
        (one_of_a_group, None, "child 'bad', run"),
        (gathered, None, ["ChildFailed", "NoneType", "NoneType"]),
        (as_they_come, None, [0, 2, 4, 6, 8]),
        (maps_of_maps, None, 2),
        (twice_the_handle, None, [8, 8, 8]),
        (goes_on_for_ever, 1, 6),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
async def test_odd_programs_with_children_come_to_one_result(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any, flow: Any, value: Any, expected: Any
) -> None:
    await start_worker(flow, waits, fails, empty, doubled, row)
    run = await ow.run_workflow(flow, value) if value else await ow.run_workflow(flow)

    found = await run.result(timeout=60)

    if isinstance(expected, str):
        assert str(found).startswith(expected)
    else:
        assert expected == (sorted(found) if flow is as_they_come else found)

    async def left() -> bool:
        open_ = "select count(*) from workflow_runs where completed_at is null"
        return bool(0 == await sql.fetchval(open_))

    await eventually(left, 30)
    assert [] == await sql.fetch(queries.load("public")["check_invariants"])


UNDONE: list[str] = []


async def reserve(what: str) -> str:
    return what


async def release(what: str) -> None:
    UNDONE.append(what)


@workflow
async def reserved(step: Step) -> Any:
    await step.run("reserve", reserve, "of the child", undo=release)
    return await step.wait_for_signal("go")


@workflow
async def trip(how: str, step: Step) -> Any:
    await step.run("book", reserve, "of the parent", undo=release)
    if how == "fails":
        return await step.run_workflow("child", fails)
    return await step.run_workflow("child", reserved)


@pytest.mark.parametrize("how", ["fails", "is canceled"])
async def test_what_children_and_parents_did_is_undone(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any], how: str
) -> None:
    UNDONE.clear()
    await start_worker(trip, reserved, fails)
    run = await ow.run_workflow(trip, how)
    if how == "is canceled":
        await child_of(ow, sql, run)
        await run.cancel()

    async def ended() -> bool:
        left = "select count(*) from workflow_runs where completed_at is null"
        return bool(0 == await sql.fetchval(left))

    await eventually(ended, 30)
    assert {"of the parent"} | ({"of the child"} if how == "is canceled" else set()) == set(UNDONE)
    assert len(UNDONE) == len(set(UNDONE))
    assert [] == await sql.fetch(queries.load("public")["check_invariants"])


CLOSED = asyncio.Event()


async def release_later(what: str) -> None:
    if not CLOSED.is_set():
        raise ConnectionError("not now")
    UNDONE.append(what)


NEXT = RetryPolicy(max_attempts=0, initial="100ms", max_delay="100ms")


@workflow
async def long_trip(step: Step) -> Any:
    await step.run("book", reserve, "parent", undo=Undo(release_later, retry=NEXT))
    await step.start_workflow("started", reserved)
    await step.start_workflow("abandoned", waits, parent_close="abandon")

    async def fail() -> None:
        await step.wait_for_signal("fail")
        raise ValueError("no seats")

    return await asyncio.gather(
        step.run_workflow("awaited", reserved), step.map("mapped", reserved, [None, None]), fail()
    )


@pytest.mark.parametrize("how", ["is canceled", "fails"])
async def test_children_end_when_the_undoing_of_their_parent_begins(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any], how: str
) -> None:
    """They went on for as long as it took, and what they did until their own end was kept."""
    UNDONE.clear()
    CLOSED.clear()
    await start_worker(long_trip, reserved, waits)
    run = await ow.run_workflow(long_trip)
    begun = "select count(*) = 5 from step_attempts where step_name = 'go'"
    await eventually(lambda: sql.fetchval(begun), 20)
    await (run.cancel() if how == "is canceled" else run.signal("fail"))

    ended = (
        "select count(*) = 4 from workflow_runs where workflow_name = $1 and status = 'canceled'"
    )
    await eventually(lambda: sql.fetchval(ended, reserved.name), 20)

    assert ["of the child"] * 4 == UNDONE
    open_runs = "select count(*) from workflow_runs where id = $1 and completed_at is null"
    assert 1 == await sql.fetchval(open_runs, run.id)
    CLOSED.set()
    await eventually(lambda: _is_over(sql, run.id), 20)
    assert [*["of the child"] * 4, "parent"] == UNDONE
    left = "select workflow_name from workflow_runs where completed_at is null"
    assert [waits.name] == [row["workflow_name"] for row in await sql.fetch(left)]
    assert [] == await sql.fetch(queries.load("public")["check_invariants"])


@workflow
async def goes_on(n: int, step: Step) -> Any:
    if n == 0:
        await step.start_workflow("started", reserved)
        return await step.continue_as_new(1)
    await step.run("book", reserve, "parent", undo=Undo(release_later, retry=NEXT))
    return await step.wait_for_signal("never")


async def test_children_of_before_it_continued_end_when_its_undoing_begins_too(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    UNDONE.clear()
    CLOSED.clear()
    await start_worker(goes_on, reserved)
    run = await ow.run_workflow(goes_on, 0)
    begun = "select count(*) = 2 from step_attempts where step_name in ('go', 'never')"
    await eventually(lambda: sql.fetchval(begun), 20)
    await run.cancel()

    await eventually(lambda: UNDONE == ["of the child"], 20)

    assert not await _is_over(sql, run.id)
    CLOSED.set()
    await eventually(lambda: _is_over(sql, run.id), 20)


async def _is_over(sql: asyncpg.Connection[Any], run_id: UUID) -> bool:
    over = "select completed_at is not null from workflow_runs where id = $1"
    return bool(await sql.fetchval(over, run_id))


HOPELESS = [True]


@workflow
async def fails_at_first(step: Step) -> str:
    await step.run("count", reserve, "once")
    if HOPELESS[0]:
        raise ValueError("not yet")
    return "made"


@workflow
async def has_handles(step: Step) -> Any:
    first = await step.start_workflow("first", waits)
    deep = await step.start_workflow("deep", has_a_handle)
    await step.start_workflow("left", waits, parent_close="abandon")
    await first.signal("other", 1)
    return [await first.result(), await deep.result()]


@workflow
async def has_a_handle(step: Step) -> Any:
    handle = await step.start_workflow("deeper", waits)
    return await handle.result()


@workflow
async def hears(step: Step) -> Any:
    handle = await step.start_workflow("child", fails_at_first)
    return await handle.result()


async def waiting(sql: asyncpg.Connection[Any], count: int) -> None:
    """Until so many runs wait for the signal, each parked."""
    wait = (
        "select count(*) = $1 from step_attempts a join workflow_runs r on r.id = a.workflow_run_id"
        " where step_name = 'go' and a.status = 'running' and r.status = 'pending'"
        " and a.claim_no >= 0"
    )
    await eventually(lambda: sql.fetchval(wait, count))


@pytest.mark.parametrize("canceled", [True, False], ids=["they are", "they are to be"])
async def test_children_that_were_canceled_with_their_parent_go_on_with_it(
    ow: OpenWorkflow,
    start_worker: StartWorker,
    sql: asyncpg.Connection[Any],
    canceled: bool,
) -> None:
    """The retry found canceled what it had handles of, and failed whenever it was tried."""
    worker = await start_worker(has_handles, has_a_handle, waits)
    run = await ow.run_workflow(has_handles)
    await waiting(sql, 3)
    if canceled:
        await run.cancel()
        ended = "select count(*) = 4 from workflow_runs where status = 'canceled'"
        await eventually(lambda: sql.fetchval(ended))
    else:
        await worker.stop()
        await sql.execute(
            "update workflow_runs set status = 'canceled', completed_at = now() where id = $1",
            run.id,
        )

    await ow.retry(run.id)
    if not canceled:
        await start_worker(has_handles, has_a_handle, waits)

    await waiting(sql, 3)
    children = "select id from workflow_runs where workflow_name = 'waits' and completed_at is null"
    for child in await sql.fetch(children):
        await ow.signal(child["id"], "go", "gone")
    assert ["gone", "gone"] == await run.result(timeout=20)
    assert 5 == await sql.fetchval("select count(*) from workflow_runs")
    assert [] == await sql.fetch(queries.load("public")["check_invariants"])


@pytest.mark.parametrize("from_step", [None, "result:child"])
async def test_a_child_whose_failure_ended_its_parent_is_retried_with_it(
    ow: OpenWorkflow,
    start_worker: StartWorker,
    sql: asyncpg.Connection[Any],
    from_step: str | None,
) -> None:
    HOPELESS[0] = True
    await start_worker(hears, fails_at_first)
    run = await ow.run_workflow(hears)
    with pytest.raises(WorkflowFailed):
        await run.result(timeout=20)

    HOPELESS[0] = False
    await ow.retry(run.id, from_step=from_step)

    assert "made" == await run.result(timeout=20)
    assert 2 == await sql.fetchval("select count(*) from workflow_runs")
    assert 1 == await sql.fetchval("select count(*) from step_attempts where step_name = 'count'")


@workflow
async def hears_the_first(step: Step) -> Any:
    handles = [await step.start_workflow(f"child-{n}", fails_at_first) for n in range(3)]
    fourth = await step.start_workflow("handled", fails)
    with contextlib.suppress(ChildFailed):
        await fourth.result()
    await step.wait_for_signal("all-failed")
    return [await each.result() for each in handles]


async def test_children_that_failed_before_their_parent_heard_of_it_are_retried_with_it(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    """Each retry failed of the next of them. What the parent has dealt with stays as it is."""
    HOPELESS[0] = True
    await start_worker(hears_the_first, fails_at_first, fails)
    run = await ow.run_workflow(hears_the_first)
    broken = "select count(*) = 4 from workflow_runs where status = 'failed'"
    await eventually(lambda: sql.fetchval(broken))
    await run.signal("all-failed")
    with pytest.raises(WorkflowFailed):
        await run.result(timeout=20)

    HOPELESS[0] = False
    await ow.retry(run.id)

    assert ["made"] * 3 == await run.result(timeout=20)
    ended = "select status from workflow_runs where workflow_name = 'fails'"
    assert ["failed"] == [row["status"] for row in await sql.fetch(ended)]
    assert [] == await sql.fetch(queries.load("public")["check_invariants"])


async def test_what_a_map_has_left_is_read_without_those_that_have_ended(
    backend: BackendPostgres, database_url: str
) -> None:
    """All was counted in each look, so that a map over twice the items took four times as long."""
    (parent,) = await backend.create_workflow_runs([NewRun("parent")])
    step_id = uuid7()
    connection = await asyncpg.connect(database_url)
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    await connection.execute(
        "INSERT INTO workflow_children"
        " (id, namespace_id, parent_run_id, step_id, number, on_close, wake_at, status)"
        " SELECT md5(number::text)::uuid, 'default', $1, $2, number, 'cancel', 5,"
        "        CASE WHEN number >= 4990 THEN NULL WHEN number % 1000 = 0 THEN 'failed'"
        "             ELSE 'succeeded' END"
        "   FROM generate_series(0, 4999) number",
        *(parent.id, step_id),
    )

    asked = [parent.id], [step_id], [True], [10]
    sql = queries.load("public")["read_children"]
    (row,) = await connection.fetch(sql, *asked)
    plan: str = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", *asked)
    await connection.close()

    assert (5000, 10, 5) == (row["started"], row["open"], row["failed"])
    read = json.loads(plan)[0]["Plan"]
    assert read["Shared Hit Blocks"] + read["Shared Read Blocks"] < 60, plan
