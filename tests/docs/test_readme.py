"""README.md and docs/quickstart.md."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from openworkflow import BackendPostgres, OpenWorkflow, RetryPolicy, Step, workflow
from tests.docs.blocks import Page
from tests.helpers import eventually

if TYPE_CHECKING:
    from openworkflow.testing import Environment

README = Page("README.md")
QUICKSTART = Page("docs/quickstart.md")


@dataclass
class Order:
    number: int
    email: str = "ada@example.com"


@dataclass
class Receipt:
    number: int
    payment: str
    shipped_at: str


@dataclass
class Greeting:
    name: str


async def of_order(order: Order) -> str:
    return f"done for {order.number}"


async def test_the_first_workflow(ow_env: Environment) -> None:
    async def ship(number: int) -> str:
        return f"{number} at noon"

    names = await README.block("async def order(input: Order, step: Step)").run(
        **dict.fromkeys(("reserve_stock", "charge_card", "print_invoice"), of_order),
        workflow=workflow,
        Step=Step,
        RetryPolicy=RetryPolicy,
        asyncio=asyncio,
        Order=Order,
        Receipt=Receipt,
        ship=ship,
    )
    run = await ow_env.run(names["order"], Order(7))

    assert run.output == Receipt(7, "done for 7", "7 at noon")


async def test_worker_and_client(
    ow_env: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @workflow
    async def hello(input: Greeting) -> str:
        return f"Hello, {input.name}!"

    monkeypatch.setenv("DATABASE_URL", ow_env.url)
    await README.block("worker = ow.new_worker(workflows=[hello], concurrency=100)").run(
        BackendPostgres=BackendPostgres,
        OpenWorkflow=OpenWorkflow,
        os=os,
        hello=hello,
        Greeting=Greeting,
    )

    assert capsys.readouterr().out == "Hello, world!\n"


async def shop() -> ModuleType:
    """The module that the quickstart writes."""

    async def notify(email: str, receipt: str) -> None:
        print(f"{email}: {receipt}")

    names = await QUICKSTART.block("async def ship_order(order: Order, step: Step) -> str:").run(
        workflow=workflow,
        Step=Step,
        RetryPolicy=RetryPolicy,
        asyncio=asyncio,
        Order=Order,
        charge=of_order,
        pack=of_order,
        notify=notify,
    )
    module = ModuleType("workflows")
    module.__dict__.update(names)
    return module


async def test_the_quickstart(
    ow_env: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = await shop()
    monkeypatch.setitem(sys.modules, "workflows", module)
    monkeypatch.setenv("DATABASE_URL", ow_env.url)
    await ow_env.serve(module)
    program = QUICKSTART.block("async def main() -> None:")

    # It is a program with an event loop of its own.
    thread = asyncio.create_task(asyncio.to_thread(program.execute))
    await eventually(lambda: ow_env.runs("ship-order"))
    await ow_env.skip("10s")
    await thread

    assert "cy@example.com: done for 3" in (out := capsys.readouterr().out)
    assert out.endswith("done for 3\n")
