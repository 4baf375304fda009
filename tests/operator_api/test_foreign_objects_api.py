"""Objects that somebody else made are never touched, and no object's failure stops the others."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg
import pytest

from openworkflow_operator.api.spec import Key
from openworkflow_operator.cluster.client import Cluster, ClusterError
from openworkflow_operator.process import Operator
from openworkflow_operator.visits import reconcile
from tests.helpers import eventually
from tests.kubernetes_space import FAST, GROUP, MERGE, Space, enqueue

Start = Callable[..., AbstractAsyncContextManager[Operator]]

APPS, POLICY, NETWORKING = "/apis/apps/v1", "/apis/policy/v1", "/apis/networking.k8s.io/v1"
NAME_TAKEN = ("False", "NameTaken")
LABEL = {"openworkflow.dev/workflow-namespace": "orders"}
SELECTED = {"matchLabels": {"app": "theirs"}}
POD = {
    "metadata": {"labels": SELECTED["matchLabels"]},
    "spec": {"containers": [{"name": "c", "image": "i"}]},
}
#: What somebody else may have there, by plural: its group and its content.
FOREIGN: dict[str, tuple[str, dict[str, Any]]] = {
    "serviceaccounts": ("/api/v1", {}),
    "services": ("/api/v1", {"spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]}}),
    "deployments": (APPS, {"spec": {"selector": SELECTED, "template": POD, "replicas": 3}}),
    "poddisruptionbudgets": (POLICY, {"spec": {"minAvailable": 1, "selector": SELECTED}}),
    "networkpolicies": (NETWORKING, {"spec": {"podSelector": SELECTED}}),
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody tells of is looked for in a fraction of a second."""
    monkeypatch.setattr(reconcile, "UNTOLD_RETRY_SECONDS", 0.3)


def make_foreign(space: Space, plural: str, labels: dict[str, str]) -> dict[str, Any]:
    group, content = FOREIGN[plural]
    body = {"metadata": {"name": "orders-worker", "labels": labels}, **content}
    made: dict[str, Any] = space.plane.request("POST", space.path(plural, group=group), body)
    return made


def found(space: Space, plural: str) -> dict[str, Any]:
    path = space.path(plural, "orders-worker", FOREIGN[plural][0])
    item: dict[str, Any] = space.plane.request("GET", path)
    return item


def message(space: Space, kind: str) -> str:
    conditions = space.get().get("status", {}).get("conditions", [])
    return next((str(c["message"]) for c in conditions if c["type"] == kind), "")


@pytest.mark.parametrize("labels", [{}, LABEL], ids=["unlabelled", "labelled as if it were"])
@pytest.mark.parametrize("plural", FOREIGN)
async def test_what_somebody_else_made_is_not_touched_and_named(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any], plural: str, labels: dict[str, str]
) -> None:
    before = make_foreign(tenant, plural, labels)
    await enqueue(sql, 15)
    tenant.resource(scaling=FAST, networkPolicy="Enabled")
    async with start():
        await eventually(lambda: tenant.condition("ObjectsApplied") == NAME_TAKEN, deadline=20)
        assert f"{before['kind']} orders-worker" in message(tenant, "ObjectsApplied")
        await eventually(lambda: tenant.condition("Ready") == NAME_TAKEN, deadline=20)
        if plural in ("serviceaccounts", "deployments"):
            assert NAME_TAKEN == tenant.condition("WorkersAvailable")
        else:
            await eventually(lambda: tenant.replicas() == 2, deadline=20)
        if plural == "serviceaccounts":
            assert tenant.deployment() is None, "its pods would have another's rights"
        assert before == found(tenant, plural)
        tenant.delete(plural, "orders-worker", FOREIGN[plural][0])
        await eventually(lambda: tenant.replicas() == 2, deadline=20)
        applied = ("True", "Applied")
        await eventually(lambda: tenant.condition("ObjectsApplied") == applied, deadline=20)
        owners = found(tenant, plural)["metadata"]["ownerReferences"]
        assert [tenant.get()["metadata"]["uid"]] == [owner["uid"] for owner in owners]


async def test_an_account_put_in_the_place_of_the_fleets_own_keeps_it_from_growing(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    tenant.resource(scaling=FAST)
    async with start():
        await eventually(lambda: tenant.replicas() == 0, deadline=20)
    tenant.delete("serviceaccounts", "orders-worker")
    make_foreign(tenant, "serviceaccounts", {})
    await enqueue(sql, 15)
    async with start():
        await eventually(lambda: tenant.condition("ObjectsApplied") == NAME_TAKEN, deadline=20)
        await eventually(lambda: (tenant.get()["status"].get("dueRuns") or 0) >= 15, deadline=20)
        assert 0 == tenant.replicas()


async def test_the_objects_of_a_deleted_resource_of_the_same_name_are_waited_for(
    tenant: Space, start: Start
) -> None:
    tenant.resource(scaling=FAST)
    async with start():
        await eventually(lambda: tenant.replicas() == 0, deadline=20)
        tenant.delete("workflownamespaces", "orders", GROUP)
        tenant.resource(scaling=FAST)  # before the garbage collector came
        await eventually(lambda: tenant.condition("ObjectsApplied") == NAME_TAKEN, deadline=20)
        assert "of this name that was deleted" in message(tenant, "ObjectsApplied")
        for plural in ("serviceaccounts", "services", "deployments", "poddisruptionbudgets"):
            tenant.delete(plural, "orders-worker", FOREIGN[plural][0])
        fine = ("True", "Ready")
        await eventually(lambda: tenant.condition("Ready") == fine, deadline=20)


@pytest.mark.parametrize("plural", sorted(FOREIGN.keys() - {"networkpolicies"}))
async def test_what_finalizers_hold_is_told_and_made_anew_once_they_are_gone(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any], plural: str
) -> None:
    """Each field was as desired, so all was said to be applied, and nobody acted on it."""
    await enqueue(sql, 15)
    tenant.resource(scaling=FAST)
    path = tenant.path(plural, "orders-worker", FOREIGN[plural][0])
    async with start():
        await eventually(lambda: tenant.replicas() == 2, deadline=20)
        hold(tenant, path, "example.com/hold")
        uid = found(tenant, plural)["metadata"]["uid"]
        tenant.plane.request("DELETE", path)
        held = ("False", "BeingDeleted")
        await eventually(lambda: tenant.condition("ObjectsApplied") == held, deadline=20)
        assert "(example.com/hold)" in message(tenant, "ObjectsApplied")
        hold(tenant, path)
        applied = ("True", "Applied")
        await eventually(lambda: tenant.condition("ObjectsApplied") == applied, deadline=20)
        assert uid != found(tenant, plural)["metadata"]["uid"]


async def test_a_resource_that_finalizers_hold_is_left_alone_and_that_is_told(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    """Its status went on to say what was, and no Event said that nobody looked any more."""
    await enqueue(sql, 15)
    tenant.resource(scaling=FAST)
    path = tenant.path("workflownamespaces", "orders", GROUP)
    async with start():
        await eventually(lambda: tenant.replicas() == 2, deadline=20)
        hold(tenant, path, "example.com/hold")
        tenant.plane.request("DELETE", path)
        await eventually(lambda: "(example.com/hold)" in _told(tenant), deadline=20)
        tenant.delete("deployments", "orders-worker", APPS)
        tenant.resource("other", namespaceId="other", scaling=FAST)
        await eventually(lambda: tenant.deployment("other-worker"), deadline=20)
        assert tenant.deployment() is None, "whoever deletes it need not fight"
        hold(tenant, path)


def hold(space: Space, path: str, *finalizers: str) -> None:
    space.plane.request("PATCH", path, {"metadata": {"finalizers": finalizers}}, MERGE)


async def test_a_foreign_deployment_named_like_a_build_is_no_build(
    tenant: Space, start: Start
) -> None:
    body = FOREIGN["deployments"][1]
    labels = LABEL | {"openworkflow.dev/build": "0000000000"}
    metadata = {"name": "orders-worker-0000000000", "labels": labels}
    path = tenant.path("deployments", group=APPS)
    before = tenant.plane.request("POST", path, {"metadata": metadata, **body})
    tenant.resource(scaling=FAST, rollout={"strategy": "Pinned"})
    async with start():
        await eventually(lambda: bool(tenant.get().get("status", {}).get("builds")), deadline=20)
        await eventually(lambda: "services" in tenant.children(), deadline=20)
        assert "0000000000" not in [build["id"] for build in tenant.get()["status"]["builds"]]
    assert before == tenant.plane.request("GET", f"{path}/{metadata['name']}")


@pytest.mark.parametrize("verb", ["delete", "annotate"])
@pytest.mark.parametrize("status", [403, 500])
async def test_a_refused_request_ends_neither_scaling_nor_status(
    tenant: Space,
    start: Start,
    sql: asyncpg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    status: int,
) -> None:
    async def refused(*_: object) -> None:
        raise ClusterError(status, "Refused", "not today")

    await enqueue(sql, 35)
    tenant.resource(scaling=FAST, networkPolicy="Enabled")
    async with start():
        await eventually(lambda: tenant.replicas() == 4, deadline=20)
        for name in ("a", "b"):
            tenant.pod(name)
        monkeypatch.setattr(Cluster, verb, refused)
        tenant.patch({"networkPolicy": "Disabled"})
        await sql.execute("UPDATE workflow_runs SET status = 'running', worker_id = 'a/1'")
        few = "(SELECT id FROM workflow_runs LIMIT 5)"
        await sql.execute(f"DELETE FROM workflow_runs WHERE id NOT IN {few}")
        await eventually(lambda: tenant.replicas() == 1, deadline=20)
        await eventually(lambda: tenant.get()["status"]["desiredReplicas"] == 1, deadline=20)
        if verb == "delete":
            condition = tenant.condition("ObjectsApplied")
            assert ("False", "AdmissionDenied" if status == 403 else "NotApplied") == condition
            assert "NetworkPolicy orders-worker" in message(tenant, "ObjectsApplied")


async def test_a_field_that_is_no_longer_wanted_is_taken_from_an_object_that_was_created(
    tenant: Space, start: Start
) -> None:
    """What is created is created by apply: else its fields would have a second owner forever."""
    worker = {**tenant_worker(), "podLabels": {"team": "shop"}}
    tenant.resource(scaling=FAST, worker=worker)
    async with start():
        await eventually(lambda: tenant.replicas() == 0, deadline=20)
        assert "team" in pod_labels(tenant)
        path = tenant.path("workflownamespaces", "orders", GROUP)
        tenant.plane.request("PATCH", path, {"spec": {"worker": {"podLabels": None}}}, MERGE)
        await eventually(lambda: "team" not in pod_labels(tenant), deadline=20)


def tenant_worker() -> dict[str, Any]:
    return {"image": "registry.example.com/shop/workers:1.4.0", "workflows": ["shop.workflows"]}


def pod_labels(space: Space) -> dict[str, str]:
    deployment = space.deployment()
    assert deployment is not None
    labels: dict[str, str] = deployment["spec"]["template"]["metadata"]["labels"]
    return labels


async def test_a_resource_that_is_deleted_in_the_foreground_is_not_said_to_be_held(
    tenant: Space, start: Start
) -> None:
    """The garbage collector's own finalizer was told as somebody's who has to see to it."""
    tenant.resource(scaling=FAST)
    path = tenant.path("workflownamespaces", "orders", GROUP)
    async with start() as operator:
        await eventually(lambda: tenant.replicas() == 0, deadline=20)
        options = {"propagationPolicy": "Foreground"}
        tenant.plane.request("DELETE", path, options)
        await eventually(lambda: "deletionTimestamp" in tenant.get()["metadata"])
        visits = operator.metrics.reconciles.labels("done")._value
        before = visits.get()
        operator.queue.add(Key(tenant.name, "orders"))
        await eventually(lambda: visits.get() > before)
        assert "BeingDeleted" not in dict(tenant.events())


def _told(space: Space) -> str:
    return dict(space.events()).get("BeingDeleted", "")
