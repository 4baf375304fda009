"""What the operator cannot see is not taken for gone: unlabelled Deployments, unlisted pods."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg
import pytest
from aiohttp import web

from openworkflow_operator.process import Operator
from tests.api_proxy import ApiProxy
from tests.control_plane import ControlPlane
from tests.helpers import eventually
from tests.kubernetes_space import FAST, MERGE, Space, enqueue
from tests.operator_api.test_builds_api import NEW, Rollouts, in_use

Start = Callable[..., AbstractAsyncContextManager[Operator]]


@pytest.fixture
def rollouts(tenant: Space, sql: asyncpg.Connection[Any]) -> Rollouts:
    return Rollouts(tenant, sql)


@pytest.mark.parametrize("is_watching", [True, False])
async def test_an_old_build_whose_deployment_loses_its_label_still_wakes_for_its_runs(
    rollouts: Rollouts, start: Start, is_watching: bool
) -> None:
    space = rollouts.space
    operator = start()
    async with operator:
        old = await in_use(rollouts, {"strategy": "Pinned"})
        space.patch({"worker": {"image": NEW}})
        new = await rollouts.come_up(NEW)
        await eventually(lambda: rollouts.takes_all(new))
        space.delete("pods", f"orders-worker-{old}-pod")
        await eventually(lambda: rollouts.replicas(old) == 0, deadline=20)
        if is_watching:
            _unlabel(space, old)
            await eventually(lambda: _is_labelled(space, old), deadline=20)
    if not is_watching:
        _unlabel(space, old)
    async with start():
        await rollouts.sql.execute("UPDATE workflow_runs SET available_at = now() WHERE pinned")
        await eventually(lambda: rollouts.replicas(old) == 1, deadline=30)
        assert _is_labelled(space, old)


LABEL = "openworkflow.dev/workflow-namespace"


def _unlabel(space: Space, build: str) -> None:
    path = space.path("deployments", f"orders-worker-{build}", "/apis/apps/v1")
    space.plane.request("PATCH", path, {"metadata": {"labels": {LABEL: None}}}, MERGE)


def _is_labelled(space: Space, build: str) -> bool:
    found = space.deployment(f"orders-worker-{build}")
    return found is not None and LABEL in found["metadata"]["labels"]


async def test_a_namespace_whose_pods_cannot_be_listed_is_not_scaled_down(
    plane: ControlPlane,
    tenant: Space,
    start_behind: Start,
    proxy: ApiProxy,
    sql: asyncpg.Connection[Any],
) -> None:
    """Pods that hold runs were taken for none, and stopped beside an idle one."""
    other = f"{tenant.name}-other"
    plane.create_namespace(other)
    await enqueue(sql, 25)
    tenant.resource(scaling=FAST)
    async with start_behind():
        await eventually(lambda: tenant.replicas() == 3, deadline=20)
    names = [f"orders-worker-{letter}" for letter in "abc"]
    for name in names:
        tenant.pod(name)
    await sql.execute("UPDATE workflow_runs SET status = 'succeeded'")
    await sql.execute(
        "INSERT INTO workflow_runs"
        " (workflow_name, namespace_id, status, available_at, worker_id, claim_no, started_at)"
        " SELECT 'w', 'orders', 'running', 'infinity', name || '/1', 1, now()"
        " FROM unnest($1::text[]) name",
        names,
    )

    async def refused(request: web.Request) -> web.StreamResponse | None:
        if not request.path.endswith(f"/namespaces/{tenant.name}/pods"):
            return None
        status = {"kind": "Status", "reason": "Forbidden", "message": "cannot list resource"}
        return web.json_response(status, status=403)

    proxy.fault = refused
    async with start_behind(namespaces=(tenant.name, other)) as operator:
        visits = operator.metrics.reconciles.labels("done")._value
        await eventually(lambda: visits.get() > 8, deadline=40)
        assert 3 == tenant.replicas()
        unknown = ("Unknown", "PodsNotListed")
        await eventually(lambda: tenant.condition("WorkersAvailable") == unknown)
        proxy.fault = None
        await sql.execute(
            "UPDATE workflow_runs SET status = 'succeeded' WHERE worker_id LIKE $1", "%a/1"
        )
        await eventually(lambda: tenant.replicas() == 2, deadline=70)
