"""docs/recipes.md: each recipe is run to its end."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from openworkflow import (
    Cron,
    NonRetryableError,
    Rate,
    RetryPolicy,
    SignalTimeout,
    Step,
    Workflow,
    workflow,
)
from tests.docs.blocks import Block, Page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from openworkflow.testing import Environment

PAGE = Page("docs/recipes.md")
EXPORT = PAGE.block("async def export(request: str, step: Step) -> str:")
OURS: dict[str, Any] = {
    "workflow": workflow,
    "Step": Step,
    "RetryPolicy": RetryPolicy,
    "asyncio": asyncio,
    "NonRetryableError": NonRetryableError,
    "SignalTimeout": SignalTimeout,
    "Cron": Cron,
    "timedelta": timedelta,
    "Rate": Rate,
    "Claim": str,
    "Trip": str,
    "Order": str,
}


def answers(value: Any, told: list[Any] | None = None) -> Callable[..., Any]:
    async def function(*arguments: Any) -> Any:
        if told is not None:
            told.append(arguments[-1])
        return value

    return function


async def recipe(block: Block, **world: Any) -> Any:
    """The workflow that the block defines."""
    names = await block.run(**OURS, **world)
    return next(each for each in names.values() if isinstance(each, Workflow))


async def test_a_person_decides(ow_env: Environment) -> None:
    expense = await recipe(
        PAGE.block("async def expense(claim: Claim, step: Step) -> str:"),
        mail_approver=answers(None),
        pay=answers("paid"),
    )
    granted, forgotten = [await ow_env.start(expense, "a chair") for _ in range(2)]
    await PAGE.block('await ow.signal(run_id, "decision", True)').run(
        ow=await ow_env.client(), run_id=granted.id
    )
    assert await granted.result() == "paid"
    await ow_env.skip("7d")
    assert await forgotten.result() == "refused"


async def test_a_fan_out(ow_env: Environment) -> None:
    async def resize(image: str) -> str:
        if image == "broken":
            raise NonRetryableError(image)
        return image

    resize_all = await recipe(
        PAGE.block("async def resize_all(images: list[str], step: Step) -> str:"), resize=resize
    )
    run = await ow_env.run(resize_all, ["a", "broken", "b"])
    assert run.output == "2 resized, 1 failed"


async def test_what_was_done_is_undone(ow_env: Environment) -> None:
    undone: list[str] = []
    book = await recipe(
        PAGE.block("async def book(trip: Trip, step: Step) -> str:"),
        book_hotel=answers("hotel"),
        cancel_hotel=answers(None, undone),
        book_car=answers("car"),
        cancel_car=answers(None, undone),
        book_flight=answers("flight"),
    )
    ow_env.fail("flight", NonRetryableError("sold out"))
    run = await ow_env.start(book, "to Rome")
    await run.end()
    assert run.status == "failed"
    assert undone == ["car", "hotel"]


async def test_polling(ow_env: Environment) -> None:
    looks = iter([None, None, "https://here"])

    async def look_for(job: str) -> str | None:
        return next(looks)

    job = {"request_export": answers("job"), "withdraw": answers(None)}
    found = await recipe(EXPORT, look_for=look_for, **job)
    assert (await ow_env.run(found, "all")).output == "https://here"


async def test_polling_gives_up(ow_env: Environment) -> None:
    withdrawn: list[str] = []
    export = await recipe(
        EXPORT,
        request_export=answers("job"),
        look_for=answers(None),
        withdraw=answers(None, withdrawn),
    )
    run = await ow_env.start(export, "all")
    await ow_env.skip("6h")
    await run.end()
    assert run.status == "failed"
    assert withdrawn == ["job"]


async def test_a_rate(ow_env: Environment) -> None:
    invoice = await recipe(
        PAGE.block("async def invoice(order: Order, step: Step) -> str:"), charge=answers("receipt")
    )
    assert (await ow_env.run(invoice, "order")).output == "receipt"


async def test_an_agent_pays_for_no_call_twice(ow_env: Environment) -> None:
    said: Iterator[dict[str, Any]] = iter(
        [
            {"role": "assistant", "content": "", "tools": [{"name": "search"}, {"name": "sum"}]},
            {"role": "assistant", "content": "42", "tools": []},
        ]
    )

    async def ask_model(messages: list[dict[str, Any]]) -> dict[str, Any]:
        return next(said)

    agent = await recipe(
        PAGE.block("async def agent(question: str, step: Step) -> str:"),
        ask_model=ask_model,
        use_tool=answers("a result"),
    )
    ow_env.crash_after("tool-search")
    run = await ow_env.run(agent, "why?")
    assert run.output == "42"
    assert len(ow_env.calls("model")) == 2


async def test_reminders(ow_env: Environment) -> None:
    told: list[int] = []
    reminders = await recipe(
        PAGE.block("async def reminders(user: str, step: Step) -> str:"), remind=answers(None, told)
    )
    run = await ow_env.start(reminders, "ada")
    await ow_env.skip("5d")
    await run.signal("paid")
    assert await run.result() == "paid"
    assert told == [1, 3]


async def test_every_night(ow_env: Environment) -> None:
    nightly = await recipe(
        PAGE.block("async def nightly(step: Step) -> int:"),
        list_accounts=answers(["a", "b"]),
        bill_account=answers("billed"),
    )
    await ow_env.serve(nightly)
    await ow_env.skip("1d")
    (run, *_) = await ow_env.runs(nightly)
    assert await run.result() == 2
