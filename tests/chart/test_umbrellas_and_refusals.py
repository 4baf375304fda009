"""The chart inside of others, beside its like, and on clusters with rules of their own."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from openworkflow_operator.api.spec import WorkflowNamespace
from openworkflow_operator.desired.workload import build_of, pod_template
from tests.chart.test_chart import CHART, pods
from tests.control_plane import ApiRefusal
from tests.helm import CHARTS, Cluster, helm, render

HELMS_PATIENCE_SECONDS = 300
LEASE = "/apis/coordination.k8s.io/v1/namespaces/{}/leases/openworkflow-operator"


def images(objects: list[dict[str, Any]]) -> set[str]:
    return {c["image"] for _, pod in pods(objects) for c in pod["containers"]}


def test_an_umbrella_chart_names_one_registry_and_its_secrets_for_all() -> None:
    """Both were ignored, and the pods of an air-gapped cluster pulled from the internet."""
    made = render(
        "openworkflow",
        "--set=global.imageRegistry=reg.example.com:5000/mirror/,imagePullSecrets[0].name=own",
        '--set-json=global.imagePullSecrets=["plain",{"name":"mapped"},"own"]',
    )

    assert {
        "reg.example.com:5000/mirror/openworkflow/operator:0.1.0",
        "reg.example.com:5000/mirror/openworkflow/worker:0.1.0",
        "reg.example.com:5000/mirror/library/postgres:17.6",
    } == images(made)
    secrets = [{"name": "own"}, {"name": "plain"}, {"name": "mapped"}]
    for name, pod in pods(made):
        assert secrets == pod["imagePullSecrets"], name
    bare = render("openworkflow", "--set=global.imageRegistry=r,devPostgres.image=postgres:17")
    assert "r/postgres:17" in images(bare)


@pytest.mark.parametrize(
    "more", ["--set=global.imageRegistry=,global.imagePullSecrets=null", "--set=global.other=1"]
)
def test_other_globals_change_nothing(more: str) -> None:
    assert images(render("openworkflow")) == images(render("openworkflow", more))
    assert not [pod for _, pod in pods(render("openworkflow", more)) if "imagePullSecrets" in pod]


def test_the_cluster_may_choose_the_users() -> None:
    """OpenShift's restricted-v2 refuses a pod that names one outside of its namespace's range."""
    made = render("openworkflow", "--set=fixedUser=false")
    spec = (
        '{"database":{"secretRef":{"name":"db"}},'
        '"worker":{"image":"app","workflows":["a"],"fixedUser":false}}'
    )
    checked = ("--set-json=spec=" + spec, "--set=replayCheck.enabled=true")
    made += render("openworkflow-namespace", *checked)

    for name, pod in pods(made):
        assert {"runAsNonRoot", "seccompProfile"} == pod["securityContext"].keys(), name


def test_a_fleet_may_leave_its_user_to_the_cluster() -> None:
    raw = yaml.safe_load((CHARTS.parent / "manifests/examples/minimal.yaml").read_text())
    raw["metadata"] |= {"namespace": "shop", "uid": "u"}

    def parsed(**worker: Any) -> WorkflowNamespace:
        spec = {**raw["spec"], "worker": raw["spec"]["worker"] | worker}
        return WorkflowNamespace.parse({**raw, "spec": spec})

    free = pod_template(parsed(fixedUser=False), None)["spec"]["securityContext"]
    assert {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}} == free
    assert (
        build_of(parsed()) == build_of(parsed(fixedUser=True)) != build_of(parsed(fixedUser=False))
    )


def test_a_migration_that_cannot_connect_tells_helm_so_before_helm_gives_up() -> None:
    """`helm install` waited for five minutes, and said: Job not ready."""
    (job,) = [each for each in render("openworkflow") if each["kind"] == "Job"]
    spec = job["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    wait = int(container["args"][-1].removesuffix("s"))
    tries = 1 + spec["backoffLimit"]
    backoff = sum(10 * 2**n for n in range(spec["backoffLimit"]))

    assert tries * wait + backoff < HELMS_PATIENCE_SECONDS - 20
    assert "hook-failed" == job["metadata"]["annotations"]["helm.sh/hook-output-log-policy"]
    assert "Never" == spec["template"]["spec"]["restartPolicy"]  # else its log goes with its pod


def test_what_the_wide_rights_mean_is_said_in_a_sentence(helm_on_cluster: Cluster) -> None:
    where = ("--namespace", "wide", "--create-namespace", "--no-hooks")
    notes = helm_on_cluster.helm("install", "openworkflow", CHART, *where)
    helm_on_cluster.helm("uninstall", "openworkflow", "--namespace", "wide", "--no-hooks")

    assert "it may write any Deployment and read any Secret" in notes
    assert "--set 'operator.namespaces={shop,billing},rbac.secrets=namespaced'" in notes


def test_the_notes_make_no_fleet_where_the_operator_does_not_act() -> None:
    """Whoever did as they said waited for a fleet that nobody made."""

    def notes(namespaces: str) -> str:
        values = f"--set=operator.namespaces={{{namespaces}}}"
        done = helm("install", "ow", CHART, "--dry-run=client", "--namespace=system", values)
        assert done.returncode == 0, done.stderr
        return done.stdout.partition("NOTES:")[2]

    assert "does NOT act in system" in notes("shop,billing")
    assert "in shop or billing." in notes("shop,billing")
    assert "kubectl apply" not in notes("shop,billing")
    assert "kubectl apply --namespace system" in notes("shop,system")


def refused(cluster: Cluster, name: str, home: str, *values: str) -> str:
    where = ("--namespace", home, "--create-namespace", "--no-hooks")
    done = helm("install", name, CHART, *where, *values, env=cluster.env)
    assert done.returncode != 0
    listed = helm("list", "--all-namespaces", "--short", "--filter", f"^{name}$", env=cluster.env)
    assert "" == listed.stdout.strip(), "a failed release was left"
    return done.stderr


def test_a_second_release_is_told_what_to_do_about_the_one_crd(helm_on_cluster: Cluster) -> None:
    where = ("--create-namespace", "--no-hooks")
    helm_on_cluster.helm("install", "first", CHART, "--namespace", "one", *where)

    said = refused(helm_on_cluster, "second", "two")

    assert "belongs to the release first in namespace one" in said
    assert "--set crds.install=false" in said
    second = ("second", CHART, "--namespace", "two", *where)
    helm_on_cluster.helm("install", *second, "--set=crds.install=false")
    helm_on_cluster.helm("uninstall", "second", "--namespace", "two", "--no-hooks")
    helm_on_cluster.helm("upgrade", "first", CHART, "--namespace", "one", "--no-hooks")
    helm_on_cluster.helm("uninstall", "first", "--namespace", "one", "--no-hooks")
    said = refused(helm_on_cluster, "third", "one")
    command = said[said.index("kubectl annotate crd") :].split()[2:]
    notes = dict(pair.split("=") for pair in command if "=" in pair)
    crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"
    helm_on_cluster.plane.request(
        "PATCH",
        crd + "workflownamespaces.openworkflow.dev",
        {"metadata": {"annotations": notes}},
        "application/merge-patch+json",
    )
    helm_on_cluster.helm("install", "third", CHART, "--namespace", "one", *where)
    helm_on_cluster.helm("uninstall", "third", "--namespace", "one", "--no-hooks")


@pytest.mark.parametrize(
    "values",
    [
        ("--set=operator.namespaces={there,nowhere}",),
        ("--set=rbac.secrets=namespaced,rbac.secretNamespaces={nowhere}",),
    ],
)
def test_a_namespace_that_is_not_there_is_named_before_anything_is_made(
    helm_on_cluster: Cluster, values: tuple[str, ...]
) -> None:
    """Half of the objects were there, and a failed release."""
    helm_on_cluster.plane.create_namespace("there")

    assert "there is no namespace nowhere" in refused(helm_on_cluster, "lost", "home", *values)


def test_the_lease_goes_with_the_release_unless_an_operator_made_it(
    helm_on_cluster: Cluster,
) -> None:
    plane = helm_on_cluster.plane
    where = ("--create-namespace", "--no-hooks")
    for home, is_made in (("fresh", False), ("older", True)):
        lease = LEASE.format(home)
        plane.create_namespace(home)
        if is_made:
            body = {"metadata": {"name": "openworkflow-operator"}}
            plane.request("POST", lease.rpartition("/")[0], body)
        install = ("openworkflow", CHART, "--namespace", home, *where)
        helm_on_cluster.helm("install", *install, "--set=crds.install=false")
        held = {"spec": {"holderIdentity": "pod-1", "leaseDurationSeconds": 15}}
        plane.request("PATCH", lease, held, "application/merge-patch+json")
        helm_on_cluster.helm("upgrade", *install[:4], "--no-hooks", "--set=crds.install=false")
        assert "pod-1" == plane.request("GET", lease)["spec"]["holderIdentity"]
        helm_on_cluster.helm("uninstall", "openworkflow", "--namespace", home, "--no-hooks")
        if is_made:
            plane.request("GET", lease)
        else:
            with pytest.raises(ApiRefusal):
                plane.request("GET", lease)
