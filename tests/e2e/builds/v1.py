"""The first build: an order is charged, then delivered later."""

import asyncio
from dataclasses import dataclass

from openworkflow import Step, workflow


@dataclass(frozen=True)
class Order:
    number: int
    busy_seconds: float = 0.1
    delivery: str = "1s"


async def charge(order: Order) -> str:
    await asyncio.sleep(order.busy_seconds)
    return f"v1-{order.number}"


async def deliver(receipt: str) -> str:
    return f"{receipt} delivered"


@workflow
async def fulfil(order: Order, step: Step) -> str:
    receipt = await step.run("charge", charge, order)
    await step.sleep("until-delivery", order.delivery)
    return await step.run("deliver", deliver, receipt)


@workflow
async def smoke(step: Step) -> str:
    receipt = await step.run("charge", charge, Order(0))
    return await step.run("deliver", deliver, receipt)
