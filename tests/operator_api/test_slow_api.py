"""An API server that is slow, or gives no list of a kind: somebody leads, and says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg
import pytest
from aiohttp import web

from openworkflow_operator import process
from openworkflow_operator.process import Operator
from tests.api_proxy import ApiProxy
from tests.helpers import eventually
from tests.kubernetes_space import FAST, Space, enqueue

Start = Callable[..., AbstractAsyncContextManager[Operator]]


async def test_by_an_api_server_that_takes_seconds_fleets_are_scaled(
    tenant: Space,
    start_behind: Start,
    proxy: ApiProxy,
    sql: asyncpg.Connection[Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A Lease of two seconds by answers of one: nobody led, or lost it at the next answer."""

    async def slow(_: web.Request) -> None:
        await asyncio.sleep(1)

    proxy.fault = slow
    await enqueue(sql, 15)
    tenant.resource(scaling=FAST)
    async with start_behind(lease_seconds=2.0) as operator:
        await eventually(lambda: tenant.replicas() == 2, deadline=60)
        tenant.patch({"replicas": 3})
        await eventually(lambda: tenant.replicas() == 3, deadline=60)
        assert operator.is_leader
    assert "OPENWORKFLOW_OPERATOR_LEASE_SECONDS" in caplog.text


@pytest.mark.parametrize("is_silent", [False, True])
async def test_a_kind_of_which_no_list_comes_costs_its_objects_only(
    tenant: Space,
    start_behind: Start,
    proxy: ApiProxy,
    sql: asyncpg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    is_silent: bool,
) -> None:
    """Somebody's broken conversion of ServiceMonitors kept all fleets from being scaled."""
    monkeypatch.setattr(process, "LISTS_SECONDS", 2.0)

    async def broken(request: web.Request) -> web.StreamResponse | None:
        if request.method != "GET" or "/servicemonitors" not in request.path:
            return None
        if is_silent:
            await asyncio.sleep(3600)
        answer = {"kind": "Status", "reason": "InternalError", "message": "conversion failed"}
        return web.json_response(answer, status=500)

    proxy.fault = broken
    await enqueue(sql, 15)
    tenant.resource(scaling=FAST)
    async with start_behind(resync_seconds=1.0) as operator:
        await eventually(lambda: tenant.replicas() == 2, deadline=40)
        before = operator._resynced_at
        await eventually(lambda: operator._resynced_at > before + 1, deadline=40)
        assert "no list of servicemonitors" in str(operator.not_ready())
