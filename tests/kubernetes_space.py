"""A Kubernetes namespace as a test sees it: make things, change them, look at them."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import yaml

from tests.control_plane import ApiRefusal, ControlPlane

ROOT = Path(__file__).parents[1]
GROUP = "/apis/openworkflow.dev/v1alpha1"
MERGE = "application/merge-patch+json"
#: The part `scaling` of a resource whose fleet follows within a second or two.
FAST = {"pollPeriodSeconds": 1, "scaleInDelaySeconds": 1, "activationLeadSeconds": 0}


async def enqueue(sql: asyncpg.Connection[Any], count: int, namespace_id: str = "orders") -> None:
    """Insert runs that are due."""
    await sql.execute(
        "INSERT INTO workflow_runs (workflow_name, namespace_id, status, available_at) "
        "SELECT 'w', $2, 'pending', now() FROM generate_series(1, $1)",
        count,
        namespace_id,
    )


@dataclass(frozen=True, slots=True)
class Space:
    """One namespace of the API server, as its administrator."""

    plane: ControlPlane
    name: str

    def path(self, plural: str, name: str = "", group: str = "/api/v1") -> str:
        """The path of an object."""
        return f"{group}/namespaces/{self.name}/{plural}" + (f"/{name}" if name else "")

    def resource(self, name: str = "orders", **spec: Any) -> dict[str, Any]:
        """Create a WorkflowNamespace like the minimal example. Raises ApiRefusal."""
        raw = yaml.safe_load((ROOT / "manifests/examples/minimal.yaml").read_text())
        raw["metadata"]["name"] = name
        raw["spec"] |= spec
        path = self.path("workflownamespaces", group=GROUP) + "?fieldValidation=Strict"
        created: dict[str, Any] = self.plane.request("POST", path, raw)
        return created

    def secret(self, url: str, name: str = "orders-database", key: str = "DATABASE_URL") -> None:
        """Create or change the Secret with the connection URL."""
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "data": {key: base64.b64encode(url.encode()).decode()},
        }
        self.plane.apply(body, self.path("secrets"))

    def get(self, name: str = "orders") -> dict[str, Any]:
        """The WorkflowNamespace."""
        found: dict[str, Any] = self.plane.request(
            "GET", self.path("workflownamespaces", name, GROUP)
        )
        return found

    def patch(self, spec: dict[str, Any], name: str = "orders") -> Any:
        """Change the WorkflowNamespace."""
        path = self.path("workflownamespaces", name, GROUP)
        return self.plane.request("PATCH", path, {"spec": spec}, MERGE)

    def delete(self, plural: str, name: str, group: str = "/api/v1") -> None:
        """Delete an object."""
        self.plane.request("DELETE", self.path(plural, name, group))

    def condition(self, kind: str, name: str = "orders") -> tuple[str, str] | None:
        """Status and reason of a condition."""
        conditions = self.get(name).get("status", {}).get("conditions", [])
        return next(((c["status"], c["reason"]) for c in conditions if c["type"] == kind), None)

    def deployment(self, name: str = "orders-worker") -> dict[str, Any] | None:
        """The fleet, None if there is none."""
        try:
            found: dict[str, Any] = self.plane.request(
                "GET", self.path("deployments", name, "/apis/apps/v1")
            )
        except ApiRefusal as refusal:
            if refusal.code == 404:
                return None
            raise
        return found

    def replicas(self) -> int | None:
        """The number of pods asked for, None without a fleet."""
        found = self.deployment()
        return None if found is None else int(found["spec"]["replicas"])

    def generation(self) -> int | None:
        """How often the fleet's spec was changed."""
        found = self.deployment()
        return None if found is None else int(found["metadata"]["generation"])

    def scale(self, replicas: int, manager: str = "kubectl") -> None:
        """What `kubectl scale deployment` does."""
        path = self.path("deployments", "orders-worker/scale", "/apis/apps/v1")
        body = {"spec": {"replicas": replicas}}
        self.plane.request("PATCH", f"{path}?fieldManager={manager}", body, MERGE)

    def pod(self, name: str, fleet: str = "orders-worker", **annotations: str) -> None:
        """A ready worker pod, as the controllers and a kubelet would make it."""
        deployment = self.deployment(fleet)
        assert deployment is not None
        template = deployment["spec"]["template"]
        metadata = {"name": name, "labels": template["metadata"]["labels"]}
        body = {"metadata": {**metadata, "annotations": annotations}, "spec": template["spec"]}
        self.plane.request("POST", self.path("pods"), body)
        ready = {"conditions": [{"type": "Ready", "status": "True"}], "phase": "Running"}
        self.pod_status(name, ready)

    def pods(self) -> list[str]:
        """Names of the pods that are not being deleted."""
        items = self.plane.request("GET", self.path("pods"))["items"]
        alive = [item for item in items if "deletionTimestamp" not in item["metadata"]]
        return sorted(item["metadata"]["name"] for item in alive)

    def pod_status(self, name: str, status: dict[str, Any]) -> None:
        """Report a pod's status as its kubelet would."""
        path = self.path("pods", f"{name}/status")
        self.plane.request("PATCH", path, {"status": status}, MERGE)

    def events(self) -> list[tuple[str, str]]:
        """Reason and message of the Events."""
        items = self.plane.request("GET", self.path("events"))["items"]
        return [(item["reason"], item.get("message", "")) for item in items]

    def children(self) -> set[str]:
        """Kinds of the objects that the operator made."""
        groups = {
            "serviceaccounts": "/api/v1",
            "services": "/api/v1",
            "deployments": "/apis/apps/v1",
            "poddisruptionbudgets": "/apis/policy/v1",
            "networkpolicies": "/apis/networking.k8s.io/v1",
        }
        selector = "?labelSelector=openworkflow.dev/workflow-namespace"
        return {
            plural
            for plural, group in groups.items()
            if self.plane.request("GET", self.path(plural, group=group) + selector)["items"]
        }
