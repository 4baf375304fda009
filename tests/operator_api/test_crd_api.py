"""The custom resource as the API server judges it: defaults, refusals, columns and scale."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.control_plane import ApiRefusal
from tests.helpers import eventually_sync
from tests.kubernetes_space import GROUP, MERGE, ROOT, Space

EXAMPLES = sorted((ROOT / "manifests/examples").glob("*.yaml"))
WORKER = {"image": "i", "workflows": ["shop"]}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_accepted_without_an_unknown_field(space: Space, example: Path) -> None:
    path = space.path("workflownamespaces", group=GROUP) + "?fieldValidation=Strict"
    made = list(yaml.safe_load_all(example.read_text()))
    for document in (each for each in made if each["kind"] == "WorkflowNamespace"):
        assert (
            document["metadata"]["name"]
            == space.plane.request("POST", path, document)["metadata"]["name"]
        )


def test_the_defaults_are_filled_in(space: Space) -> None:
    spec = space.resource()["spec"]

    assert spec["scaling"] == {
        "mode": "Auto",
        "minReplicas": 0,
        "maxReplicas": 10,
        "targetLatencySeconds": 30,
        "pollPeriodSeconds": 5,
        "scaleInDelaySeconds": 120,
        "activationLeadSeconds": 20,
    }
    rollout = {"maxSurge": "25%", "maxUnavailable": 0, "progressDeadlineSeconds": 600}
    assert rollout | {"strategy": "RollingUpdate"} == spec["rollout"]
    assert (10, 120) == (spec["worker"]["concurrency"], spec["worker"]["drainTimeoutSeconds"])
    assert "DATABASE_URL" == spec["database"]["secretRef"]["key"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"scaling": {"minReplicas": 11}}, "`minReplicas` must be less than or equal to"),
        ({"scaling": {"maxReplicas": 0}}, "greater than or equal to 1"),
        ({"scaling": {"mode": "auto"}}, 'supported values: "Auto", "External"'),
        ({"worker": {"image": "i"}}, "exactly one of `workflows` and `command` must be set"),
        ({"worker": WORKER | {"command": ["x"]}}, "exactly one of `workflows` and `command`"),
        ({"worker": WORKER | {"args": ["x"]}}, "`args` must come with `command`"),
        (
            {"worker": WORKER | {"env": [{"name": "DATABASE_URL", "value": "x"}]}},
            "spec.database.secretRef",
        ),
        (
            {"worker": WORKER | {"env": [{"name": "OPENWORKFLOW_CONCURRENCY", "value": "1"}]}},
            "use `spec.namespaceId`",
        ),
        (
            {"worker": WORKER | {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}},
            "`hostPath` is not allowed",
        ),
        ({"worker": WORKER | {"volumes": [{"name": "v"}]}}, "must be exactly one of configMap"),
        (
            {"worker": WORKER | {"volumes": [{"name": "tmp", "emptyDir": {}}]}},
            "must stay free for the operator",
        ),
        (
            {"worker": WORKER | {"podLabels": {"openworkflow.dev/x": "y"}}},
            "`podLabels` must not use the prefixes",
        ),
        (
            {
                "worker": WORKER
                | {"podAnnotations": {"controller.kubernetes.io/pod-deletion-cost": "1"}}
            },
            "`podAnnotations` must not use",
        ),
        ({"worker": WORKER | {"workflows": ["rm -rf"]}}, "should match"),
        ({"worker": WORKER | {"workflows": []}}, "should have at least 1 items"),
        ({"worker": WORKER | {"concurrency": 1001}}, "less than or equal to 1000"),
        ({"worker": WORKER | {"serviceAccountName": "admin"}}, "unknown field"),
        ({"worker": WORKER | {"securityContext": {}}}, "unknown field"),
        ({"worker": WORKER | {"resources": {"limits": {"cpu": "lots"}}}}, "should match"),
        ({"rollout": {"maxSurge": 0}}, "must not both be 0"),
        ({"rollout": {"maxSurge": "0%", "maxUnavailable": "0%"}}, "must not both be 0"),
        ({"database": {"secretRef": {}}}, "Required value"),
        ({"database": {"secretRef": {"name": "x"}, "schema": "A b"}}, "should match"),
        ({"replicas": -1}, "greater than or equal to 0"),
        ({"namespaceId": ""}, "at least 1 chars long"),
        ({"retention": {"succeededSeconds": 1}}, "greater than or equal to 60"),
        ({"monitoring": "Sometimes"}, "supported values"),
    ],
)
def test_what_is_wrong_is_refused_with_what_is_allowed(
    space: Space, spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(ApiRefusal) as refused:
        space.resource(**spec)

    assert message in refused.value.text.replace('\\"', '"')


@pytest.mark.parametrize("name", ["a" * 41, "9lives", "with.dot"])
def test_a_name_from_which_no_service_can_be_named_is_refused(space: Space, name: str) -> None:
    with pytest.raises(ApiRefusal, match="must be at most 40 characters"):
        space.resource(name)

    space.resource("a" * 40)


def test_the_namespace_id_cannot_change_or_appear_later(space: Space) -> None:
    space.resource(namespaceId="one")
    space.resource("other")

    for name in ("orders", "other"):
        with pytest.raises(ApiRefusal, match="`namespaceId` must stay what it was"):
            space.patch({"namespaceId": "two"}, name)
    space.patch({"namespaceId": "one", "paused": True})


def test_scaling_the_resource_pins_it_and_removing_the_pin_resumes(space: Space) -> None:
    space.resource()
    path = space.path("workflownamespaces", "orders/scale", GROUP)

    space.plane.request("PATCH", path, {"spec": {"replicas": 0}}, MERGE)
    assert 0 == space.get()["spec"]["replicas"]

    space.patch({"replicas": None})
    assert "replicas" not in space.get()["spec"]


def test_the_columns_answer_the_first_questions(space: Space) -> None:
    space.resource()
    accept = "as=Table;v=v1;g=meta.k8s.io"
    path = space.path("workflownamespaces", group=GROUP)
    import json
    import ssl
    import urllib.request

    request = urllib.request.Request(space.plane.url + path)
    request.add_header("Accept", f"application/json;{accept}")
    request.add_header("Authorization", "Bearer the-tests")
    with urllib.request.urlopen(request, context=ssl._create_unverified_context()) as answer:
        table = json.loads(answer.read())

    columns = [(c["name"], c["priority"]) for c in table["columnDefinitions"]]
    wide = [("Verified", 1), ("Max", 1), ("Image", 1), ("Rollout", 1)]
    shown = ["Name", "Ready", "Reason", "Workers", "Desired", "Due", "Running", "Reported"]
    assert [(name, 0) for name in shown] + wide + [("Age", 0)] == columns


def test_every_field_of_the_spec_is_explained_by_the_api_server(space: Space) -> None:
    document = eventually_sync(lambda: published(space), deadline=60)
    name = next(n for n in document["components"]["schemas"] if n.endswith("WorkflowNamespace"))
    spec = document["components"]["schemas"][name]["properties"]["spec"]

    assert [] == [n for n, field in spec["properties"].items() if not field.get("description")]


def published(space: Space) -> Any:
    """The schemas of the group; they are told some time after the resource is served."""
    with suppress(ApiRefusal):
        return space.plane.request("GET", "/openapi/v3/apis/openworkflow.dev/v1alpha1")
    return None


def test_the_status_is_a_thing_apart(space: Space) -> None:
    space.resource()
    path = space.path("workflownamespaces", "orders", GROUP)

    space.plane.request("PATCH", path, {"status": {"dueRuns": 7}}, MERGE)
    assert "status" not in space.get()

    space.plane.request("PATCH", path + "/status", {"status": {"dueRuns": 7}}, MERGE)
    assert 7 == space.get()["status"]["dueRuns"]
    assert 1 == space.get()["metadata"]["generation"]
