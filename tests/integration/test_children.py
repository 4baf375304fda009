"""Children through the real worker: started once, awaited without a worker, ended with the parent."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from openworkflow import (
    ChildFailed,
    ChildTimeout,
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
