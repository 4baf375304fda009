"""What may go wrong around the operator: each fault is told, does no harm, and passes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import asyncpg
import kopf
import pytest

from openworkflow_operator.api import kinds
from openworkflow_operator.api.spec import Key
from openworkflow_operator.cluster import informer
from openworkflow_operator.cluster.client import Cluster
from openworkflow_operator.handlers import watched_by_kopf
from openworkflow_operator.process import Operator
from tests.control_plane import OPERATOR_NAMESPACE, ControlPlane
from tests.helpers import eventually
from tests.kubernetes_space import FAST, GROUP, MERGE, Space, enqueue

Start = Callable[..., AbstractAsyncContextManager[Operator]]


# -- the cluster --------------------------------------------------------------------------------


async def test_a_quota_for_deployments_is_told_and_forgotten(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    hard = {"count/deployments.apps": "0"}
    quota = {"metadata": {"name": "none"}, "spec": {"hard": hard}}
    tenant.plane.request("POST", tenant.path("resourcequotas"), quota)
    used = {"status": {"hard": hard, "used": hard}}
    tenant.plane.request("PATCH", tenant.path("resourcequotas", "none/status"), used, MERGE)
    await enqueue(sql, 15)
    tenant.resource(scaling=FAST)
    async with start():
        exceeded = ("False", "QuotaExceeded")
        await eventually(lambda: tenant.condition("WorkersAvailable") == exceeded, deadline=20)
        assert {"serviceaccounts", "services", "poddisruptionbudgets"} == tenant.children()
        await eventually(lambda: "QuotaExceeded" in dict(tenant.events()))
        tenant.delete("resourcequotas", "none")
        await eventually(lambda: tenant.replicas() == 2, deadline=30)
        await eventually(lambda: tenant.condition("WorkersAvailable") != exceeded)


async def test_an_admission_policy_that_refuses_the_fleet_is_told_and_forgotten(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
    bindings = policies.replace("policies", "policybindings")
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}
    match = {"resourceRules": [rule | {"operations": ["CREATE"]}]}
    never = [{"expression": "false", "message": "no fleets on Fridays"}]
    spec = {"matchConstraints": match, "validations": never}
    policy = {"metadata": {"name": tenant.name}, "spec": spec}
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": tenant.name}}}
    binding = {"policyName": tenant.name, "validationActions": ["Deny"], "matchResources": here}
    tenant.plane.request("POST", policies, policy)
    tenant.plane.request("POST", bindings, {"metadata": {"name": tenant.name}, "spec": binding})
    await eventually(lambda: _is_refused(tenant))
    await enqueue(sql, 15)
    tenant.resource(scaling=FAST)
    async with start():
        denied = ("False", "AdmissionDenied")
        await eventually(lambda: tenant.condition("WorkersAvailable") == denied, deadline=20)
        tenant.plane.request("DELETE", f"{bindings}/{tenant.name}")
        tenant.plane.request("DELETE", f"{policies}/{tenant.name}")
        await eventually(lambda: tenant.replicas() == 2, deadline=40)


def _is_refused(space: Space) -> bool:
    """Whether the API server has taken notice of the policy."""
    labels = {"probe": "yes"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"selector": {"matchLabels": labels}, "template": pod}
    body = {"metadata": {"name": "probe"}, "spec": spec}
    try:
        path = space.path("deployments", group="/apis/apps/v1") + "?dryRun=All"
        space.plane.request("POST", path, body)
    except Exception as refusal:
        return "Fridays" in str(refusal)
    return False


@pytest.fixture
def service_monitors(plane: ControlPlane) -> Iterator[Callable[[], None]]:
    """Installs the kind ServiceMonitor, with as much of a schema as matters here."""
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    name = "servicemonitors.monitoring.coreos.com"
    names = {"kind": "ServiceMonitor", "plural": "servicemonitors", "singular": "servicemonitor"}
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    spec = {"group": "monitoring.coreos.com", "names": names, "scope": "Namespaced"}

    def install() -> None:
        body = {"metadata": {"name": name}, "spec": spec | {"versions": [version]}}
        plane.request("POST", crds, body)

    yield install
    plane.request("DELETE", f"{crds}/{name}")


async def test_a_fleet_gets_its_servicemonitor_when_the_cluster_learns_the_kind(
    tenant: Space,
    start: Start,
    service_monitors: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(informer, "ABSENT_PAUSE_SECONDS", 0.5)
    tenant.resource(scaling=FAST)
    path = tenant.path("servicemonitors", group="/apis/monitoring.coreos.com/v1")

    def found() -> list[Any]:
        items: list[Any] = tenant.plane.request("GET", path)["items"]
        return items

    async with start(resync_seconds=1):
        await eventually(lambda: tenant.replicas() == 0, deadline=20)
        service_monitors()
        await eventually(lambda: "items" in _try(found), deadline=20)
        await eventually(lambda: len(found()) == 1, deadline=30)
        monitor = found()[0]
        selected = monitor["spec"]["selector"]["matchLabels"]
        service = tenant.plane.request("GET", tenant.path("services", "orders-worker"))
        assert selected.items() <= service["metadata"]["labels"].items()
        tenant.patch({"monitoring": "Disabled"})
        await eventually(lambda: found() == [])


def _try(call: Callable[[], Any]) -> str:
    try:
        return f"items {call()}"
    except Exception as error:
        return str(error)


async def test_a_resource_deleted_while_it_is_scaled_is_let_go(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    scale = Cluster.scale

    async def gone_first(self: Cluster, namespace: str, name: str, replicas: int) -> Any:
        if replicas == 2:
            tenant.delete("workflownamespaces", "orders", GROUP)
        return await scale(self, namespace, name, replicas)

    uid = tenant.resource(scaling=FAST)["metadata"]["uid"]
    async with start() as operator:
        await eventually(lambda: tenant.replicas() == 0, deadline=20)
        monkeypatch.setattr(Cluster, "scale", gone_first)
        await enqueue(sql, 15)
        await eventually(lambda: operator.store.resources() == [], deadline=20)
        # As the garbage collector would: nothing may come back.
        for plural in ("services", "serviceaccounts"):
            tenant.delete(plural, "orders-worker")
        tenant.delete("deployments", "orders-worker", "/apis/apps/v1")
        owned = Key(tenant.name, "orders")
        left = {kinds.DISRUPTION_BUDGET}
        await eventually(lambda: operator.store.owned(owned, uid).keys() == left)
        await eventually(lambda: len(operator.queue) == 0)
        assert {"poddisruptionbudgets"} == tenant.children()
        assert 0 == operator.metrics.reconciles.labels("bug")._value.get()


async def test_watches_that_say_nothing_are_made_good_by_full_visits(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(*_: object) -> AsyncIterator[tuple[str, Any]]:
        await asyncio.sleep(3600)
        yield "", {}

    monkeypatch.setattr(Cluster, "watch", silent)
    await enqueue(sql, 15)
    async with start(resync_seconds=1):
        tenant.resource(scaling=FAST)
        await eventually(lambda: tenant.replicas() == 2, deadline=20)
        tenant.scale(9)
        await eventually(lambda: tenant.replicas() == 2, deadline=20)
        tenant.delete("services", "orders-worker")
        await eventually(lambda: "services" in tenant.children(), deadline=20)


# -- the operator -------------------------------------------------------------------------------


async def test_a_leader_that_is_killed_is_replaced(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any], tmp_path: Path
) -> None:
    token = tenant.plane.token(OPERATOR_NAMESPACE, "openworkflow-operator")
    settings = {"NAMESPACES": tenant.name, "NAMESPACE": OPERATOR_NAMESPACE, "PORT": "0"}
    settings |= {"ALLOW_LOOPBACK": "true", "LEASE_SECONDS": "3", "IDENTITY": "the-victim"}
    environment = {f"OPENWORKFLOW_OPERATOR_{name}": value for name, value in settings.items()}
    environment |= {"KUBECONFIG": str(tenant.plane.kubeconfig(tmp_path, token))}
    tenant.resource(scaling=FAST)
    leader = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "openworkflow_operator", env=os.environ | environment
    )
    try:
        await eventually(lambda: tenant.replicas() == 0, deadline=40)
        async with start() as standby:
            await eventually(lambda: standby.not_ready() is None)
            assert not standby.is_leader
            leader.send_signal(signal.SIGKILL)
            await leader.wait()
            await enqueue(sql, 15)
            await eventually(lambda: tenant.replicas() == 2, deadline=15)
            assert standby.is_leader
    finally:
        if leader.returncode is None:
            leader.kill()
        await leader.wait()


@pytest.mark.parametrize("scope", ["several", "all"])
async def test_an_operator_serves_the_namespaces_it_is_told_to(
    plane: ControlPlane, space: Space, start: Start, database_url: str, sql: Any, scope: str
) -> None:
    other, stranger = (Space(plane, f"{space.name}-{name}") for name in ("b", "c"))
    await enqueue(sql, 15)
    for each in (space, other, stranger):
        if each is not space:
            plane.create_namespace(each.name)
        each.secret(database_url)
        each.resource(namespaceId="orders" if each is space else each.name, scaling=FAST)
    watched = () if scope == "all" else (space.name, other.name)
    token = plane.token(OPERATOR_NAMESPACE, "openworkflow-operator")

    def login(**_: object) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(server=plane.url, token=token, insecure=True)

    async with start(watched_by_kopf(login), namespaces=watched):
        await eventually(lambda: space.replicas() == 2, deadline=30)
        await eventually(lambda: other.replicas() == 0, deadline=30)
        if scope == "all":
            await eventually(lambda: stranger.replicas() == 0, deadline=30)
        other.delete("services", "orders-worker")
        await eventually(lambda: "services" in other.children())
        assert (stranger.children() == set()) == (scope == "several")


async def test_an_operator_of_many_namespaces_has_connections_for_more_than_its_watches(
    plane: ControlPlane, tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    """Seven watches of each took all that a client has; it never led, nor listed a kind again."""
    others = [f"{tenant.name}-{number}" for number in range(20)]
    for name in others:
        plane.create_namespace(name)
    await enqueue(sql, 15)
    tenant.resource(scaling=FAST)
    async with start(namespaces=(tenant.name, *others)):
        await eventually(lambda: tenant.replicas() == 2, deadline=40)
