"""What somebody else made or does in the cluster costs a tenant nothing, and is not touched."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.e2e.conftest import Tenant
from tests.real_cluster import RealCluster

QUICK = {"pollPeriodSeconds": 1, "scaleInDelaySeconds": 3, "maxReplicas": 2}
EVIL = "e2e-evil"
#: What each server of the hostile tenant does, on a port of its own.
BEHAVIOURS = {
    5001: "silent",
    5002: "slow",
    5003: "flooding",
    5004: "notifying",
    5005: "laborious(150_000_000)",
    5006: "laborious(100_000, times=500)",
}
Report = Callable[[str, float], None]


async def test_a_service_account_of_somebody_else_is_neither_used_nor_touched(
    tenant: Tenant,
) -> None:
    meta = {"name": "orders-worker", "namespace": tenant.namespace}
    tenant.cluster.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
    before = tenant.get("serviceaccount", "orders-worker")["metadata"]
    tenant.declare(scaling=QUICK)
    run = await tenant.ow.run_workflow("fulfil", {"number": 1})
    await tenant.until(lambda: tenant.reason("ObjectsApplied") == "NameTaken", "it is said")

    assert "ServiceAccount" in tenant.condition("ObjectsApplied")["message"]
    assert "NameTaken" == tenant.printed()["REASON"]
    assert [] == tenant.get("pods").get("items", []), "nothing runs with the rights of that account"
    after = tenant.get("serviceaccount", "orders-worker")["metadata"]
    assert (before["uid"], before["resourceVersion"]) == (after["uid"], after["resourceVersion"])

    tenant.cluster.kubectl("-n", tenant.namespace, "delete", "serviceaccount", "orders-worker")
    assert "receipt-1 delivered" == await run.result(timeout="120s")
    own = tenant.get("serviceaccount", "orders-worker")["metadata"]["ownerReferences"]
    assert ["WorkflowNamespace"] == [owner["kind"] for owner in own]


async def test_who_claims_a_tenants_runs_without_its_password_stops_nobody(
    tenant: Tenant, evil: Evil
) -> None:
    parts = urlsplit(tenant.server.url(tenant.database))
    wrong = parts._replace(netloc=f"{parts.username}:wrong@{parts.hostname}:{parts.port or 5432}")
    evil.declare("squatter", urlunsplit(wrong), namespaceId="orders")
    await tenant.until(
        lambda: evil.reason("squatter") == "AuthenticationFailed", "the older one is refused"
    )
    tenant.declare(scaling=QUICK)
    run = await tenant.ow.run_workflow("fulfil", {"number": 1})

    assert "receipt-1 delivered" == await run.result(timeout="120s")
    await tenant.until(lambda: tenant.reason("Ready") == "Ready", "the tenant is Ready")
    assert "orders" not in evil.status("squatter")["message"]


async def test_a_fleet_is_woken_as_fast_beside_servers_that_do_evil(
    tenant: Tenant, evil: Evil, report: Report
) -> None:
    evil.serve()
    tenant.declare(scaling=QUICK)
    await tenant.until(lambda: tenant.reason("Ready") == "Ready", "the tenant is Ready")
    before = await woken(tenant)
    for port, behaviour in BEHAVIOURS.items():
        name, _, _ = behaviour.partition("(")
        url = f"postgresql://u:p@servers.{EVIL}.svc:{port}/d?sslmode=disable"
        evil.declare(f"{name}-{port}", url, scaling={"pollPeriodSeconds": 1})
    await tenant.until(lambda: all(map(evil.is_refused, BEHAVIOURS)), "each server is refused")
    beside = await woken(tenant)

    report("from enqueue to a fleet asked for", before)
    report("beside one hostile server of each kind", beside)
    assert beside < 3
    ready = tenant.cluster.get("-n", "e2e-system", "deployment", "openworkflow-operator")["status"]
    assert 2 == ready["readyReplicas"], "no operator is unwell"


async def woken(tenant: Tenant) -> float:
    """How long after a run was enqueued its fleet was asked for, from zero to zero."""

    def replicas() -> int:
        return int(tenant.get("deployment", "orders-worker")["spec"].get("replicas", 1))

    await tenant.until(lambda: replicas() == 0, "the fleet is at zero")
    start = time.monotonic()
    run = await tenant.ow.run_workflow("fulfil", {"number": 1, "delivery": "1ms"})
    await tenant.until(lambda: replicas() > 0, "the fleet is asked for")
    asked = time.monotonic() - start
    await run.result(timeout="90s")
    return asked


class Evil:
    """A Kubernetes namespace whose owner means ill."""

    def __init__(self, cluster: RealCluster) -> None:
        self.cluster = cluster

    def declare(self, name: str, url: str, **spec: Any) -> None:
        """A WorkflowNamespace with this URL."""
        meta = {"name": name, "namespace": EVIL}
        data = {"DATABASE_URL": base64.b64encode(url.encode()).decode()}
        worker = {"image": self.cluster.worker_image, "workflows": ["workflows"]}
        spec = {"database": {"secretRef": {"name": name}}, "worker": worker, **spec}
        self.cluster.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data},
            {
                "apiVersion": "openworkflow.dev/v1alpha1",
                "kind": "WorkflowNamespace",
                "metadata": meta,
                "spec": spec,
            },
        )

    def status(self, name: str) -> dict[str, Any]:
        """Its condition DatabaseReachable."""
        found = self.cluster.get("-n", EVIL, "wfns", name).get("status", {}).get("conditions", [])
        return next((c for c in found if c["type"] == "DatabaseReachable"), {})

    def reason(self, name: str) -> str | None:
        return self.status(name).get("reason")

    def is_refused(self, port: int) -> bool:
        """Whether the operator has found out about the server of this port."""
        name, _, _ = BEHAVIOURS[port].partition("(")
        return self.status(f"{name}-{port}").get("status") == "False"

    def serve(self) -> None:
        """Start the hostile servers, in a pod behind the Service `servers`."""
        module = (Path(__file__).parents[1] / "hostile_servers.py").read_text()
        # The pod has the worker's image, without the operator; and it serves more than itself.
        module = module.replace("from openworkflow_operator.database.dsn import Dsn, TlsMode", STUB)
        module = module.replace('("127.0.0.1", 0)', '("0.0.0.0", next(PORTS))')
        main = "import time, hostile_servers as evil\nfrom hostile_servers import *\n"
        for behaviour in BEHAVIOURS.values():
            main += f"evil.HostileServer({behaviour}).__enter__()\n"
        meta = {"name": "servers", "namespace": EVIL, "labels": {"app": "servers"}}
        ports = [{"name": f"p{port}", "port": port} for port in BEHAVIOURS]
        data = {"hostile_servers.py": module, "main.py": main + "time.sleep(600)\n"}
        mount = {"name": "code", "mountPath": "/evil"}
        container = {
            "name": "servers",
            "image": self.cluster.worker_image,
            "imagePullPolicy": "IfNotPresent",
            "command": ["python", "/evil/main.py"],
            "volumeMounts": [mount],
        }
        volume = {"name": "code", "configMap": {"name": "servers"}}
        spec = {"containers": [container], "volumes": [volume], "terminationGracePeriodSeconds": 1}
        service = {"selector": {"app": "servers"}, "ports": ports}
        self.cluster.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data},
            {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec},
            {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": service},
        )
        self.cluster.kubectl("-n", EVIL, "wait", "--for=condition=Ready", "pod/servers")


STUB = f"Dsn = TlsMode = type('Any', (), dict(DISABLE=0))\nPORTS = iter({list(BEHAVIOURS)})"


@pytest.fixture
def evil(cluster: RealCluster) -> Iterator[Evil]:
    """A namespace of a hostile tenant."""
    meta = {"name": EVIL}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    yield Evil(cluster)
    cluster.kubectl("delete", "namespace", EVIL, "--timeout=100s")
