"""The kinds of Kubernetes objects the operator reads or owns, and where the API serves them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from openworkflow_operator.api.names import API_VERSION, KIND, PLURAL


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of namespaced objects."""

    api_version: str
    name: str
    plural: str
    is_stored: bool = True
    """Whether its objects have a version; those that are computed for each answer have none."""

    @property
    def is_built_in(self) -> bool:
        """Whether every cluster serves it; others come and go with their CRD."""
        group = self.api_version.partition("/")[0]
        return "." not in group or group.endswith(".k8s.io")

    def path(self, namespace: str | None, name: str | None = None, sub: str | None = None) -> str:
        """The path of one object, of its subresource, or of a list (all namespaces for None)."""
        root = "/api/v1" if self.api_version == "v1" else f"/apis/{self.api_version}"
        parts = [root, f"namespaces/{namespace}" if namespace else "", self.plural, name, sub]
        return "/".join(part for part in parts if part)


WORKFLOW_NAMESPACE: Final = Kind(API_VERSION, KIND, PLURAL)
DEPLOYMENT: Final = Kind("apps/v1", "Deployment", "deployments")
SERVICE_ACCOUNT: Final = Kind("v1", "ServiceAccount", "serviceaccounts")
SERVICE: Final = Kind("v1", "Service", "services")
DISRUPTION_BUDGET: Final = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
NETWORK_POLICY: Final = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
SERVICE_MONITOR: Final = Kind("monitoring.coreos.com/v1", "ServiceMonitor", "servicemonitors")
POD: Final = Kind("v1", "Pod", "pods")
SECRET: Final = Kind("v1", "Secret", "secrets")
EVENT: Final = Kind("v1", "Event", "events")
POD_METRICS: Final = Kind("metrics.k8s.io/v1beta1", "PodMetrics", "pods", is_stored=False)
LEASE: Final = Kind("coordination.k8s.io/v1", "Lease", "leases")

#: What a WorkflowNamespace may own, in the order in which it is made.
OWNED: Final = (
    SERVICE_ACCOUNT,
    SERVICE,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    NETWORK_POLICY,
    SERVICE_MONITOR,
)
