"""Every query of every panel and every alert, asked of a real Prometheus that scrapes a real fleet.

A worker process and an operator on a real API server; there is no kubelet, so the test plays the
worker's pod. The worker's series get the labels that the fleet's own ServiceMonitor gives them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from openworkflow import BackendPostgres, OpenWorkflow
from openworkflow_operator.api.spec import WorkflowNamespace
from openworkflow_operator.desired.resources import service_monitor
from openworkflow_operator.process import Operator
from tests import control_plane
from tests.helpers import eventually
from tests.kubernetes_space import FAST, Space
from tests.observability import prometheus
from tests.observability.alerts import ROOT, RULES, alerts, without_comparison
from tests.observability.prometheus import Prometheus
from tools.dashboards.__main__ import PAGES

Start = Callable[..., AbstractAsyncContextManager[Operator]]
pytestmark = [
    pytest.mark.skipif(
        not prometheus.is_available(),
        reason="NO PROMETHEUS: no query of a dashboard or an alert is tried; make test-programs",
    ),
    pytest.mark.skipif(
        not control_plane.is_available(),
        reason="NO API SERVER: no query of a dashboard or an alert is tried; see `make envtest`",
    ),
]


def asked(kube_namespace: str) -> dict[str, str]:
    """Every expression by where it is, for the tenants of a namespace."""
    choices = {
        "$kube_namespace": kube_namespace,
        "$workflow_namespace": "orders|broken",
        "$workflow": "succeed|fail|sleep",
    }
    found = {f"alert {a['alert']}": without_comparison(a["expr"]) for a in alerts()}
    for page in (page.to_json() for page in PAGES):
        for panel in page["panels"]:
            for target in panel.get("targets", ()):
                where = f"{page['uid']}, {panel['title']}, {target['refId']}"
                found[where] = _chosen(target["expr"], choices)
        for variable in page["templating"]["list"][1:]:
            query = variable["query"]["query"]
            ((selector, label),) = re.findall(r"label_values\((.*), (\w+)\)", query)
            expression = f"group by ({label}) ({_chosen(selector, choices)})"
            found[f"{page['uid']}, variable {label}"] = expression
    return found


def _chosen(expression: str, choices: dict[str, str]) -> str:
    """As Grafana sends it, but for the zeros that stand for no data."""
    for variable, value in choices.items():
        expression = expression.replace(f'"{variable}"', f'"{value}"')
    if "ALERTS" not in expression:  # none fires so soon
        expression = expression.replace(" or vector(0)", "")
    return expression.replace("$__rate_interval", "1m")


async def test_every_query_of_every_panel_and_every_alert_has_data(
    tenant: Space,
    start: Start,
    sql: asyncpg.Connection[Any],
    database_url: str,
    unused_port: int,
    tmp_path: Path,
) -> None:
    retention = {"succeededSeconds": 3600}
    rollout = {"strategy": "Pinned"}
    tenant.resource(scaling=FAST, rollout=rollout, worker=WORKER, retention=retention)
    # What fails has series too: a database where nobody answers.
    tenant.secret("postgresql://nobody@127.0.0.1:1/none", "broken-database")
    secret = {"secretRef": {"name": "broken-database"}}
    tenant.resource("broken", database=secret, retention=retention)
    await runs_of_the_past(sql)
    async with (
        start(resync_seconds=1) as operator,
        worker(database_url, build := await build_of(tenant)) as port,
        load(database_url),
    ):
        tenant.pod("orders-worker-pod", f"orders-worker-{build}")
        relabeled = {"relabel_configs": relabelings(tenant.get())}
        jobs = [job("operator", operator.port), job("worker", port) | relabeled]
        with prometheus.running(tmp_path, unused_port, jobs, RULES) as server:
            await all_have_data(server, tenant.name)
            (crashed,) = server.values("sum(openworkflow_workflow_run_crashed_total)")
            assert crashed == 1
            assert {"ok"} == await eventually(lambda: health_of_rules(server))


WORKER = {"image": "registry.example.com/app:1", "workflows": ["tests.observability.shop"]}


async def all_have_data(server: Prometheus, kube_namespace: str) -> None:
    """Each has had a number, once."""
    missing = asked(kube_namespace)

    async def look() -> bool:
        for where, expression in list(missing.items()):
            if await asyncio.to_thread(server.values, expression):
                del missing[where]
        return not missing

    try:
        await eventually(look, deadline=200)
    except AssertionError:
        pytest.fail(f"without data:\n{json.dumps(missing, indent=2)}")


async def build_of(tenant: Space) -> str:
    """The build that the operator made a fleet for."""

    def found() -> list[dict[str, Any]]:
        builds: list[dict[str, Any]] = tenant.get().get("status", {}).get("builds", [])
        return [build for build in builds if tenant.deployment(f"orders-worker-{build['id']}")]

    (build,) = await eventually(found, deadline=30)
    return str(build["id"])


@contextlib.asynccontextmanager
async def worker(database_url: str, build: str) -> AsyncIterator[int]:
    """A worker process as its pod would run it; yields its port."""
    environment = os.environ | {
        "DATABASE_URL": database_url,
        "OPENWORKFLOW_NAMESPACE": "orders",
        "OPENWORKFLOW_BUILD_ID": build,
        "OPENWORKFLOW_BUILD_POLICY": "pinned",
        "OPENWORKFLOW_LOG_FORMAT": "json",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "openworkflow", "worker", *WORKER["workflows"], "--port", "0"),
        env=environment,
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    found: asyncio.Future[int] = asyncio.Future()
    reader = asyncio.create_task(_port_and_then_all(process.stderr, found))
    try:
        yield await asyncio.wait_for(found, 30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await reader


async def _port_and_then_all(log: asyncio.StreamReader, port: asyncio.Future[int]) -> None:
    """Read on to the end, so that the worker never waits for a full pipe."""
    seen = b""
    async for line in log:
        seen += line
        if (match := re.search(rb"health on port (\d+)", line)) and not port.done():
            port.set_result(int(match[1]))
    if not port.done():
        port.set_exception(AssertionError(seen.decode()))


@contextlib.asynccontextmanager
async def load(database_url: str) -> AsyncIterator[None]:
    """Runs of every fate come in as long as the block lasts."""
    backend = await BackendPostgres.connect(database_url, namespace_id="orders")
    client = OpenWorkflow(backend)

    async def go_on() -> None:
        await client.run_workflow("sleep")
        while True:
            await client.run_workflows("succeed", [None] * 5)
            await client.run_workflow("fail")
            await asyncio.sleep(0.2)

    task = asyncio.create_task(go_on())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await backend.stop()


async def runs_of_the_past(sql: asyncpg.Connection[Any]) -> None:
    """One that lost its worker, and one whose retention is over."""
    await sql.execute(
        "INSERT INTO workflow_runs (workflow_name, namespace_id, status, available_at, crashes)"
        " VALUES ('succeed', 'orders', 'pending', now(), 1)"
    )
    await sql.execute(
        "INSERT INTO workflow_runs"
        " (workflow_name, namespace_id, status, available_at, completed_at)"
        " SELECT 'succeed', 'orders', 'succeeded', past, past FROM (SELECT now() - interval '1 d')"
        " AS t (past)"
    )


def job(name: str, port: int) -> dict[str, Any]:
    """Scrape this port."""
    return {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}


def relabelings(resource: dict[str, Any]) -> list[dict[str, str]]:
    """Those of the fleet's ServiceMonitor, as the Prometheus operator hands them on."""
    monitor = service_monitor(WorkflowNamespace.parse(resource))
    (endpoint,) = monitor["spec"]["endpoints"]
    return [
        {"target_label": each["targetLabel"], "replacement": each["replacement"]}
        for each in endpoint["relabelings"]
    ]


def health_of_rules(server: Prometheus) -> set[str]:
    """What Prometheus says of the rules it evaluates; empty until all were."""
    rules = [rule for group in server.get("rules")["groups"] for rule in group["rules"]]
    found = {str(rule["health"]) for rule in rules}
    return set() if "unknown" in found else found
