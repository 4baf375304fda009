"""Limits, priorities, control of runs, deploys, operations and errors."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import openworkflow
from openworkflow import (
    BackendPostgres,
    Debounce,
    OpenWorkflow,
    Rate,
    Step,
    Unique,
    current_step,
    workflow,
)
from tests.docs.blocks import Page

if TYPE_CHECKING:
    import pytest

    from openworkflow.testing import Environment

LIMITS = Page("docs/limits.md")
PRIORITIES = Page("docs/priorities.md")
CONTROL = Page("docs/control.md")
DEPLOYS = Page("docs/deploys.md")
OPERATIONS = Page("docs/operations.md")
ERRORS = Page("docs/errors.md")
OURS: dict[str, Any] = {"workflow": workflow, "Step": Step, "current_step": current_step}


@dataclass
class Order:
    number: int = 7
    customer: str = "ada"


@workflow
async def charging(input: Order, step: Step) -> str:
    return await step.run("charge", charge, input)


async def charge(order: Order) -> str:
    return f"receipt-{order.number}"


async def test_limits_of_a_workflow(ow_env: Environment) -> None:
    names = await LIMITS.block("async def ship_order(order: Order, step: Step) -> str: ...").run(
        Order=Order
    )
    rules = names["ship_order"].limits.rules
    assert [(rule.slots, rule.rate) for rule in rules] == [(5, None), (100, None), (None, 20)]


async def test_the_rate_of_a_step(ow_env: Environment) -> None:
    fragment = LIMITS.block('await step.run("charge", charge, order, rate="stripe")').body(
        "async def twice(order: Order, step: Step) -> object", charge=charge,
        Rate=Rate, Order=Order, Step=Step,
    )  # fmt: skip

    @workflow
    async def twice(input: Order, step: Step) -> int:
        await fragment(input, step)
        return 2

    ow = await ow_env.client()
    await ow.limits.set("stripe", rate=Rate(20, per="1m", burst=5))
    assert (await ow_env.run(twice, Order())).output == 2
    assert [call.attempt for call in ow_env.calls("charge")] == [1, 1]


async def test_a_vendor_that_asks_to_wait(ow_env: Environment) -> None:
    told: list[int] = [429, 200]

    class Client:
        async def post(self, path: str, *, json: object) -> SimpleNamespace:
            return SimpleNamespace(
                status_code=told.pop(0),
                headers={"retry-after": "60"},
                json=lambda: {"id": "charge-1"},
            )

    names = await LIMITS.block("async def charge(order: Order) -> str:").run(
        current_step=current_step, client=Client(), Order=Order
    )

    @workflow
    async def paying(input: Order, step: Step) -> str:
        return await step.run("charge", names["charge"], input, rate="stripe")

    ow = await ow_env.client()
    await ow.limits.set("stripe", rate=Rate(20, per="1m"))
    run = await ow_env.start(paying, Order())
    await ow_env.skip("30s")
    assert told == [200]
    await ow_env.skip("40s")
    assert await run.result() == "charge-1"


async def test_unique_and_debounce(ow_env: Environment) -> None:
    @workflow
    async def sync_user(input: Order, step: Step) -> int:
        return input.number

    @workflow
    async def index_page(input: Order, step: Step) -> int:
        return input.number

    block = LIMITS.block('run = await ow.run_workflow(sync_user, user, unique=f"user:{user.id}")')
    user, page = SimpleNamespace(id=1), SimpleNamespace(url="/")
    # The page says `user` of what is both a key and an input.
    taken = {"sync_user": sync_user, "index_page": index_page}
    client = await ow_env.client()

    async def run_workflow(wf: Any, input: Any, **options: Any) -> Any:
        return await client.run_workflow(wf, Order(), **options)

    await block.run(
        **taken, ow=SimpleNamespace(run_workflow=run_workflow), user=user, page=page,
        Unique=Unique, Debounce=Debounce,
    )  # fmt: skip

    assert len(await ow_env.runs(sync_user)) == 1
    assert len(await ow_env.runs(index_page)) == 1


async def test_priorities(ow_env: Environment) -> None:
    names = await PRIORITIES.block("async def nightly_import(file: str, step: Step)").run(
        Question=str, question="why?", ow=await ow_env.client(), **OURS
    )
    (run,) = await ow_env.runs(names["answer_customer"])
    assert (await (await ow_env.client()).get_run(run.id)).run.priority == 5
    assert names["nightly_import"].priority == -3


async def test_forks(ow_env: Environment) -> None:
    run = await ow_env.run(charging, Order())
    ow = await ow_env.client()
    await CONTROL.block("run = await ow.fork(run_id)").run(ow=ow, run_id=run.id, order=Order(8))
    results = [await each.result() for each in await ow_env.runs(charging)]
    assert sorted(results) == ["receipt-1", "receipt-7", "receipt-7", "receipt-8"]


async def test_tags(ow_env: Environment) -> None:
    names = await CONTROL.block("page = await ow.list_runs(where=").run(
        ow=await ow_env.client(), ship_order=charging, order=Order()
    )
    assert names["page"].runs == []
    (run,) = await ow_env.runs(charging)
    assert (await names["run"].run()).tags == {"customer": "acme", "tier": "gold"}
    assert run.id == names["run"].id


async def test_patches(ow_env: Environment) -> None:
    async def compute_tax(order: Order) -> int:
        return 19

    fragment = DEPLOYS.block('if await step.patched("new-tax"):').body(
        "async def fragment(order: Order, step: Step) -> object",
        Order=Order,
        Step=Step,
        compute_tax=compute_tax,
        flat_tax=None,
    )

    @workflow
    async def taxed(input: Order, step: Step) -> int:
        found: dict[str, Any] = await fragment(input, step)
        tax: int = found["tax"]
        return tax

    assert (await ow_env.run(taxed, Order())).output == 19


async def test_a_worker_until_it_is_told_to_stop(
    ow_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal is one that the test sends once the worker serves."""
    monkeypatch.setenv("DATABASE_URL", ow_env.url)
    client = await ow_env.client()
    run = await client.run_workflow(charging, Order())

    async def stop_then() -> None:
        await run.result(timeout="25s")
        os.kill(os.getpid(), 15)

    stopping = asyncio.create_task(stop_then())
    await OPERATIONS.block("await worker.run_until_signal()").run(
        BackendPostgres=BackendPostgres, OpenWorkflow=OpenWorkflow, os=os, hello=charging
    )
    await stopping


async def test_errors_are_imported_from_the_package() -> None:
    names = await ERRORS.block("from openworkflow import InvalidRunState").run()
    assert names["RunNotFound"] is openworkflow.RunNotFound
