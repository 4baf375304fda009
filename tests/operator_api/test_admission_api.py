"""Policies that refuse, change or do not answer, and others who change what the operator owns.

All of it is said, the rest of the fleet goes on, and nobody fights: writes are counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiohttp import web

from openworkflow_operator.process import Operator
from tests.admission import admission, patched
from tests.api_proxy import ApiProxy
from tests.helpers import eventually
from tests.kubernetes_space import FAST, Space, enqueue

Start = Callable[..., AbstractAsyncContextManager[Operator]]

GROUPS = {
    "serviceaccounts": "",
    "services": "",
    "deployments": "apps",
    "poddisruptionbudgets": "policy",
    "networkpolicies": "networking.k8s.io",
}
SECONDS = 8.0
MOST_WRITES = 5
"""Of one object in that time, where each look would have led to one: eight."""


def writes_of(proxy: ApiProxy, part: str) -> int:
    """How many requests changed what has this in its path."""
    return len([path for verb, path in proxy.seen if verb != "GET" and f"/{part}" in path])


@pytest.mark.parametrize(
    ("plural", "is_silent"),
    [*((plural, False) for plural in GROUPS), ("services", True), ("deployments", True)],
)
async def test_a_policy_that_refuses_an_object_is_quoted_and_asked_less_and_less_often(
    tenant: Space,
    start_behind: Start,
    proxy: ApiProxy,
    sql: asyncpg.Connection[Any],
    tmp_path: Path,
    plural: str,
    is_silent: bool,
) -> None:
    """Each look led to another try, and a status with the number of the policy's answer."""

    async def answer(_: dict[str, Any]) -> dict[str, Any]:
        if is_silent:
            await asyncio.sleep(60)
        return {"allowed": False, "status": {"message": f"not today ({uuid.uuid4()})"}}

    await enqueue(sql, 15)
    tenant.resource(scaling=FAST, networkPolicy="Enabled")
    async with (
        admission(tenant.plane, tenant.name, GROUPS[plural], plural, tmp_path, answer),
        start_behind(),
    ):
        is_told = ("False", "NotApplied" if is_silent else "AdmissionDenied")
        await eventually(lambda: tenant.condition("ObjectsApplied") == is_told, deadline=30)
        tries = 1 if is_silent else 3  # those come within two seconds
        await eventually(lambda: writes_of(proxy, plural) >= tries)
        proxy.seen.clear()
        await asyncio.sleep(SECONDS)
        assert 1 <= writes_of(proxy, plural) <= MOST_WRITES
        assert writes_of(proxy, "workflownamespaces") <= MOST_WRITES
        told = str(tenant.get()["status"]["conditions"])
        assert ("failed calling webhook" if is_silent else "not today") in told
        assert ("ScaledUp" in {reason for reason, _ in tenant.events()}) == (
            tenant.replicas() == 2
        ), "what was not done is not told as done"
        if plural not in ("serviceaccounts", "deployments"):
            assert tenant.replicas() == 2


async def test_a_status_that_is_refused_costs_no_scaling_and_few_writes(
    tenant: Space,
    start_behind: Start,
    proxy: ApiProxy,
    sql: asyncpg.Connection[Any],
) -> None:
    """Each look led to another try."""

    async def refused(request: web.Request) -> web.StreamResponse | None:
        if not request.path.endswith("/orders/status"):
            return None
        answer = {"kind": "Status", "reason": "Forbidden", "message": "a policy says no"}
        return web.json_response(answer, status=403)

    proxy.fault = refused
    await enqueue(sql, 15)
    tenant.resource(scaling=FAST)
    async with start_behind() as operator:
        await eventually(lambda: tenant.replicas() == 2, deadline=30)
        await eventually(lambda: writes_of(proxy, "workflownamespaces/orders/status") >= 3)
        proxy.seen.clear()
        failed = operator.metrics.reconciles.labels("refused")._value
        before = failed.get()
        await asyncio.sleep(SECONDS)
        assert failed.get() - before <= MOST_WRITES, "a visit that tries nothing does not fail"
        assert writes_of(proxy, "workflownamespaces/orders/status") <= MOST_WRITES
        tenant.patch({"replicas": 3})
        await eventually(lambda: tenant.replicas() == 3, deadline=30)
        proxy.fault = None
        await eventually(lambda: tenant.condition("Ready") is not None, deadline=30)


CHANGES: dict[str, dict[str, Any]] = {
    "deployments": {
        "path": "/spec/template/spec/containers/0/image",
        "value": "mirror.example.com/w:1",
    },
    "services": {"path": "/metadata/labels", "value": {"team": "a"}},
    "poddisruptionbudgets": {"path": "/spec/maxUnavailable", "value": 1},
    "serviceaccounts": {"path": "/automountServiceAccountToken", "value": True},
}


@pytest.mark.parametrize("plural", CHANGES)
async def test_a_policy_that_changes_an_object_is_named_and_not_fought(
    tenant: Space,
    start_behind: Start,
    proxy: ApiProxy,
    sql: asyncpg.Connection[Any],
    tmp_path: Path,
    plural: str,
) -> None:
    """Such as one that has images come from a mirror: each look led to another write."""

    async def answer(_: dict[str, Any]) -> dict[str, Any]:
        return patched({"op": "replace", **CHANGES[plural]})

    await enqueue(sql, 15)
    tenant.resource(scaling=FAST)
    group = GROUPS[plural]
    async with (
        admission(tenant.plane, tenant.name, group, plural, tmp_path, answer) as policy,
        start_behind(),
    ):
        contested = ("False", "Contested")
        await eventually(lambda: tenant.condition("ObjectsApplied") == contested, deadline=30)
        assert tenant.replicas() == 2
        proxy.seen.clear()
        await asyncio.sleep(SECONDS)
        assert writes_of(proxy, plural) <= MOST_WRITES
        assert tenant.condition("ObjectsApplied") == contested, "it is told all the time"
        assert "UPDATE" in policy.asked
        field = CHANGES[plural]["path"].rpartition("/")[2]
        assert field in str(tenant.get()["status"]["conditions"])
        # What is desired anew is applied at once all the same.
        if plural == "deployments":
            generation = tenant.generation()
            tenant.patch({"worker": {"podLabels": {"a": "b"}}})
            await eventually(lambda: tenant.generation() != generation, deadline=10)


@pytest.mark.parametrize("what", ["edits", "deletes", "scales"])
async def test_whoever_changes_back_what_is_put_right_is_named_and_not_fought(
    tenant: Space, start_behind: Start, proxy: ApiProxy, sql: asyncpg.Connection[Any], what: str
) -> None:
    """Two programs that put the same thing right wrote as fast as they could."""
    plural = "services" if what == "deletes" else "deployments"
    await enqueue(sql, 15)
    tenant.resource(scaling=FAST)

    def change() -> None:
        if what == "deletes":
            tenant.delete("services", "orders-worker")
        elif what == "scales":
            tenant.scale(7, "another-autoscaler")
        else:
            path = tenant.path("deployments", "orders-worker", "/apis/apps/v1")
            change = [{"op": "replace", "path": "/spec/minReadySeconds", "value": 7}]
            change += [{"op": "replace", "path": "/spec/revisionHistoryLimit", "value": 9}]
            tenant.plane.request("PATCH", path, change, "application/json-patch+json")

    async with start_behind():
        await eventually(lambda: tenant.replicas() == 2, deadline=30)
        proxy.seen.clear()
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            with contextlib.suppress(Exception):  # it may be deleted already
                await asyncio.to_thread(change)
            await asyncio.sleep(0.2)
        assert 4 <= writes_of(proxy, plural) <= 2 * MOST_WRITES
        contested = ("False", "Contested")
        await eventually(lambda: tenant.condition("ObjectsApplied") == contested, deadline=10)
        if what == "scales":
            assert "changed by another-autoscaler" in str(tenant.events())
