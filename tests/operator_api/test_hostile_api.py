"""Odd resources, broken objects and failing parts of the API: each costs itself, and is told."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import asyncpg
import kopf
import pytest
from aiohttp import web

from openworkflow_operator.api.spec import Key
from openworkflow_operator.database.connection import Database
from openworkflow_operator.handlers import watched_by_kopf
from openworkflow_operator.process import Operator
from tests.api_proxy import ApiProxy
from tests.control_plane import OPERATOR_NAMESPACE, ControlPlane
from tests.helpers import eventually
from tests.kubernetes_space import FAST, GROUP, MERGE, Space, enqueue

Start = Callable[..., AbstractAsyncContextManager[Operator]]
WORKER: dict[str, Any] = {"image": "registry.example.com/w:1", "workflows": ["shop.workflows"]}


# -- odd resources ------------------------------------------------------------------------------

ODD: dict[str, dict[str, Any]] = {
    "emoji": {
        "env": [{"name": "A", "value": "\U0001f600 \\ud83d\\ude00 \u2028"}],
        "podAnnotations": {"example.com/note": "d\u00e9j\u00e0 \U0001f600\n\t"},
    },
    "exponents": {"resources": {"requests": {"cpu": "1e-1", "memory": "1e9"}}},
    "parts": {"resources": {"requests": {"cpu": "0.1n", "memory": "0.5"}}},
    "huge": {"resources": {"requests": {"cpu": "100E", "memory": "100Ei"}}},
    "sizes": {"volumes": [{"name": "a", "emptyDir": {"sizeLimit": "1024Mi"}}]},
    "mounts": {"volumeMounts": [{"name": "tmp", "mountPath": "/var/tmp"}]},
    "tolerations": {"tolerations": [{"operator": "Exists"}, {"key": "a", "value": "b"}]},
    "affinity": {"affinity": {"nodeAffinity": {}, "podAffinity": None}},
}


async def test_an_odd_section_is_applied_once_and_not_at_every_visit(
    tenant: Space, start_behind: Start, proxy: ApiProxy
) -> None:
    """A form that the API server writes otherwise was taken for somebody's change, forever."""
    for name, more in ODD.items():
        tenant.resource(name, worker=WORKER | more, scaling={"pollPeriodSeconds": 60})
    path = tenant.path("deployments", group="/apis/apps/v1")

    def applied() -> set[str]:
        items = tenant.plane.request("GET", path)["items"]
        return {item["metadata"]["name"].removesuffix("-worker") for item in items}

    async with start_behind() as operator:
        await eventually(lambda: applied() == set(ODD), deadline=30)
        done = operator.metrics.reconciles.labels("done")._value
        await eventually(lambda: len(operator.queue) == 0)
        container = tenant.deployment("emoji-worker")
        assert container is not None
        env = container["spec"]["template"]["spec"]["containers"][0]["env"]
        assert ODD["emoji"]["env"][0] in env
        for name in ODD:
            await eventually(partial(_is_settled, tenant, name), deadline=60)
        proxy.seen.clear()
        visits = done.get()
        for name in ODD:
            operator.queue.add(Key(tenant.name, name))
        await eventually(lambda: done.get() >= visits + len(ODD))
        writes = [seen for seen in proxy.seen if seen[0] == "PATCH" and "/deployments/" in seen[1]]
        assert [] == writes


def _is_settled(space: Space, name: str) -> bool:
    applied, seen = ("True", "Applied"), ("True", "Reachable")
    found = [space.condition(kind, name) for kind in ("ObjectsApplied", "DatabaseReachable")]
    return found == [applied, seen]


@pytest.mark.parametrize("more", [{"nodeAfinity": {}}, {}], ids=["a typo", "a mount twice"])
async def test_what_the_api_server_takes_for_its_own_fault_is_told_in_its_words(
    tenant: Space, start: Start, more: dict[str, Any]
) -> None:
    """It answers 500 to a field that there is none of, or twice of: nobody learned why."""
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]
    worker = WORKER | ({"affinity": more} if more else {"volumeMounts": mounts})
    tenant.resource(worker=worker, scaling=FAST)
    async with start():
        refused = ("False", "AdmissionDenied")
        await eventually(lambda: tenant.condition("ObjectsApplied") == refused, deadline=20)
        assert ("nodeAfinity" if more else "mountPath") in str(tenant.get()["status"])


# Of the first kopf tells nothing, so that it waits for a full list; the second ends kopf's watch.
@pytest.mark.parametrize(("depth", "resync"), [(900, 1), (4000, 3600)])
async def test_a_section_that_is_nested_too_deeply_costs_itself_only(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any], depth: int, resync: int
) -> None:
    """Nothing more was told of anybody until the next full list; a visit of it was a bug."""
    token = tenant.plane.token(OPERATOR_NAMESPACE, "openworkflow-operator")

    def login(**_: object) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(server=tenant.plane.url, token=token, insecure=True)

    await enqueue(sql, 15)
    tenant.resource(scaling=FAST)
    async with start(watched_by_kopf(login), resync_seconds=resync) as operator:
        await eventually(lambda: tenant.replicas() == 2, deadline=40)
        deep = json.dumps(tenant.get() | {"metadata": {"name": "deep"}, "status": None})
        place = '"workflows"'
        nested = '"affinity":' + '{"a":' * depth + "{}" + "}" * depth
        assert place in deep
        body = deep.replace(place, f"{nested},{place}", 1).encode()
        tenant.plane.send(
            "POST", tenant.path("workflownamespaces", group=GROUP), body, "application/json"
        )
        key = Key(tenant.name, "deep")
        await eventually(lambda: key in operator.store.resources(), deadline=60)
        tenant.patch({"replicas": 5})
        await eventually(lambda: tenant.replicas() == 5, deadline=60)
        path = tenant.path("workflownamespaces", "deep", GROUP)
        told = lambda: b"field not declared" in tenant.plane.send("GET", path, None)  # noqa: E731
        await eventually(told, deadline=60)
        assert 0 == operator.metrics.reconciles.labels("bug")._value.get()
    tenant.plane.send("DELETE", path, None)  # no list of a later test should have it


async def test_a_resource_made_anew_at_once_inherits_nothing(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    """The digest in its pods was salted with the uid of the one before: a restart rolled them."""
    await enqueue(sql, 15)
    tenant.resource(scaling=FAST)
    async with start() as operator:
        await eventually(lambda: tenant.replicas() == 2, deadline=20)
        before = _digest(tenant)
        # Between two visits: the operator sees another resource of the same name.
        tenant.delete("workflownamespaces", "orders", GROUP)
        uid = tenant.resource(scaling=FAST)["metadata"]["uid"]
        for plural in ("services", "serviceaccounts"):
            tenant.delete(plural, "orders-worker")
        tenant.delete("poddisruptionbudgets", "orders-worker", "/apis/policy/v1")
        tenant.delete("deployments", "orders-worker", "/apis/apps/v1")
        await eventually(lambda: tenant.replicas() == 2, deadline=20)
        assert operator.store.owned(Key(tenant.name, "orders"), uid)
        made = _digest(tenant)
        assert made != before
    async with start():
        await eventually(lambda: tenant.condition("DatabaseReachable") == ("True", "Reachable"))
        tenant.patch({"worker": {"podLabels": {"a": "b"}}})
        await eventually(lambda: tenant.generation() == 3, deadline=20)
        assert made == _digest(tenant)


def _digest(space: Space) -> str:
    found = space.deployment()
    assert found is not None
    return str(found["spec"]["template"]["metadata"]["annotations"]["openworkflow.dev/database"])


async def test_a_fleet_that_lost_its_label_while_nobody_looked_keeps_its_pods(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new operator did not know of it, took its pods for none, and set them to none.

    So it did later, too, where it was visited again before the first look at the database.
    """
    await enqueue(sql, 35)
    tenant.resource(scaling=FAST)
    async with start():
        await eventually(lambda: tenant.replicas() == 4, deadline=20)
    generation = tenant.generation()
    await sql.execute("ALTER TABLE workflow_runs RENAME TO away")
    path = tenant.path("deployments", "orders-worker", "/apis/apps/v1")
    label = "openworkflow.dev/workflow-namespace"
    tenant.plane.request("PATCH", path, {"metadata": {"labels": {label: None}}}, MERGE)
    may_look, look = asyncio.Event(), Database.look

    async def look_later(database: Database, *arguments: Any) -> Any:
        await may_look.wait()
        return await look(database, *arguments)

    monkeypatch.setattr(Database, "look", look_later)
    async with start() as operator:
        await eventually(lambda: label in (tenant.deployment() or {})["metadata"]["labels"])
        visits = operator.metrics.reconciles.labels("done")._value
        for _ in range(3):
            before = visits.get()
            operator.queue.add(Key(tenant.name, "orders"))
            await eventually(lambda before=before: visits.get() > before)  # type: ignore[misc]
        assert (generation, 4) == (tenant.generation(), tenant.replicas())
        may_look.set()
        missing = ("False", "SchemaMissing")
        await eventually(lambda: tenant.condition("DatabaseReachable") == missing, deadline=20)
        await eventually(lambda: tenant.get()["status"]["desiredReplicas"] == 4)
        assert (generation, 4) == (tenant.generation(), tenant.replicas())


# -- a part of the API that fails ---------------------------------------------------------------


async def test_a_secret_that_the_api_server_does_not_give_costs_its_resource_only(
    plane: ControlPlane,
    tenant: Space,
    start_behind: Start,
    proxy: ApiProxy,
    sql: asyncpg.Connection[Any],
) -> None:
    """Younger resources of the same namespace id waited for it, in any namespace, forever."""
    elder = Space(plane, f"{tenant.name}-elder")
    plane.create_namespace(elder.name)
    elder.secret("postgresql://user:password@db.example.com/orders")
    elder.resource(scaling=FAST)
    await asyncio.sleep(1.1)  # creation times have whole seconds
    await enqueue(sql, 15)
    tenant.resource(scaling=FAST)

    async def broken(request: web.Request) -> web.StreamResponse | None:
        if f"/namespaces/{elder.name}/secrets/" not in request.path:
            return None
        status = {"kind": "Status", "reason": "InternalError", "message": "cannot decrypt"}
        return web.json_response(status, status=500)

    proxy.fault = broken
    async with start_behind(namespaces=(tenant.name, elder.name)):
        await eventually(lambda: tenant.replicas() == 2, deadline=30)
        unreadable = ("False", "SecretUnreadable")
        await eventually(lambda: elder.condition("Ready") == unreadable, deadline=30)
        proxy.fault = None
        await eventually(lambda: elder.condition("Ready") != unreadable, deadline=30)


async def test_a_metrics_server_that_does_not_answer_holds_up_no_visit(
    tenant: Space, start_behind: Start, proxy: ApiProxy
) -> None:
    names = [f"fleet-{number}" for number in range(10)]

    async def hanging(request: web.Request) -> web.StreamResponse | None:
        if "/apis/metrics.k8s.io/" in request.path:
            await asyncio.sleep(3600)
        return None

    proxy.fault = hanging
    for name in names:
        tenant.resource(name, scaling={"pollPeriodSeconds": 60}, replicas=1)
    fleets = {name: f"{name}-worker" for name in names}
    async with start_behind(workers=1):
        for name in names:
            await eventually(partial(_has_replicas, tenant, fleets[name], 1), deadline=60)
            tenant.pod(f"{name}-pod", fleets[name])
        for name in names:
            tenant.patch({"replicas": 2}, name)
        # With 15 s for each of them it would be two minutes and a half.
        for name in names:
            await eventually(partial(_has_replicas, tenant, fleets[name], 2), deadline=60)


def _has_replicas(space: Space, name: str, wanted: int) -> bool:
    found = space.deployment(name)
    return found is not None and bool(found["spec"]["replicas"] == wanted)


@pytest.fixture
def without_lists(plane: ControlPlane) -> Iterator[Callable[[set[str]], None]]:
    """Takes the verb `list` on these resources from the operator's Role, for the test."""
    path = "/apis/rbac.authorization.k8s.io/v1/clusterroles/openworkflow-operator"
    role = plane.request("GET", path)
    role["metadata"].pop("resourceVersion")

    def change(resources: set[str]) -> None:
        changed = copy.deepcopy(role)
        for rule in role["rules"]:
            if taken := resources & set(rule["resources"]):
                changed["rules"].remove(rule)
                verbs = [verb for verb in rule["verbs"] if verb != "list"]
                rest = sorted(set(rule["resources"]) - taken)
                changed["rules"].append({**rule, "resources": sorted(taken), "verbs": verbs})
                changed["rules"] += [{**rule, "resources": rest}] if rest else []
        plane.request("PUT", path, changed)

    yield change
    plane.request("PUT", path, role)


async def test_a_kind_that_may_not_be_listed_costs_the_objects_of_this_kind_only(
    tenant: Space,
    start: Start,
    without_lists: Callable[[set[str]], None],
    sql: asyncpg.Connection[Any],
) -> None:
    """The operator did not lead at all, and no fleet was scaled."""
    without_lists({"services", "poddisruptionbudgets", "networkpolicies", "servicemonitors"})
    await enqueue(sql, 15)
    tenant.resource(scaling=FAST)
    denied = ("False", "AdmissionDenied")
    service = _service(tenant)
    tenant.plane.request("POST", tenant.path("services"), service)
    async with start() as operator:
        await eventually(lambda: tenant.replicas() == 2, deadline=40)
        await eventually(lambda: tenant.condition("ObjectsApplied") == denied, deadline=20)
        told = str(tenant.get()["status"]["conditions"])
        assert "Service orders-worker" in told
        assert "cannot list resource" in told
        assert "no list of networkpolicies" in str(operator.not_ready())


def _service(space: Space) -> dict[str, Any]:
    """One of somebody else, of the name that the fleet needs."""
    spec = {"ports": [{"port": 80}], "selector": {"app": "other"}}
    return {"metadata": {"name": "orders-worker", "namespace": space.name}, "spec": spec}
