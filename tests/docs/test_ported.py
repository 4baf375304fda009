"""docs/ported.md: each program does what its original does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from openworkflow import (
    Cron,
    Debounce,
    InvalidRunState,
    Limit,
    OpenWorkflow,
    Rate,
    SignalTimeout,
    Step,
    workflow,
)
from tests.docs.blocks import Page

if TYPE_CHECKING:
    from openworkflow.testing import Environment

PAGE = Page("docs/ported.md")
OURS: dict[str, Any] = {
    "Cron": Cron,
    "Debounce": Debounce,
    "InvalidRunState": InvalidRunState,
    "Limit": Limit,
    "OpenWorkflow": OpenWorkflow,
    "Rate": Rate,
    "SignalTimeout": SignalTimeout,
    "Step": Step,
    "asyncio": asyncio,
    "dataclass": dataclass,
    "replace": replace,
    "workflow": workflow,
}


async def test_a_subscription(ow_env: Environment) -> None:
    charged: list[str] = []

    async def charge(it: Any) -> None:
        charged.append(f"{it.plan} {it.month}")

    names = await PAGE.block("async def subscription(it: Subscription").run(**OURS, charge=charge)
    names = await PAGE.block("async def choose_plan(").run(**names)
    ow, subscription = await ow_env.client(), names["subscription"]
    await ow_env.serve(subscription)

    await names["choose_plan"](ow, "ada", "pro")
    await ow_env.skip("31d")
    await names["choose_plan"](ow, "ada", "max")
    await ow_env.skip("30d")
    (run,) = await ow_env.runs(subscription)
    assert charged == ["pro 0", "max 1"]
    assert (await run.handle.progress()).status == {"plan": "max", "month": 2}
    await names["choose_plan"](ow, "ada", None)
    assert await run.result() == "canceled in month 2"
    await names["choose_plan"](ow, "ada", "pro")
    assert len(await ow_env.runs(subscription)) == 2


async def test_a_queue_with_a_rate(ow_env: Environment) -> None:
    async def fetch(url: str) -> str:
        return f"page of {url}"

    async def index(page: str) -> str:
        return f"index of {page}"

    names = await PAGE.block("async def index_page(").run(**OURS, fetch=fetch, index=index)
    jobs = [await ow_env.start(names["index_page"], {"tenant": "a", "url": f"{n}"}) for n in (1, 2)]
    assert [await job.result() for job in jobs] == ["index of page of 1", "index of page of 2"]

    forks = await PAGE.block("again = await ow.fork").run(
        ow=await ow_env.client(), run_id=jobs[0].id
    )
    again, other = [await ow_env.find(forks[name].id) for name in ("again", "other")]
    assert await again.result() == "index of page of 1"
    assert await other.result() == "index of the page as it should have been"
    assert len(ow_env.calls("fetch")) == 2


async def test_a_dag_with_conditions(ow_env: Environment) -> None:
    async def parse(document: str) -> int:
        return len(document)

    async def summarise(pages: int) -> str:
        return f"{pages} pages"

    async def render(pages: int) -> str:
        return "picture"

    names = await PAGE.block("async def pipeline(").run(
        **OURS, parse=parse, summarise=summarise, render=render
    )
    assert (await ow_env.run(names["pipeline"], "abc")).output == ["3 pages", "picture"]
    assert (await ow_env.run(names["pipeline"], "x" * 101)).output == ["101 pages"]


async def test_an_event_that_is_waited_for(ow_env: Environment) -> None:
    async def remind(user: str) -> str:
        return f"reminded {user}"

    names = await PAGE.block("async def abandoned_cart(").run(**OURS, remind=remind)
    ow, cart = await ow_env.client(), names["abandoned_cart"]
    bought, left = [await ow_env.start(cart, user) for user in ("ada", "bob")]
    await ow_env.settle()
    started = await PAGE.block('await ow.signal(f"order/created').run(**names, ow=ow, user="ada")
    assert (await bought.result(), await left.result()) == ("bought", "reminded bob")
    debounced = await ow_env.find(started["run"].id)
    assert await debounced.result() == "bought"  # the event is kept for a day


async def test_a_chord_on_a_beat(ow_env: Environment) -> None:
    async def list_shops() -> list[str]:
        return ["a", "bb"]

    async def sum_of(shop: str) -> int:
        return len(shop)

    async def add_up(sums: list[int]) -> int:
        return sum(sums)

    names = await PAGE.block("async def totals(").run(
        **OURS, list_shops=list_shops, sum_of=sum_of, add_up=add_up
    )
    await ow_env.serve(names["totals"])
    await ow_env.skip("10m")
    assert [call.args for call in ow_env.calls("add-up")] == [([1, 2],), ([1, 2],)]


async def test_a_unique_job(ow_env: Environment) -> None:
    answers = iter([None, None, "profile"])

    async def fetch_profile(user: int) -> str | None:
        return next(answers)

    async def store(profile: str) -> str:
        return f"stored {profile}"

    names = await PAGE.block("async def sync_user(").run(
        **OURS, fetch_profile=fetch_profile, store=store
    )
    ow, block = await ow_env.client(), PAGE.block("run = await ow.run_workflow(sync_user")
    await ow_env.serve(names["sync_user"])
    first = await block.run(**names, ow=ow)
    second = await block.run(**names, ow=ow, print=lambda said: None)
    assert (first["run"].created, second["run"].created) == (True, False)
    assert first["run"].id == second["run"].id
    assert await (await ow_env.find(first["run"].id)).result() == "stored profile"


async def test_an_event_of_which_the_first_wins(ow_env: Environment) -> None:
    async def notify(shipment: dict[str, str]) -> str:
        return f"notified of {shipment['parcel']}"

    names = await PAGE.block("async def after_shipment(").run(**OURS, notify=notify)
    ow = await ow_env.client()
    await PAGE.block('await ow.signal(f"shipped:{order}"').run(ow=ow, order=7)
    await ow.signal("shipped:7", {"parcel": "late"}, idempotency_key="first")
    await ow_env.skip("100d")
    assert (await ow_env.run(names["after_shipment"], 7)).output == "notified of 1Z"


async def test_a_virtual_object(ow_env: Environment) -> None:
    names = await PAGE.block("async def account(").run(**OURS)
    run = await ow_env.start(names["account"], ("ada", 0))
    for amount in (40, 2):
        await run.signal("add", names["Added"](amount, "ada-s-balance"))
    await ow_env.settle()
    assert (await run.handle.progress()).status == {"balance": 42}

    async def ask_reviewer(document: str, run_id: Any) -> None:
        await ow.signal(run_id, "verdict", True)

    ow = await ow_env.client()
    names = await PAGE.block("async def review(").run(**OURS, ask_reviewer=ask_reviewer)
    assert (await ow_env.run(names["review"], "paper")).output is True
