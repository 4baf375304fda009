"""The dashboard in the cluster: off unless asked for, and then for whom the values name alone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.test_chart import CHART, MATRIX, pods
from tests.helm import helm, render

ENABLED = "--set=dashboard.enabled=true"
TOKENS = "--set=dashboard.tokens.existingSecret=tokens"
PROXY = "--set=dashboard.proxy.header=X-User"
OPENID = "--set=dashboard.openid.issuer=https://id.example.com"


def parts(*values: str) -> dict[str, dict[str, Any]]:
    """What the dashboard consists of, by kind."""
    made = render("openworkflow", *values)
    return {o["kind"]: o for o in made if o["metadata"]["name"] == "openworkflow-dashboard"}


def container(*values: str) -> dict[str, Any]:
    (found,) = parts(*values)["Deployment"]["spec"]["template"]["spec"]["containers"]
    return dict(found)


def environment(*values: str) -> dict[str, Any]:
    return {each["name"]: each for each in container(*values)["env"]}


def test_nobody_has_a_dashboard_who_did_not_ask_for_one() -> None:
    assert {} == parts()
    assert "dashboard" not in dict(pods(render("openworkflow")))


def test_it_is_served_by_the_image_of_the_workers_to_whom_the_tokens_name() -> None:
    made = container(*MATRIX["dashboard"])

    assert "ghcr.io/openworkflow/worker:0.1.0" == made["image"]
    assert ["dashboard", "--host=0.0.0.0", "--port=8080", "--namespace=default"] == made["args"]
    env = environment(*MATRIX["dashboard"])
    tokens = {"name": "tokens", "key": "OPENWORKFLOW_DASHBOARD_TOKENS"}
    assert tokens == env["OPENWORKFLOW_DASHBOARD_TOKENS"]["valueFrom"]["secretKeyRef"]
    database = {"name": "openworkflow-database", "key": "DATABASE_URL"}
    assert database == env["DATABASE_URL"]["valueFrom"]["secretKeyRef"]


def test_it_may_have_a_database_role_of_its_own_and_a_proxy_that_knows_people() -> None:
    values = MATRIX["dashboard behind a proxy"]

    assert [
        "dashboard",
        "--host=0.0.0.0",
        "--port=8080",
        "--namespace=shop",
        "--also=billing",
        "--proxy-header=X-Forwarded-User",
        "--proxy-role=operator",
        "--proxy-from=10.0.0.0/8",
        "--proxy-from=fd00::/8",
    ] == container(*values)["args"]
    env = environment(*values)
    assert {"name": "own", "key": "url"} == env["DATABASE_URL"]["valueFrom"]["secretKeyRef"]
    assert "OPENWORKFLOW_DASHBOARD_TOKENS" not in env


def test_people_may_log_in_by_an_openid_provider() -> None:
    values = MATRIX["dashboard with an OpenID provider"]

    assert [
        "--openid=https://id.example.com/realms/main",
        "--openid-client=board",
        "--openid-url=https://ops.example.com",
        "--openid-claim=groups",
        "--openid-role=ann@example.com=operator",
        "--openid-role=sre=admin",
    ] == container(*values)["args"][4:]
    secret = environment(*values)["OPENWORKFLOW_DASHBOARD_OPENID_SECRET"]["valueFrom"]
    key = "OPENWORKFLOW_DASHBOARD_OPENID_SECRET"
    assert {"secretKeyRef": {"name": "openid", "key": key}} == secret


def test_its_database_is_the_one_that_is_migrated() -> None:
    env = environment(ENABLED, TOKENS, "--set=database.existingSecret=db,database.schema=flows")

    database = {"name": "db", "key": "DATABASE_URL"}
    assert database == env["DATABASE_URL"]["valueFrom"]["secretKeyRef"]
    assert "flows" == env["OPENWORKFLOW_SCHEMA"]["value"]


def test_it_has_no_right_in_the_cluster_and_no_token() -> None:
    made = render("openworkflow", *MATRIX["dashboard"])
    pod = dict(pods(made))["openworkflow-dashboard"]

    assert "openworkflow-dashboard" == pod["serviceAccountName"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False  # a Service of this name would be a setting of ours
    bound = [subject["name"] for each in made for subject in each.get("subjects", ())]
    assert {"openworkflow-operator"} == set(bound)


def test_the_service_and_the_policy_mean_its_pods_and_no_others() -> None:
    made = parts(*MATRIX["dashboard"])
    labels = made["Deployment"]["spec"]["template"]["metadata"]["labels"]

    selected = made["Service"]["spec"]["selector"]
    assert selected == made["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
    assert selected == made["Deployment"]["spec"]["selector"]["matchLabels"]
    assert selected.items() <= labels.items()
    assert "dashboard" == selected["app.kubernetes.io/component"]
    (port,) = container(*MATRIX["dashboard"])["ports"]
    assert [port["name"]] == [each["targetPort"] for each in made["Service"]["spec"]["ports"]]
    assert [port["name"]] == [
        each["port"] for each in made["NetworkPolicy"]["spec"]["ingress"][0]["ports"]
    ]


def test_its_policy_lets_in_whom_the_values_name_and_lets_it_go_where_they_say() -> None:
    policy = parts(*MATRIX["dashboard behind a proxy"])["NetworkPolicy"]["spec"]

    assert ["Ingress", "Egress"] == policy["policyTypes"]
    assert [{"podSelector": {"matchLabels": {"a": "b"}}}] == policy["ingress"][0]["from"]
    assert [{"ports": [{"port": 5432, "protocol": "TCP"}]}] == policy["egress"]
    without = parts(*MATRIX["dashboard"], "--set=dashboard.networkPolicy.enabled=false")
    assert "NetworkPolicy" not in without


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((), "say who may come in: name a Secret in dashboard.tokens.existingSecret"),
        ((PROXY,), "dashboard.proxy: header and from go together"),
        ((TOKENS, "--set=dashboard.proxy.from={10.0.0.0/8}"), "header and from go together"),
        ((TOKENS, PROXY, "--set=dashboard.proxy.from={10.0.0.0/8}"), "name one of them"),
        ((TOKENS, OPENID), "name one of them"),
        ((OPENID,), "issuer needs client, url, existingSecret"),
        ((OPENID, '--set-json=dashboard.openid.roles={"sre":"root"}'), "roles"),
        ((TOKENS, "--set=devPostgres.enabled=false"), "name its database in"),
        ((TOKENS, "--set=dashboard.proxy.role=root"), "role"),
        ((TOKENS, "--set-json=dashboard.namespaces=[]"), "namespaces"),
        ((TOKENS, "--set=dashboard.replica=2"), "replica"),
    ],
)
def test_one_that_anybody_or_nobody_could_use_is_refused(
    values: tuple[str, ...], message: str
) -> None:
    done = helm("template", "openworkflow", CHART, ENABLED, *values)

    assert done.returncode != 0
    assert message in done.stderr


def test_the_notes_say_how_to_reach_it() -> None:
    chart = ("install", "openworkflow", CHART, "--dry-run=client", "--namespace", "here")
    done = helm(*chart, ENABLED, TOKENS)

    assert "port-forward service/openworkflow-dashboard 8321:8080" in done.stdout, done.stderr
    assert "port-forward" not in helm(*chart).stdout
