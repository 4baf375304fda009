"""Mistakes that a user makes, one a line: each has to be an error to every type checker.

A comment says which one mypy calls it; pyright is asked without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openworkflow import (
    BackendPostgres,
    Cron,
    OpenWorkflow,
    RetryPolicy,
    RunHandle,
    Step,
    SyncStep,
    step,
    workflow,
)

if TYPE_CHECKING:
    from openworkflow.testing import Environment
    from tests.typed.shop import (
        Order,
        Receipt,
        charge,
        look_up,
        notify,
        pack,
        ping,
        price_of,
        ship,
    )


@workflow
async def calls(input: Order, step: Step) -> None:
    await step.run("wrong", charge, "order", 5)  # type: ignore[call-overload]
    await step.run("missing", charge, input)  # type: ignore[call-overload]
    await step.run("misspelt", charge, input, 5, curency="EUR")  # type: ignore[call-arg]
    await step.run("too-many", look_up, 1, 2)  # type: ignore[call-overload]
    await step.run(charge, input, 5)  # type: ignore[call-overload]
    await step.run("called", charge(input, 5))  # type: ignore[call-overload]
    await step.run("policy", charge, input, 5, retry=3)  # type: ignore[call-arg]
    number: int = await step.run("type", charge, input, 5)  # type: ignore[call-overload]
    await step.sleep("no-duration")  # type: ignore[call-arg]
    await step.sleep("list", [number])  # type: ignore[arg-type]
    await step.rnu("misspelt", look_up, 1)  # type: ignore[attr-defined]
    await pack(1)  # type: ignore[arg-type]
    await notify()  # type: ignore[call-arg]
    await notify("a", txet="b")  # type: ignore[call-arg]
    await price_of(input, 2)  # type: ignore[call-arg]
    await step.run("as-list", charge, args=[input, 5])  # type: ignore[call-overload]
    await step.run("temporal", look_up, 1, schedule_to_close_timeout="1m")  # type: ignore[call-arg, arg-type]
    await step.run("rate", look_up, 1, rate=10)  # type: ignore[call-arg, arg-type]
    await step.execute_activity(look_up, 1)  # type: ignore[attr-defined]
    await step.sleep(60)  # type: ignore[call-arg, arg-type]
    await step.wait_for_signal("paid", bool)  # type: ignore[call-overload]
    await step.run_workflow("child", ship, input, 5)  # type: ignore[call-overload]
    step.tag({"customer": "acme"})  # type: ignore[call-arg]
    step.set_status()  # type: ignore[call-arg]
    ship.delay(input)  # type: ignore[attr-defined]
    text: str = await pack(input)  # type: ignore[assignment]
    print(text)


@workflow
def threads(input: Order, s: SyncStep) -> None:
    s.run("wrong", look_up, "1")  # type: ignore[call-overload]
    s.run("missing", look_up)  # type: ignore[call-overload]


@workflow  # type: ignore[arg-type]
async def two_inputs(order: Order, amount: int) -> None: ...


@workflow(version="1")  # type: ignore[arg-type]
async def three(order: Order, amount: int, step: Step) -> None: ...


@workflow("name")  # type: ignore[call-overload, untyped-decorator]
async def named() -> None: ...


@workflow.defn  # type: ignore[attr-defined]
class Transfer: ...


@workflow(bind=True)  # type: ignore[call-overload, untyped-decorator]
async def of_celery() -> None: ...


@workflow(retries=RetryPolicy())  # type: ignore[call-overload, untyped-decorator]
async def misspelt_option() -> None: ...


@step(timout="3s")  # type: ignore[call-overload, untyped-decorator]
async def misspelt_timeout() -> None: ...


async def client(ow: OpenWorkflow, receipt: Receipt, order: Order) -> None:
    await ow.run_workflow(ship, receipt)  # type: ignore[misc]
    await ow.run_workflow(ship)  # type: ignore[arg-type]
    await ow.run_workflow(ping, order)  # type: ignore[misc]
    await ow.run_workflow(ship, order, idempotency="1")  # type: ignore[call-overload]
    await ow.run_workflows(ship, [receipt])  # type: ignore[misc]
    run: RunHandle[str] = await ow.run_workflow(ship, order)  # type: ignore[arg-type]
    ow.new_worker(workflows=[ship], concurency=5)  # type: ignore[call-arg]
    ow.new_worker(workflows=[charge])  # type: ignore[list-item]
    ow.new_worker([ship])  # type: ignore[call-arg]
    ow.new_worker(workflows=[ship], activities=[charge])  # type: ignore[call-arg]
    await OpenWorkflow.connect("postgresql://localhost/shop")  # type: ignore[attr-defined]
    await BackendPostgres.connect("postgresql://localhost/shop", namespace="a")  # type: ignore[call-arg]
    await ow.run_workflow(ship, order, 5)  # type: ignore[call-overload]
    await ow.run_workflow(ship, order, countdown=60)  # type: ignore[call-overload]
    await ow.start_workflow(ship, order)  # type: ignore[attr-defined]
    await ow.list_runs(status="failed")  # type: ignore[call-arg]
    await ow.run_workflow(ship, order).result()  # type: ignore[attr-defined]
    await (await ow.run_workflow(ship, order)).get_result()  # type: ignore[attr-defined]
    Cron(minute=0)  # type: ignore[call-arg]
    ow.handle("abc")  # type: ignore[arg-type]
    await run.result(30, 5)  # type: ignore[call-arg]
    Cron("0 3 * * *", timezone="UTC")  # type: ignore[call-arg]


async def tests(env: Environment, order: Order) -> None:
    await env.run(ship, 5)  # type: ignore[misc]
    await env.run(ship)  # type: ignore[arg-type]
    number: int = (await env.run(ping)).output  # type: ignore[assignment]
    env.fail("charge", "down")  # type: ignore[arg-type]
    env.fail("charge", ValueError(), time=2)  # type: ignore[call-arg]
    env.sync.run(ping, order)  # type: ignore[misc]
    await env.skip()  # type: ignore[call-arg]
    print(number)
