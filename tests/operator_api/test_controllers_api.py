"""With Kubernetes' own controllers: pods are made, refused, ranked for deletion and collected."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg
import pytest

from openworkflow_operator.process import Operator
from tests.control_plane import ApiRefusal, ControlPlane, controllers, has_controllers
from tests.helpers import eventually
from tests.kubernetes_space import FAST, GROUP, MERGE, Space, enqueue

Start = Callable[..., AbstractAsyncContextManager[Operator]]

pytestmark = pytest.mark.skipif(not has_controllers(), reason="needs kube-controller-manager")


@pytest.fixture(scope="module", autouse=True)
def running_controllers(plane: ControlPlane) -> Iterator[None]:
    with controllers(plane):
        yield


@pytest.fixture
def tenant(tenant: Space) -> Space:
    """The namespace admits only restricted pods."""
    labels = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    tenant.plane.request("PATCH", f"/api/v1/namespaces/{tenant.name}", labels, MERGE)
    return tenant


async def test_restricted_pods_are_made_and_the_idle_ones_go_first(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    await enqueue(sql, 45)
    tenant.resource(scaling=FAST)
    async with start():
        await eventually(lambda: len(tenant.pods()) == 5, deadline=40)
        names = tenant.pods()
        for name in names:
            tenant.pod_status(name, {"phase": "Running", "conditions": READY})
        busy = names[0]  # alike in everything but its runs
        await sql.execute("UPDATE workflow_runs SET status = 'succeeded'")
        await sql.execute(
            "INSERT INTO workflow_runs "
            "(workflow_name, namespace_id, status, available_at, worker_id, claim_no, started_at) "
            "VALUES ('w', 'orders', 'running', 'infinity', $1, 1, now())",
            f"{busy}/0a1b2c3d",
        )
        await eventually(lambda: tenant.pods() == [busy], deadline=40)


async def test_a_quota_is_told_and_forgotten(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}}
    tenant.plane.request("POST", tenant.path("resourcequotas"), quota)
    used = {"status": {"hard": {"pods": "0"}, "used": {"pods": "0"}}}
    tenant.plane.request("PATCH", tenant.path("resourcequotas", "q/status"), used, MERGE)
    await enqueue(sql, 5)
    tenant.resource(scaling=FAST)
    async with start():
        exceeded = ("False", "QuotaExceeded")
        await eventually(lambda: tenant.condition("WorkersAvailable") == exceeded, deadline=40)
        tenant.delete("resourcequotas", "q")
        await eventually(lambda: tenant.condition("WorkersAvailable") != exceeded, deadline=60)


async def test_a_drain_of_the_only_node_goes_on_when_a_pod_has_found_no_place(
    tenant: Space, start: Start
) -> None:
    """`kubectl drain` waited for its whole timeout: a quarter of two, and the next one Pending."""
    tenant.resource(scaling=FAST | {"minReplicas": 2})
    async with start():
        await eventually(lambda: len(tenant.pods()) == 2, deadline=40)
        first, second = tenant.pods()
        for name in (first, second):
            tenant.pod_status(name, {"phase": "Running", "conditions": READY})
        # Made after the Deployment: without one every eviction is allowed.
        await eventually(lambda: "poddisruptionbudgets" in tenant.children(), deadline=40)
        await eventually(lambda: is_evicted(tenant, first), deadline=40)
        await eventually(
            lambda: first not in tenant.pods() and len(tenant.pods()) == 2, deadline=40
        )
        budget = tenant.path("poddisruptionbudgets", "orders-worker", "/apis/policy/v1")
        # Kubernetes counts after the deletion, in its own time.
        await eventually(
            lambda: tenant.plane.request("GET", budget)["status"]["disruptionsAllowed"] == 0,
            deadline=40,
        )
        assert not is_evicted(tenant, second)  # as long as the next one may find a node
        (third,) = set(tenant.pods()) - {second}
        tenant.pod_status(third, {"phase": "Pending", "conditions": [NO_NODE]})
        await eventually(lambda: is_evicted(tenant, second), deadline=40)
        told = ("False", "Unschedulable")
        await eventually(lambda: tenant.condition("WorkersAvailable") == told, deadline=40)
        tenant.pod_status(third, {"phase": "Running", "conditions": READY})
        await eventually(
            lambda: tenant.plane.request("GET", budget)["spec"]["maxUnavailable"] == "25%",
            deadline=40,
        )


async def test_deleting_the_resource_deletes_all_it_owned(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    await enqueue(sql, 15)
    tenant.resource(scaling=FAST, networkPolicy="Enabled")
    async with start():
        await eventually(lambda: len(tenant.pods()) == 2, deadline=40)
        tenant.delete("workflownamespaces", "orders", GROUP)
        await eventually(lambda: tenant.children() == set(), deadline=60)


READY = [{"type": "Ready", "status": "True"}]
NO_NODE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/1 nodes are available",
    "lastTransitionTime": "2020-01-01T00:00:00Z",
}


def is_evicted(space: Space, pod: str) -> bool:
    """Ask for the eviction, as a drain does; there is no kubelet that would end it by itself."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
    body["deleteOptions"] = {"gracePeriodSeconds": 0}
    try:
        space.plane.request("POST", space.path("pods", f"{pod}/eviction"), body)
    except ApiRefusal as refusal:
        if refusal.code == 429:
            return False
        raise
    return True
