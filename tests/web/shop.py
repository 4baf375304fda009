"""A shop with a history: what a dashboard has to show, for people to look at."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg

from openworkflow import (
    Cron,
    Limit,
    NonRetryableError,
    OpenWorkflow,
    RetryPolicy,
    RunStatus,
    Step,
    workflow,
)
from tests.helpers import StartWorker, eventually

#: What nobody may be able to put into a page: taken for more than text, each of it would tell.
HOSTILE = (
    "\"'><script>alert(1)</script><img src=x onerror=alert(2)>"
    "<a href=javascript:alert(3) autofocus onfocus=alert(4)>{{7*7}}</a>"
    "<div hx-get=/stolen hx-trigger=load></div>"
)
LONG = "a-customer-with-a-name-that-nobody-thought-of-when-they-drew-the-table-" * 3


class CardDeclined(NonRetryableError):
    """What a bank says."""


async def reserve(order: str) -> dict[str, Any]:
    return {"order": order, "warehouse": "Leipzig", "items": [{"sku": "4711", "count": 2}]}


tries: dict[str, int] = {}


async def label(order: str) -> str:
    tries[order] = tries.get(order, 0) + 1
    if tries[order] < 3:
        raise ConnectionError("the carrier closed the connection")
    return f"https://carrier.example.com/labels/{order}"


async def charge(order: str) -> str:
    if order.endswith("-bad"):
        raise CardDeclined(f"card of {order} was declined: insufficient funds")
    return f"receipt-{order}"


async def pack(parcel: int) -> str:
    return f"parcel {parcel}"


@workflow
async def parcel(number: int, step: Step) -> str:
    return await step.run("pack", pack, number)


@workflow(limits=[Limit(20, name="payment-provider")])
async def order(order: str, step: Step) -> dict[str, Any]:
    step.set_status({"order": order, "stage": "reserving"})
    await step.run("reserve", reserve, order)
    await step.run("label", label, order, retry=RetryPolicy(initial="1ms"))
    await step.sleep("cooling-off", "1ms")
    receipt = await step.run("charge", charge, order)
    await step.map("parcels", parcel, [1, 2])
    return {"order": order, "receipt": receipt}


@workflow
async def approval(order: str, step: Step) -> str:
    await step.run("reserve", reserve, order)
    told = await step.wait_for_signal("approved", timeout="7d")
    return f"{order} approved: {told}"


@workflow(schedule=Cron("30 7 * * 1-5", "Europe/Berlin", name="morning-report"))
async def report(step: Step) -> str:
    return "sent"


@workflow(name=HOSTILE[:200], limits=[Limit(3, name=HOSTILE[:200])])
async def hostile(input: str | None, step: Step) -> str:
    step.set_status(HOSTILE)
    await step.run(HOSTILE[:200], reserve, HOSTILE)
    if input is not None:
        raise CardDeclined(HOSTILE)
    return HOSTILE


class Shop:
    """Runs of each kind."""

    done: UUID
    failed: UUID
    waits: UUID
    hostile: list[UUID]


async def opened(ow: OpenWorkflow, start_worker: StartWorker, sql: Any) -> Shop:
    """A shop that was at work for an hour."""
    await start_worker(order, approval, parcel, report, hostile, build_id="2026.11.3")
    shop = Shop()
    names = [f"order-{number}" for number in range(1001, 1013)]
    runs = [
        await ow.run_workflow(order, name, tags={"customer": "acme", "country": "de"})
        for name in (*names, *(f"{each}-bad" for each in names[:4]), LONG)
    ]
    waiting = await ow.run_workflow(approval, "order-1020", tags={"customer": LONG[:80]})
    odd = [
        await ow.run_workflow(
            hostile, input, tags={"x": HOSTILE[:90]}, idempotency_key=f"{HOSTILE}{n}"
        )
        for n, input in enumerate((None, HOSTILE))
    ]
    for run in (*runs, *odd):
        await ow.wait(run.id, 60)
    await ow.pause(workflow="invoice", reason=HOSTILE, by=HOSTILE)
    await eventually(lambda: waits(ow, waiting.id))
    shop.done, shop.failed, shop.waits = runs[0].id, runs[12].id, waiting.id
    shop.hostile = [run.id for run in odd]
    await _spread(sql, shop.done, shop.failed)
    return shop


async def waits(ow: OpenWorkflow, run_id: UUID) -> bool:
    told = await ow.explain(run_id)
    return told.status == RunStatus.PENDING and told.waits != ()


async def _spread(sql: asyncpg.Connection[Any], *runs: UUID) -> None:
    """Let what took milliseconds have taken as long as it does in a shop."""
    await sql.execute(
        "update workflow_runs set created_at = created_at - random() * interval '1 h'"
        " where workflow_name <> 'approval'"
    )
    for run in runs:
        rows = await sql.fetch(
            "select id, kind, resume_at is not null as again from step_attempts"
            " where workflow_run_id = $1 order by created_at, id",
            run,
        )
        began = await sql.fetchval("select created_at from workflow_runs where id = $1", run)
        at = began + timedelta(seconds=0.2)
        for row in rows:
            took = 3 * 3600.0 if row["kind"] == "sleep" else 1.4
            ended = at + timedelta(seconds=took)
            resume = ended + timedelta(seconds=2) if row["again"] else None
            await sql.execute(
                "update step_attempts set created_at = $2, completed_at = $3,"
                " resume_at = $4 where id = $1",
                row["id"],
                at,
                ended,
                resume if row["kind"] != "sleep" else ended,
            )
            at = (resume or ended) + timedelta(seconds=0.1)
        await sql.execute(
            "update workflow_runs set started_at = created_at, completed_at = $2 where id = $1",
            run,
            at,
        )
