"""A user's module as the documentation has it: nothing in it is a mistake, to any type checker."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from openworkflow import (
    BackendPostgres,
    Cron,
    OpenWorkflow,
    RetryPolicy,
    RunFilter,
    RunNotFound,
    RunStatus,
    Step,
    SyncStep,
    Undo,
    current_step,
    step,
    workflow,
)
from openworkflow.testing import Environment, FakeStep, FakeSyncStep, environment


@dataclass(frozen=True)
class Order:
    number: int
    email: str = ""


@dataclass(frozen=True)
class Receipt:
    order: int
    payment: str


async def charge(order: Order, amount: int, *, currency: str = "EUR") -> str:
    return f"{current_step().key} {order.number} {amount} {currency}"


async def refund(payment: str) -> None:
    print(payment)


def cancel(order: Order) -> None:
    print(order.number)


def look_up(number: int) -> Order:
    return Order(number)


@step
async def pack(order: Order) -> list[str]:
    return [order.email]


@step(retry=RetryPolicy(max_attempts=5), timeout="30s")
async def notify(email: str, text: str = "") -> bool:
    return bool(email and text)


@step
def price_of(order: Order) -> int:
    return order.number


@step(name="stock")
def in_stock(order: Order, *, warehouse: str) -> bool:
    return bool(order.number and warehouse)


class Mailer:
    async def send(self, to: str) -> int:
        return len(to)


@workflow
async def ship(input: Order, step: Step) -> Receipt:
    payment = await step.run("charge", charge, input, 5, currency="USD")
    payment = await step.run("again", charge, input, 5, retry=RetryPolicy(max_attempts=2))
    payment += await step.run("undone", charge, input, 5, undo=refund)
    payment += await step.run("slow", charge, input, amount=5, timeout="10s")
    payment += await step.run("bound", partial(charge, input, 5), timeout=timedelta(seconds=5))
    order = await step.run("look-up", look_up, input.number)
    hotel: Order = await step.run("hotel", look_up, 2, undo=Undo(cancel, timeout="5s"))
    known: int = hotel.number + (await step.run("sum", sum, [1, 2])) + order.number
    sent, parcels = await asyncio.gather(step.run("send", Mailer().send, input.email), pack(input))
    both: tuple[str, Order] = await asyncio.gather(
        step.run("one", charge, input, 5, retry=RetryPolicy(max_attempts=2)),
        step.run("two", look_up, 2, timeout=5),
    )
    payment += both[0]
    parcels.append(str(sent + known))
    if await in_stock(input, warehouse="south") and await notify(input.email, text="on its way"):
        await step.sleep("a-day", "1d")
    return Receipt(input.number, payment + str(await price_of(input)))


@workflow(name="bill", version="2", deadline="1h")
def bill(order: Order, s: SyncStep) -> int:
    found = s.run("look-up", look_up, order.number)
    price: int = price_of(found)
    return price + s.run("sum", sum, [1, 2], timeout=5)


@workflow(schedule=Cron("0 3 * * *"))
async def nightly(step: Step) -> None:
    await step.run("look-up", look_up, 1)


@workflow
async def ping() -> str:
    return "pong"


@workflow
async def only_input(number: int) -> int:
    return number


@workflow
async def untyped(input, step):  # type: ignore[no-untyped-def]
    return await step.run("x", look_up, input)


@workflow
async def maybe(input: Order | None, step: Step) -> float:
    return 0.5


async def main(url: str) -> None:
    backend = await BackendPostgres.connect(url)
    ow = OpenWorkflow(backend)
    worker = ow.new_worker(
        workflows=[ship, bill, nightly, ping, only_input, untyped, maybe],
        concurrency=10,
        lease=timedelta(seconds=10),
        worker_id="one",
    )
    await worker.start()
    run = await ow.run_workflow(ship, Order(1), idempotency_key="order-1")
    receipt: Receipt = await run.result(timeout="30s")
    total: int = await (await ow.run_workflow(bill, Order(receipt.order))).result()
    await ow.run_workflow(nightly)
    pong: str = await (await ow.run_workflow(ping)).result()
    await ow.run_workflow(only_input, total)
    await ow.run_workflow(untyped, {"any": pong})
    half: float = await (await ow.run_workflow(maybe)).result()
    await ow.run_workflow(maybe, Order(int(half)))
    await ow.run_workflow("elsewhere", {"number": 1}, version="3")
    await ow.run_workflows(ship, [Order(n) for n in range(3)])
    try:
        anything: Any = (await ow.get_run(run.id)).run.output
        page = await ow.list_runs(RunFilter(status=RunStatus.FAILED))
        print(anything, [each.workflow_name for each in page.runs])
    except RunNotFound as error:
        print(error.run_id)
    await worker.stop()
    await backend.stop()


async def test_shop(ow_env: Environment) -> None:
    ow_env.fail("charge", ConnectionError("down"), times=2)
    ow_env.fail(notify, ConnectionError)
    ow_env.stub("pack", ["parcel"])
    receipt: Receipt = (await ow_env.run(ship, Order(1))).output
    pong: str = (await ow_env.run(ping)).output
    run = await ow_env.start(nightly)
    await ow_env.skip(timedelta(days=1))
    await run.result()
    print(receipt, pong, run.step("charge").attempts, ow_env.calls(notify)[0].args)
    async with environment(timeout=60, concurrency=5) as env:
        await env.run(only_input, 3, idempotency_key="3")


def test_plain(ow_env: Environment) -> None:
    total: int = ow_env.sync.run(bill, Order(1)).output
    print(total, ow_env.sync.skip("1d"))


async def test_alone() -> None:
    step = FakeStep(results={"charge": "payment"}, signals={"approve": True})
    receipt: Receipt = await ship(Order(1), step)
    print(receipt, step.slept, bill(Order(1), FakeSyncStep()))
