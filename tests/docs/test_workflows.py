"""docs/workflows.md."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import asyncpg

from openworkflow import BackendPostgres, OpenWorkflow, RetryPolicy, Step, workflow
from tests.docs.blocks import Page

if TYPE_CHECKING:
    import pytest

    from openworkflow.testing import Environment
    from tests.docs.blocks import Block

PAGE = Page("docs/workflows.md")
OURS: dict[str, Any] = {"workflow": workflow, "Step": Step, "RetryPolicy": RetryPolicy}
HEAD = "async def fragment(order: Order, step: Step) -> object"


@dataclass
class Item:
    sku: str


@dataclass
class Order:
    number: int = 7
    items: list[Item] = field(default_factory=lambda: [Item("a"), Item("b")])
    addresses: list[str] = field(default_factory=lambda: ["ada@example.com", "bob@example.com"])


@dataclass(frozen=True)
class Cursor:
    page: int = 0


class CardDeclined(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


async def word(*_: Any, **named: Any) -> str:
    return ", ".join(["done", *named.values()])


async def of_fragment(ow_env: Environment, block: Block, head: str = HEAD, **world: Any) -> Any:
    """A run whose function has the block as its body; its output is the names it ended with."""
    fragment = block.body(head, **OURS, **{"Order": Order, "asyncio": asyncio, **world})

    @workflow
    async def around(input: Order, step: Step) -> dict[str, Any]:
        found = await fragment(input, step)
        return {name: value for name, value in found.items() if isinstance(value, (str, list))}

    return await ow_env.run(around, Order())


async def test_the_first(ow_env: Environment) -> None:
    async def send_mail(user: str) -> str:
        return f"mail to {user}"

    async def fetch_user(user_id: int) -> str:
        return f"user-{user_id}"

    names = await PAGE.block("async def send_welcome_email(input: Welcome, step: Step)").run(
        fetch_user=fetch_user, send_mail=send_mail
    )
    run = await ow_env.run(names["send_welcome_email"], names["Welcome"](3))
    assert run.output == "mail to user-3"


async def test_arguments_of_a_step(ow_env: Environment) -> None:
    block = PAGE.block('price = await step.run("look-up-price", look_up, sku, currency="EUR"')
    run = await of_fragment(ow_env, block, sku="a", look_up=word)
    assert run.output["price"] == "done, EUR"


async def test_functions_that_are_steps(ow_env: Environment) -> None:
    names = await PAGE.block("async def charge(order: Order) -> str: ...").run(Order=Order, **OURS)
    ow_env.stub("charge", "receipt-7")
    run = await ow_env.run(names["checkout"], Order())
    assert run.output == "receipt-7"


async def test_a_loop(ow_env: Environment) -> None:
    block = PAGE.block("for address in input.addresses:")
    head = "async def fragment(input: Order, step: Step) -> object"
    run = await of_fragment(ow_env, block, head, send=word)
    assert [step.name for step in run.steps] == ["send", "send:1"]


async def test_sleeps(ow_env: Environment) -> None:
    block = PAGE.block('await step.sleep("cool-down", "1h30m")')
    run = await of_fragment(ow_env, block, datetime=datetime, UTC=UTC)
    assert [step.name for step in run.steps] == ["cool-down", "opening"]
    assert datetime(2027, 1, 1, 9, tzinfo=UTC) <= await ow_env.now()


async def test_branches(ow_env: Environment) -> None:
    block = PAGE.block("payment, invoice = await asyncio.gather(")
    run = await of_fragment(ow_env, block, charge=word, print_invoice=word, pack=word)
    assert run.output["parcels"] == ["done", "done"]
    assert {step.name for step in run.steps} == {
        *("charge-card", "print-invoice", "pack-a", "pack-b")
    }


async def test_a_time_limit(ow_env: Environment) -> None:
    """The supplier is asked again and again, until the time is over."""

    async def ask_supplier(order: Order) -> str:
        raise ConnectionError

    block = PAGE.block("async with asyncio.timeout(30):")
    run = await of_fragment(ow_env, block, ask_supplier=ask_supplier, list_price=word)
    assert run.output["quote"] == "done"


async def test_a_run_that_goes_on_for_ever(ow_env: Environment) -> None:
    pages: list[int] = []

    async def read_page(cursor: Cursor) -> Cursor:
        pages.append(cursor.page)
        return Cursor(cursor.page + 1)

    names = await PAGE.block("async def poll(input: Cursor, step: Step) -> None:").run(
        Cursor=Cursor, read_page=read_page, **OURS
    )
    run = await ow_env.start(names["poll"], Cursor())
    await ow_env.skip("5h")
    await ow_env.skip("5h")
    await run.cancel()

    assert pages == list(range(len(pages)))
    assert len(pages) > 100, "and its history has begun afresh"


async def test_an_error_that_is_handled(ow_env: Environment) -> None:
    told: list[str] = []

    async def charge(order: Order) -> None:
        raise CardDeclined("no money")

    async def apologise(order: Order, reason: str) -> None:
        told.append(reason)

    block = PAGE.block("except CardDeclined as error:")
    await of_fragment(ow_env, block, charge=charge, apologise=apologise, CardDeclined=CardDeclined)
    assert told == ["no money"]


async def test_versions_and_all_ways_to_start(
    ow_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", ow_env.url)
    client = await ow_env.client()
    versions = await PAGE.block("async def checkout_v1(input: Order, step: Step)").run(
        ow=client, Order=Order, Receipt=Any, **OURS
    )
    assert {wf.version for wf in (versions["checkout_v1"], versions["checkout_v2"])} == {"1", "2"}

    connection = await asyncpg.connect(ow_env.url)
    async with connection.transaction():
        names = await PAGE.block(
            'run = await ow.run_workflow("checkout", {"number": 7}, version="2")'
        ).run(
            BackendPostgres=BackendPostgres,
            OpenWorkflow=OpenWorkflow,
            os=os,
            checkout_v2=versions["checkout_v2"],
            connection=connection,
            order=Order(),
            orders=[Order(1), Order(2)],
        )
    await connection.close()
    ow: OpenWorkflow = names["ow"]
    assert len((await ow.list_runs(where="workflow:checkout version:2")).runs) == 7

    page = PAGE.block('receipt = await run.result(timeout="30s")')
    await ow_env.serve(versions["checkout_v2"])
    run = await client.run_workflow(versions["checkout_v2"], Order())
    assert (await page.run(run=run))["receipt"] is None
    await ow._backend.stop()
