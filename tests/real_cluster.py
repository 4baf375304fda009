"""A Kubernetes cluster whose pods really run, as its administrator sees it through kubectl.

Which one, and with which images and database, is said by the environment:

    OPENWORKFLOW_E2E_KUBECONFIG       of a cluster that the tests may install into
    OPENWORKFLOW_E2E_OPERATOR_IMAGE   built by --target operator
    OPENWORKFLOW_E2E_WORKER_IMAGE     built from examples/image
    OPENWORKFLOW_E2E_BUILDS_IMAGE     with the tags v1, v2 and broken, built from tests/e2e/builds
    OPENWORKFLOW_E2E_DATABASE_URL     of a role that may create databases; a server that pods reach
    OPENWORKFLOW_E2E_POSTGRES_IMAGE   for the chart's development PostgreSQL; may be left out
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.control_plane import binary
from tests.helm import helm

PREFIX = "OPENWORKFLOW_E2E_"


@dataclass(frozen=True, slots=True)
class RealCluster:
    """The cluster, and what the tests run in it."""

    kubeconfig: str
    operator_image: str
    worker_image: str
    builds_image: str
    database_url: str = field(repr=False)
    postgres_image: str | None = None

    def command(self, *args: str) -> list[str]:
        """Kubectl with these arguments."""
        program = shutil.which("kubectl") or binary("kubectl")
        assert program is not None, "kubectl is not in PATH"
        return [program, f"--kubeconfig={self.kubeconfig}", *args]

    def kubectl(self, *args: str, given: object = None, timeout: float = 120) -> str:
        """Run kubectl; `given` is a manifest for its standard input. Raises RuntimeError."""
        done = subprocess.run(
            self.command(*args),
            input=None if given is None else json.dumps(given),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"kubectl {' '.join(args)}: {done.stderr}")
        return done.stdout

    def helm(self, *args: str) -> str:
        """Run helm. Raises RuntimeError."""
        done = helm(*args, env={"KUBECONFIG": self.kubeconfig}, timeout=240)
        if done.returncode != 0:
            raise RuntimeError(f"helm {' '.join(args)}: {done.stderr}")
        return done.stdout

    def get(self, *args: str) -> Any:
        """What `kubectl get` finds."""
        return json.loads(self.kubectl("get", *args, "-o", "json", "--ignore-not-found") or "{}")

    def logs(self, *args: str) -> str:
        """What a pod printed; nothing while its container does not run."""
        with suppress(RuntimeError):
            return self.kubectl("logs", *args)
        return ""

    def apply(self, *manifests: object) -> None:
        """Server-side apply as the tests' own manager."""
        apply = ("apply", "--server-side", "--force-conflicts", "--field-manager=tests", "-f", "-")
        self.kubectl(*apply, given={"apiVersion": "v1", "kind": "List", "items": manifests})


def named() -> RealCluster | None:
    """The cluster that the environment names, if it does. Raises RuntimeError for half of it."""
    images = ("OPERATOR_IMAGE", "WORKER_IMAGE", "BUILDS_IMAGE")
    names = [PREFIX + name for name in ("KUBECONFIG", *images, "DATABASE_URL")]
    if not os.environ.get(names[0]):
        return None
    if missing := [name for name in names if not os.environ.get(name)]:
        raise RuntimeError(f"{names[0]} is set, so {', '.join(missing)} must be too")
    kubeconfig, operator, worker, builds, database = (os.environ[name] for name in names)
    postgres = os.environ.get(f"{PREFIX}POSTGRES_IMAGE")
    return RealCluster(kubeconfig, operator, worker, builds, database, postgres)


def describe(parallel: bool) -> str:
    """Whether real pods were part of what was tested."""
    if not os.environ.get(f"{PREFIX}KUBECONFIG"):
        return f"end to end: NOT TESTED with real pods; set {PREFIX}KUBECONFIG and run `make e2e`"
    if parallel:
        return "end to end: NOT TESTED in parallel with other tests; run `make e2e`"
    return "end to end: with real pods, where tests/e2e was part of the run"


@dataclass(slots=True)
class ReplicaWatch:
    """When a Deployment's pods were asked for, and when they were ready, as they happen."""

    seen: list[tuple[float, int, int]] = field(default_factory=list)

    def first(self, *, asked: int = 0, ready: int = 0) -> float | None:
        """When so many were asked for, or ready, for the first time."""
        return next((at for at, a, r in list(self.seen) if a >= asked and r >= ready), None)

    @property
    def most_asked(self) -> int:
        """The largest fleet so far."""
        return max((asked for _, asked, _ in list(self.seen)), default=0)


@contextmanager
def watched(cluster: RealCluster, namespace: str, deployment: str) -> Iterator[ReplicaWatch]:
    """Follow the Deployment during the block; by time.monotonic()."""
    path = "{.spec.replicas} {.status.readyReplicas}.\n"
    args = ["-n", namespace, "get", "deployment", deployment]
    command = cluster.command(*args, "--watch", f"--output=jsonpath={path}")
    watch = ReplicaWatch()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        threading.Thread(target=_follow, args=(process.stdout, watch), daemon=True).start()
        try:
            yield watch
        finally:
            process.kill()


def _follow(lines: Iterator[str], watch: ReplicaWatch) -> None:
    for line in lines:
        asked, _, ready = line.strip().rstrip(".").partition(" ")
        watch.seen.append((time.monotonic(), int(asked or 0), int(ready or 0)))


def killer(name: str, image: str, node: str, pod_uid: str, program: str) -> dict[str, Any]:
    """A pod that sends SIGKILL to a program of another pod: from inside, a PID 1 is immune."""
    script = _KILL.format(uid=pod_uid, program=program)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "hostPID": True,
            "nodeName": node,
            "restartPolicy": "Never",
            "containers": [
                {
                    "name": "kill",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["python", "-c", script],
                    "securityContext": {"runAsUser": 0, "privileged": True},
                }
            ],
        },
    }


_KILL = """
import os
killed = []
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        cgroup = open(f"/proc/{{pid}}/cgroup").read().replace("_", "-")
        words = open(f"/proc/{{pid}}/cmdline").read().split(chr(0))
    except OSError:
        continue
    if "{uid}" in cgroup and any(word.endswith("/{program}") for word in words):
        os.kill(int(pid), 9)
        killed.append(pid)
assert killed, "there is no such process"
"""


def table(text: str) -> list[dict[str, str]]:
    """The rows that kubectl prints, by column; an empty cell takes its column's width."""
    head, *rows = text.splitlines()
    names: Sequence[str] = head.split()
    starts = [head.index(name) for name in names]
    ends = [*starts[1:], None]
    return [
        {n: row[a:b].strip() for n, a, b in zip(names, starts, ends, strict=True)} for row in rows
    ]
