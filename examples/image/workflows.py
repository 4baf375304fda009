"""A fleet's workflow: an order that is charged, then delivered later."""

import asyncio
from dataclasses import dataclass

from openworkflow import Step, workflow


@dataclass(frozen=True)
class Order:
    number: int
    charging_seconds: float = 0.1
    delivery: str = "1s"


async def charge(order: Order) -> str:
    await asyncio.sleep(order.charging_seconds)
    return f"receipt-{order.number}"


async def deliver(receipt: str) -> str:
    return f"{receipt} delivered"


@workflow
async def fulfil(order: Order, step: Step) -> str:
    receipt = await step.run("charge", charge, order)
    await step.sleep("until-delivery", order.delivery)  # takes no worker: the fleet may be at zero
    return await step.run("deliver", deliver, receipt)
