"""Chromium, and servers that it asks: where there is none, the run says what was not tried."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from tests.helpers import NEVER, eventually
from tests.ports import free_port
from tests.web import browser as chromium

if TYPE_CHECKING:
    from starlette.types import ASGIApp

Serve = Callable[["ASGIApp"], Awaitable[str]]
"""The fixture `serve`: an application in, the URL of a server of it out, without a slash."""
Ask = Callable[[Coroutine[Any, Any, Any]], Any]
"""The fixture `ask`: a coroutine in, what this test's loop made of it out."""


@pytest.fixture(scope="session")
def browser() -> Iterator[chromium.Browser]:
    """One for all tests; each of their visits is of somebody whom nothing is known of."""
    path = chromium.program()
    if path is None:
        pytest.skip("needs Chromium (make test-programs)")
    started = chromium.Browser(path)
    yield started
    started.stop()


@pytest.fixture
def axe(browser: chromium.Browser) -> Callable[[Any], list[str]]:
    """See `inaccessible`."""
    if not chromium.AXE.is_file():
        pytest.skip("needs axe-core (make test-programs)")
    return chromium.inaccessible


@pytest.fixture
async def ask() -> Ask:
    """Has the test's loop do something while the test looks at a page, on the browser's thread."""
    loop = asyncio.get_running_loop()
    return lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(NEVER)


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serves applications on this test's own loop until its end."""
    async with AsyncExitStack() as stack:

        async def start(app: ASGIApp) -> str:
            return await stack.enter_async_context(serving(app))

        yield start


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    """A real server of an application, on localhost."""
    port = free_port()
    config = uvicorn.Config(app, port=port, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: server.started or task.done())
        yield f"http://localhost:{port}"
    finally:
        server.should_exit = True
        await task
