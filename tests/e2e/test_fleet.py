"""A WorkflowNamespace is declared, and real pods come, work, die, and go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from openworkflow import RunHandle
from tests.e2e.conftest import Tenant
from tests.real_cluster import watched

QUICK = {"pollPeriodSeconds": 1, "scaleInDelaySeconds": 5, "maxReplicas": 4}
INTERRUPTED = "SELECT count(*) FROM step_attempts WHERE step_name = 'charge' AND claim_no <> 1"
Report = Callable[[str, float], None]


async def settled_at_zero(tenant: Tenant) -> None:
    await tenant.until(
        lambda: tenant.status().get("conditions") and tenant.printed()["READY"] == "True",
        "the resource is Ready",
    )
    await tenant.until(lambda: tenant.get("deployment", "orders-worker"), "there is a Deployment")
    assert [] == tenant.pods()


async def enqueue(tenant: Tenant, number: int, **order: Any) -> list[RunHandle[Any]]:
    orders = [{"number": n, **order} for n in range(number)]
    return await tenant.ow.run_workflows("fulfil", orders)


async def test_fifty_runs_bring_a_fleet_up_from_zero_and_its_end_back_down(
    tenant: Tenant, report: Report
) -> None:
    tenant.declare(scaling=QUICK, worker={"concurrency": 5})
    await settled_at_zero(tenant)
    with watched(tenant.cluster, tenant.namespace, "orders-worker") as fleet:
        await tenant.until(lambda: fleet.seen, "the watch is open")
        runs = await enqueue(tenant, 50, charging_seconds=2)
        await tenant.until(lambda: tenant.count("status = 'running'") >= 5, "runs are running")
        await tenant.until(
            lambda: (
                int(tenant.printed()["WORKERS"]) == fleet.seen[-1][2] >= 2
                and int(tenant.printed()["DESIRED"]) == fleet.seen[-1][1]
            ),
            "kubectl get wfns shows the fleet as it is",
        )
        results = [await run.result(timeout="90s") for run in runs]
        ended = time.monotonic()
        await tenant.until(lambda: fleet.seen[-1][1] == 0, "the fleet is at zero")

    assert [f"receipt-{n} delivered" for n in range(50)] == results
    assert 2 <= fleet.most_asked <= 4
    report("to zero after the last run", fleet.seen[-1][0] - ended)
    await tenant.until(lambda: not tenant.pods(), "the pods are gone")
    await tenant.until(
        lambda: (
            {"READY": "True", "WORKERS": "0", "DESIRED": "0", "DUE": "0", "RUNNING": "0"}.items()
            <= tenant.printed().items()
        ),
        "kubectl get wfns shows an empty fleet",
    )


async def test_a_notification_wakes_the_fleet_long_before_the_next_poll(
    tenant: Tenant, report: Report
) -> None:
    tenant.declare(scaling={**QUICK, "pollPeriodSeconds": 300})
    await settled_at_zero(tenant)
    with watched(tenant.cluster, tenant.namespace, "orders-worker") as fleet:
        await tenant.until(lambda: fleet.seen, "the watch is open")
        start = time.monotonic()
        run = (await enqueue(tenant, 1, delivery="1ms"))[0]
        await run.result(timeout="60s")
        done = time.monotonic()
        await tenant.until(lambda: fleet.first(ready=1), "a worker is ready")

    asked, ready = fleet.first(asked=1), fleet.first(ready=1)
    assert asked is not None
    assert ready is not None
    report("from enqueue to the fleet asked for", asked - start)
    report("from there to a ready pod", ready - asked)
    report("from enqueue to the end of the run", done - start)
    assert asked - start < 1


async def test_a_sleeping_run_finds_the_fleet_awake(tenant: Tenant, report: Report) -> None:
    tenant.declare(scaling={**QUICK, "activationLeadSeconds": 10})
    await settled_at_zero(tenant)
    with watched(tenant.cluster, tenant.namespace, "orders-worker") as fleet:
        run = (await enqueue(tenant, 1, delivery="45s"))[0]
        await tenant.until(lambda: fleet.first(asked=1), "the fleet is up")
        asleep = "status = 'pending' AND available_at > now()"
        await tenant.until(lambda: tenant.count(asleep), "the run sleeps")
        await tenant.until(lambda: fleet.seen[-1][1] == 0, "the fleet is at zero meanwhile")
        assert 1 == tenant.count(asleep)
        await run.result(timeout="90s")

    query = (
        "SELECT extract(epoch FROM deliver.completed_at - sleep.created_at - interval '45 s')"
        " FROM step_attempts deliver, step_attempts sleep"
        " WHERE deliver.step_name = 'deliver' AND sleep.step_name = 'until-delivery'"
    )
    late = float(str(tenant.server.fetch_value(query, tenant.database)))
    report("from the end of the sleep to the next step's end", late)
    assert 0 <= late < 5, "the fleet was started ahead of the wake-up"


async def test_runs_survive_the_sigkill_of_their_worker(
    tenant: Tenant, kill: Callable[[Any, str], None], report: Report
) -> None:
    lease = {"name": "OPENWORKFLOW_LEASE_SECONDS", "value": "5"}
    tenant.declare(scaling={**QUICK, "maxReplicas": 2}, worker={"concurrency": 5, "env": [lease]})
    runs = await enqueue(tenant, 40, charging_seconds=1.5)
    await tenant.until(lambda: len(tenant.steps()) >= 10, "some steps are recorded")
    before = tenant.steps()
    held = (await tenant.until(lambda: held_by(tenant), "a worker holds runs"))[0]
    kill(next(p for p in tenant.pods() if p["metadata"]["name"] == held), "openworkflow")
    killed = time.monotonic()
    results = [await run.result(timeout="120s") for run in runs]
    report("from SIGKILL to the end of all runs", time.monotonic() - killed)

    after = tenant.steps()
    assert [f"receipt-{n} delivered" for n in range(40)] == results
    assert before.items() <= after.items(), "what was recorded is not touched again"
    assert 40 * 3 == len(after), "charge, sleep and deliver of each run, once"
    restarts = [
        status["lastState"]["terminated"]["exitCode"]
        for pod in tenant.get("pods")["items"]
        for status in pod["status"].get("containerStatuses", ())
        if status["restartCount"]
    ]
    assert restarts == [137]


async def test_a_rollout_in_the_middle_of_work_interrupts_no_step(
    tenant: Tenant, report: Report
) -> None:
    tenant.declare(scaling=QUICK, worker={"concurrency": 10})
    runs = await enqueue(tenant, 30, charging_seconds=4)
    await tenant.until(lambda: tenant.count("status = 'running'") >= 10, "runs are running")
    old = {pod["metadata"]["name"] for pod in tenant.pods()}
    tenant.declare(
        scaling=QUICK,
        worker={"concurrency": 10, "env": [{"name": "RELEASE", "value": "2"}]},
    )
    start = time.monotonic()
    await tenant.until(
        lambda: not old & {pod["metadata"]["name"] for pod in tenant.get("pods").get("items", [])},
        "the old pods have drained",
    )
    report("from the new template to the last old pod's end", time.monotonic() - start)
    results = [await run.result(timeout="90s") for run in runs]

    assert [f"receipt-{n} delivered" for n in range(30)] == results
    assert 30 * 3 == len(tenant.steps())
    assert 0 == tenant.server.fetch_value(INTERRUPTED, tenant.database)


async def test_a_pod_that_is_deleted_while_it_imports_goes_at_once(
    tenant: Tenant, report: Report
) -> None:
    code = "import time\nprint('importing', flush=True)\ntime.sleep(60)\n"
    meta = {"name": "code", "namespace": tenant.namespace}
    slow = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"slow.py": code}}
    tenant.cluster.apply(slow)
    worker = {
        "workflows": ["slow"],
        "volumes": [{"name": "code", "configMap": {"name": "code"}}],
        "volumeMounts": [{"name": "code", "mountPath": "/app", "readOnly": True}],
    }
    tenant.declare(scaling={**QUICK, "minReplicas": 1, "maxReplicas": 1}, worker=worker)
    name = (await tenant.until(tenant.pods, "there is a pod"))[0]["metadata"]["name"]
    mine = ("-n", tenant.namespace)
    await tenant.until(
        lambda: "importing" in tenant.cluster.logs(*mine, name), "the worker's code is imported"
    )
    start = time.monotonic()
    tenant.cluster.kubectl(*mine, "delete", "pod", name)
    report("from the deletion of a pod that starts to its end", time.monotonic() - start)
    assert time.monotonic() - start < 15, "not the whole grace period"


async def test_a_signal_in_the_first_moments_of_a_worker_ends_it(
    tenant: Tenant, report: Report
) -> None:
    tenant.declare(scaling=QUICK)
    await settled_at_zero(tenant)
    template = tenant.get("deployment", "orders-worker")["spec"]["template"]
    container = template["spec"]["containers"][0]
    container["lifecycle"] = {"postStart": {"exec": {"command": ["sh", "-c", _SIGNAL]}}}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        container.pop(probe)
    spec = {**template["spec"], "restartPolicy": "Never"}
    for number in range(5):
        meta = {"name": f"first-{number}", "namespace": tenant.namespace}
        tenant.cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})

    def ended() -> list[Any]:
        pods = [tenant.get("pod", f"first-{number}") for number in range(5)]
        states = [p["status"].get("containerStatuses", [{}])[0].get("state", {}) for p in pods]
        return states if all("terminated" in state for state in states) else []

    states = await tenant.until(ended, "the signal ended the workers", seconds=60)
    assert {143} == {state["terminated"]["exitCode"] for state in states}


#: Sends SIGTERM to the worker, in the same pod and as soon as its container runs.
_SIGNAL = """
for process in /proc/[0-9]*; do
  case "$(tr '\\0' ' ' < $process/cmdline)" in
    *openworkflow*worker*) kill -TERM ${process#/proc/} ;;
  esac
done
"""


async def test_two_workers_on_the_last_node_hold_up_no_drain_and_lose_no_step(
    tenant: Tenant, report: Report
) -> None:
    # A drain evicts in all namespaces: only from this one, whatever else the cluster runs.
    worker = {"concurrency": 5, "podLabels": {"e2e-tenant": tenant.namespace}}
    tenant.declare(scaling={**QUICK, "minReplicas": 2, "maxReplicas": 2}, worker=worker)
    await tenant.until(lambda: tenant.status().get("readyReplicas") == 2, "two workers are ready")
    runs = await enqueue(tenant, 30, charging_seconds=4)
    await tenant.until(lambda: tenant.count("status = 'running'") == 10, "runs are running")
    nodes = sorted({pod["spec"]["nodeName"] for pod in tenant.pods()})
    before = {pod["metadata"]["name"] for pod in tenant.pods()}
    selector = f"--pod-selector=e2e-tenant={tenant.namespace}"
    drain = ("drain", *nodes, selector, "--delete-emptydir-data", "--timeout=300s")
    start = time.monotonic()
    try:
        await asyncio.to_thread(tenant.cluster.kubectl, *drain, timeout=320)
        report("from the drain's beginning to its end", time.monotonic() - start)
        assert not before & {pod["metadata"]["name"] for pod in tenant.pods()}
    finally:
        tenant.cluster.kubectl("uncordon", *nodes)
    results = [await run.result(timeout="90s") for run in runs]

    assert [f"receipt-{n} delivered" for n in range(30)] == results
    assert 30 * 3 == len(tenant.steps())
    assert 0 == tenant.server.fetch_value(INTERRUPTED, tenant.database)


def held_by(tenant: Tenant) -> list[str]:
    """The pods that hold runs now, whose worker id begins with their name."""
    query = (
        "SELECT string_agg(DISTINCT split_part(worker_id, '/', 1), ' ') FROM workflow_runs"
        " WHERE status = 'running'"
    )
    alive = {pod["metadata"]["name"] for pod in tenant.pods()}
    names = str(tenant.server.fetch_value(query, tenant.database) or "").split()
    return [name for name in names if name in alive]
