"""What a resource claims counts only with credentials that open the database."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg
import pytest

from openworkflow import BackendPostgres
from openworkflow_operator.cluster import credentials
from openworkflow_operator.process import Operator
from openworkflow_operator.visits import reconcile
from tests.control_plane import OPERATOR_NAMESPACE, ApiRefusal, ControlPlane
from tests.guarded_postgres import guarded_server
from tests.helpers import eventually
from tests.kubernetes_space import FAST, Space
from tests.local_postgres import LocalPostgres
from tests.operator_api.test_status_api import deployed
from tests.postgres import run_sync

Start = Callable[..., AbstractAsyncContextManager[Operator]]
CONFLICT, READY = ("False", "Conflict"), ("True", "Ready")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed Secret is noticed in a fraction of a second."""
    monkeypatch.setattr(credentials, "FRESH_SECONDS_IN_TROUBLE", 0.2)
    monkeypatch.setattr(credentials, "FRESH_SECONDS", 0.5)
    monkeypatch.setattr(reconcile, "UNTOLD_RETRY_SECONDS", 0.3)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A database that asks for a password; the URL has a place for it."""

    async def prepare(server: LocalPostgres) -> None:
        await (await BackendPostgres.connect(server.url())).stop()
        connection = await asyncpg.connect(server.url())
        await connection.execute(
            "CREATE ROLE careful LOGIN PASSWORD 'right';"
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO careful;"
            "INSERT INTO workflow_runs (workflow_name, namespace_id, status, available_at)"
            " SELECT 'w', 'orders', 'pending', now() FROM generate_series(1, 15)"
        )
        await connection.close()

    with guarded_server() as server:
        run_sync(lambda: prepare(server))
        yield f"postgresql://careful:{{}}@127.0.0.1:{server.port}/postgres"


async def with_an_elder(plane: ControlPlane, space: Space, url: str) -> Space:
    """An older resource for the same database, without valid credentials; and that of `space`."""
    elder = Space(plane, f"{space.name}-elder")
    plane.create_namespace(elder.name)
    elder.secret(url.format("wrong"))
    elder.resource("shadow", namespaceId="orders", scaling=FAST)
    space.secret(url.format("right"))
    await asyncio.sleep(1.1)  # creation times have whole seconds
    space.resource(scaling=FAST)
    return elder


async def test_an_older_resource_without_valid_credentials_puts_nobody_out_of_action(
    plane: ControlPlane, space: Space, start: Start, url: str
) -> None:
    intruder = await with_an_elder(plane, space, url)
    async with start(namespaces=(space.name, intruder.name)):
        await eventually(lambda: space.condition("Ready") is not None, deadline=20)
        refused = ("False", "AuthenticationFailed")
        await eventually(
            lambda: intruder.condition("DatabaseReachable", "shadow") == refused, deadline=20
        )
        await eventually(lambda: space.replicas() == 2, deadline=20)
        assert CONFLICT != space.condition("Ready")

        intruder.secret(url.format("right"))  # now it is the older one by right
        await eventually(lambda: space.condition("Ready") == CONFLICT, deadline=20)
        assert intruder.name not in str(space.get()) + str(space.events())
        assert "shadow" not in str(space.get()) + str(space.events())


async def test_who_may_have_to_yield_vouches_for_no_template_that_it_did_not_apply(
    plane: ControlPlane, space: Space, start: Start, url: str
) -> None:
    """The pods of the image before made Verified true of the new one, for good."""
    elder = await with_an_elder(plane, space, url)
    async with start(namespaces=(space.name, elder.name)):
        await eventually(lambda: space.replicas() == 2, deadline=30)
        deployed(space, 2, 2, 2)
        good = ("True", "WorkersStarted")
        await eventually(lambda: space.condition("Verified") == good, deadline=30)
    # Another operator begins, and nobody's credentials open the database any more.
    space.secret(url.format("no longer right"))
    before = space.generation()
    space.patch({"worker": {"image": "registry.example.com/shop/workers:none"}})
    async with start(namespaces=(space.name, elder.name)):
        await eventually(lambda: is_seen(space.get()), deadline=30)
        refused = ("False", "AuthenticationFailed")
        await eventually(lambda: space.condition("DatabaseReachable") == refused, deadline=30)
        assert before == space.generation(), "nothing is changed while another one may act"
        assert ("Unknown", "NotStarted") == space.condition("Verified")


def is_seen(resource: dict[str, Any]) -> bool:
    """Whether the status is about the spec as it is."""
    return bool(resource["status"]["observedGeneration"] == resource["metadata"]["generation"])


async def test_of_two_with_valid_credentials_the_younger_changes_nothing_before_it_yields(
    plane: ControlPlane, space: Space, start: Start, url: str
) -> None:
    space.secret(url.format("right"))
    space.resource("elder", namespaceId="orders", scaling=FAST)
    await asyncio.sleep(1.1)
    space.resource("younger", namespaceId="orders", scaling=FAST)
    async with start():
        await eventually(lambda: space.condition("Ready", "younger") == CONFLICT, deadline=20)
        await eventually(
            lambda: (space.deployment("elder-worker") or {"spec": {}})["spec"].get("replicas") == 2,
            deadline=20,
        )
        assert space.deployment("younger-worker") is None
        found: list[dict[str, Any]] = space.get("younger")["status"]["conditions"]
        assert "elder" in next(c["message"] for c in found if c["type"] == "Ready")


async def test_of_two_installations_for_one_namespace_the_younger_stands_back_and_says_so(
    plane: ControlPlane, space: Space, start: Start, url: str
) -> None:
    elsewhere = f"{space.name}-system"
    plane.create_namespace(elsewhere)
    lease = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
    for namespace in (OPERATOR_NAMESPACE, elsewhere):  # the Role is one of the first's namespace
        body = {"metadata": {"name": "openworkflow-operator"}, "spec": {}}
        with contextlib.suppress(ApiRefusal):
            plane.request("POST", lease.format(namespace), body)
        await asyncio.sleep(1.1)
    rights = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"]}
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{elsewhere}"
    role = {"metadata": {"name": "leases"}, "rules": [rights]}
    plane.request("POST", f"{rbac}/roles", role)
    subject = {"kind": "ServiceAccount", "name": "openworkflow-operator"}
    binding = {
        "metadata": {"name": "leases"},
        "subjects": [subject | {"namespace": OPERATOR_NAMESPACE}],
    }
    binding["roleRef"] = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "leases"}
    plane.request("POST", f"{rbac}/rolebindings", binding)
    space.secret(url.format("right"))
    space.resource(scaling=FAST)
    async with start() as older:
        await eventually(lambda: space.replicas() == 2, deadline=20)
        await eventually(lambda: "operator" in space.get()["status"], deadline=20)
        async with start(namespace=elsewhere, resync_seconds=1) as younger:
            await eventually(lambda: younger.is_leader, deadline=20)
            assert older.is_leader
            await eventually(lambda: "AnotherInstallation" in dict(space.events()), deadline=20)
            told = dict(space.events())["AnotherInstallation"]
            assert f"in namespace {OPERATOR_NAMESPACE}," in told
            generation = space.generation()
            space.patch({"replicas": 5})
            await eventually(lambda: space.replicas() == 5, deadline=20)
            await eventually(lambda: (space.generation() or 0) > (generation or 0))
            visits = younger.metrics.observation_seconds.collect()
            assert 0 == next(
                s.value for m in visits for s in m.samples if s.name.endswith("_count")
            )


async def test_a_url_that_was_rotated_to_a_wrong_one_puts_nobody_out_of_action(
    space: Space, start: Start, url: str
) -> None:
    """The look that was made with the old password counted as proof of the new one."""
    space.secret(url.format("right"), "elder-database")
    space.secret(url.format("right"))
    database = {"secretRef": {"name": "elder-database"}}
    space.resource("elder", namespaceId="orders", database=database, scaling=FAST)
    await asyncio.sleep(1.1)  # creation times have whole seconds
    async with start():
        reachable, refused = ("True", "Reachable"), ("False", "AuthenticationFailed")
        kind = "DatabaseReachable"
        await eventually(lambda: space.condition(kind, "elder") == reachable, deadline=20)
        space.resource(scaling=FAST)
        await eventually(lambda: space.condition("Ready") == CONFLICT, deadline=20)
        space.secret(url.format("wrong"), "elder-database")
        await eventually(lambda: space.condition(kind, "elder") == refused, deadline=20)
        await eventually(lambda: space.replicas() == 2, deadline=20)
