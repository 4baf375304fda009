"""The objects a WorkflowNamespace owns, as desired: a pure function for each kind.

They belong to the resource by an owner reference, so that deleting it deletes them; there is no
finalizer that could get stuck.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from openworkflow_operator.api import kinds
from openworkflow_operator.api.kinds import Kind
from openworkflow_operator.api.names import (
    API_VERSION,
    GROUP,
    KIND,
    WORKER_ANNOTATION,
    WORKER_PORT,
    deployment_name,
    worker_name,
)
from openworkflow_operator.api.spec import Monitoring, WorkflowNamespace
from openworkflow_operator.desired.carried import carry
from openworkflow_operator.desired.workload import (
    deployment_selector,
    labels,
    pod_template,
    selector_labels,
)

#: Annotation with the digest of what was applied: tells that something has to be taken away.
APPLIED_ANNOTATION: Final = f"{GROUP}/applied"

Manifest = dict[str, Any]


def wanted_objects(
    resource: WorkflowNamespace,
    database_digest: str | None,
    service_monitors_exist: bool,
    is_crowded: bool = False,
) -> dict[Kind, Manifest]:
    """Everything the resource should own, in the order in which it is made.

    `is_crowded`: no node takes one of its pods.
    """
    objects = {
        kinds.SERVICE_ACCOUNT: service_account(resource),
        kinds.SERVICE: metrics_service(resource),
        kinds.DEPLOYMENT: deployment(resource, database_digest),
    }
    if resource.scaling.max_replicas > 1:
        objects[kinds.DISRUPTION_BUDGET] = disruption_budget(resource, is_crowded)
    if resource.network_policy:
        objects[kinds.NETWORK_POLICY] = network_policy(resource)
    if service_monitors_exist and resource.monitoring is not Monitoring.DISABLED:
        objects[kinds.SERVICE_MONITOR] = service_monitor(resource)
    return {kind: _with_digest(manifest) for kind, manifest in objects.items()}


def deployment(resource: WorkflowNamespace, database_digest: str | None) -> Manifest:
    """The fleet. It carries no number of replicas: only the scale subresource sets it."""
    rollout = resource.rollout
    made = _object(
        resource,
        kinds.DEPLOYMENT,
        spec={
            "selector": {"matchLabels": deployment_selector(resource)},
            "progressDeadlineSeconds": rollout.progress_deadline_seconds,
            "revisionHistoryLimit": 3,
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {
                    "maxSurge": rollout.max_surge,
                    "maxUnavailable": rollout.max_unavailable,
                },
            },
            "template": pod_template(resource, database_digest),
        },
    )
    if resource.build:
        made["metadata"] |= {
            "name": deployment_name(resource.key.name, resource.build),
            "labels": labels(resource) | deployment_selector(resource),
            "annotations": {WORKER_ANNOTATION: carry(resource.worker)},
        }
    return made


def service_account(resource: WorkflowNamespace) -> Manifest:
    """An identity without any right: nothing binds it and no token of it is mounted."""
    return _object(resource, kinds.SERVICE_ACCOUNT, automountServiceAccountToken=False)


def metrics_service(resource: WorkflowNamespace) -> Manifest:
    """Where Prometheus finds the workers; draining ones still have something to tell."""
    return _object(
        resource,
        kinds.SERVICE,
        spec={
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector_labels(resource),
            "ports": [
                {
                    "name": "metrics",
                    "port": WORKER_PORT,
                    "protocol": "TCP",
                    "targetPort": "metrics",
                }
            ],
        },
    )


def disruption_budget(resource: WorkflowNamespace, is_crowded: bool = False) -> Manifest:
    """Node drains take a quarter at a time, as long as there is a place for what they took.

    Where there is none, as on the last node, waiting brings none back: then all may go at once,
    hand their runs back, and start where the cluster has a place again.
    """
    return _object(
        resource,
        kinds.DISRUPTION_BUDGET,
        spec={
            "maxUnavailable": "100%" if is_crowded else "25%",
            "selector": {"matchLabels": selector_labels(resource)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    )


def network_policy(resource: WorkflowNamespace) -> Manifest:
    """Nothing reaches the workers but metrics and health; what they may call is the owner's."""
    return _object(
        resource,
        kinds.NETWORK_POLICY,
        spec={
            "podSelector": {"matchLabels": selector_labels(resource)},
            "policyTypes": ["Ingress"],
            "ingress": [{"ports": [{"port": WORKER_PORT, "protocol": "TCP"}]}],
        },
    )


def service_monitor(resource: WorkflowNamespace) -> Manifest:
    """Tells a Prometheus operator to scrape the workers, with the labels of the operator's series.

    `namespace` is no such label: it is a target's own, and would be renamed at every scrape.
    """
    names = {"kube_namespace": resource.key.namespace, "workflow_namespace": resource.key.name}
    relabelings = [{"targetLabel": label, "replacement": name} for label, name in names.items()]
    return _object(
        resource,
        kinds.SERVICE_MONITOR,
        spec={
            "selector": {"matchLabels": selector_labels(resource)},
            "endpoints": [{"port": "metrics", "interval": "30s", "relabelings": relabelings}],
        },
    )


def is_owned(item: Mapping[str, Any], uid: str) -> bool:
    """Whether the object is this resource's: only then may it be changed, counted or deleted.

    A label or a name is anybody's to give; a controlling owner is one, and has this uid.
    """
    owners = item["metadata"].get("ownerReferences") or ()
    return any(owner.get("uid") == uid and owner.get("controller") is True for owner in owners)


def _object(resource: WorkflowNamespace, kind: Kind, **content: Any) -> Manifest:
    owner = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": resource.key.name,
        "uid": resource.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
    metadata = {
        "name": worker_name(resource.key.name),
        "namespace": resource.key.namespace,
        "labels": labels(resource),
        "ownerReferences": [owner],
    }
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, **content}


def _with_digest(manifest: Manifest) -> Manifest:
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    annotations = manifest["metadata"].get("annotations", {}) | {APPLIED_ANNOTATION: digest}
    metadata = {**manifest["metadata"], "annotations": annotations}
    return {**manifest, "metadata": metadata}
