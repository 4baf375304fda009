"""A real browser, and what is wrong with a page besides what a test looks for.

Its driver wants an event loop that stays on its thread, and tests have a loop for each, so the
browser has a thread of its own. What a test does in a page is a plain function, which that thread
calls, while the test's loop serves the page.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

from playwright import sync_api as playwright

from tools.vendor import FOR_TESTS

T = TypeVar("T")
Theme = Literal["light", "dark"]

PROGRAMS: Final = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
)
"""The first of these is the one of `make test-programs`, and starts soonest."""
AXE: Final = FOR_TESTS / "axe.min.js"
PATIENCE_MS: Final = 60_000.0
"""Longer than NEVER: a browser is several programs, each of which waits on a busy machine."""
DESK: Final = (1280, 800)
PHONE: Final = (320, 640)
"""Of the narrowest phones that are still in use, and of a page that is magnified four times."""
PICTURES: Final = Path(__file__).parents[2] / "docs" / "images"


def program() -> str | None:
    """Chromium, if this machine has one."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@dataclass
class Troubles:
    """What a page did that no page of ours does."""

    origin: str
    found: list[str] = field(default_factory=list)

    def watch(self, page: playwright.Page) -> None:
        """Take down what goes wrong from now on."""
        page.on("pageerror", lambda error: self.found.append(f"raised: {error}"))
        page.on("dialog", self._dialog)
        page.on("console", self._console)
        page.on("request", self._request)

    def _console(self, message: playwright.ConsoleMessage) -> None:
        # What the policy of a page forbade is an error here too: so is an answer of 4xx and 5xx.
        if message.type in ("error", "warning"):
            self.found.append(f"{message.type}: {message.text}")

    def _dialog(self, dialog: playwright.Dialog) -> None:
        self.found.append(f"asked by {dialog.type}: {dialog.message}")
        dialog.dismiss()

    def _request(self, request: playwright.Request) -> None:
        if not request.url.startswith((self.origin, "data:", "blob:", "about:")):
            self.found.append(f"asked another host: {request.url}")


class Browser:
    """Chromium without a window. `stop` ends it."""

    def __init__(self, path: str) -> None:
        self._thread = ThreadPoolExecutor(1, "browser")
        self._thread.submit(self._start, path).result()

    def stop(self) -> None:
        """End the browser and its thread."""
        self._thread.submit(self._stop).result()
        self._thread.shutdown()

    async def visit(
        self,
        url: str,
        look: Callable[[playwright.Page], T],
        *,
        theme: Theme = "light",
        size: tuple[int, int] = DESK,
        expected: Iterable[str] = (),
        **options: Any,
    ) -> T:
        """Open a page as somebody whom nothing is known of, and call `look` with it.

        Fails for whatever else goes wrong in it, but for what has one of the `expected` words.
        """
        loop = asyncio.get_running_loop()
        found, troubles = await loop.run_in_executor(
            self._thread, lambda: self._visit(url, look, theme, size, options)
        )
        words = tuple(expected)
        others = [each for each in troubles if not any(word in each for word in words)]
        assert not others, others
        return found

    def _start(self, path: str) -> None:
        playwright.expect.set_options(timeout=PATIENCE_MS)
        self._driver = playwright.sync_playwright().start()
        # Tests are not root's everywhere, nor are user namespaces allowed everywhere.
        self._browser = self._driver.chromium.launch(executable_path=path, chromium_sandbox=False)

    def _stop(self) -> None:
        self._browser.close()
        self._driver.stop()

    def _visit(
        self,
        url: str,
        look: Callable[[playwright.Page], T],
        theme: Theme,
        size: tuple[int, int],
        options: dict[str, Any],
    ) -> tuple[T, list[str]]:
        parts = urlsplit(url)
        troubles = Troubles(f"{parts.scheme}://{parts.netloc}/")
        context = self._browser.new_context(
            color_scheme=theme,
            viewport={"width": size[0], "height": size[1]},
            reduced_motion="reduce",
            **options,
        )
        context.set_default_timeout(PATIENCE_MS)
        try:
            context.on("page", troubles.watch)
            page = context.new_page()
            page.goto(url)
            return look(page), troubles.found
        finally:
            context.close()


def inaccessible(page: playwright.Page, *rules: str) -> list[str]:
    """What axe finds wrong with a page for those who see, hear or move otherwise, by rules."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(AXE.read_text(encoding="utf-8"))
    asked: dict[str, Any] = {"resultTypes": ["violations"]}
    if rules:
        asked["runOnly"] = list(rules)
    result = page.evaluate("(asked) => axe.run(document, asked)", asked)
    return [
        f"{rule['id']} ({rule['impact']}): {rule['help']}: "
        + "; ".join(" ".join(map(str, node["target"])) for node in rule["nodes"][:5])
        for rule in result["violations"]
    ]


def too_wide(page: playwright.Page) -> list[str]:
    """What makes the page scroll sideways, as on a phone nothing but a table within it may."""
    return list(
        page.evaluate(
            """() => {
              const width = document.documentElement.clientWidth;
              if (document.documentElement.scrollWidth <= width) return [];
              return [...document.querySelectorAll('body *')]
                .filter((it) => it.getBoundingClientRect().right > width + 1)
                .slice(-8)
                .map((it) => `${it.tagName}.${it.className}: ${it.textContent}`.slice(0, 60));
            }"""
        )
    )


def by_keyboard(page: playwright.Page, most: int = 100) -> list[str]:
    """What Tab leads to, until it leaves the page. Each must be seen to have it."""
    names = []
    for _ in range(most):
        page.keyboard.press("Tab")
        name, is_seen = page.evaluate(
            """() => {
              const it = document.activeElement;
              if (!it || it === document.body) return ["", true];
              const style = getComputedStyle(it);
              const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
              const words = it.getAttribute("aria-label") || it.labels?.[0]?.textContent
                || it.textContent || it.getAttribute("placeholder") || it.name || it.tagName;
              return [words.trim().replace(/\\s+/g, " "), outlined || style.boxShadow !== "none"];
            }"""
        )
        if not name:
            break
        assert is_seen, f"nobody sees that {name!r} has the focus"
        names.append(name)
    return names
