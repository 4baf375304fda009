"""Names that users, charts and dashboards rely on. Each is written here and nowhere else."""

from __future__ import annotations

from typing import Final

GROUP: Final = "openworkflow.dev"
VERSION: Final = "v1alpha1"
KIND: Final = "WorkflowNamespace"
PLURAL: Final = "workflownamespaces"
API_VERSION: Final = f"{GROUP}/{VERSION}"

#: Label of everything a WorkflowNamespace owns; its value is the resource's name.
OWNER_LABEL: Final = f"{GROUP}/workflow-namespace"
MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "openworkflow-operator"
COMPONENT_LABEL: Final = "app.kubernetes.io/component"
COMPONENT: Final = "worker"

#: Annotation of a WorkflowNamespace that pauses it, for the night in which Git is far away.
PAUSED_ANNOTATION: Final = f"{GROUP}/paused"
#: Annotation of the pod template that rolls the fleet when the connection URL changes.
DATABASE_ANNOTATION: Final = f"{GROUP}/database"
#: Read by the ReplicaSet controller: the pods with the lowest cost go first.
DELETION_COST_ANNOTATION: Final = "controller.kubernetes.io/pod-deletion-cost"

#: Label of the Deployment and the pods of a build.
BUILD_LABEL: Final = f"{GROUP}/build"
#: Annotation of a build's Deployment: the `worker` section that it was made of.
WORKER_ANNOTATION: Final = f"{GROUP}/worker"

#: Server-side apply: one manager owns the objects, another one their number of replicas.
FIELD_MANAGER: Final = "openworkflow-operator"
SCALER_FIELD_MANAGER: Final = "openworkflow-operator-scaler"

#: Port of metrics and health of every worker.
WORKER_PORT: Final = 9090
#: Time between the end of a worker's drain and its being killed.
DRAIN_MARGIN_SECONDS: Final = 15


def worker_name(resource_name: str) -> str:
    """The name of the Deployment, its ServiceAccount, Service and the rest."""
    return f"{resource_name}-worker"


def deployment_name(resource_name: str, build: str | None) -> str:
    """The name of the Deployment, of one build where there are builds."""
    return worker_name(resource_name) + (f"-{build}" if build else "")
