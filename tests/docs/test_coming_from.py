"""The guides for those who come from Celery, Temporal or DBOS; blocks marked `py` are of these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openworkflow import Step, SyncStep, step, workflow
from tests.docs.blocks import Page

if TYPE_CHECKING:
    from openworkflow.testing import Environment

CELERY = Page("docs/from-celery.md")
TEMPORAL = Page("docs/from-temporal.md")
DBOS = Page("docs/from-dbos.md")
OURS: dict[str, Any] = {"workflow": workflow, "step": step, "Step": Step, "SyncStep": SyncStep}


async def test_from_celery(ow_env: Environment) -> None:
    done: list[str] = []
    functions = {
        name: (lambda user_id, name=name: done.append(f"{name} {user_id}"))
        for name in ("charge", "create_account", "send_welcome")
    }
    names = await CELERY.block("async def onboard(user_id: int, step: Step)").run(
        **OURS, **functions
    )
    ow_env.crash_after("charge")
    await ow_env.run(names["onboard"], 7)
    assert done == ["charge 7", "create_account 7", "send_welcome 7"]


async def test_from_temporal(ow_env: Environment) -> None:
    refunded: list[str] = []

    async def withdraw(details: str) -> str:
        return f"receipt of {details}"

    async def deposit(details: str) -> None: ...

    async def refund(receipt: str) -> None:
        refunded.append(receipt)

    names = await TEMPORAL.block("async def transfer(input: Details, step: Step) -> str:").run(
        **OURS, Details=str, withdraw=withdraw, deposit=deposit, refund=refund
    )
    assert (await ow_env.run(names["transfer"], "7 EUR")).output == "receipt of 7 EUR"
    ow_env.fail("deposit", ConnectionError(), times=10)
    failed = await ow_env.start(names["transfer"], "8 EUR")
    await failed.end()
    assert refunded == ["receipt of 8 EUR"]


async def test_from_dbos(ow_env: Environment) -> None:
    names = await DBOS.block("def checkout(order: Order, step: SyncStep) -> str:").run(
        **OURS, Order=str
    )
    ow_env.stub("charge", "receipt-7")
    run = await ow_env.run(names["checkout"], "order 7")
    assert run.output == "receipt-7"
    assert [each.name for each in run.steps] == ["charge", "an-hour"]
