"""Connections that say nothing any more, and are never closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from openworkflow import BackendPostgres
from openworkflow.backend import liveness as under_test
from tests.chaos.proxy import Proxy


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    proxy = Proxy(urlsplit(database_url).port or 5432)
    await proxy.start()
    yield proxy
    await proxy.stop()


async def test_a_backend_is_stopped_although_its_connections_are_silent(
    proxy: Proxy, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that had drained and said so lived on, waiting for its pool."""
    monkeypatch.setattr(under_test, "CLOSE_SECONDS", 0.2)
    parts = urlsplit(database_url)
    backend = await BackendPostgres.connect(
        f"postgresql://{parts.username}@127.0.0.1:{proxy.port}{parts.path}", migrate=False
    )
    await backend.now()
    assert proxy.silence()

    async with asyncio.timeout(5):
        await backend.stop()
