"""A shop with a history: what a dashboard has to show, for people to look at."""

from __future__ import annotations

import json
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Shop:
    """Runs of each kind."""

    done: UUID
    failed: UUID
    waits: UUID


async def opened(ow: OpenWorkflow, start_worker: StartWorker, sql: Any) -> Shop:
    """A shop that was at work for some hours."""
    await start_worker(order, approval, parcel, report, hostile, build_id="2026.11.3")
    names = [f"order-{number}" for number in range(1001, 1013)]
    runs = [
        await ow.run_workflow(order, name, tags={"customer": "acme", "country": "de"})
        for name in (*names, *(f"{each}-bad" for each in names[:4]), LONG)
    ]
    waiting = await ow.run_workflow(approval, "order-1020", tags={"customer": LONG[:80]})
    for run in runs:
        await ow.wait(run.id, 60)
    await ow.pause(workflow="invoice", reason="the books are closed", by="ann")
    await eventually(lambda: waits(ow, waiting.id))
    await sql.execute(_SPREAD)
    await told(sql, _FLEET)
    shop = Shop(runs[0].id, runs[12].id, waiting.id)
    for run_id in (shop.done, shop.failed):
        await _stretch(sql, run_id)
    return shop


async def vandalised(ow: OpenWorkflow, sql: Any) -> list[UUID]:
    """What people write, such that it would do harm in a page that took it for more than text.

    Needs the worker of the shop; returns its runs.
    """
    words = dict.fromkeys(("type", "status", "reason", "message", "since"), HOSTILE)
    await told(sql, _FLEET | {"conditions": [words], "builds": [{"id": HOSTILE, "phase": HOSTILE}]})
    runs = [
        await ow.run_workflow(
            hostile, input, tags={"x": HOSTILE[:90]}, idempotency_key=f"{HOSTILE}{number}"
        )
        for number, input in enumerate((None, HOSTILE))
    ]
    for run in runs:
        await ow.wait(run.id, 60)
    await ow.pause(workflow=hostile, reason=HOSTILE, by=HOSTILE)
    await ow.schedules.create(HOSTILE[:150], hostile, Cron("0 0 1 1 *"))
    await ow.schedules.pause(HOSTILE[:150], HOSTILE)
    return [run.id for run in runs]


async def told(sql: Any, status: dict[str, Any]) -> None:
    """Let an operator have told of the fleet."""
    await sql.execute(
        "insert into workflow_fleets (namespace_id, resource, status)"
        " values ('default', 'shop/orders', $1)"
        " on conflict (namespace_id) do update set status = excluded.status",
        json.dumps(status),
    )


def _condition(kind: str, status: str, reason: str, message: str) -> dict[str, str]:
    since = "2026-11-27T08:41:12Z"
    return {"type": kind, "status": status, "reason": reason, "message": message, "since": since}


_FLEET = {
    "least": 0,
    "most": 4,
    "workers": 4,
    "ready": 3,
    "desired": 4,
    "due": 412,
    "running": 80,
    "conditions": [
        _condition("Ready", "True", "Ready", "the database is read and the fleet is as desired"),
        _condition("DatabaseReachable", "True", "Reachable", "the runs can be counted"),
        _condition("WorkersAvailable", "True", "WorkersReady", "3 of 4 workers are ready"),
        _condition("ScalingActive", "True", "Following", "the fleet follows the run counts"),
        _condition(
            *("ScalingLimited", "True", "MaxReplicas"),
            "the runs need more workers than `scaling.maxReplicas` allows",
        ),
        _condition("RolledOut", "True", "Current", "build 2026.11.3"),
    ],
    "builds": [{"id": "2026.11.3", "phase": "Current"}],
}


async def waits(ow: OpenWorkflow, run_id: UUID) -> bool:
    """Whether a run is parked with something to wait for."""
    told = await ow.explain(run_id)
    return told.status == RunStatus.PENDING and told.waits != ()


_SPREAD = """
update workflow_runs run
   set created_at = created_at - back, started_at = started_at - back,
       completed_at = completed_at - back
  from (select id, random() * interval '4 h' as back from workflow_runs) shift
 where shift.id = run.id and completed_at is not null"""


async def _stretch(sql: asyncpg.Connection[Any], run_id: UUID) -> None:
    """Let what took milliseconds have taken as long as it does in a shop."""
    rows = await sql.fetch(
        "select id, kind, resume_at is not null as again from step_attempts"
        " where workflow_run_id = $1 order by created_at, id",
        run_id,
    )
    began = await sql.fetchval("select now() - interval '4 h'")
    at = began + timedelta(seconds=0.2)
    for row in rows:
        is_sleep = row["kind"] == "sleep"
        ended = at + (timedelta(hours=3) if is_sleep else timedelta(seconds=1.4))
        resume = ended + timedelta(seconds=0 if is_sleep else 2) if row["again"] else None
        await sql.execute(
            "update step_attempts set created_at = $2, completed_at = $3, resume_at = $4"
            " where id = $1",
            row["id"],
            at,
            ended,
            resume,
        )
        at = (resume or ended) + timedelta(seconds=0.1)
    await sql.execute(
        "update workflow_runs set created_at = $2, started_at = $2, completed_at = $3"
        " where id = $1",
        run_id,
        began,
        at,
    )
