"""What the status says is what the pods are like, and nothing that is over by the next look."""

from __future__ import annotations

import base64
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tests.e2e.conftest import Tenant
from tests.real_cluster import RealCluster

QUICK = {"pollPeriodSeconds": 1, "scaleInDelaySeconds": 3, "maxReplicas": 2}


async def test_a_worker_killed_at_its_memory_limit_says_so_and_which(tenant: Tenant) -> None:
    code = "from workflows import fulfil\nhoard = [bytearray(2**20) for _ in range(400)]\n"
    meta = {"name": "code", "namespace": tenant.namespace}
    data = {"greedy.py": code}
    tenant.cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})

    def worker(limit: str) -> dict[str, Any]:
        return {
            "workflows": ["greedy"],
            "env": [{"name": "PYTHONPATH", "value": "/code"}],
            "volumes": [{"name": "code", "configMap": {"name": "code"}}],
            "volumeMounts": [{"name": "code", "mountPath": "/code", "readOnly": True}],
            "resources": {"limits": {"memory": limit}},
        }

    tenant.declare(scaling={**QUICK, "minReplicas": 1, "maxReplicas": 1}, worker=worker("256Mi"))
    await tenant.until(
        lambda: tenant.reason("WorkersAvailable") == "OutOfMemory", "the limit is found out"
    )
    assert "256Mi" in tenant.condition("WorkersAvailable")["message"]
    assert "OutOfMemory" == tenant.printed()["REASON"]
    assert "OutOfMemory" == tenant.reason("Verified")

    tenant.declare(scaling={**QUICK, "minReplicas": 1, "maxReplicas": 1}, worker=worker("1Gi"))
    await tenant.until(lambda: verified(tenant) == ("True", "WorkersStarted"), "enough is enough")
    await tenant.until(lambda: tenant.reason("Ready") == "Ready", "the fleet is as desired")


async def test_an_image_that_is_not_there_is_unverified_at_zero_and_named_at_the_first_run(
    tenant: Tenant,
) -> None:
    image = f"{tenant.cluster.worker_image}-that-is-not-there"
    tenant.declare(scaling=QUICK, worker={"image": image})
    await tenant.until(lambda: tenant.reason("Ready") == "Ready", "the fleet is as desired: none")
    assert ("Unknown", "NotStarted") == verified(tenant)

    run = await tenant.ow.run_workflow("fulfil", {"number": 1})
    await tenant.until(lambda: verified(tenant) == ("False", "ImagePullFailed"), "it is tried")
    await tenant.until(lambda: tenant.reason("Ready") == "ImagePullFailed", "Ready says it too")
    tenant.declare(scaling=QUICK)
    waiting = ("wait", "wfns/orders", "--for=condition=Verified", "--timeout=90s")
    tenant.cluster.kubectl("-n", tenant.namespace, *waiting)
    assert "receipt-1 delivered" == await run.result(timeout="90s")
    await tenant.until(lambda: not tenant.pods(), "the fleet is at zero")
    assert ("True", "WorkersStarted") == verified(tenant), "and still proven"


def verified(tenant: Tenant) -> tuple[str | None, str | None]:
    condition = tenant.condition("Verified")
    return condition.get("status"), condition.get("reason")


async def test_a_rotated_secret_rolls_the_fleet_and_no_condition_flaps(tenant: Tenant) -> None:
    tenant.declare(scaling={**QUICK, "minReplicas": 2})
    await tenant.until(lambda: tenant.status().get("readyReplicas") == 2, "two workers are ready")
    await tenant.until(lambda: tenant.reason("Ready") == "Ready", "the tenant is Ready")
    before = {pod["metadata"]["name"] for pod in tenant.pods()}
    order = {"number": 1, "charging_seconds": 20}
    run = await tenant.ow.run_workflow("fulfil", order)
    with followed(tenant.cluster, tenant.namespace) as seen:
        url = urlsplit(tenant.server.url(tenant.database))
        other = urlunsplit(url._replace(query=f"{url.query}&application_name=rotated".strip("&")))
        data = {"DATABASE_URL": base64.b64encode(other.encode()).decode()}
        meta = {"name": "orders-database", "namespace": tenant.namespace}
        tenant.cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data})
        await tenant.until(
            lambda: not before & {pod["metadata"]["name"] for pod in tenant.pods()},
            "all workers have the new URL",
            seconds=180,
        )
        await tenant.until(lambda: tenant.status().get("readyReplicas") == 2, "they are ready")
        assert "receipt-1 delivered" == await run.result(timeout="90s")

    steady = {"Ready=True/Ready", "DatabaseReachable=True/Reachable", "ObjectsApplied=True/Applied"}
    steady |= {"WorkersAvailable=True/WorkersReady"}
    assert [] == [line for line in seen if not steady <= set(line.split())]
    events = tenant.get("events").get("items", [])
    assert [] == [e["message"] for e in events if e["reason"] == "NotObserved"]


@contextmanager
def followed(cluster: RealCluster, namespace: str) -> Iterator[list[str]]:
    """The conditions of the tenant at each change of its status during the block, in words."""
    words = "{range .status.conditions[*]}{.type}={.status}/{.reason} {end}{'\\n'}"
    command = ["-n", namespace, "get", "wfns", "orders", "--watch", f"--output=jsonpath={words}"]
    seen: list[str] = []
    with subprocess.Popen(cluster.command(*command), stdout=subprocess.PIPE, text=True) as process:
        lines = process.stdout
        assert lines is not None
        threading.Thread(target=lambda: seen.extend(lines), daemon=True).start()
        try:
            yield seen
        finally:
            process.kill()
