"""The chart on a real API server: its permissions carry the operator, its pods are admitted."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.control_plane import ApiRefusal
from tests.helm import CHARTS, Cluster, render
from tests.kubernetes_space import FAST, Space

CHART = str(CHARTS / "openworkflow")
EXAMPLES = sorted((CHARTS.parent / "manifests/examples").glob("*.yaml"))
APPS = "/apis/apps/v1"


def eventually(look: Callable[[], Any], seconds: float = 30) -> Any:
    """What `look` returns once that is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(ApiRefusal, OSError):
            if found := look():
                return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds:g} s; at last {look()}")


def environment(cluster: Cluster, namespace: str) -> dict[str, str]:
    """What the installed Deployment gives its container, as the kubelet would."""
    path = f"{APPS}/namespaces/{namespace}/deployments/openworkflow-operator"
    container = cluster.get(path)["spec"]["template"]["spec"]["containers"][0]
    fields = {"metadata.namespace": namespace, "metadata.name": "the-pod"}
    return {
        each["name"]: each.get("value") or fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
        for each in container["env"]
    }


@contextlib.contextmanager
def operator(cluster: Cluster, folder: Path, namespace: str) -> Iterator[None]:
    """The operator's own command, as the release's pod would run it."""
    token = cluster.plane.token(namespace, "openworkflow-operator")
    folder.mkdir()
    env = {"KUBECONFIG": str(cluster.plane.kubeconfig(folder, token)), "PATH": os.environ["PATH"]}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "openworkflow_operator"],
            env=env | environment(cluster, namespace),
            stdout=log,
            stderr=log,
        )
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{error}\n{(folder / 'log').read_text()[-4000:]}") from None
    finally:
        process.terminate()
        assert process.wait(30) == 0, (folder / "log").read_text()[-4000:]


@pytest.mark.parametrize("mode", ["cluster", "namespaced"])
def test_the_charts_permissions_and_settings_make_a_fleet(
    helm_on_cluster: Cluster, tmp_path: Path, database_url: str, unused_port: int, mode: str
) -> None:
    cluster, home = helm_on_cluster, f"system-{mode}"
    space = Space(cluster.plane, f"tenant-{mode}")
    cluster.plane.create_namespace(space.name)
    own = [
        {"name": "OPENWORKFLOW_OPERATOR_PORT", "value": str(unused_port)},
        {"name": "OPENWORKFLOW_OPERATOR_ALLOW_LOOPBACK", "value": "true"},
    ]
    values = [f"--set-json=extraEnv={json.dumps(own)}", "--set=devPostgres.enabled=false"]
    if mode == "namespaced":
        values += [f"--set=operator.namespaces={{{space.name}}},rbac.secrets=namespaced"]
    where = ("--namespace", home, "--create-namespace", "--no-hooks")
    cluster.helm("install", "openworkflow", CHART, *where, *values)
    space.secret(database_url)

    with operator(cluster, tmp_path / "operator", home):
        eventually(lambda: serves(cluster))
        space.resource(scaling=FAST | {"minReplicas": 2})
        fleet = f"{APPS}/namespaces/{space.name}/deployments"
        eventually(
            lambda: [each["spec"]["replicas"] for each in cluster.get(fleet)["items"]] == [2]
        )
        eventually(lambda: space.condition("DatabaseReachable") == ("True", "Reachable"))
        # What `helm test` runs in its pod holds against this very process.
        script = helm_test(home).replace(
            f"openworkflow-operator.{home}.svc:8080", f"127.0.0.1:{unused_port}"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert (0, "") == (done.returncode, done.stderr)

    cluster.helm("uninstall", "openworkflow", "--namespace", home, "--no-hooks")


def serves(cluster: Cluster) -> bool:
    """Whether the API server already knows the kind."""
    return bool(cluster.get("/apis/openworkflow.dev/v1alpha1")["resources"])


def helm_test(namespace: str) -> str:
    """The program of the test pod."""
    made = render("openworkflow", "--namespace", namespace)
    pod = next(each for each in made if each["kind"] == "Pod")
    program: str = pod["spec"]["containers"][0]["args"][0]
    return program


def test_an_api_server_that_enforces_restricted_admits_every_pod(helm_on_cluster: Cluster) -> None:
    plane = helm_on_cluster.plane
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    body = {"metadata": {"name": "restricted", "labels": labels}}
    plane.request("POST", "/api/v1/namespaces", body)
    values = ("--set=replicas=2,operator.caConfigMap=ca,priorityClassName=system-cluster-critical",)

    pods = "/api/v1/namespaces/restricted/pods?dryRun=All&fieldValidation=Strict"
    admitted = {}
    tenant = '{"database":{"secretRef":{"name":"db"}},"worker":{"image":"app","workflows":["a"]}}'
    checked = (f"--set-json=spec={tenant}", "--set=replayCheck.enabled=true")
    for each in render("openworkflow", *values) + render("openworkflow-namespace", *checked):
        if each["kind"] in ("Deployment", "StatefulSet", "Job", "Pod"):
            spec = each["spec"] if each["kind"] == "Pod" else each["spec"]["template"]["spec"]
            template = {"name": "data", "emptyDir": {}}  # a StatefulSet's controller adds it
            if each["kind"] == "StatefulSet":
                spec["volumes"].append(template)
            admitted[each["kind"]] = {"metadata": {"name": "it"}, "spec": spec}
            plane.request("POST", pods, admitted[each["kind"]])
    assert {"Deployment", "StatefulSet", "Job", "Pod"} == admitted.keys()

    pod = admitted["Pod"]
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(ApiRefusal, match="violates PodSecurity"):  # it does look
        plane.request("POST", pods, pod)


def test_the_plain_manifests_and_every_example_are_applied(helm_on_cluster: Cluster) -> None:
    plane = helm_on_cluster.plane
    for each in yaml.safe_load_all((CHARTS.parent / "manifests/install.yaml").read_text()):
        plane.apply(each, collection(each))
    eventually(lambda: serves(helm_on_cluster))
    for path in EXAMPLES:
        plane.create_namespace(f"example-{path.stem}")
        for each in yaml.safe_load_all(path.read_text()):
            each["metadata"]["namespace"] = f"example-{path.stem}"
            plane.apply(each, collection(each))

    # helm takes over what was applied without it, and only when told to.
    where = ("--namespace", "openworkflow-system", "--no-hooks")
    takeover = ("--take-ownership", "--force-conflicts")
    helm_on_cluster.helm("install", "openworkflow", CHART, *where, *takeover)
    tenants = helm_on_cluster.get("/apis/openworkflow.dev/v1alpha1/workflownamespaces")["items"]
    assert len(tenants) > len(EXAMPLES)
    helm_on_cluster.helm("uninstall", "openworkflow", *where)


def collection(each: dict[str, Any]) -> str:
    """Where the API server keeps objects of this kind."""
    group = "/api/v1" if each["apiVersion"] == "v1" else f"/apis/{each['apiVersion']}"
    namespace = each["metadata"].get("namespace")
    plural = each["kind"].lower().removesuffix("y") + ("ies" if each["kind"].endswith("y") else "s")
    return f"{group}/namespaces/{namespace}/{plural}" if namespace else f"{group}/{plural}"
