"""An order pipeline: a payment that fails at first, parallel steps, a sleep, a step in a thread.

    openworkflow dev examples/order.py

`make demo` runs thirty of these, kills their worker halfway, and counts what ran twice.
"""

import asyncio
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from openworkflow import RetryPolicy, Step, step, workflow


@dataclass(frozen=True)
class Item:
    sku: str
    quantity: int
    price: Decimal


@dataclass(frozen=True)
class Order:
    number: int
    customer: str
    items: list[Item]


@dataclass(frozen=True)
class Receipt:
    """What the workflow returns: Decimals and datetimes come back as such."""

    order: int
    total: Decimal
    payment: str
    parcels: list[str]
    shipped_at: datetime


class GatewayTimeout(Exception):
    """The payment provider did not answer."""


@workflow
async def order(input: Order, step: Step) -> Receipt:
    """From the warehouse to the customer. Each awaited step is recorded before the next begins."""
    await step.run("reserve-stock", reserve_stock, input)
    payment, _ = await asyncio.gather(
        step.run("charge-card", charge_card, input, retry=PATIENT, timeout="5s"),
        step.run("print-invoice", print_invoice, input),
    )
    await step.sleep("await-pick-up", "1s")  # an hour or a month would cost no worker either
    parcels = await asyncio.gather(
        *(step.run(f"pack-{item.sku}", pack, input.number, item) for item in input.items)
    )
    shipped_at = await step.run("ship", ship, input.number)
    await notify(input)
    return Receipt(input.number, total(input), payment, parcels, shipped_at)


PATIENT = RetryPolicy(max_attempts=5, initial="300ms", max_delay="2s")


def total(order: Order) -> Decimal:
    """Plain code between the steps may compute whatever follows from the input."""
    return sum((item.price * item.quantity for item in order.items), Decimal(0))


# -- the steps: ordinary functions, which touch the world -------------------------------------


async def reserve_stock(order: Order) -> None:
    await work(order.number, "reserve-stock", seconds=0.2)


async def charge_card(order: Order) -> str:
    await work(order.number, "charge-card", seconds=0.2)
    if order.number % 3 == 0 and order.number not in asked:
        asked.add(order.number)
        raise GatewayTimeout(f"no answer about order {order.number}")
    return f"payment-{order.number}"


def print_invoice(order: Order) -> None:
    """A plain function, here one that blocks, runs in a thread."""
    log(order.number, "print-invoice")
    time.sleep(0.1)


async def pack(number: int, item: Item) -> str:
    await work(number, f"pack-{item.sku}", seconds=0.1 * item.quantity)
    return f"parcel-{number}-{item.sku}"


async def ship(number: int) -> datetime:
    await work(number, "ship", seconds=0.2)
    return datetime.now(UTC)  # in a step: a replay sees the recorded time


@step(retry=PATIENT)
async def notify(order: Order) -> None:
    """Decorated: durable when a workflow calls it, and a plain function elsewhere."""
    await work(order.number, "notify", seconds=0.1)


# -- the world: a text file that remembers every call -------------------------------------------

LEDGER = os.environ.get("ORDER_LEDGER", os.devnull)
asked: set[int] = set()
"""Orders about which the payment provider has been asked by this process."""


async def work(number: int, step: str, *, seconds: float) -> None:
    log(number, step)
    await asyncio.sleep(seconds)


def log(number: int, step: str) -> None:
    """One line for each call of a step function; a line this short is written whole."""
    with open(LEDGER, "a") as ledger:
        ledger.write(f"{number} {step} {os.getpid()}\n")
