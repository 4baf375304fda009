"""A proxy before the API server, which answers wrongly where a test says so."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

Fault = Callable[[web.Request], Awaitable[web.StreamResponse | None]]
"""Answers in place of the API server; None lets it answer."""

_HOP_BY_HOP = {"connection", "host", "transfer-encoding", "content-length", "content-encoding"}


@dataclass(slots=True)
class ApiProxy:
    """Where it listens, what it answers itself, and what it was asked for."""

    url: str = ""
    fault: Fault | None = None
    seen: list[tuple[str, str]] = field(default_factory=list)
    """Verb and path, with the query, of every request."""


@contextlib.asynccontextmanager
async def proxied(upstream: str) -> AsyncIterator[ApiProxy]:
    """Forward to the API server at this URL."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    proxy = ApiProxy()
    connector = aiohttp.TCPConnector(ssl=trusting, limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:

        async def forward(request: web.Request) -> web.StreamResponse:
            proxy.seen.append((request.method, request.path_qs))
            if proxy.fault is not None and (answer := await proxy.fault(request)) is not None:
                return answer
            return await _forward(session, upstream, request)

        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", forward)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield proxy
        finally:
            await runner.cleanup()


async def _forward(
    session: aiohttp.ClientSession, upstream: str, request: web.Request
) -> web.StreamResponse:
    headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP}
    body = await request.read()
    url = upstream + request.raw_path
    timeout = aiohttp.ClientTimeout(total=None)
    async with session.request(
        request.method, url, headers=headers, data=body or None, timeout=timeout
    ) as answer:
        kept = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP_BY_HOP}
        response = web.StreamResponse(status=answer.status, headers=kept)
        with contextlib.suppress(ConnectionResetError):  # whoever asked does not wait any more
            await response.prepare(request)
            async for some in answer.content.iter_any():
                await response.write(some)
            await response.write_eof()
        return response
