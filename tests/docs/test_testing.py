"""docs/testing.md: its tests are tests, so they are called here."""

from __future__ import annotations

import unittest
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from openworkflow import BackendPostgres, Cron, OpenWorkflow, Step, workflow
from openworkflow.testing import FakeStep, environment
from tests.docs.blocks import Page

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from openworkflow.testing import Environment

PAGE = Page("docs/testing.md")


async def charge(order: Any) -> str:
    return f"payment-{order}"


async def ship(order: Any) -> str:
    return f"parcel-{order}"


@workflow
async def order(input: int, step: Step) -> str:
    payment = await step.run("charge", charge, input)
    await step.sleep("cooling-off", "14d")
    return f"{payment}, {await step.run('ship', ship, input)}"


async def test_the_first(ow_env: Environment) -> None:
    names = await PAGE.block("async def test_order(ow_env: Environment)").run(order=order)
    await names["test_order"](ow_env)


async def test_time(ow_env: Environment) -> None:
    names = await PAGE.block("async def test_the_trial_is_free(ow_env):").run(
        subscription=order_after_a_trial, ADA="ada"
    )
    await names["test_the_trial_is_free"](ow_env)


@workflow(name="subscription")
async def order_after_a_trial(input: str, step: Step) -> str:
    await step.sleep("trial", "14d")
    return await step.run("charge", charge, input)


async def test_failures_and_crashes(ow_env: Environment) -> None:
    await PAGE.block('ow_env.fail("charge", ConnectionError("bank is down"), times=3)').run(
        ow_env=ow_env
    )
    run = await ow_env.run(order, 7)
    assert run.output == "payment-7, parcel-7"
    assert run.step("charge").attempts == 4


async def test_stubs(ow_env: Environment) -> None:
    @dataclass
    class Order:
        number: int

    @workflow
    async def paying(input: Order, step: Step) -> str:
        return await step.run("charge", charge, input)

    await PAGE.block('ow_env.stub("charge", "payment-1")').run(ow_env=ow_env)
    assert (await ow_env.run(paying, Order(3))).output == "payment-3"


async def test_signals(ow_env: Environment) -> None:
    @workflow
    async def approval(input: str, step: Step) -> str:
        granted = await step.wait_for_signal("approve", type=bool)
        return "approved" if granted else "refused"

    await PAGE.block('await run.signal("approve", True)').run(
        ow_env=ow_env, approval=approval, request="a bicycle"
    )


async def test_schedules(ow_env: Environment) -> None:
    async def make_report() -> None: ...

    @workflow(schedule=Cron("0 3 * * *"))
    async def nightly(step: Step) -> None:
        await step.run("make-report", make_report)

    await PAGE.block("await ow_env.serve(nightly)").run(ow_env=ow_env, nightly=nightly)


async def test_code_with_a_client_of_its_own(ow_env: Environment) -> None:
    @workflow
    async def buying(input: str, step: Step) -> str:
        return "shipped"

    class App:
        def __init__(self, ow: OpenWorkflow) -> None:
            self.ow = ow

        async def buy(self, what: str) -> None:
            await self.ow.run_workflow(buying, what)

    @asynccontextmanager
    async def make_app(database_url: str) -> AsyncIterator[App]:
        backend = await BackendPostgres.connect(database_url)
        yield App(OpenWorkflow(backend))
        await backend.stop()

    names = await PAGE.block("async def test_the_shop_starts_orders(ow_env):").run(
        order=buying, make_app=make_app
    )
    await names["test_the_shop_starts_orders"](ow_env)


def test_plain_tests(ow_env: Environment) -> None:
    block = PAGE.block("def test_order(ow_env):")
    names: dict[str, Any] = {"order": order}
    block.execute(names)
    names["test_order"](ow_env)


def test_unittest() -> None:
    names: dict[str, Any] = {"unittest": unittest, "environment": environment}
    PAGE.block("class TestOrder(unittest.IsolatedAsyncioTestCase):").execute(names)

    class Test(names["TestOrder"]):  # type: ignore[misc, name-defined, valid-type]
        async def test_order(self) -> None:
            run = await self.env.run(order, 7)
            assert run.output == "payment-7, parcel-7"

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Test).run(result)
    assert result.testsRun == 1
    assert result.wasSuccessful(), [*result.errors, *result.failures]


async def test_fixtures_of_another_scope() -> None:
    names: dict[str, Any] = {"pytest_asyncio": pytest_asyncio, "environment": environment}
    PAGE.block('@pytest_asyncio.fixture(scope="module", loop_scope="module")').execute(names)
    assert isinstance(names["env"], type(pytest.fixture(lambda: None)))


async def test_without_a_database() -> None:
    names = await PAGE.block("async def test_the_function():").run(
        order=approved_order, FakeStep=FakeStep, timedelta=timedelta
    )
    await names["test_the_function"]()


@workflow
async def approved_order(input: int, step: Step) -> str:
    payment = await step.run("charge", charge, input)
    await step.wait_for_signal("approve", type=bool)
    await step.sleep("cooling-off", timedelta(days=14))
    return f"{payment}, {await step.run('ship', ship, input)}"
