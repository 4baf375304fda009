"""The charts: what they render, what they refuse, and a life on a real API server."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.control_plane import ApiRefusal
from tests.helm import CHARTS, Cluster, helm, render

ROOT = CHARTS.parent
CHART = str(CHARTS / "openworkflow")
MONITORED = (
    "--api-versions=monitoring.coreos.com/v1",
    "--set=metrics.serviceMonitor.enabled=true,metrics.prometheusRule.enabled=true",
    "--set=metrics.dashboards.enabled=true",
)
#: Values that change what is rendered, alone and together.
MATRIX: dict[str, tuple[str, ...]] = {
    "defaults": (),
    "production": (
        "--set=replicas=2,database.existingSecret=db,networkPolicy.enabled=true",
        "--set=priorityClassName=system-cluster-critical,operator.caConfigMap=ca",
        "--set=imagePullSecrets[0].name=pull,nodeSelector.disk=ssd,commonLabels.team=shop",
    ),
    "namespaced": ("--set=operator.namespaces={shop,billing},rbac.secrets=namespaced",),
    "own secrets": ("--set=rbac.secrets=none,serviceAccount.create=false,serviceAccount.name=me",),
    "nothing extra": ("--set=devPostgres.enabled=false,crds.install=false,rbac.create=false",),
    "development": ("--set=networkPolicy.enabled=true,devPostgres.storageClassName=fast",),
    "plain Jobs and closed networks": (
        "--set=migrations.hook=false,networkPolicy.enabled=true",
        '--set-json=networkPolicy.from=[{"namespaceSelector":{"matchLabels":{"a":"b"}}}]',
        '--set-json=networkPolicy.egress=[{"ports":[{"port":5432,"protocol":"TCP"}]}]',
    ),
    "dashboard": ("--set=dashboard.enabled=true,dashboard.tokens.existingSecret=tokens",),
    "dashboard behind a proxy": (
        "--set=dashboard.enabled=true,dashboard.existingSecret=own,dashboard.secretKey=url",
        "--set=dashboard.proxy.header=X-Forwarded-User,dashboard.proxy.from={10.0.0.0/8,fd00::/8}",
        "--set=dashboard.namespaces={shop,billing},dashboard.proxy.role=operator",
        '--set-json=dashboard.networkPolicy.from=[{"podSelector":{"matchLabels":{"a":"b"}}}]',
        '--set-json=dashboard.networkPolicy.egress=[{"ports":[{"port":5432,"protocol":"TCP"}]}]',
        '--set-json=dashboard.extraVolumes=[{"name":"v","emptyDir":{}}]',
        '--set-json=dashboard.extraVolumeMounts=[{"name":"v","mountPath":"/v"}]',
    ),
    "dashboard with an OpenID provider": (
        "--set=dashboard.enabled=true,dashboard.openid.issuer=https://id.example.com/realms/main",
        "--set=dashboard.openid.client=board,dashboard.openid.url=https://ops.example.com",
        "--set=dashboard.openid.existingSecret=openid",
        '--set-json=dashboard.openid.roles={"sre":"admin","ann@example.com":"operator"}',
    ),
    "extras": (
        '--set-json=extraEnv=[{"name":"A","value":"b"}]',
        '--set-json=extraVolumes=[{"name":"v","emptyDir":{}}]',
        '--set-json=extraVolumeMounts=[{"name":"v","mountPath":"/v"}]',
        '--set-json=extraObjects=[{"apiVersion":"v1","kind":"ConfigMap",'
        '"metadata":{"name":"{{ .Release.Name }}-more"}}]',
    ),
}


@pytest.fixture(params=MATRIX, ids=list(MATRIX))
def objects(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return render("openworkflow", *MATRIX[request.param])


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for each in objects:
        spec = each["spec"] if each["kind"] == "Pod" else each.get("spec", {}).get("template", {})
        if each["kind"] in ("Pod", "Deployment", "StatefulSet", "Job"):
            yield each["metadata"]["name"], spec if each["kind"] == "Pod" else spec["spec"]


@pytest.mark.parametrize("chart", ["openworkflow", "openworkflow-namespace"])
def test_the_linter_is_content(chart: str) -> None:
    values = [] if chart == "openworkflow" else ["--set", "spec.worker.image=x"]

    done = helm("lint", "--strict", str(CHARTS / chart), *values)

    assert 0 == done.returncode, done.stdout


def test_what_is_generated_is_current() -> None:
    command = [sys.executable, "-m", "tools.chart", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert (0, "") == (done.returncode, done.stderr)


def test_every_pod_meets_pod_security_restricted(objects: list[dict[str, Any]]) -> None:
    found = dict(pods(objects))

    assert found
    for name, pod in found.items():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), name
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert security["readOnlyRootFilesystem"] is True, name
            assert container["resources"]["requests"], name
            assert container["resources"]["limits"]["memory"], name


def test_only_the_operator_has_a_token(objects: list[dict[str, Any]]) -> None:
    mounted = [name for name, pod in pods(objects) if pod["automountServiceAccountToken"]]

    assert ["openworkflow-operator"] == mounted


def test_every_object_says_where_it_is(objects: list[dict[str, Any]]) -> None:
    cluster_wide = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
    for each in objects:
        if each["kind"] not in cluster_wide and each["metadata"]["name"] != "openworkflow-more":
            assert each["metadata"]["namespace"], each["kind"]


def test_the_permissions_are_those_the_operator_is_tested_with() -> None:
    shipped = list(yaml.safe_load_all((ROOT / "manifests/rbac.yaml").read_text()))

    def rules(objects: list[dict[str, Any]], kind: str, name: str) -> list[Any]:
        role = next(o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name)
        return sorted(role["rules"], key=str)

    made = render("openworkflow")
    assert rules(shipped, "ClusterRole", "openworkflow-operator") == rules(
        made, "ClusterRole", "here-openworkflow-operator"
    )
    assert rules(shipped, "Role", "openworkflow-operator") == rules(
        made, "Role", "openworkflow-operator"
    )


def test_namespaced_means_no_cluster_wide_binding_and_no_cluster_wide_secrets() -> None:
    made = render("openworkflow", *MATRIX["namespaced"])

    assert not [each for each in made if each["kind"] == "ClusterRoleBinding"]
    wide = [each for each in made if each["kind"] == "ClusterRole"]
    assert "secrets" not in str(wide)
    narrow = [each for each in made if each["kind"] == "Role" and "secrets" in str(each["rules"])]
    assert {"shop", "billing"} == {each["metadata"]["namespace"] for each in narrow}


def test_without_secrets_nothing_lets_the_operator_read_them() -> None:
    made = render("openworkflow", *MATRIX["own secrets"])

    assert "secrets" not in str([each.get("rules") for each in made])


def test_a_named_database_starts_no_postgres_and_is_the_one_that_is_migrated() -> None:
    made = render("openworkflow", *MATRIX["production"])

    assert not [each for each in made if each["kind"] == "StatefulSet"]
    job = next(each for each in made if each["kind"] == "Job")
    env = job["spec"]["template"]["spec"]["containers"][0]["env"][0]
    assert {"name": "db", "key": "DATABASE_URL"} == env["valueFrom"]["secretKeyRef"]
    assert "--set" not in str(job["spec"])


def test_a_digest_wins_over_a_tag() -> None:
    digest = "sha256:" + "a" * 64
    made = render("openworkflow", f"--set=image.digest={digest},image.tag=x")

    assert (
        f"ghcr.io/openworkflow/operator@{digest}"
        == dict(pods(made))["openworkflow-operator"]["containers"][0]["image"]
    )


def test_monitoring_brings_the_files_of_the_chart() -> None:
    made = render("openworkflow", *MONITORED)

    (rule,) = [each for each in made if each["kind"] == "PrometheusRule"]
    shipped = yaml.safe_load((CHARTS / "openworkflow/alerts/openworkflow.yaml").read_text())
    assert shipped == rule["spec"]
    boards = {
        key: text
        for each in made
        if each["kind"] == "ConfigMap" and "grafana_dashboard" in each["metadata"]["labels"]
        for key, text in each["data"].items()
    }
    files = list((CHARTS / "openworkflow/dashboards").glob("*.json"))
    assert {file.name: file.read_text().rstrip("\n") for file in files} == boards
    assert len(files) == 3


def test_the_alerts_lead_to_the_runbooks_of_who_installs_it() -> None:
    place = "https://git.example.com/ops/runbooks"
    made = render(
        "openworkflow",
        *MONITORED,
        f"--set=metrics.prometheusRule.runbookUrl={place}/",
    )

    (rule,) = (each for each in made if each["kind"] == "PrometheusRule")
    alerts = [alert for group in rule["spec"]["groups"] for alert in group["rules"]]
    links = {alert["annotations"]["runbook_url"] for alert in alerts}
    assert {f"{place}/{alert['alert']}" for alert in alerts} == links


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("--set=replica=2", "replica"),
        ("--set=operator.logLevel=LOUD", "logLevel"),
        ("--set=operator.namespaces={a,a}", "namespaces"),
        ("--set=operator.namespaces={A_b}", "namespaces"),
        ("--set=rbac.secrets=namespaced,rbac.secretNamespaces={a,a}", "secretNamespaces"),
        ("--set=rbac.secrets=all", "secrets"),
        ("--set=image.digest=latest", "digest"),
        ("--set=replicas=two", "replicas"),
        ("--set=podAnnotations.a=1", "at '/podAnnotations/a': got number, want string"),
        ("--set=metrics.dashboards.annotations.a=true", "got boolean, want string"),
        ("--set=operator=null", "missing property 'operator'"),
        ("--set=metrics.serviceMonitor=null", "missing property 'serviceMonitor'"),
        ("--set=fullnameOverride=A_b", "fullnameOverride"),
        ("--set=nameOverride=a.b", "nameOverride"),
        (r"--set=commonLabels.app\.kubernetes\.io/name=a", "'app.kubernetes.io/name'"),
        ("--set=podLabels.team=a b", "at '/podLabels/team'"),
        ("--set=metrics.servicemonitor.enabled=true", "servicemonitor"),
        ("--set=rbac.secrets=namespaced", "name the namespaces in rbac.secretNamespaces"),
        ("--set=serviceAccount.create=false", "name an existing one in serviceAccount.name"),
        ("--set=metrics.serviceMonitor.enabled=true", "this cluster has no ServiceMonitor"),
        ("--set=metrics.prometheusRule.enabled=true", "this cluster has no PrometheusRule"),
    ],
)
def test_bad_values_are_refused_by_name(values: str, message: str) -> None:
    done = helm("template", "openworkflow", CHART, values)

    assert done.returncode != 0
    assert message in done.stderr


@pytest.mark.parametrize("release", ["9x", "a.b"])
def test_a_release_that_no_service_can_be_named_after_is_refused_before_it_is_made(
    release: str,
) -> None:
    done = helm("template", release, CHART)

    assert "set fullnameOverride" in done.stderr
    assert helm("template", release, CHART, "--is-upgrade").returncode == 0
    assert helm("template", release, CHART, "--set=fullnameOverride=x").returncode == 0


@pytest.mark.parametrize("chart", ["openworkflow", "openworkflow-namespace"])
def test_names_that_look_like_numbers_stay_text(chart: str) -> None:
    """A team's namespace may be 42, which was a number, and every object of it was refused."""
    more = ["--set-string=fullnameOverride=x,nameOverride=9,operator.namespaces={7}"]
    if chart != "openworkflow":
        named = "spec.database.secretRef.name=7,spec.worker.image=a,spec.worker.workflows={b}"
        more = [f"--set-string={named}", "--set=replayCheck.enabled=true"]
    done = helm("template", "1e3", str(CHARTS / chart), "--namespace=42", *more)
    assert done.returncode == 0, done.stderr
    for each in yaml.safe_load_all(done.stdout):
        metadata = each["metadata"]
        texts = [metadata["name"], metadata.get("namespace", ""), *metadata["labels"].values()]
        assert all(isinstance(text, str) for text in texts), metadata


def test_a_chart_packed_without_alerts_refuses_to_install_them(tmp_path: Path) -> None:
    chart = shutil.copytree(CHART, tmp_path / "openworkflow")
    shutil.rmtree(chart / "alerts")

    done = helm("template", "openworkflow", str(chart), *MONITORED)

    assert "packed without alerts/openworkflow.yaml" in done.stderr


def test_the_service_monitor_selects_the_operators_service() -> None:
    made = render("openworkflow", *MONITORED, "--set=metrics.serviceMonitor.labels.release=prom")
    found = {each["kind"]: each for each in made if each["kind"] != "Service"}
    (service,) = [o for o in made if o["kind"] == "Service" and "operator" in o["metadata"]["name"]]

    labels = found["ServiceMonitor"]["spec"]["selector"]["matchLabels"]
    assert labels.items() <= service["metadata"]["labels"].items()
    (endpoint,) = found["ServiceMonitor"]["spec"]["endpoints"]
    assert [endpoint["port"]] == [port["name"] for port in service["spec"]["ports"]]
    assert "prom" == found["ServiceMonitor"]["metadata"]["labels"]["release"]


@pytest.mark.parametrize(
    ("values", "hook"),
    [
        ((), "post-install,post-upgrade"),
        (("--set=database.existingSecret=db",), "post-install,pre-upgrade"),
        (("--set=migrations.hook=false",), None),
    ],
)
def test_when_migrations_run(values: tuple[str, ...], hook: str | None) -> None:
    def job(*more: str) -> dict[str, Any]:
        made = render("openworkflow", *values, *more)
        found: dict[str, Any] = next(each["metadata"] for each in made if each["kind"] == "Job")
        return found

    assert hook == job().get("annotations", {}).get("helm.sh/hook")
    # Without a hook, a Job of the same name is the same Job: the API server lets none change.
    assert job()["name"] == job()["name"]
    assert (hook is None) == (job()["name"] != job("--set=workerImage.tag=next")["name"])


def test_an_upgrade_restarts_no_development_database() -> None:
    def template(*values: str) -> Any:
        made = render("openworkflow", *values)
        return next(each["spec"]["template"] for each in made if each["kind"] == "StatefulSet")

    assert "chart" not in str(template()["metadata"])
    assert template() == template("--set=image.tag=next,workerImage.tag=next,commonLabels.a=b")


def test_an_empty_tenant_is_refused() -> None:
    done = helm("template", "orders", str(CHARTS / "openworkflow-namespace"))

    assert "spec is empty: it needs at least database.secretRef.name" in done.stderr


def test_a_tenant_may_be_checked_by_replays_before_an_upgrade() -> None:
    values = "--set-json=spec=" + (
        '{"namespaceId":"eu","database":{"secretRef":{"name":"db"}},'
        '"worker":{"image":"app:2","workflows":["a","b"]}}'
    )
    made = render("openworkflow-namespace", values, "--set=replayCheck.enabled=true")

    (job,) = [each for each in made if each["kind"] == "Job"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert ["a", "b", "--limit", "500", "--allow-empty"] == container["args"]
    assert "app:2" == container["image"]
    env = {each["name"]: each.get("value") for each in container["env"]}
    assert "eu" == env["OPENWORKFLOW_NAMESPACE"]
    assert job["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"]


def test_a_life_on_a_real_api_server(helm_on_cluster: Cluster) -> None:
    """Installed, upgraded, rolled back, uninstalled; CRD and password outlive it."""
    cluster, where = helm_on_cluster, ("--namespace", "openworkflow-system")
    core = "/api/v1/namespaces/openworkflow-system"
    deployment = "/apis/apps/v1/namespaces/openworkflow-system/deployments/openworkflow-operator"
    crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"
    crd += "workflownamespaces.openworkflow.dev"
    # There is no kubelet that would run the hooks' Job.
    args = (*where, "--no-hooks")

    notes = cluster.helm("install", "openworkflow", CHART, "--create-namespace", *args)
    assert "It is NOT for production" in notes
    password = cluster.get(f"{core}/secrets/openworkflow-database")["data"]
    assert cluster.get(deployment)["spec"]["replicas"] == 1

    cluster.helm("upgrade", "openworkflow", CHART, "--set=replicas=2", *args)
    assert cluster.get(deployment)["spec"]["replicas"] == 2
    assert password == cluster.get(f"{core}/secrets/openworkflow-database")["data"]

    cluster.helm("rollback", "openworkflow", "1", *args)
    assert cluster.get(deployment)["spec"]["replicas"] == 1

    values = "--set-json=spec=" + '{"database":{"secretRef":{"name":"openworkflow-database"}},'
    values += '"worker":{"image":"registry.example.com/app:1","workflows":["app"]}}'
    cluster.helm("install", "orders", str(CHARTS / "openworkflow-namespace"), values, *where)
    tenants = "/apis/openworkflow.dev/v1alpha1/namespaces/openworkflow-system/workflownamespaces"
    assert ["orders"] == [each["metadata"]["name"] for each in cluster.get(tenants)["items"]]

    cluster.helm("uninstall", "openworkflow", *args)
    with pytest.raises(ApiRefusal):
        cluster.get(deployment)
    assert ["orders"] == [each["metadata"]["name"] for each in cluster.get(tenants)["items"]]
    assert cluster.get(crd)["metadata"]["name"]
    assert password == cluster.get(f"{core}/secrets/openworkflow-database")["data"]

    cluster.helm("install", "openworkflow", CHART, *args)  # takes up what stayed
    cluster.helm("uninstall", "openworkflow", *args)


def test_a_real_api_server_takes_what_is_rendered(helm_on_cluster: Cluster) -> None:
    """Server-side dry run of every combination."""
    for namespace in ("shop", "billing"):
        helm_on_cluster.plane.create_namespace(namespace)
    for number, values in enumerate(MATRIX.values()):
        # Another release each: cluster-wide names carry the namespace.
        name = f"dry-{number}"
        helm_on_cluster.helm(
            *("install", name, CHART, "--namespace", name, "--create-namespace"),
            *("--dry-run=server", "--no-hooks", "--set=crds.install=false", *values),
        )


def test_the_notes_make_the_fleet_of_the_example(helm_on_cluster: Cluster) -> None:
    where = ("--namespace", "system", "--create-namespace", "--no-hooks")
    notes = helm_on_cluster.helm("install", "openworkflow", CHART, *where)
    told = notes.partition("<<'EOF'\n")[2].partition("EOF\n")[0]
    made = list(yaml.safe_load_all(told))
    made[1]["spec"]["database"] = {"secretRef": {"name": "openworkflow-database"}}

    example = (CHARTS.parent / "manifests/examples/hello.yaml").read_text()
    assert list(yaml.safe_load_all(example)) == made
    helm_on_cluster.helm("uninstall", "openworkflow", "--namespace", "system", "--no-hooks")
