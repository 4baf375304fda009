"""The second build: the same workflow with other steps, so it cannot go on with a run of v1."""

import asyncio
from dataclasses import dataclass

from openworkflow import Step, workflow


@dataclass(frozen=True)
class Order:
    number: int
    busy_seconds: float = 0.1
    delivery: str = "1s"


async def reserve(order: Order) -> str:
    await asyncio.sleep(order.busy_seconds)
    return f"v2-{order.number}"


async def ship(parcel: str) -> str:
    return f"{parcel} shipped"


@workflow
async def fulfil(order: Order, step: Step) -> str:
    parcel = await step.run("reserve", reserve, order)
    await step.sleep("until-shipping", order.delivery)
    return await step.run("ship", ship, parcel)


@workflow
async def smoke(step: Step) -> str:
    parcel = await step.run("reserve", reserve, Order(0))
    return await step.run("ship", ship, parcel)
