"""The scrape configuration of docs/monitoring.md, tried by Prometheus on what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from openworkflow_operator.api.names import WORKER_PORT
from openworkflow_operator.api.spec import WorkflowNamespace
from openworkflow_operator.desired.workload import pod_template
from tests.helpers import eventually_sync
from tests.observability import prometheus
from tests.observability.alerts import ROOT, RULES

PAGE: Final = ROOT / "docs/monitoring.md"
CONFIG: Final = re.compile(r"```yaml\n(rule_files:.*?)```", re.DOTALL)
OPERATOR: Final = {
    "app.kubernetes.io/part-of": "openworkflow",
    "app.kubernetes.io/component": "operator",
}
FOREIGN: Final = {"app.kubernetes.io/component": "worker"}


@pytest.mark.skipif(
    not prometheus.is_available(),
    reason="NO PROMETHEUS: the scrape configuration is not tried; make test-programs",
)
def test_the_scrape_configuration_takes_our_pods_with_the_labels_of_the_dashboards(
    tmp_path: Path, unused_port: int
) -> None:
    pods = tmp_path / "pods.json"
    pods.write_text(json.dumps(discovered()))
    jobs = yaml.safe_load(scrape_configuration())["scrape_configs"]
    for job in jobs:  # Debian's Prometheus cannot ask a cluster
        assert [{"role": "pod"}] == job.pop("kubernetes_sd_configs")
        job["file_sd_configs"] = [{"files": [str(pods)]}]

    with prometheus.running(tmp_path, unused_port, jobs, RULES) as server:

        def of_both_jobs() -> Any:
            """Each job finds its targets by itself."""
            found = server.get("targets", state="active")["activeTargets"]
            return found if len({each["labels"]["job"] for each in found}) == 2 else None

        targets = eventually_sync(of_both_jobs)

    names = ("job", "kube_namespace", "workflow_namespace")
    assert [
        ("openworkflow-operator", None, None),
        ("openworkflow-worker", "shop", "orders"),
    ] == sorted(tuple(map(each["labels"].get, names)) for each in targets)


def discovered() -> list[dict[str, Any]]:
    """What Prometheus' discovery tells of an operator, one of our workers and one of others."""
    raw = yaml.safe_load((ROOT / "manifests/examples/minimal.yaml").read_text())
    raw["metadata"] |= {"namespace": "shop", "uid": "1", "creationTimestamp": ""}
    template = pod_template(WorkflowNamespace.parse(raw), None)
    (port,) = template["spec"]["containers"][0]["ports"]
    return [
        target("operator", OPERATOR, "http"),
        target("worker", template["metadata"]["labels"], port["name"]),
        target("foreign", FOREIGN, "metrics"),
    ]


def target(name: str, labels: dict[str, str], port: str) -> dict[str, Any]:
    """A port of a pod, as the role `pod` describes it."""
    meta = {"namespace": "shop", "pod_name": name, "pod_container_port_name": port}
    for label, value in labels.items():
        key = re.sub(r"\W", "_", label)
        meta |= {f"pod_label_{key}": value, f"pod_labelpresent_{key}": "true"}
    return {
        "targets": [f"127.0.0.1:{WORKER_PORT}"],
        "labels": {f"__meta_kubernetes_{key}": value for key, value in meta.items()},
    }


def scrape_configuration() -> str:
    found = CONFIG.search(PAGE.read_text())
    assert found is not None
    return found[1]
