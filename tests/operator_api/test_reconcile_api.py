"""The operator against a real API server and a real database, under its shipped permissions."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import asyncpg
import kopf
import pytest
from prometheus_client import generate_latest

from openworkflow_operator.cluster import credentials
from openworkflow_operator.database.retention import Rest
from openworkflow_operator.handlers import watched_by_kopf
from openworkflow_operator.process import Operator
from tests.control_plane import OPERATOR_NAMESPACE
from tests.helpers import eventually
from tests.kubernetes_space import FAST, GROUP, MERGE, Space, enqueue

Start = Callable[..., AbstractAsyncContextManager[Operator]]


async def test_declaring_a_namespace_is_all_it_takes(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    await enqueue(sql, 35)
    tenant.resource(scaling=FAST, networkPolicy="Enabled")
    async with start() as operator:
        await eventually(lambda: tenant.replicas() == 4, deadline=20)

        expected = {
            "serviceaccounts",
            "services",
            "deployments",
            "poddisruptionbudgets",
            "networkpolicies",
        }
        assert expected == tenant.children()
        await eventually(lambda: tenant.condition("DatabaseReachable") == ("True", "Reachable"))
        assert ("False", "WorkersStarting") == tenant.condition("WorkersAvailable")
        tenant.pod("orders-worker-1")
        await eventually(lambda: tenant.condition("Ready") == ("True", "Ready"))

        status = tenant.get()["status"]
        assert (35, 0, 4) == (status["dueRuns"], status["runningRuns"], status["desiredReplicas"])
        assert "ScaledUp" in [reason for reason, _ in tenant.events()]
        assert "finalizers" not in tenant.get()["metadata"]
        assert operator.is_leader


async def test_the_scaler_alone_owns_the_number_of_pods(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    """A change of the template must never set the fleet back to one pod."""
    await enqueue(sql, 35)
    tenant.resource(scaling=FAST)
    async with start():
        await eventually(lambda: tenant.replicas() == 4, deadline=20)
        tenant.patch({"worker": {"image": "registry.example.com/new:2"}})
        await eventually(lambda: "new:2" in str(tenant.deployment()))
        tenant.patch({"worker": {"image": "registry.example.com/new:3"}})
        await eventually(lambda: "new:3" in str(tenant.deployment()))

        deployment = tenant.deployment()
        assert deployment is not None
        owners = [
            field["manager"]
            for field in deployment["metadata"]["managedFields"]
            if "f:replicas" in field["fieldsV1"].get("f:spec", {})
        ]
        assert ["openworkflow-operator-scaler"] == owners
        assert 4 == tenant.replicas()


async def test_what_a_human_scaled_or_edited_or_deleted_is_put_right(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    await enqueue(sql, 35)
    tenant.resource(scaling=FAST)
    async with start():
        await eventually(lambda: "ScaledUp" in dict(tenant.events()), deadline=20)
        tenant.scale(9)
        await eventually(lambda: tenant.replicas() == 4)
        await eventually(lambda: "ReplicasReverted" in dict(tenant.events()))

        path = tenant.path("deployments", "orders-worker", "/apis/apps/v1")
        tenant.plane.request(
            "PATCH",
            path,
            [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "evil"}],
            "application/json-patch+json",
        )
        await eventually(lambda: "evil" not in str(tenant.deployment()))
        tenant.delete("services", "orders-worker")
        await eventually(lambda: "services" in tenant.children())
        tenant.delete("deployments", "orders-worker", "/apis/apps/v1")
        await eventually(lambda: tenant.replicas() == 4, deadline=20)


async def test_a_fleet_goes_to_zero_and_comes_back(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    await enqueue(sql, 5)
    tenant.resource(scaling=FAST)
    async with start():
        await eventually(lambda: tenant.replicas() == 1, deadline=20)
        await sql.execute("UPDATE workflow_runs SET status = 'succeeded'")
        await eventually(lambda: tenant.replicas() == 0, deadline=20)
        await eventually(lambda: tenant.condition("WorkersAvailable") == ("True", "ScaledToZero"))
        await enqueue(sql, 1)
        await eventually(lambda: tenant.replicas() == 1)


async def test_a_busy_pod_outlives_an_idle_one(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    await enqueue(sql, 25)
    tenant.resource(scaling=FAST)
    async with start():
        await eventually(lambda: tenant.replicas() == 3, deadline=20)
        for name in ("orders-worker-a", "orders-worker-b", "orders-worker-c"):
            tenant.pod(name)
        await sql.execute("UPDATE workflow_runs SET status = 'succeeded'")
        await sql.execute("""
            INSERT INTO workflow_runs
              (workflow_name, namespace_id, status, available_at, worker_id, claim_no, started_at)
            SELECT 'w', 'orders', 'running', 'infinity', 'orders-worker-b/1', 1, now()
            FROM generate_series(1, 5)""")
        await eventually(lambda: tenant.replicas() == 1, deadline=20)

        path = tenant.path("pods", "orders-worker-b")
        annotations = tenant.plane.request("GET", path)["metadata"]["annotations"]
        assert "5" == annotations["controller.kubernetes.io/pod-deletion-cost"]


async def test_a_secret_that_appears_and_rotates(
    space: Space, start: Start, database_url: str, sql: asyncpg.Connection[Any]
) -> None:
    await enqueue(sql, 1)
    space.resource(scaling=FAST)
    async with start():
        gone = ("False", "SecretNotFound")
        await eventually(lambda: space.condition("DatabaseReachable") == gone, deadline=20)
        assert space.deployment() is None
        await eventually(lambda: "SecretNotFound" in dict(space.events()))
        assert ("False", "SecretNotFound") == space.condition("Ready")

        space.secret(database_url, key="WRONG")
        missing = ("False", "SecretKeyMissing")
        await eventually(lambda: space.condition("DatabaseReachable") == missing, deadline=20)
        space.secret("mysql://user:hunter2@host/db")
        invalid = ("False", "InvalidURL")
        await eventually(lambda: space.condition("DatabaseReachable") == invalid, deadline=20)
        space.secret(database_url)
        await eventually(lambda: space.replicas() == 1, deadline=20)
        assert "hunter2" not in str(space.get()) + str(space.events())


async def test_a_rotated_url_rolls_the_fleet_and_other_changes_of_the_secret_do_not(
    tenant: Space, start: Start, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "FRESH_SECONDS", 0.5)
    tenant.resource(scaling=FAST)
    async with start():
        await eventually(lambda: tenant.replicas() == 0, deadline=20)
        path = tenant.path("secrets", "orders-database")
        labels = {"metadata": {"labels": {"touched": "yes"}}, "data": {"OTHER": "eA=="}}
        tenant.plane.request("PATCH", path, labels, MERGE)
        await asyncio.sleep(3)
        assert 1 == tenant.generation()
        tenant.secret(f"{database_url}?application_name=rotated")
        await eventually(lambda: tenant.generation() == 2, deadline=20)


async def test_kopf_watches_the_resources_and_writes_nothing_into_them(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a container, whose user is a number without a name.
    monkeypatch.delattr("getpass.getuser")
    token = tenant.plane.token(OPERATOR_NAMESPACE, "openworkflow-operator")

    def login(**_: object) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(server=tenant.plane.url, token=token, insecure=True)

    async with start(watched_by_kopf(login)) as operator:
        await eventually(lambda: operator.is_leader, deadline=20)
        await enqueue(sql, 15)
        tenant.resource(scaling=FAST)
        await eventually(lambda: tenant.replicas() == 2, deadline=20)
        metadata = tenant.get()["metadata"]
        assert not {"finalizers", "annotations"} & metadata.keys()
        tenant.delete("workflownamespaces", "orders", GROUP)
        await eventually(lambda: operator.store.resources() == [])


async def test_the_command_runs_until_sigterm_and_gives_the_lease_back(
    tenant: Space, sql: asyncpg.Connection[Any], tmp_path: Path
) -> None:
    await enqueue(sql, 15)
    tenant.resource(scaling=FAST)
    token = tenant.plane.token(OPERATOR_NAMESPACE, "openworkflow-operator")
    settings = {"NAMESPACES": tenant.name, "NAMESPACE": OPERATOR_NAMESPACE, "PORT": "0"}
    settings |= {"ALLOW_LOOPBACK": "true", "LEASE_SECONDS": "3", "IDENTITY": "the-process"}
    environment = {f"OPENWORKFLOW_OPERATOR_{name}": value for name, value in settings.items()}
    environment |= {"KUBECONFIG": str(tenant.plane.kubeconfig(tmp_path, token))}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "openworkflow_operator", env=os.environ | environment
    )
    try:
        await eventually(lambda: tenant.replicas() == 2, deadline=40)
    finally:
        process.terminate()
        code = await asyncio.wait_for(process.wait(), 15)
    path = f"/apis/coordination.k8s.io/v1/namespaces/{OPERATOR_NAMESPACE}/leases"
    lease = tenant.plane.request("GET", f"{path}/openworkflow-operator")
    assert 0 == code
    assert "the-process" != lease["spec"].get("holderIdentity")


async def test_a_lost_database_holds_the_fleet_and_is_said_and_forgotten(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    await enqueue(sql, 25)
    tenant.resource(scaling=FAST)
    async with start():
        await eventually(lambda: tenant.replicas() == 3, deadline=20)
        await sql.execute("ALTER TABLE workflow_runs RENAME TO away")
        missing = ("False", "SchemaMissing")
        await eventually(lambda: tenant.condition("DatabaseReachable") == missing, deadline=20)
        assert ("False", "DatabaseUnreachable") == tenant.condition("ScalingActive")
        await asyncio.sleep(3)  # longer than the scale-in delay
        assert 3 == tenant.replicas()
        await sql.execute("ALTER TABLE away RENAME TO workflow_runs")
        fine = ("True", "Reachable")
        await eventually(lambda: tenant.condition("DatabaseReachable") == fine, deadline=20)


async def test_the_older_of_two_resources_wins(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    await enqueue(sql, 1)
    tenant.resource(scaling=FAST)
    await asyncio.sleep(1.1)  # creation times have whole seconds
    tenant.resource("a-younger", namespaceId="orders", scaling=FAST)
    async with start(workers=1):  # which visits them in the order of their names
        await eventually(lambda: tenant.replicas() == 1, deadline=20)
        conflict = ("False", "Conflict")
        await eventually(lambda: tenant.condition("Ready", "a-younger") == conflict, deadline=20)
        accounts = tenant.plane.request("GET", tenant.path("serviceaccounts"))["items"]
        assert ["orders-worker"] == [account["metadata"]["name"] for account in accounts]
        tenant.delete("workflownamespaces", "orders", GROUP)
        await eventually(lambda: tenant.deployment("a-younger-worker") is not None, deadline=20)


async def test_pause_pin_and_resume(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    await enqueue(sql, 25)
    tenant.resource(scaling=FAST)
    async with start():
        await eventually(lambda: tenant.replicas() == 3, deadline=20)
        tenant.patch({"paused": True})
        await eventually(lambda: tenant.condition("Paused") == ("True", "Paused"))
        tenant.scale(7)
        await asyncio.sleep(2)
        assert 7 == tenant.replicas()
        tenant.patch({"paused": None, "replicas": 0})
        await eventually(lambda: tenant.replicas() == 0)
        pinned = ("False", "Pinned")
        await eventually(lambda: tenant.condition("ScalingActive") == pinned)
        tenant.patch({"replicas": None})
        await eventually(lambda: tenant.replicas() == 3)


async def test_an_external_autoscaler_is_left_alone(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    await enqueue(sql, 25)
    tenant.resource(scaling=FAST | {"mode": "External"})
    async with start():
        await eventually(lambda: tenant.replicas() == 1, deadline=20)
        tenant.scale(6, manager="hpa")
        await asyncio.sleep(2.5)
        assert 6 == tenant.replicas()
        tenant.patch({"worker": {"image": "registry.example.com/new:2"}})
        await eventually(lambda: "new:2" in str(tenant.deployment()))
        assert 6 == tenant.replicas()


async def test_a_restart_in_the_middle_changes_nothing(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    await enqueue(sql, 35)
    tenant.resource(scaling=FAST | {"scaleInDelaySeconds": 60})
    async with start():
        await eventually(lambda: tenant.replicas() == 4, deadline=20)
    before = tenant.deployment()
    await sql.execute("UPDATE workflow_runs SET status = 'succeeded'")
    async with start() as operator:
        await eventually(lambda: operator.is_leader, deadline=20)
        await eventually(lambda: tenant.get()["status"].get("dueRuns") == 0, deadline=40)
        after = tenant.deployment()

    assert before is not None
    assert after is not None
    assert before["metadata"]["generation"] == after["metadata"]["generation"]


async def test_two_operators_hand_over_in_seconds(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    tenant.resource(scaling=FAST)
    leading = start()
    leader = await leading.__aenter__()
    await eventually(lambda: leader.is_leader, deadline=20)
    async with start() as standby:
        await eventually(lambda: standby.not_ready() is None)
        assert not standby.is_leader
        await leading.__aexit__(None, None, None)
        stopped = time.monotonic()
        await eventually(lambda: standby.is_leader, deadline=30)
        assert time.monotonic() - stopped < 10, "long before the lease of 15 s has ended"
        await enqueue(sql, 1)
        await eventually(lambda: tenant.replicas() == 1, deadline=20)


async def test_troubles_of_pods_are_told(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    await enqueue(sql, 5)
    tenant.resource(scaling=FAST)
    async with start():
        await eventually(lambda: tenant.replicas() == 1, deadline=20)
        tenant.pod("orders-worker-a")
        waiting = {"name": "worker", "ready": False, "restartCount": 0, "image": "", "imageID": ""}
        waiting["state"] = {"waiting": {"reason": "ImagePullBackOff"}}
        not_ready = [{"type": "Ready", "status": "False"}]
        status = {"conditions": not_ready, "containerStatuses": [waiting]}
        tenant.pod_status("orders-worker-a", status)
        failed = ("False", "ImagePullFailed")
        await eventually(lambda: tenant.condition("WorkersAvailable") == failed)
        await eventually(lambda: "ImagePullFailed" in dict(tenant.events()))


async def test_series_of_a_deleted_resource_vanish(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    tenant.resource(scaling=FAST)
    async with start() as operator:

        def scrape() -> str:
            return generate_latest(operator.metrics.registry).decode()

        await eventually(lambda: 'workflow_namespace="orders"' in scrape(), deadline=20)
        tenant.delete("workflownamespaces", "orders", GROUP)
        await eventually(lambda: 'workflow_namespace="orders"' not in scrape())
        assert "openworkflow_reconcile_total" in scrape()


async def test_finished_runs_are_deleted_when_their_time_is_over_and_failures_told(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    columns = "workflow_name, namespace_id, status, available_at, completed_at"
    old = f"INSERT INTO workflow_runs ({columns}) "
    old += "VALUES ('w', 'orders', 'succeeded', now(), now() - interval '1 hour')"
    tenant.resource(scaling=FAST, retention={"succeededSeconds": 60})
    async with start() as operator:
        operator.rest = Rest(0.1, 0.1, 0.1, 0.1)
        active = ("True", "Pruning")
        await eventually(lambda: tenant.condition("RetentionActive") == active, deadline=20)
        await sql.execute("""
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
              $$ BEGIN RAISE 'the secret is hunter2'; END $$;
            CREATE TRIGGER refuse BEFORE DELETE ON workflow_runs EXECUTE FUNCTION refuse()""")
        await sql.execute(old)
        failed = ("False", "QueryFailed")
        await eventually(lambda: tenant.condition("RetentionActive") == failed, deadline=20)
        await eventually(lambda: "QueryFailed" in dict(tenant.events()))
        await sql.execute("DROP TRIGGER refuse ON workflow_runs")
        await eventually(lambda: tenant.condition("RetentionActive") == active, deadline=20)

        assert 0 == await sql.fetchval("SELECT count(*) FROM workflow_runs")
        scraped = generate_latest(operator.metrics.registry).decode()
        labels = f'kube_namespace="{tenant.name}",workflow_namespace="orders"'
        assert f"openworkflow_pruned_runs_total{{{labels}}} 1.0" in scraped
        assert 'openworkflow_prune_errors_total{reason="QueryFailed"}' in scraped
        assert "hunter2" not in str(tenant.get()) + str(tenant.events())
