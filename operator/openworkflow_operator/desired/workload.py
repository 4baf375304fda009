"""The worker pods: the template of the Deployment as a function of the resource alone.

No version of the operator, label of a chart or time may enter it: whatever changes here restarts
every fleet. The golden files in `tests/golden` show when it does. The pods meet the Pod Security
standard `restricted`, and nothing in the resource can change that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from openworkflow_operator.api.names import (
    BUILD_LABEL,
    COMPONENT,
    COMPONENT_LABEL,
    DATABASE_ANNOTATION,
    DRAIN_MARGIN_SECONDS,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    OWNER_LABEL,
    WORKER_PORT,
    worker_name,
)
from openworkflow_operator.api.spec import WorkflowNamespace

#: The user of the worker image; any image runs as it, unless the cluster is to choose one.
WORKER_USER: Final = 10001

_USER: Final = dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), WORKER_USER)
_CONTAINER = "worker"
_AS_THEY_ARE = (
    "imagePullSecrets",
    "nodeSelector",
    "tolerations",
    "affinity",
    "priorityClassName",
    "runtimeClassName",
)


def selector_labels(resource: WorkflowNamespace) -> dict[str, str]:
    """What selects the pods; a Deployment can never change it, so it is as little as possible."""
    return {OWNER_LABEL: resource.key.name, COMPONENT_LABEL: COMPONENT}


def deployment_selector(resource: WorkflowNamespace) -> dict[str, str]:
    """What selects the pods of one Deployment."""
    build = {BUILD_LABEL: resource.build} if resource.build else {}
    return selector_labels(resource) | build


def build_of(resource: WorkflowNamespace) -> str:
    """The id of the build that the `worker` section stands for: another template is another one."""
    template = pod_template(replace(resource, build=None), None)
    text = json.dumps(template, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def labels(resource: WorkflowNamespace) -> dict[str, str]:
    """The labels of everything the resource owns."""
    return {
        "app.kubernetes.io/name": "openworkflow-worker",
        "app.kubernetes.io/instance": resource.key.name,
        "app.kubernetes.io/part-of": "openworkflow",
        MANAGED_BY_LABEL: MANAGED_BY,
        **selector_labels(resource),
    }


def pod_template(resource: WorkflowNamespace, database_digest: str | None) -> dict[str, Any]:
    """The template; `database_digest` changes with the connection URL and rolls the fleet."""
    raw = resource.worker.raw
    annotations = dict(raw.get("podAnnotations") or {})
    annotations["kubectl.kubernetes.io/default-container"] = _CONTAINER
    if database_digest is not None:
        annotations[DATABASE_ANNOTATION] = database_digest
    spec: dict[str, Any] = {
        "serviceAccountName": worker_name(resource.key.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # The kernel drops a SIGTERM that the first process of a namespace does not handle yet.
        "shareProcessNamespace": True,
        "terminationGracePeriodSeconds": (
            resource.worker.drain_timeout_seconds + DRAIN_MARGIN_SECONDS
        ),
        "securityContext": {
            "runAsNonRoot": True,
            **(_USER if raw.get("fixedUser", True) else {}),
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(resource)],
        "volumes": [{"name": "tmp", "emptyDir": {}}, *(raw.get("volumes") or ())],
    }
    spec |= {name: raw[name] for name in _AS_THEY_ARE if raw.get(name)}
    if constraints := raw.get("topologySpreadConstraints"):
        selector = {"matchLabels": deployment_selector(resource)}
        spec["topologySpreadConstraints"] = [{"labelSelector": selector, **c} for c in constraints]
    return {
        "metadata": {
            "labels": {
                **(raw.get("podLabels") or {}),
                **labels(resource),
                **deployment_selector(resource),
            },
            "annotations": annotations,
        },
        "spec": spec,
    }


def _container(resource: WorkflowNamespace) -> dict[str, Any]:
    raw = resource.worker.raw
    container: dict[str, Any] = {
        "name": _CONTAINER,
        "image": resource.worker.image,
        "command": list(_command(resource)),
        "env": list(_environment(resource)),
        "ports": [{"name": "metrics", "containerPort": WORKER_PORT, "protocol": "TCP"}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, *(raw.get("volumeMounts") or ())],  # noqa: S108
        # Liveness is the event loop only: an outage of the database must not restart the fleet.
        "startupProbe": _probe("/livez", period=1, failures=60),
        "livenessProbe": _probe("/livez", period=10, failures=6),
        "readinessProbe": _probe("/readyz", period=5, failures=3),
    }
    for name in ("args", "envFrom", "imagePullPolicy", "resources"):
        if raw.get(name):
            container[name] = raw[name]
    return container


def _command(resource: WorkflowNamespace) -> tuple[str, ...]:
    """In exec form: a shell as the first process would swallow SIGTERM."""
    own = resource.worker.raw.get("command")
    return tuple(own) if own else ("openworkflow", "worker", *resource.worker.workflows)


def _environment(resource: WorkflowNamespace) -> Iterator[dict[str, Any]]:
    reference = {"name": resource.database.secret_name, "key": resource.database.secret_key}
    yield {"name": "DATABASE_URL", "valueFrom": {"secretKeyRef": reference}}
    values: dict[str, object] = {
        "OPENWORKFLOW_NAMESPACE": resource.namespace_id,
        "OPENWORKFLOW_SCHEMA": resource.database.schema,
        "OPENWORKFLOW_CONCURRENCY": resource.worker.concurrency,
        "OPENWORKFLOW_DRAIN_SECONDS": resource.worker.drain_timeout_seconds,
        "OPENWORKFLOW_PORT": WORKER_PORT,
    }
    if resource.build:
        values |= {
            "OPENWORKFLOW_BUILD_ID": resource.build,
            "OPENWORKFLOW_BUILD_POLICY": "pinned",
        }
    for name, value in values.items():
        yield {"name": name, "value": str(value)}
    yield from resource.worker.raw.get("env") or ()


def _probe(path: str, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "metrics"},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": 5,
    }
