"""What a user reads of a fleet, on a real API server: is it so, and does it say whose words."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg

from openworkflow_operator.process import Operator
from tests.control_plane import ApiRefusal
from tests.helpers import eventually
from tests.kubernetes_space import FAST, GROUP, MERGE, Space, enqueue

Start = Callable[..., AbstractAsyncContextManager[Operator]]

CREATING = {"name": "worker", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
LOOKS = "openworkflow_observation_seconds_count"


def message(space: Space, kind: str) -> str:
    conditions = space.get()["status"]["conditions"]
    return str(next(c["message"] for c in conditions if c["type"] == kind))


def deployed(space: Space, replicas: int, ready: int, updated: int) -> None:
    """What Kubernetes' controller would report of the fleet."""
    found = space.deployment()
    assert found is not None
    status = {"replicas": replicas, "readyReplicas": ready, "updatedReplicas": updated}
    status["observedGeneration"] = found["metadata"]["generation"]
    path = space.path("deployments", "orders-worker/status", "/apis/apps/v1")
    space.plane.request("PATCH", path, {"status": status}, MERGE)


def creating(space: Space, name: str) -> str:
    """A pod that has a node and no container yet; returns its uid."""
    space.pod(name)
    waits = {**CREATING, "state": {"waiting": {"reason": "ContainerCreating"}}}
    conditions = [
        {"type": "PodScheduled", "status": "True"},
        {"type": "Ready", "status": "False"},
    ]
    status = {"phase": "Pending", "containerStatuses": [waits], "conditions": conditions}
    space.pod_status(name, status)
    pod: dict[str, Any] = space.plane.request("GET", space.path("pods", name))
    return str(pod["metadata"]["uid"])


def failed_mount(space: Space, pod: str, uid: str, text: str) -> None:
    """What the kubelet tells of a volume."""
    involved = {"kind": "Pod", "name": pod, "namespace": space.name, "uid": uid}
    event = {
        "metadata": {"name": f"{pod}.1"},
        "involvedObject": involved,
        "reason": "FailedMount",
        "message": text,
        "type": "Warning",
        "count": 1,
    }
    space.plane.request("POST", space.path("events"), event)


async def test_a_missing_config_map_of_a_volume_is_told_in_the_kubelets_words(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    """It was WorkersStarting forever: only Events tell of volumes."""
    await enqueue(sql, 1)
    tenant.resource(scaling=FAST)
    async with start():
        await eventually(lambda: tenant.replicas() == 1, deadline=30)
        uid = creating(tenant, "worker-1")
        text = 'MountVolume.SetUp failed for volume "code" : configmap "hello" not found'
        failed_mount(tenant, "worker-1", uid, text)
        told = ("False", "ContainerConfigInvalid")
        await eventually(lambda: tenant.condition("WorkersAvailable") == told, deadline=40)
        assert text in message(tenant, "WorkersAvailable")
        tenant.pod_status("worker-1", {"conditions": [{"type": "Ready", "status": "True"}]})
        ready = ("True", "WorkersReady")
        await eventually(lambda: tenant.condition("WorkersAvailable") == ready, deadline=30)


async def test_verified_is_said_of_a_template_until_it_changes(tenant: Space, start: Start) -> None:
    tenant.resource(scaling=FAST | {"minReplicas": 1})
    async with start():
        await eventually(lambda: tenant.replicas() == 1, deadline=30)
        await eventually(lambda: tenant.condition("Verified") == ("Unknown", "NotStarted"))
        tenant.pod("worker-1")
        deployed(tenant, 1, 1, 1)
        good = ("True", "WorkersStarted")
        await eventually(lambda: tenant.condition("Verified") == good, deadline=30)
        tenant.patch({"scaling": {"minReplicas": 0}})
        await eventually(lambda: tenant.replicas() == 0, deadline=30)
        assert good == tenant.condition("Verified")
        tenant.patch({"worker": {"image": "registry.example.com/shop/workers:none"}})
        await eventually(lambda: tenant.condition("Verified") == ("Unknown", "NotStarted"))


async def test_what_the_operator_decided_and_why_is_told_to_those_who_look_at_the_runs(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    """The dashboard has the database, and no right to ask Kubernetes."""
    tenant.resource(scaling=FAST | {"maxReplicas": 1})
    await enqueue(sql, 500)

    async def told() -> bool:
        row = await sql.fetchrow("SELECT resource, status FROM workflow_fleets")
        if row is None:
            return False
        status = json.loads(row["status"])
        reasons = {each["type"]: each["reason"] for each in status["conditions"]}
        assert f"{tenant.name}/orders" == row["resource"]
        return (1, 1, "MaxReplicas") == (
            status["desired"],
            status["most"],
            reasons["ScalingLimited"],
        )

    async with start():
        await eventually(told, deadline=60)


async def test_another_operator_takes_nothing_back_before_it_has_looked(
    tenant: Space, start: Start
) -> None:
    tenant.resource(scaling=FAST, retention={"succeededSeconds": 3600})
    async with start():
        await eventually(lambda: tenant.condition("Ready") == ("True", "Ready"), deadline=30)
        walked = ("True", "Pruning")
        await eventually(lambda: tenant.condition("RetentionActive") == walked, deadline=30)
    before = len(tenant.events())
    seen: set[tuple[str, str, str]] = set()

    def looked(operator: Operator) -> bool:
        conditions = tenant.get()["status"]["conditions"]
        seen.update((c["type"], c["status"], c["reason"]) for c in conditions)
        return (operator.metrics.registry.get_sample_value(LOOKS) or 0) > 1

    async with start() as operator:
        await eventually(lambda: looked(operator), deadline=40)
    assert not [each for each in seen if each[2] in ("NotObserved", "NotPruned")]
    assert before == len(tenant.events())


async def test_who_pins_and_who_pauses_a_fleet_is_an_event(tenant: Space, start: Start) -> None:
    tenant.resource(scaling=FAST)
    resource = tenant.path("workflownamespaces", "orders", GROUP)
    async with start():
        await eventually(lambda: tenant.condition("Ready") == ("True", "Ready"), deadline=30)
        scale = {"spec": {"replicas": 2}}
        tenant.plane.request("PATCH", f"{resource}/scale?fieldManager=kubectl", scale, MERGE)
        pause = {"metadata": {"annotations": {"openworkflow.dev/paused": "true"}}}
        # The API server records nobody for this one.
        pinned = ("Pinned", "`replicas` was set to 2 (through the scale subresource)")
        await eventually(lambda: pinned in tenant.events(), deadline=30)
        edit = {"spec": {"replicas": 3}}
        tenant.plane.request("PATCH", f"{resource}?fieldManager=kubectl-edit", edit, MERGE)
        edited = ("Pinned", "`replicas` was set to 3 (by kubectl-edit)")
        await eventually(lambda: edited in tenant.events(), deadline=30)
        tenant.plane.request("PATCH", f"{resource}?fieldManager=kubectl-annotate", pause, MERGE)
        paused = ("Paused", "the operator changes nothing (by kubectl-annotate)")
        await eventually(lambda: paused in tenant.events(), deadline=30)


PODS = "/apis/metrics.k8s.io/v1beta1"


def metrics_server(space: Space) -> None:
    """The API of a metrics server, as a kind of its own: the operator asks for it in earnest."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1beta1", "served": True, "storage": True}
    names = {"kind": "PodMetrics", "plural": "pods", "singular": "pod"}
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "pods.metrics.k8s.io",
            "annotations": {"api-approved.kubernetes.io": "unapproved, a test"},
        },
        "spec": {
            "group": "metrics.k8s.io",
            "names": names,
            "scope": "Namespaced",
            "versions": [version | {"schema": {"openAPIV3Schema": schema}}],
        },
    }
    space.plane.apply(crd, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions")


def measure(space: Space, pod: str, cpu: str, memory: str) -> bool:
    """What the metrics server says of a pod; False while the kind is not served yet."""
    labels = {"openworkflow.dev/workflow-namespace": "orders"}
    body = {
        "apiVersion": "metrics.k8s.io/v1beta1",
        "kind": "PodMetrics",
        "metadata": {"name": pod, "labels": labels},
        "containers": [{"name": "worker", "usage": {"cpu": cpu, "memory": memory}}],
    }
    try:
        space.plane.request("POST", space.path("pods", group=PODS), body)
    except ApiRefusal:
        return False
    return True


async def test_the_status_says_how_full_the_pods_were(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    metrics_server(tenant)
    await eventually(lambda: measure(tenant, "worker-1", "150000000n", "204800Ki"), deadline=30)
    tenant.resource(scaling=FAST | {"minReplicas": 1})
    await sql.execute(
        "INSERT INTO workflow_runs "
        "(workflow_name, namespace_id, status, available_at, worker_id, claim_no, started_at) "
        "SELECT 'w', 'orders', 'running', 'infinity', 'worker-1/1', 1, now() "
        "FROM generate_series(1, 4)"
    )
    async with start():
        await eventually(lambda: tenant.replicas() == 1, deadline=30)
        tenant.pod("worker-1")
        await eventually(lambda: tenant.get().get("status", {}).get("usage"), deadline=60)
    usage = tenant.get()["status"]["usage"]
    assert ("150m", "200Mi", 40) == (usage["cpu"], usage["memoryPeak"], usage["slotsPercent"])
