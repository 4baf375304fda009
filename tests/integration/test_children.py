"""Children through the real worker: started once, awaited by a parked run, ended with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from openworkflow import (
    OpenWorkflow,
    RetryPolicy,
    RunHandle,
    Step,
    SyncStep,
    WorkflowFailed,
    workflow,
)
from openworkflow.core.workflow_run import RunStatus
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
