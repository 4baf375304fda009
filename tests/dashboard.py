"""A dashboard behind a real server, and somebody who looks at it."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import unquote

import aiohttp
import uvicorn

from openworkflow import OpenWorkflow
from openworkflow.web import Auth, dashboard
from tests.helpers import eventually

VIEWER, OPERATOR, ADMIN = "viewer-0123456789", "operator-0123456789", "admin-0123456789"


class Visitor:
    """Asks for pages as a browser does, with the token of a role or without."""

    def __init__(self, base: str, session: aiohttp.ClientSession, token: str | None) -> None:
        self.base, self._session = base, session
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    async def get(self, path: str = "", **headers: str) -> tuple[int, str]:
        async with self._session.get(
            self.base + path, headers=self._headers | headers, allow_redirects=False
        ) as answer:
            return answer.status, await answer.text()

    async def headers(self, path: str) -> Mapping[str, str]:
        async with self._session.get(self.base + path, headers=self._headers) as answer:
            return answer.headers

    async def post(self, path: str, site: str = "same-origin", **form: str) -> tuple[int, str, str]:
        """The status, where it leads to, and the note that is shown there; or the page."""
        headers = self._headers | {"Sec-Fetch-Site": site}
        async with self._session.post(
            self.base + path, data=form, headers=headers, allow_redirects=False
        ) as answer:
            note = answer.cookies.get("openworkflow_note")
            told = await answer.text() if note is None else unquote(note.value)
            return answer.status, answer.headers.get("location", ""), told

    @contextlib.asynccontextmanager
    async def follow(self, path: str) -> AsyncIterator[Following]:
        async with self._session.get(self.base + path, headers=self._headers) as answer:
            assert answer.status == 200, await answer.text()
            yield Following(answer)


class Following:
    """What is sent of a page that is followed."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._lines = answer.content

    async def __anext__(self) -> str:
        """The next message; comments and the like are passed over."""
        data: list[str] = []
        async with asyncio.timeout(30):
            while True:
                line = (await self._lines.readline()).decode().rstrip("\n")
                if line.startswith("data: "):
                    data.append(line.removeprefix("data: "))
                elif not line and data:
                    return "\n".join(data)

    async def until(self, text: str) -> str:
        """The first message that holds this."""
        while True:
            message = await anext(self)
            if text in message:
                return message


@contextlib.asynccontextmanager
async def served(
    ow: OpenWorkflow | Mapping[str, OpenWorkflow],
    token: str | None = None,
    *,
    auth: Auth | None = None,
    app: Any = None,
    **options: Any,
) -> AsyncIterator[Visitor]:
    """A visitor of a dashboard, at the root of a server of its own."""
    config = uvicorn.Config(
        app or dashboard(ow, auth=auth, **options),
        port=0,
        log_level="warning",
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            yield Visitor(f"http://127.0.0.1:{port}", session, token)
    finally:
        server.should_exit = True
        await task


def words_of(html: str) -> str:
    """The text of a page, without its elements."""
    text = re.sub(r"<(script|style|title).*?</\1>", " ", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())
