"""A page that is not followed any more says so: what looks alive, and is not, misleads."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openworkflow import Cron, OpenWorkflow
from openworkflow.web import Tokens, dashboard, live
from tests.helpers import NEVER
from tests.web.browser import Browser
from tests.web.conftest import Serve

TOKEN = "viewer-0123456789"
HOME = "/n/default"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PERIOD", 0.05)
    monkeypatch.setattr(live, "SHARE", 0)
    monkeypatch.setattr(live, "LONGEST", 0.2)  # so that the browser asks again and again


class Silent:
    """An application of which streams are opened, and nothing comes, while it is so."""

    def __init__(self, app: ASGIApp) -> None:
        self._app, self.is_so = app, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def kept(message: Message) -> None:
            if message["type"] == "http.response.start" or not self.is_so:
                await send(message)
            else:
                await asyncio.sleep(3600)

        follows = scope["path"].endswith("/live")
        await self._app(scope, receive, kept if follows else send)


async def test_while_the_dashboard_does_not_answer_the_page_says_so_and_recovers(
    ow: OpenWorkflow, serve: Serve, browser: Browser
) -> None:
    url = await serve(dashboard(ow))

    def look(page: Page) -> None:
        trouble = page.locator("#trouble")
        expect(page.locator(".tiles")).to_be_visible()
        page.route("**/live*", lambda route: route.abort())
        expect(trouble).to_contain_text("UTC: the dashboard does not answer. It is asked again")
        expect(page.locator(".tiles")).to_be_visible()
        page.unroute("**/live*")
        expect(trouble).to_be_empty()

    await browser.visit(f"{url}{HOME}", look, expected=["sse:error", "ERR_FAILED"])


async def test_who_is_not_logged_in_any_more_is_led_to_the_login_and_back(
    ow: OpenWorkflow, serve: Serve, browser: Browser
) -> None:
    url = await serve(dashboard(ow, auth=Tokens({TOKEN: "viewer"})))

    def look(page: Page) -> None:
        def come_in() -> None:
            page.get_by_label("Token").fill(TOKEN)
            page.get_by_role("button", name="Log in").click()

        come_in()
        expect(page.get_by_role("heading", level=1)).to_have_text("Runs")
        page.context.clear_cookies()
        expect(page.locator("#trouble")).to_contain_text("you are not logged in any more. Log in")
        page.locator("#trouble").get_by_role("link", name="Log in").click()
        come_in()
        expect(page).to_have_url(where)
        expect(page.get_by_label("Filter", exact=True)).to_have_value("status:failed")

    where = f"{url}{HOME}/runs?where=status%3Afailed"
    await browser.visit(where, look, expected=["sse:error", "401"])


async def test_what_is_silent_for_long_is_not_taken_for_quiet(
    ow: OpenWorkflow, serve: Serve, browser: Browser
) -> None:
    app = Silent(dashboard(ow))
    url = await serve(app)

    def look(page: Page) -> None:
        page.clock.install()
        app.is_so = True
        page.reload()
        expect(page.locator(".tiles")).to_be_visible()
        page.clock.run_for(30_000)
        expect(page.locator("#trouble")).to_be_empty()
        page.clock.run_for(20_000)
        expect(page.locator("#trouble")).to_contain_text("UTC: nothing has come since")

    await browser.visit(f"{url}{HOME}", look)


async def test_a_page_says_of_when_it_is_by_the_clock_of_the_dashboard(
    ow: OpenWorkflow, serve: Serve, browser: Browser
) -> None:
    """The browser's may be wrong; and a page that was hidden is not of when it is seen again."""
    app = Silent(dashboard(ow))
    url = await serve(app)

    def look(page: Page) -> None:
        page.clock.install(time=datetime(2020, 1, 1, tzinfo=UTC))
        app.is_so = True
        page.reload()
        expect(page.locator(".tiles")).to_be_visible()
        page.clock.run_for(30_000)
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        page.clock.run_for(50_000)
        trouble = page.locator("#trouble")
        expect(trouble).to_contain_text("UTC: nothing has come since")
        said = trouble.inner_text().removeprefix("What is shown is of ")[:19]
        shown = datetime.fromisoformat(said).replace(tzinfo=UTC)
        assert timedelta(0) <= datetime.now(UTC) - shown < timedelta(seconds=NEVER)

    await browser.visit(f"{url}{HOME}", look)


async def test_a_page_that_is_silent_and_is_heard_again_takes_back_what_it_said(
    ow: OpenWorkflow, serve: Serve, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing had changed meanwhile, and it said so until something did."""
    monkeypatch.setattr(live, "LONGEST", NEVER)
    monkeypatch.setattr(live, "SILENCE", 0.5)
    url = await serve(dashboard(ow))

    def look(page: Page) -> None:
        page.clock.install()
        page.reload()
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        page.evaluate("""() => {
          const seen = document.documentElement.dataset;
          document.addEventListener("htmx:sse:after:message", ({ detail }) => {
            if (detail.message.event === "here") seen.here = "yes";
          });
          new MutationObserver(() => {
            const told = document.getElementById("trouble").textContent;
            if (told.includes("nothing has come since")) seen.silent = "yes";
          }).observe(document.body, { childList: true, subtree: true });
        }""")
        expect(page.locator("html")).to_have_attribute("data-here", "yes")
        page.clock.run_for(50_000)
        expect(page.locator("html")).to_have_attribute("data-silent", "yes")
        expect(page.locator("#trouble")).to_be_empty()

    await browser.visit(f"{url}{HOME}/limits", look)


async def test_a_page_that_is_one_too_many_says_so(
    ow: OpenWorkflow, serve: Serve, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MOST_PAGES", 0)
    url = await serve(dashboard(ow))

    def look(page: Page) -> Any:
        expect(page.locator("#trouble")).to_contain_text("too many pages are followed at once")
        expect(page.locator(".tiles")).to_be_visible()

    await browser.visit(f"{url}{HOME}", look)


async def test_a_page_whose_first_look_is_refused_stays_and_is_followed_later(
    ow: OpenWorkflow, serve: Serve, browser: Browser
) -> None:
    """What refused it was put in place of the page: a page within a page, with a second form."""
    url = await serve(dashboard(ow))

    def look(page: Page) -> None:
        trouble, once = page.locator("#trouble"), {"times": 1}
        for status, told in ((401, "not logged in any more. Log in"), (503, "answers with 503")):
            page.route("**/live*", refusing(status), **once)
            page.reload()
            expect(trouble).to_contain_text(told)
            expect(page.locator(".tiles")).to_be_visible()
            expect(page.get_by_role("heading", name="Refused")).to_have_count(0)
        page.clock.run_for(10_000)
        expect(trouble).to_be_empty()

        page.goto(f"{url}{HOME}/runs")
        page.route("**/options*", refusing(503), **once)
        with page.expect_response("**/options*"):
            page.get_by_label("Filter", exact=True).press_sequentially("st")
            page.clock.run_for(1_000)
        expect(page.get_by_role("heading", name="Refused")).to_have_count(0)

    def refusing(status: int) -> Any:
        return lambda route: route.fulfill(
            status=status, content_type="text/html", body="<main><h1>Refused</h1></main>"
        )

    def started(page: Page) -> None:
        page.clock.install()
        look(page)

    await browser.visit(f"{url}{HOME}", started, expected=["401", "503", "htmx:"])


async def test_a_double_click_does_a_thing_once(
    ow: OpenWorkflow, serve: Serve, browser: Browser
) -> None:
    """A schedule had two runs, a run two forks."""
    await ow.schedules.create("nightly", "w", Cron("0 0 1 1 *"))
    app, asked = dashboard(ow), 0

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal asked
        is_asked = scope["type"] == "http" and scope["method"] == "POST"
        asked += is_asked

        async def later(message: Message) -> None:
            await asyncio.sleep(0.5)  # it is done, and its answer is under way
            await send(message)

        await app(scope, receive, later if is_asked else send)

    url = await serve(slow)

    def look(page: Page) -> None:
        page.get_by_role("button", name="Run now").dblclick(delay=50)
        expect(page.locator(".note")).to_contain_text("this is a run of schedule 'nightly'")
        page.go_back()
        page.get_by_role("button", name="Run now").click()  # on purpose
        expect(page.locator(".note")).to_contain_text("this is a run of schedule 'nightly'")

    await browser.visit(f"{url}{HOME}/schedules", look)
    assert 2 == asked
