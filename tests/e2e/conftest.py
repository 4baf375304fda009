"""The operator, installed once into a real cluster; a tenant with a database for each test."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from openworkflow import BackendPostgres, OpenWorkflow
from tests.helm import CHARTS
from tests.postgres import DatabaseServer
from tests.real_cluster import PREFIX, RealCluster, killer, named, table

HERE = Path(__file__).parent
MANIFESTS = HERE.parents[1] / "manifests"
CHART = str(CHARTS / "openworkflow")
SYSTEM = "e2e-system"
OPERATOR = ("-n", SYSTEM, "deployment/openworkflow-operator")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [item for item in items if HERE in item.path.parents]
    why = None
    if not os.environ.get(f"{PREFIX}KUBECONFIG"):
        why = f"needs a cluster with real pods; set {PREFIX}KUBECONFIG (docs/images.md)"
    elif "PYTEST_XDIST_WORKER" in os.environ:
        why = "shares one cluster: run `make e2e`"
    for item in ours:
        # Pods are pulled, started and drained.
        item.add_marker(pytest.mark.timeout(400))
        if why is not None:
            item.add_marker(pytest.mark.skip(reason=why))


@dataclass(frozen=True, slots=True)
class Release:
    """The chart, as the tests install it into the cluster."""

    cluster: RealCluster

    def helm(self, verb: str, *args: str) -> str:
        """Run helm on the release; what it deploys is there when this returns."""
        return self.cluster.helm(verb, "openworkflow", *args, "--namespace", SYSTEM)

    def install(self) -> str:
        """As a user does, but for the images; returns the notes."""
        registry, _, operator = self.cluster.operator_image.partition("/")
        worker = self.cluster.worker_image.removeprefix(f"{registry}/")
        values: dict[str, Any] = {"replicas": 2}
        for name, image in (("image", operator), ("workerImage", worker)):
            repository, _, tag = image.rpartition(":")
            values[name] = {"repository": repository, "tag": tag}
        values["image"]["registry"] = registry
        if self.cluster.postgres_image is not None:
            values["devPostgres"] = {"image": self.cluster.postgres_image}
        sets = [f"--set-json={name}={json.dumps(value)}" for name, value in values.items()]
        return self.helm("install", CHART, "--create-namespace", "--wait", *sets)


@pytest.fixture(scope="session")
def release() -> Iterator[Release]:
    """The operator and a PostgreSQL for development, under Pod Security `restricted`."""
    cluster = named()
    assert cluster is not None
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    meta = {"name": SYSTEM, "labels": labels}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    release = Release(cluster)
    release.install()
    yield release
    release.helm("uninstall")
    cluster.kubectl("delete", "namespace", SYSTEM, "--timeout=100s")


@pytest.fixture
def cluster(release: Release) -> RealCluster:
    """The cluster with the operator running in it."""
    return release.cluster


@dataclass(frozen=True, slots=True)
class Tenant:
    """A WorkflowNamespace `orders` in a Kubernetes namespace and a database of its own."""

    cluster: RealCluster
    namespace: str
    database: str
    ow: OpenWorkflow
    server: DatabaseServer

    def get(self, kind: str, *names: str) -> Any:
        """Objects of the tenant."""
        return self.cluster.get("-n", self.namespace, kind, *names)

    def declare(self, **spec: Any) -> None:
        """Create or change the WorkflowNamespace, from the minimal example."""
        raw = yaml.safe_load((MANIFESTS / "examples/minimal.yaml").read_text())
        raw["metadata"]["namespace"] = self.namespace
        targets = ["workflows", "workflows:fulfil"]  # several, and one of them twice
        worker = {"image": self.cluster.worker_image, "workflows": targets}
        worker |= {"imagePullPolicy": "IfNotPresent", **spec.get("worker", {})}
        raw["spec"] |= {**spec, "worker": worker}
        self.cluster.apply(raw)

    def pods(self) -> list[Any]:
        """Its worker pods that are not being deleted."""
        pods = self.get("pods").get("items", [])
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def status(self) -> dict[str, Any]:
        """The status of its WorkflowNamespace."""
        status: dict[str, Any] = self.get("wfns", "orders").get("status", {})
        return status

    def condition(self, kind: str) -> dict[str, Any]:
        """A condition of its status; empty while there is none."""
        found = self.status().get("conditions", [])
        return next((c for c in found if c["type"] == kind), {})

    def reason(self, kind: str) -> str | None:
        """Why that condition is as it is."""
        return self.condition(kind).get("reason")

    def printed(self) -> dict[str, str]:
        """What `kubectl get wfns` prints."""
        return table(self.cluster.kubectl("-n", self.namespace, "get", "wfns"))[0]

    def count(self, condition: str) -> int:
        """How many of its runs are like that."""
        query = f"SELECT count(*) FROM workflow_runs WHERE {condition}"
        return int(str(self.server.fetch_value(query, self.database)))

    def steps(self) -> dict[str, str]:
        """Each successful step by its run and name, with all that tells one execution from another.

        Fails if one is recorded twice.
        """
        query = (
            "SELECT coalesce(json_agg(json_build_array(workflow_run_id || ' ' || step_name,"
            " row_to_json(s)::text)), '[]')::text FROM step_attempts s WHERE status = 'succeeded'"
        )
        rows = json.loads(str(self.server.fetch_value(query, self.database)))
        assert len(rows) == len({key for key, _ in rows}), "a step is recorded twice"
        return dict(rows)

    def story(self) -> str:
        """What there is to read when something did not happen."""
        mine = ("-n", self.namespace)
        events = ("get", "events", "--sort-by=.lastTimestamp")
        return "\n".join(
            self.cluster.kubectl(*args)
            for args in (
                (*mine, "get", "wfns,deployments,pods", "-o", "wide"),
                (*mine, *events),
                ("logs", *OPERATOR, "--all-pods", "--tail=15"),
            )
        )

    async def until(self, check: Callable[[], Any], what: str, seconds: float = 90) -> Any:
        """Wait for a condition; its value."""
        deadline = time.monotonic() + seconds
        while not (value := await asyncio.to_thread(check)):
            if time.monotonic() > deadline:
                pytest.fail(f"{what}: not after {seconds} s\n{await asyncio.to_thread(self.story)}")
            await asyncio.sleep(0.1)
        return value


@pytest.fixture
async def tenant(cluster: RealCluster) -> AsyncIterator[Tenant]:
    """A tenant whose pods have to meet Pod Security `restricted`; nothing is declared yet."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    server = DatabaseServer(cluster.database_url)
    server.create_database(name)
    url = server.url(name)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    data = {"DATABASE_URL": base64.b64encode(url.encode()).decode()}
    meta = {"name": "orders-database", "namespace": name}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data},
    )
    backend = await BackendPostgres.connect(url, namespace_id="orders")
    try:
        yield Tenant(cluster, name, name, OpenWorkflow(backend), server)
    finally:
        await backend.stop()
        await asyncio.to_thread(cluster.kubectl, "delete", "namespace", name, "--timeout=100s")
        server.drop_database(name)


@pytest.fixture
def kill(cluster: RealCluster) -> Iterator[Callable[[Any, str], None]]:
    """Sends SIGKILL to the named program of a pod."""
    made: list[str] = []

    def kill(pod: Any, program: str) -> None:
        name = f"kill-{uuid.uuid4().hex[:8]}"
        made.append(name)
        uid, node = pod["metadata"]["uid"], pod["spec"]["nodeName"]
        cluster.apply(killer(name, cluster.worker_image, node, uid, program))
        ended = "--for=jsonpath={.status.phase}=Succeeded"
        cluster.kubectl("-n", "default", "wait", ended, f"pod/{name}", "--timeout=30s")

    yield kill
    for name in made:
        cluster.kubectl("-n", "default", "delete", "pod", name, "--wait=false")


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Callable[[str, float], None]:
    """Prints a measured time at once: it is part of the result."""

    def report(what: str, seconds: float) -> None:
        with capsys.disabled():
            print(f"\n  {what}: {seconds:.2f} s", end="")

    return report
