"""Answers that no API server gives: each costs what it answers, and never the rest of a visit."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg
import pytest
from aiohttp import web

from openworkflow_operator.process import Operator
from tests.api_proxy import ApiProxy, Fault
from tests.helpers import eventually
from tests.kubernetes_space import FAST, Space, enqueue

Start = Callable[..., AbstractAsyncContextManager[Operator]]
GARBAGE = {
    "no words": (500, '{"kind": "Status", "reason": null, "message": null}'),
    "words that are none": (403, '{"kind": "Status", "reason": 7, "message": {"a": []}}'),
    "nested": (500, '{"message": ' + "[" * 100_000 + "]" * 100_000 + "}"),
    "empty": (200, "{}"),
    "another object": (200, '{"kind": "Scale", "metadata": 7, "spec": []}'),
    "half of an object": (200, '{"metadata": {"name": "a", "namespace": "b"}, "spec": {}}'),
    "a page": (504, "<html>gateway</html>"),
}


def garbage(answer: str, path: str) -> Fault:
    """The answer to each write to such a path."""
    status, text = GARBAGE[answer]

    async def answered(request: web.Request) -> web.StreamResponse | None:
        if request.method == "GET" or not re.search(path, request.path):
            return None
        return web.Response(status=status, text=text, content_type="application/json")

    return answered


@pytest.mark.parametrize("answer", GARBAGE)
async def test_garbage_for_what_is_written_of_one_kind_costs_that_kind_only(
    tenant: Space,
    start_behind: Start,
    proxy: ApiProxy,
    sql: asyncpg.Connection[Any],
    answer: str,
) -> None:
    """A visit that met it was a fault of the operator, and scaled and told nothing."""
    proxy.fault = garbage(answer, r"/poddisruptionbudgets/")
    await enqueue(sql, 15)
    tenant.resource(scaling=FAST)
    async with start_behind() as operator:
        await eventually(lambda: tenant.replicas() == 2, deadline=20)
        await eventually(lambda: (tenant.condition("ObjectsApplied") or "  ")[0] == "False")
        proxy.fault = None
        applied = ("True", "Applied")
        await eventually(lambda: tenant.condition("ObjectsApplied") == applied, deadline=30)
        assert 0 == operator.metrics.reconciles.labels("bug")._value.get()


@pytest.mark.parametrize("answer", GARBAGE)
async def test_garbage_for_a_scaling_is_tried_again(
    tenant: Space,
    start_behind: Start,
    proxy: ApiProxy,
    sql: asyncpg.Connection[Any],
    answer: str,
) -> None:
    await enqueue(sql, 15)
    tenant.resource(scaling=FAST)
    async with start_behind() as operator:
        await eventually(lambda: tenant.replicas() == 2, deadline=20)
        proxy.fault = garbage(answer, r"/scale\Z")
        await enqueue(sql, 15)
        await eventually(lambda: (tenant.condition("ObjectsApplied") or "  ")[0] == "False")
        proxy.fault = None
        await eventually(lambda: tenant.replicas() == 3, deadline=30)
        assert 0 == operator.metrics.reconciles.labels("bug")._value.get()
