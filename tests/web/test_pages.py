"""The dashboard in a real browser: each page and action, as different people see and use it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from playwright.sync_api import Page, expect

from openworkflow import OpenWorkflow, RunStatus
from openworkflow.web import Tokens, dashboard, live
from tests.helpers import StartWorker, eventually
from tests.web import shop
from tests.web.browser import DESK, PHONE, PICTURES, Browser, Theme, by_keyboard, too_wide
from tests.web.conftest import Ask, Serve

VIEWER, ADMIN = "viewer-0123456789", "admin-0123456789"
HOME = "/n/default"
Axe = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PERIOD", 0.05)
    monkeypatch.setattr(live, "SHARE", 0)


async def status_of(ow: OpenWorkflow, run_id: UUID) -> RunStatus:
    return (await ow.get_workflow_run(run_id)).status


async def test_each_page_is_fit_for_all_and_nothing_that_users_wrote_is_more_than_text(
    ow: OpenWorkflow,
    start_worker: StartWorker,
    sql: asyncpg.Connection[Any],
    serve: Serve,
    browser: Browser,
    axe: Axe,
) -> None:
    """In both themes, on a desk and on a phone, with values that no page may take for its own."""
    made = await shop.opened(ow, start_worker, sql)
    url = await serve(dashboard(ow))
    if os.environ.get("OPENWORKFLOW_PICTURES"):  # for the documentation
        await take_pictures(browser, f"{url}{HOME}", made)
    hostile = await shop.vandalised(ow, sql)
    pages = {
        "overview": "",
        "runs": "/runs",
        "wrong": "/runs?where=statu:failed",
        "run": f"/runs/{made.done}",
        "failed": f"/runs/{made.failed}",
        "waits": f"/runs/{made.waits}",
        "hostile": f"/runs/{hostile[1]}",
        "compare": f"/runs/{made.failed}/compare",
        "against": f"/runs/{hostile[1]}/compare?with={hostile[0]}",
        "errors": "/errors",
        "schedules": "/schedules",
        "limits": "/limits",
        "fleet": "/fleet",
        "gone": f"/runs/{uuid4()}",
    }

    plain = {"overview", "runs", "failed", "waits", "compare", "errors", "schedules"}

    def look(fit: Callable[[Page, str], list[str]]) -> Callable[[Page], dict[str, list[str]]]:
        def each(page: Page) -> dict[str, list[str]]:
            found = {}
            for name, path in pages.items():
                page.goto(f"{url}{HOME}{path}")
                expect(page.get_by_role("heading", level=1)).to_be_visible()
                found[name] = fit(page, name)
            return {name: faults for name, faults in found.items() if faults}

        return each

    def on_a_desk(page: Page, name: str) -> list[str]:
        return [*axe(page), *too_wide(page)]

    def in_the_dark(page: Page, name: str) -> list[str]:
        # What else there is to find is there in the light too, as it is of the other pages.
        return axe(page, "color-contrast") if name in plain else []

    def on_a_phone(page: Page, name: str) -> list[str]:
        closed = too_wide(page)
        if name == "errors":  # what somebody has come for, without scrolling a table
            button = page.get_by_role("button", name="Retry").first.bounding_box()
            assert button is not None
            assert button["x"] + button["width"] <= PHONE[0]
        page.evaluate("for (const it of document.querySelectorAll('details')) it.open = true")
        return closed + too_wide(page)

    ways: list[tuple[Callable[[Page, str], list[str]], Theme, tuple[int, int]]] = [
        (on_a_desk, "light", DESK),
        (in_the_dark, "dark", DESK),
        (on_a_phone, "light", PHONE),
    ]
    for fit, theme, size in ways:
        faults = await browser.visit(url, look(fit), theme=theme, size=size, expected=["404"])
        assert {} == faults, fit.__name__


async def take_pictures(browser: Browser, home: str, made: shop.Shop) -> None:
    """Into docs/images, of what people want to see first."""

    def take(name: str) -> Callable[[Page], None]:
        def shoot(page: Page) -> None:
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            # A traceback names folders of the machine that it comes from.
            page.evaluate("for (const it of document.querySelectorAll('details')) it.open = false")
            page.screenshot(path=PICTURES / f"dashboard-{name}.png")

        return shoot

    PICTURES.mkdir(exist_ok=True)
    wide, phone = (1080, 640), (360, 640)
    await browser.visit(home, take("overview"), size=wide)
    await browser.visit(f"{home}/runs/{made.failed}", take("run"), size=wide)
    await browser.visit(f"{home}/runs/{made.done}", take("phone"), theme="dark", size=phone)


async def test_a_run_is_found_and_sent_a_signal_by_the_keyboard_alone(
    ow: OpenWorkflow, start_worker: StartWorker, serve: Serve, browser: Browser
) -> None:
    await start_worker(shop.approval)
    run = await ow.run_workflow(shop.approval, "order-1")
    await eventually(lambda: shop.waits(ow, run.id))
    url = await serve(dashboard(ow))

    def look(page: Page) -> None:
        assert by_keyboard(page)[:2] == ["Skip to content", "OpenWorkflow"]
        page.keyboard.press("/")
        expect(page.get_by_label("Filter", exact=True)).to_be_focused()
        page.keyboard.type("workflow:approval status:pending")
        page.keyboard.press("Enter")
        page.wait_for_url("**/runs?where=workflow*")
        expect(page.get_by_role("row")).to_have_count(2)
        press(page, "a", f"{str(run.id)[:8]}…")
        page.wait_for_url(f"**/runs/{run.id}")
        press(page, "summary", "Signal…")
        for words in ("approved", '"by keyboard"'):
            page.keyboard.press("Tab")
            page.keyboard.press("Control+A")
            page.keyboard.type(words)
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(
            page.get_by_role("status").filter(has_text="signal 'approved' is sent")
        ).to_be_visible()
        expect(page.locator(".sentence")).to_contain_text("It succeeded")
        expect(page.locator("main")).to_contain_text("order-1 approved: by keyboard")

    await browser.visit(f"{url}{HOME}/runs", look)


async def test_the_filter_is_completed_while_it_is_typed_and_the_page_follows_the_runs(
    ow: OpenWorkflow, serve: Serve, browser: Browser, ask: Ask
) -> None:
    await ow.run_workflow(shop.approval, "order-1")
    url = await serve(dashboard(ow))

    def offered(page: Page) -> list[str]:
        found: list[str] = page.locator("#words option").evaluate_all(
            "all => all.map(o => o.value)"
        )
        return found

    def look(page: Page) -> None:
        page.get_by_label("Filter", exact=True).press_sequentially("status:pending workflow:ap")
        whole = 'option[value="status:pending workflow:approval"]'
        expect(page.locator(f"#words {whole}")).to_have_count(1)
        assert offered(page) == ["status:pending workflow:approval"]
        ask(ow.run_workflow(shop.approval, "order-2"))
        expect(page.get_by_role("row")).to_have_count(3)
        assert offered(page) == ["status:pending workflow:approval"]
        expect(page.get_by_label("Filter", exact=True)).to_have_value("status:pending workflow:ap")

    await browser.visit(f"{url}{HOME}/runs", look)


def press(page: Page, element: str, words: str, most: int = 60) -> None:
    """Tab on to something, and press Enter there."""
    for _ in range(most):
        page.keyboard.press("Tab")
        at, text = page.evaluate(
            "[document.activeElement.localName, document.activeElement.innerText]"
        )
        if at == element and words in text:
            page.keyboard.press("Enter")
            return
    raise AssertionError(f"Tab does not lead to {words!r}")


async def test_what_somebody_does_is_seen_by_all_and_takes_nothing_out_of_their_hands(
    ow: OpenWorkflow, start_worker: StartWorker, serve: Serve, browser: Browser
) -> None:
    await start_worker(shop.approval)
    run = await ow.run_workflow(shop.approval, "order-1")
    await eventually(lambda: shop.waits(ow, run.id))
    url = await serve(dashboard(ow))
    where = f"{url}{HOME}/runs/{run.id}"

    def look(one: Page) -> None:
        other = one.context.new_page()
        other.goto(where)
        one.locator("summary", has_text="reserve").click()
        one.locator("summary", has_text="Signal…").click()
        value = one.get_by_label("Value, as JSON")
        value.fill('"half')

        other.get_by_role("button", name="Pause").click()
        expect(one.locator("h1")).to_contain_text("paused")
        opened = one.locator(".line", has=one.locator("summary", has_text="reserve"))
        expect(opened.locator(".attempt")).to_be_visible()
        expect(value).to_have_value('"half')
        expect(value).to_be_focused()

        one.get_by_label("Name", exact=True).fill("approved")
        value.fill("true")
        other.get_by_role("button", name="Resume").click()
        expect(one.locator("h1")).to_contain_text("waiting")
        one.get_by_role("button", name="Send").click()
        for page in (one, other):
            expect(page.locator("h1")).to_contain_text("succeeded")

    await browser.visit(where, look)


async def test_while_the_database_is_away_the_page_stays_says_since_when_and_recovers(
    ow: OpenWorkflow,
    sql: asyncpg.Connection[Any],
    serve: Serve,
    browser: Browser,
    ask: Ask,
) -> None:
    url = await serve(dashboard(ow))

    def look(page: Page) -> None:
        trouble = page.locator("#trouble")
        expect(page.locator(".tiles")).to_be_visible()
        expect(trouble).to_be_empty()

        ask(sql.execute("alter table workflow_runs rename to gone"))
        expect(trouble).to_contain_text("What is shown is of ")
        expect(page.locator(".tiles")).to_be_visible()
        page.reload()
        expect(page.locator("main .trouble")).to_contain_text("does not exist")

        ask(sql.execute("alter table gone rename to workflow_runs"))
        expect(page.locator(".tiles")).to_be_visible()
        expect(trouble).to_be_empty()

    await browser.visit(f"{url}{HOME}", look, expected=["503"])


async def test_failed_runs_are_retried_by_kind_and_one_is_forked_with_another_input(
    ow: OpenWorkflow, start_worker: StartWorker, serve: Serve, browser: Browser, ask: Ask
) -> None:
    await start_worker(shop.order, shop.parcel)
    runs = await ow.run_workflows(shop.order, ["a-bad", "b-bad"])
    for run in runs:
        await ow.wait(run.id, 60)
    url = await serve(dashboard(ow))

    def look(page: Page) -> None:
        page.get_by_role("button", name="Retry these…").click()
        expect(page.locator(".sentence")).to_contain_text("2 runs of")
        assert RunStatus.FAILED == ask(status_of(ow, runs[0].id))
        page.get_by_role("button", name="Retry 2").click()
        expect(page.get_by_role("status").filter(has_text="2 done, 0 left")).to_be_visible()

        for run in runs:
            ask(ow.wait(run.id, 20))
        page.goto(f"{url}{HOME}/runs/{runs[0].id}")
        page.locator("summary", has_text="Fork…").click()
        page.get_by_label("From step").select_option("charge")
        page.get_by_label("Input, as JSON").fill('"a-good"')
        page.get_by_role("button", name="Fork").click()
        expect(page.locator("h1")).to_contain_text("succeeded")
        expect(page.locator("main")).to_contain_text("receipt-a-good")
        expect(page.locator(".facts")).to_contain_text(str(runs[0].id))

    await browser.visit(f"{url}{HOME}/errors", look)
    assert all([2 <= (await ow.get_workflow_run(run.id)).claim_no for run in runs])


async def test_somebody_comes_in_with_a_token_and_sees_what_it_lets_them_do(
    ow: OpenWorkflow, serve: Serve, browser: Browser
) -> None:
    run = await ow.run_workflow("nobody-serves-it")
    tokens = Tokens({VIEWER: ("ann", "viewer"), ADMIN: ("bob", "admin")})
    url = await serve(dashboard(ow, auth=tokens))
    where = f"{url}{HOME}/runs/{run.id}"

    def come_in(page: Page, token: str) -> None:
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Log in").click()

    def as_viewer(page: Page) -> None:
        expect(page.get_by_label("Token")).to_be_focused()
        come_in(page, "no-token-of-ours")
        expect(page.get_by_role("alert")).to_contain_text("not a token of this dashboard")
        come_in(page, VIEWER)
        expect(page).to_have_url(where)
        expect(page.locator(".caller")).to_have_text("ann")
        expect(page.locator("main").get_by_role("button")).to_have_count(0)
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_label("Token")).to_be_visible()

    def as_admin(page: Page) -> None:
        come_in(page, ADMIN)
        page.get_by_role("button", name="Cancel", exact=True).click()
        expect(page.locator("h1")).to_contain_text("canceled")

    await browser.visit(where, as_viewer, expected=["401"])
    assert RunStatus.PENDING == await status_of(ow, run.id)
    await browser.visit(where, as_admin, expected=["401"])
    assert RunStatus.CANCELED == await status_of(ow, run.id)
