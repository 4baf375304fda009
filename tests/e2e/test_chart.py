"""What the chart installs runs, and fleets outlive what is done to the release."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from openworkflow import RunHandle
from tests.e2e.conftest import CHART, SYSTEM, Release, Tenant
from tests.helm import CHARTS

QUICK = {"pollPeriodSeconds": 1, "scaleInDelaySeconds": 3, "maxReplicas": 2}
CRD = "crd/workflownamespaces.openworkflow.dev"
Report = Callable[[str, float], None]


def commands(notes: str) -> str:
    """What the notes have a user type, word for word."""
    return "kubectl apply" + notes.partition("kubectl apply")[2].partition("\nSee it:")[0]


async def test_what_the_notes_say_gives_a_fleet_and_its_first_run(
    release: Release, report: Report
) -> None:
    release.helm("test")
    notes = release.cluster.helm("get", "notes", "openworkflow", "--namespace", SYSTEM)
    start = time.monotonic()
    done = await asyncio.to_thread(
        subprocess.run,
        ["bash", "-euc", commands(notes)],
        env={**os.environ, "KUBECONFIG": release.cluster.kubeconfig},
        capture_output=True,
        text=True,
        timeout=120,
    )
    report("from the notes' first command to the end of the first run", time.monotonic() - start)
    assert 0 == done.returncode, done.stderr
    assert '"Hello, Ada!"' == done.stdout.splitlines()[-1]
    release.cluster.kubectl("-n", SYSTEM, "delete", "wfns/hello", "configmap/hello")


async def work(tenant: Tenant) -> list[RunHandle[Any]]:
    """A fleet in the middle of thirty runs."""
    tenant.declare(scaling=QUICK, worker={"concurrency": 10})
    orders = [{"number": n, "charging_seconds": 5} for n in range(30)]
    runs = await tenant.ow.run_workflows("fulfil", orders)
    await tenant.until(lambda: tenant.count("status = 'running'") >= 10, "runs are running")
    return runs


async def finish(tenant: Tenant, runs: list[RunHandle[Any]]) -> None:
    """The runs end, each step done once."""
    results = [await run.result(timeout="90s") for run in runs]
    assert [f"receipt-{n} delivered" for n in range(len(runs))] == results
    assert 3 * len(runs) == len(tenant.steps())
    assert 0 == int(str(tenant.server.fetch_value(REPEATED, tenant.database)))


REPEATED = "SELECT count(*) FROM step_attempts WHERE step_name = 'charge' AND claim_no <> 1"


async def test_upgrade_and_rollback_leave_fleet_and_development_database_alone(
    release: Release, tenant: Tenant, report: Report
) -> None:
    before = release.cluster.get("-n", SYSTEM, "pod", "openworkflow-postgres-0")
    runs = await work(tenant)
    start = time.monotonic()
    release.helm("upgrade", CHART, "--reset-then-reuse-values", "--wait", "--set=replicas=1")
    report("helm upgrade", time.monotonic() - start)
    release.helm("rollback", "--wait")
    await finish(tenant, runs)

    await tenant.until(lambda: not tenant.pods(), "the operator of the rollback scales")
    after = release.cluster.get("-n", SYSTEM, "pod", "openworkflow-postgres-0")
    assert before["metadata"]["uid"] == after["metadata"]["uid"]
    assert 0 == after["status"]["containerStatuses"][0]["restartCount"]


async def test_a_fleet_goes_on_without_the_operator_until_it_is_installed_again(
    release: Release, tenant: Tenant, report: Report
) -> None:
    cluster, kept = release.cluster, ("-n", SYSTEM, "secret", "openworkflow-database")
    password, crd = cluster.get(*kept)["data"], cluster.get(CRD)["metadata"]["uid"]
    runs = await work(tenant)
    release.helm("uninstall", "--wait")
    fleet = {pod["metadata"]["name"] for pod in tenant.pods()}
    try:
        await finish(tenant, runs)
        assert fleet == {pod["metadata"]["name"] for pod in tenant.pods()}, "nobody scales"
    finally:
        start = time.monotonic()
        notes = release.install()
        report("helm install, with the migration", time.monotonic() - start)

    assert "NOT for production" in notes
    await tenant.until(lambda: not tenant.pods(), "the fleet is scaled again")
    assert (password, crd) == (cluster.get(*kept)["data"], cluster.get(CRD)["metadata"]["uid"])


async def test_a_named_database_is_migrated_before_an_upgrade(
    release: Release, tenant: Tenant
) -> None:
    cluster, name = release.cluster, f"{tenant.database}-named"
    tenant.server.create_database(name)
    url = base64.b64encode(tenant.server.url(name).encode()).decode()
    meta = {"name": name, "namespace": SYSTEM}
    cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": {"uri": url}})
    values = f"--set=database.existingSecret={name},database.secretKey=uri,database.schema=flows"
    try:
        release.helm("upgrade", CHART, "--reset-then-reuse-values", "--wait", values)
        tables = "SELECT count(*) FROM flows.workflow_runs"
        assert 0 == tenant.server.fetch_value(tables, name)
        gone = cluster.get("-n", SYSTEM, "statefulset", "openworkflow-postgres")
        assert {} == gone, "no development database beside it"
    finally:
        back = "--set=database.existingSecret="
        release.helm("upgrade", CHART, "--reset-then-reuse-values", "--wait", back)
        cluster.kubectl("-n", SYSTEM, "delete", "secret", name)
        tenant.server.drop_database(name)


async def test_a_tenants_release_is_refused_where_recorded_runs_would_break(
    release: Release, tenant: Tenant
) -> None:
    def deploy(tag: str) -> None:
        spec = {
            "database": {"secretRef": {"name": "orders-database"}},
            "worker": {
                "image": f"{release.cluster.builds_image}:{tag}",
                "workflows": ["workflows"],
            },
            "scaling": QUICK,
        }
        chart = str(CHARTS / "openworkflow-namespace")
        release.cluster.helm(
            *("upgrade", "--install", "orders", chart, "--namespace", tenant.namespace, "--wait"),
            *("--set=replayCheck.enabled=true", f"--set-json=spec={json.dumps(spec)}"),
        )

    def logs() -> str:
        return release.cluster.kubectl("-n", tenant.namespace, "logs", "job/orders-replay-check")

    deploy("v1")
    run = await tenant.ow.run_workflow("fulfil", {"number": 1})
    assert "v1-1 delivered" == await run.result(timeout="90s")
    deploy("v1")  # the code that began it
    with pytest.raises(RuntimeError, match="orders-replay-check"):
        deploy("v2")
    assert "charge" in logs()
    image = tenant.get("wfns", "orders")["spec"]["worker"]["image"]
    assert image.endswith(":v1"), "nothing was deployed"
