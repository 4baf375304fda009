"""What the operator makes for a WorkflowNamespace. The golden files are the contract with fleets.

A changed golden file of a Deployment's template means: upgrading the operator restarts every
fleet. `UPDATE_GOLDEN=1 pytest tests/unit/operator/test_resources.py` rewrites them.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from openworkflow_operator.api import kinds
from openworkflow_operator.api.spec import Scaling, WorkflowNamespace
from openworkflow_operator.desired.drift import has_drifted
from openworkflow_operator.desired.resources import wanted_objects

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests/golden"


def example(name: str, **spec: Any) -> WorkflowNamespace:
    """One of the shipped examples as the API server would store it."""
    resource = yaml.safe_load((ROOT / f"manifests/examples/{name}.yaml").read_text())
    resource["metadata"] |= {"namespace": "shop", "uid": "6f1c1a4e", "generation": 1}
    resource["spec"] |= spec
    return WorkflowNamespace.parse(resource)


@pytest.mark.parametrize("name", ["minimal", "full"])
def test_the_objects_are_those_of_the_golden_file(name: str) -> None:
    objects = wanted_objects(example(name), "digest-of-the-url", service_monitors_exist=True)
    text = yaml.safe_dump_all(objects.values(), sort_keys=True, width=100)
    golden = GOLDEN / f"{name}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)

    assert golden.read_text() == text


def test_the_defaults_here_are_those_of_the_crd() -> None:
    crd = yaml.safe_load((ROOT / "manifests/crd.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    resource = example("minimal")

    assert resource == example("minimal", **_defaults(schema, _raw("minimal")["spec"]))
    assert _defaults(schema, {"scaling": {}})["scaling"] == {
        "mode": "Auto",
        "minReplicas": Scaling().min_replicas,
        "maxReplicas": Scaling().max_replicas,
        "targetLatencySeconds": Scaling().target_latency_seconds,
        "pollPeriodSeconds": Scaling().poll_period_seconds,
        "scaleInDelaySeconds": Scaling().scale_in_delay_seconds,
        "activationLeadSeconds": Scaling().activation_lead_seconds,
    }


def test_the_pods_meet_pod_security_restricted_whatever_the_resource_says() -> None:
    worker = {**_raw("full")["spec"]["worker"], "securityContext": {"privileged": True}}
    pod = _pod(example("full", worker=worker))
    container = pod["containers"][0]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pod.keys()
    assert pod["automountServiceAccountToken"] is False


def test_the_worker_is_the_first_process_and_finds_its_database_by_reference() -> None:
    container = _pod(example("minimal"))["containers"][0]
    environment = {entry["name"]: entry for entry in container["env"]}

    assert ["openworkflow", "worker", "shop.workflows"] == container["command"]
    reference = {"secretKeyRef": {"name": "orders-database", "key": "DATABASE_URL"}}
    assert reference == environment["DATABASE_URL"]["valueFrom"]
    assert "orders" == environment["OPENWORKFLOW_NAMESPACE"]["value"]


def test_the_template_changes_with_the_database_and_with_nothing_of_the_operator() -> None:
    resource = example("minimal")
    one, same, other = (
        wanted_objects(resource, digest, monitors)[kinds.DEPLOYMENT]["spec"]["template"]
        for digest, monitors in [("a", True), ("a", False), ("b", True)]
    )

    assert one == same
    assert one != other


def test_a_fleet_of_one_has_no_disruption_budget_that_would_block_a_drain() -> None:
    alone = wanted_objects(example("minimal", scaling={"maxReplicas": 1}), None, False)

    assert [kinds.SERVICE_ACCOUNT, kinds.SERVICE, kinds.DEPLOYMENT] == list(alone)


def test_optional_objects_are_made_where_they_are_wanted_and_possible() -> None:
    without = wanted_objects(example("full"), None, service_monitors_exist=False)
    disabled = wanted_objects(example("full", monitoring="Disabled"), None, True)

    assert kinds.SERVICE_MONITOR not in without
    assert kinds.SERVICE_MONITOR not in disabled
    assert kinds.NETWORK_POLICY in without


def test_an_object_that_is_as_wanted_has_not_drifted() -> None:
    for wanted in wanted_objects(example("full"), "x", service_monitors_exist=True).values():
        live = _as_served(wanted)

        assert not has_drifted(wanted, live), wanted["kind"]


@pytest.mark.parametrize(
    "path",
    [
        ("metadata", "labels", "app.kubernetes.io/part-of"),
        ("metadata", "ownerReferences"),
        ("spec", "template", "spec", "containers"),
        ("spec", "template", "spec", "serviceAccountName"),
        ("metadata", "annotations", "openworkflow.dev/applied"),
    ],
)
def test_what_somebody_removed_by_hand_is_drift(path: tuple[str, ...]) -> None:
    wanted = wanted_objects(example("full"), "x", service_monitors_exist=True)[kinds.DEPLOYMENT]
    live = _as_served(wanted)
    parent = live
    for name in path[:-1]:
        parent = parent[name]
    del parent[path[-1]]

    assert has_drifted(wanted, live)


def test_a_changed_image_or_environment_is_drift() -> None:
    wanted = wanted_objects(example("full"), "x", service_monitors_exist=True)[kinds.DEPLOYMENT]
    image, environment = _as_served(wanted), _as_served(wanted)
    image["spec"]["template"]["spec"]["containers"][0]["image"] = "other"
    environment["spec"]["template"]["spec"]["containers"][0]["env"].pop()

    assert has_drifted(wanted, image)
    assert has_drifted(wanted, environment)


def test_quantities_are_compared_as_numbers() -> None:
    worker = {**_raw("minimal")["spec"]["worker"], "resources": {"requests": {"cpu": "0.5"}}}
    wanted = wanted_objects(example("minimal", worker=worker), None, False)[kinds.DEPLOYMENT]
    live = _as_served(wanted)
    requests = live["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
    requests["cpu"] = "500m"
    assert not has_drifted(wanted, live)

    requests["cpu"] = "501m"
    assert has_drifted(wanted, live)


def _raw(name: str) -> dict[str, Any]:
    raw: dict[str, Any] = yaml.safe_load((ROOT / f"manifests/examples/{name}.yaml").read_text())
    return raw


def _pod(resource: WorkflowNamespace) -> dict[str, Any]:
    objects = wanted_objects(resource, "digest", service_monitors_exist=True)
    pod: dict[str, Any] = objects[kinds.DEPLOYMENT]["spec"]["template"]["spec"]
    return pod


def _as_served(wanted: dict[str, Any]) -> dict[str, Any]:
    """The object as the API server returns it: with defaults, status and bookkeeping."""
    live = copy.deepcopy(wanted)
    live["metadata"] |= {"resourceVersion": "1", "generation": 1, "managedFields": []}
    live["status"] = {}
    if wanted["kind"] == "Deployment":
        live["spec"] |= {"replicas": 1, "paused": None}
        live["spec"]["template"]["spec"] |= {"dnsPolicy": "ClusterFirst"}
    return live


def _defaults(schema: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    """Fill in defaults as the API server does."""
    filled = dict(value)
    for name, child in schema.get("properties", {}).items():
        if name not in filled and "default" in child:
            filled[name] = child["default"]
        if isinstance(filled.get(name), dict):
            filled[name] = _defaults(child, filled[name])
    return filled
