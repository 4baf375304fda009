"""Children, signals, sagas, schedules and progress."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from opentelemetry import trace

from openworkflow import (
    Cron,
    NonRetryableError,
    RetryPolicy,
    Step,
    Undo,
    current_step,
    workflow,
)
from tests.docs.blocks import Page

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import pytest

    from openworkflow import RunHandle
    from openworkflow.testing import Environment

CHILDREN = Page("docs/children.md")
SIGNALS = Page("docs/signals.md")
SAGAS = Page("docs/sagas.md")
SCHEDULES = Page("docs/schedules.md")
PROGRESS = Page("docs/progress.md")
TRACING = Page("docs/tracing.md")
OURS: dict[str, Any] = {"workflow": workflow, "Step": Step, "current_step": current_step}


@dataclass
class Order:
    customer: str = "ada"
    total: int = 12
    parcels: list[str] = field(default_factory=lambda: ["a", "b"])


@dataclass
class Bill:
    customer: str
    number: int


async def test_children(ow_env: Environment) -> None:
    @workflow
    async def billing(input: Bill, step: Step) -> Bill:
        return input

    @workflow
    async def shipping(input: str, step: Step) -> str:
        return f"label of {input}"

    @workflow
    async def ask_later(input: str, step: Step) -> str:
        await step.sleep("a-week", "7d")
        return f"asked {input}"

    names = await CHILDREN.block("async def order(order: Order, step: Step) -> str:").run(
        Order=Order,
        Bill=Bill,
        billing=billing,
        shipping=shipping,
        **{"ask_later": ask_later, **OURS},
    )
    await ow_env.serve(billing, shipping, ask_later)
    run = await ow_env.run(names["order"], Order())

    (survey,) = await ow_env.runs(ask_later)
    assert run.output == f"12, 2 parcels, survey {survey.id}"
    assert await survey.result() == "asked ada"


async def test_signals(ow_env: Environment) -> None:
    async def send_mail(order: Order) -> None: ...

    block = SIGNALS.block("class Approval:")
    names = await block.run(dataclass=dataclass, Order=Order, send_mail=send_mail, **OURS)
    first = await ow_env.start(names["approved_order"], Order())
    ow = await ow_env.client()
    await SIGNALS.block('await run.signal("approval", Approval("ann", True))').run(
        ow=ow, run=first, run_id=first.id, Approval=names["Approval"]
    )

    await first.end()
    assert first.status == "succeeded"
    assert [step.name for step in first.steps] == ["ask", "approval"]


async def test_the_key_of_an_effect(ow_env: Environment) -> None:
    class Payments:
        async def charge(self, total: int, *, idempotency_key: str) -> str:
            return f"{total} by {idempotency_key}"

    names = await SIGNALS.block("async def charge(order: Order) -> str:").run(
        Order=Order, payments=Payments()
    )

    @workflow
    async def paying(input: Order, step: Step) -> str:
        return await step.run("charge", names["charge"], input)

    run = await ow_env.run(paying, Order())
    assert run.output.startswith("12 by ")
    assert str(run.id) in run.output


async def test_sagas(ow_env: Environment) -> None:
    done: list[str] = []

    def says(word: str) -> Callable[..., Any]:
        async def call(_: Any) -> str:
            done.append(word)
            return word

        return call

    ways = {"refund": says("refund"), "refund_by_key": says("refund by key")}
    names = await SAGAS.block("async def trip(input: Trip, step: Step) -> str:").run(
        book_hotel=says("hotel"),
        charge=says("charge"),
        book_flight=says("flight"),
        **{"free_hotel": says("free"), "Trip": Order, "Undo": Undo, **ways, **OURS},
    )
    run = await ow_env.start(names["trip"], Order())
    await ow_env.skip("31m")
    await run.end()

    assert run.status == "failed"
    assert done == ["hotel", "charge", "refund", "free"]

    said = await SAGAS.block("undo = refund  #").run(
        Undo=Undo, RetryPolicy=RetryPolicy, input=Bill("ada", 1), **ways
    )
    assert isinstance(said["undo"], Undo)


async def test_a_saga_with_a_child(ow_env: Environment) -> None:
    done: list[str] = []

    @dataclass
    class Bills:
        order: Order
        reference: str

    @workflow
    async def billing(input: Bills, step: Step) -> str:
        return f"bill {input.reference}"

    def new_reference() -> str:
        return "r-1"

    async def unbill(reference: str) -> None:
        done.append(f"{reference} is taken back")

    async def ship(bill: str) -> str:
        raise NonRetryableError(f"no ship for {bill}")

    names = await SAGAS.block("async def buy(order: Order, step: Step) -> str:").run(
        new_reference=new_reference,
        unbill=unbill,
        ship=ship,
        **{"billing": billing, "Bill": Bills, "Order": Order, **OURS},
    )
    run = await ow_env.start(names["buy"], Order())
    await run.end()

    assert run.error is not None
    assert "no ship for bill r-1" in run.error.message
    assert done == ["r-1 is taken back"]


async def test_a_schedule_in_code(ow_env: Environment) -> None:
    days: list[str] = []

    async def send_report(day: str) -> None:
        days.append(day)

    block = SCHEDULES.block("async def daily_report(step: Step) -> None:")
    names = await block.run(send_report=send_report)
    await ow_env.serve(names["daily_report"])
    await ow_env.skip("7d")

    assert len(days) == 5
    assert all(datetime.fromisoformat(day).weekday() < 5 for day in days)


async def test_schedules_by_hand(ow_env: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    @workflow
    async def report(input: str, step: Step) -> str:
        return input

    ow = await ow_env.client()
    names = await SCHEDULES.block('await ow.schedules.create("nightly", report').run(
        ow=ow,
        report=report,
        Cron=Cron,
        start=datetime(2026, 1, 1, tzinfo=UTC),
        end=datetime(2026, 1, 3, tzinfo=UTC),
    )
    await ow_env.serve(report)

    assert await ow_env.runs(report)
    assert await (await ow_env.find(names["run"])).result() == "all"
    assert await ow.schedules.list() == []
    assert capsys.readouterr().out == ""


async def test_progress(ow_env: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    async def parse(file: str) -> list[int]:
        return [1, 2, 3, 4, 5]

    async def store(part: list[int]) -> None: ...

    block = PROGRESS.block("async def import_customers(file: str, step: Step) -> int:")
    names = await block.run(
        parse=parse,
        store=store,
        parts=lambda rows: [rows[:2], rows[2:4], rows[4:]],
        **OURS,
    )
    run = await ow_env.run(names["import_customers"], "customers.csv")
    assert run.output == 5

    handle: RunHandle[int] = (await ow_env.client()).handle(run.id)
    await PROGRESS.block("print((await run.progress()).status)").run(run=handle)
    assert capsys.readouterr().out == "{'percent': 40}\n0 {'name': 'import', 'rows': 5}\n"


async def test_tokens_of_a_model_reach_a_browser(ow_env: Environment) -> None:
    class Model:
        async def stream(self, question: str) -> AsyncIterator[str]:
            for token in ("it ", "depends"):
                yield token

    names = await PROGRESS.block("async def answer(question: str) -> str:").run(
        current_step=current_step, model=Model()
    )

    @workflow
    async def chat(input: str, step: Step) -> str:
        return await step.run("answer", names["answer"], input)

    run = await ow_env.run(chat, "will it work?")
    assert run.output == "it depends"
    told = (await ow_env.client()).handle(run.id).events("tokens")
    assert [event.value async for event in told] == ["it ", "depends"]

    paths: list[str] = []

    class App:
        """What is used of FastAPI."""

        def get(self, path: str) -> Callable[[Any], Any]:
            paths.append(path)
            return lambda endpoint: endpoint

    served = await PROGRESS.block('@app.get("/runs/{run_id}/events")').run(
        app=App(), ow=await ow_env.client(), UUID=UUID
    )
    assert paths == ["/runs/{run_id}/events"]
    assert b'data: "depends"' in await body_of(await served["events"](run.id))


async def body_of(response: Any) -> bytes:
    """What an ASGI application answers."""
    sent: list[bytes] = []

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    await response({"type": "http", "headers": []}, asyncio.Event().wait, send)
    return b"".join(sent)


async def test_a_span_of_ones_own() -> None:
    class Gateway:
        async def charge(self, card: str) -> str:
            return f"receipt for {card}"

    names = await TRACING.block("async def charge(card: str) -> str:").run(
        tracer=trace.get_tracer("shop"), gateway=Gateway()
    )
    assert await names["charge"]("4111") == "receipt for 4111"
