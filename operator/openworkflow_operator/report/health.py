"""Metrics and health over HTTP: /metrics, /livez and /readyz."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

Check = Callable[[], str | None]
"""None when all is well, else what is wrong."""

#: At once; one more, and the one that came first is let go: what idle clients hold, others miss.
MOST_CLIENTS: Final = 64


@contextlib.asynccontextmanager
async def served(
    port: int, registry: CollectorRegistry, live: Check, ready: Check
) -> AsyncIterator[int]:
    """Serve during the block; gives the port, a free one for 0. OSError if it is taken."""

    async def metrics(_: web.Request) -> web.Response:
        body = generate_latest(registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    def answer(check: Check) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handler(_: web.Request) -> web.StreamResponse:
            wrong = check()
            return web.Response(text=(wrong or "ok") + "\n", status=503 if wrong else 200)

        return handler

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/livez", answer(live))
    app.router.add_get("/readyz", answer(ready))
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)
    await runner.setup()
    listening = None
    try:
        listening = await asyncio.get_running_loop().create_server(
            lambda: _next_client(runner), sock=_listen(port)
        )
        yield listening.sockets[0].getsockname()[1]
    finally:
        if listening is not None:
            listening.close()
        await runner.cleanup()


def _next_client(runner: web.AppRunner) -> asyncio.BaseProtocol:
    server = runner.server
    assert server is not None
    if len(server.connections) >= MOST_CLIENTS:
        server.connections[0].force_close()
    return server()


def _listen(port: int) -> socket.socket:
    """One port of IPv4 and IPv6; asyncio would take a free one for each."""
    if not socket.has_dualstack_ipv6():
        return socket.create_server(("", port))
    return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
