"""The browser of the tests finds what it is there to find: else a page that is wrong would pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from tests.web.browser import PHONE, Browser, by_keyboard, too_wide
from tests.web.conftest import Serve

FINE = """<!doctype html><html lang=en><meta name=color-scheme content="light dark">
<meta name=viewport content="width=device-width, initial-scale=1"><link rel=icon href="data:,">
<title>Fine</title><style>body { background: light-dark(white, black) } a { color: light-dark(navy,
aqua) }</style><main><h1>It is fine</h1><p><a href="/other">another</a> <button>Press</button>
</main>"""
POOR = """<!doctype html><link rel=icon href="data:,"><title>Poor</title>
<img src="data:,"><p style="width: 2000px">wide</p><a href="/" style="outline: none">on</a>"""


@pytest.fixture
async def site(serve: Serve) -> str:
    async def page(request: Request) -> HTMLResponse:
        headers = {"content-security-policy": "script-src 'none'"}
        words = {
            "/": FINE,
            "/poor": POOR,
            "/script": f"{FINE}<script>document.title = 'X'</script>",
        }
        return HTMLResponse(words[request.url.path], headers=headers)

    return await serve(Starlette(routes=[Route("/{path:path}", page)]))


async def test_a_page_with_nothing_wrong_passes(
    browser: Browser, axe: Callable[[Any], list[str]], site: str
) -> None:
    def look(page: Page) -> str:
        expect(page.get_by_role("heading")).to_have_text("It is fine")
        assert [] == axe(page)
        assert [] == too_wide(page)
        assert ["another", "Press"] == by_keyboard(page)
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    dark = await browser.visit(f"{site}/", look, theme="dark", size=PHONE)
    assert "rgb(0, 0, 0)" == dark


async def test_what_is_wrong_with_a_page_is_found(
    browser: Browser, axe: Callable[[Any], list[str]], site: str
) -> None:
    def look(page: Page) -> tuple[list[str], list[str]]:
        with pytest.raises(AssertionError, match="nobody sees that 'on' has the focus"):
            by_keyboard(page)
        return axe(page), too_wide(page)

    rules, wide = await browser.visit(f"{site}/poor", look, size=PHONE)

    assert {"html-has-lang", "image-alt"} <= {rule.split(" ")[0] for rule in rules}
    assert ["P.: wide"] == wide


async def test_a_script_that_the_policy_forbids_fails_the_test_that_shows_it(
    browser: Browser, site: str
) -> None:
    with pytest.raises(AssertionError, match="Content Security Policy"):
        await browser.visit(f"{site}/script", Page.title)

    title = await browser.visit(f"{site}/script", Page.title, expected=["Content Security Policy"])
    assert "Fine" == title
