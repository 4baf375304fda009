"""`kubectl openworkflow`, as kubectl finds it, on a real API server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from openworkflow_operator.process import Operator
from tests.control_plane import binary
from tests.helpers import eventually
from tests.kubernetes_space import FAST, MERGE, ROOT, Space

Start = Callable[..., AbstractAsyncContextManager[Operator]]

KUBECTL = binary("kubectl")
SCRIPT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]

pytestmark = pytest.mark.skipif(KUBECTL is None, reason="needs kubectl")


@pytest.fixture
def plugin(tenant: Space, tmp_path: Path) -> Callable[..., Any]:
    """kubectl with the plugin in its PATH, as an install of the package leaves it."""
    module, _, function = SCRIPT["kubectl-openworkflow"].partition(":")
    program = tmp_path / "kubectl-openworkflow"
    program.write_text(
        f"#!{sys.executable}\nfrom {module} import {function}\n{function}()\n", "utf-8"
    )
    program.chmod(0o755)
    kubectl = str(KUBECTL)
    path = os.pathsep.join([str(tmp_path), str(Path(kubectl).parent), os.environ["PATH"]])
    config = str(tenant.plane.kubeconfig(tmp_path, "the-tests"))
    env = {**os.environ, "PATH": path, "KUBECONFIG": config}
    env["PYTHONPATH"] = os.pathsep.join(sys.path)

    def run(*arguments: str) -> Any:
        return subprocess.run(
            [kubectl, *arguments], capture_output=True, text=True, timeout=120, env=env
        )

    return run


async def test_at_zero_the_command_runs_in_a_pod_like_a_worker_s(
    tenant: Space, start: Start, plugin: Callable[..., Any]
) -> None:
    """It gets the URL from the Secret by itself: nobody has to read it out."""
    labels = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    tenant.plane.request("PATCH", f"/api/v1/namespaces/{tenant.name}", labels, MERGE)
    tenant.resource(scaling=FAST)
    async with start():
        await eventually(lambda: tenant.replicas() == 0, deadline=30)

    where = ("openworkflow", "-n", tenant.name, "--show")
    done = plugin(*where, "runs", "list", "--status", "failed")

    assert (0, "") == (done.returncode, done.stderr)
    line = json.loads(done.stdout)
    assert "--rm" in line
    attached = ("--rm", "--quiet", "--stdin", "--tty", "--pod-running-timeout=5m")
    dry = [part for part in line[1:] if part not in attached]
    made = plugin(*dry, "--dry-run=server", "--output=json")  # restricted, and admitted
    assert 0 == made.returncode, made.stderr
    pod = json.loads(made.stdout)
    (container,) = pod["spec"]["containers"]
    assert ["openworkflow", "runs", "list", "--status", "failed"] == container["command"]
    assert "registry.example.com/shop/workers:1.4.0" == container["image"]
    url = next(each for each in container["env"] if each["name"] == "DATABASE_URL")
    assert {"name": "orders-database", "key": "DATABASE_URL"} == url["valueFrom"]["secretKeyRef"]
    assert not {"livenessProbe", "readinessProbe", "startupProbe", "ports"} & container.keys()
    assert "openworkflow.dev/workflow-namespace" not in pod["metadata"]["labels"]


async def test_beside_a_worker_it_runs_in_its_container(
    tenant: Space, start: Start, plugin: Callable[..., Any]
) -> None:
    tenant.resource(scaling=FAST | {"minReplicas": 1})
    tenant.resource("billing", scaling=FAST, namespaceId="billing")
    async with start():
        await eventually(lambda: tenant.replicas() == 1, deadline=30)
        tenant.pod("worker-1")

    several = plugin("openworkflow", "-n", tenant.name, "doctor")
    done = plugin(
        *("openworkflow", "--namespace", tenant.name, "--fleet", "orders", "--show"),
        *("runs", "retry", "--help"),
    )

    assert "say which by --fleet: billing, orders" in several.stderr
    assert several.returncode == 1
    line = json.loads(done.stdout)
    assert ["exec", "--stdin", "--container=worker", "worker-1", "--"] == line[2:7]
    assert ["openworkflow", "runs", "retry", "--help"] == line[7:]


def test_what_is_missing_is_said_in_a_line(tenant: Space, plugin: Callable[..., Any]) -> None:
    nothing = plugin("openworkflow", "-n", tenant.name, "runs", "list")
    tenant.resource()
    unmade = plugin("openworkflow", "-n", tenant.name, "runs", "list")

    assert "there is no WorkflowNamespace here" in nothing.stderr
    assert "orders has no fleet yet" in unmade.stderr
    assert "Traceback" not in nothing.stderr + unmade.stderr
