"""A real Kubernetes API server for the tests, without a cluster: etcd and kube-apiserver.

Found as controller-runtime's envtest finds them: TEST_ASSET_ETCD and TEST_ASSET_KUBE_APISERVER,
else in the folder KUBEBUILDER_ASSETS, else in envtest's default folder; else, as no registry of
packages has kube-apiserver but some have etcd, in `.tools/bin`. There are no controllers:
Deployments make no pods, owners' children are not collected, namespaces never end.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.ports import free_port
from tools.test_programs import BIN

ROOT = Path(__file__).parents[1]
DEFAULT_FOLDER = "/usr/local/kubebuilder/bin"
OPERATOR_NAMESPACE = "openworkflow-system"
_ADMIN_TOKEN = "the-tests"
_START_SECONDS = 90.0


def binary(name: str) -> str | None:
    """The path of a program of the control plane, None where this machine has none."""
    variable = f"TEST_ASSET_{name.upper().replace('-', '_')}"
    folder = os.environ.get("KUBEBUILDER_ASSETS", DEFAULT_FOLDER)
    path = os.environ.get(variable) or shutil.which(name, path=f"{folder}{os.pathsep}{BIN}")
    return path if path and Path(path).exists() else None


def is_available() -> bool:
    """Whether an API server can be started here."""
    return all(binary(name) for name in ("etcd", "kube-apiserver"))


def describe_tier() -> str:
    """What the tests of the operator could prove on this machine."""
    if not is_available():
        return "NO API SERVER, pure functions and a mock only; see `make envtest`"
    if not has_controllers():
        return "a real API server, NO CONTROLLERS; see `make envtest`"
    return "a real API server with Kubernetes' own controllers"


def has_controllers() -> bool:
    """Whether Deployments can have pods here, and deleted owners lose their children."""
    return is_available() and binary("kube-controller-manager") is not None


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """A running API server."""

    url: str
    folder: Path

    def request(
        self, verb: str, path: str, body: Any = None, content_type: str = "application/json"
    ) -> Any:
        """Call the API as its administrator. Raises ApiRefusal."""
        data = None if body is None else json.dumps(body).encode()
        text = self.send(verb, path, data, content_type)
        return json.loads(text) if text[:1] == b"{" else text.decode()

    def send(
        self, verb: str, path: str, data: bytes | None, content_type: str = "application/json"
    ) -> bytes:
        """The same with bytes, whatever they are."""
        request = urllib.request.Request(self.url + path, method=verb)
        request.add_header("Authorization", f"Bearer {_ADMIN_TOKEN}")
        request.add_header("Content-Type", content_type)
        try:
            with urllib.request.urlopen(
                request, data, timeout=30, context=ssl._create_unverified_context()
            ) as answer:
                text: bytes = answer.read()
                return text
        except urllib.error.HTTPError as error:
            raise ApiRefusal(error.code, error.read().decode()) from None

    def apply(self, manifest: dict[str, Any], path: str) -> Any:
        """Server-side apply as the tests' own manager."""
        name = manifest["metadata"]["name"]
        query = "fieldManager=tests&force=true&fieldValidation=Strict"
        kind = "application/apply-patch+yaml"
        return self.request("PATCH", f"{path}/{name}?{query}", manifest, kind)

    def create_namespace(self, name: str) -> None:
        """Make a namespace."""
        body = {"metadata": {"name": name}}
        with contextlib.suppress(ApiRefusal):
            self.request("POST", "/api/v1/namespaces", body)

    def token(self, namespace: str, service_account: str) -> str:
        """A token of the service account, as a pod of it would have."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
        answer = self.request("POST", path, {"spec": {"expirationSeconds": 3600}})
        token: str = answer["status"]["token"]
        return token

    def kubeconfig(self, folder: Path, token: str) -> Path:
        """A file by which another process connects with this token."""
        cluster = {"server": self.url, "insecure-skip-tls-verify": True}
        context = {"cluster": "tests", "user": "tests"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": "tests", "user": {"token": token}}],
            "contexts": [{"name": "tests", "context": context}],
            "current-context": "tests",
        }
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path


class ApiRefusal(Exception):
    """The API server said no; `text` is its answer."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code, self.text = code, text


@contextlib.contextmanager
def started(*, bare: bool = False) -> Iterator[ControlPlane]:
    """A control plane of its own; unless `bare`, with the CRD and the operator's permissions."""
    folder = Path(tempfile.mkdtemp(prefix="openworkflow-api-"))
    processes: list[subprocess.Popen[bytes]] = []
    try:
        etcd = _start_etcd(folder, processes)
        plane = _start_api_server(folder, etcd, processes)
        if not bare:
            _install(plane)
        yield plane
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def controllers(plane: ControlPlane) -> Iterator[None]:
    """The controllers that a fleet lives by, running during the block."""
    config = plane.kubeconfig(plane.folder, _ADMIN_TOKEN)
    names = "deployment-controller,replicaset-controller,garbage-collector-controller"
    command = [binary("kube-controller-manager"), f"--kubeconfig={config}", "--leader-elect=false"]
    names += ",resourcequota-controller,disruption-controller"
    command += [f"--controllers={names}", f"--secure-port={free_port()}"]
    command += ["--bind-address=127.0.0.1", f"--cert-dir={plane.folder / 'manager'}"]
    processes: list[subprocess.Popen[bytes]] = []
    _start(command, plane.folder / "manager.log", processes)
    try:
        yield
    finally:
        processes[0].kill()
        processes[0].wait()


def _start_etcd(folder: Path, processes: list[subprocess.Popen[bytes]]) -> str:
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    command = [binary("etcd"), f"--data-dir={folder / 'etcd'}", "--unsafe-no-fsync"]
    command += [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
    command += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
    command += [f"--initial-cluster=default={peer}"]
    _start(command, folder / "etcd.log", processes)
    return client


def _start_api_server(
    folder: Path, etcd: str, processes: list[subprocess.Popen[bytes]]
) -> ControlPlane:
    key, tokens, port = folder / "sa.key", folder / "tokens.csv", free_port()
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    tokens.write_text(f"{_ADMIN_TOKEN},tests,tests,system:masters\n")
    command = [binary("kube-apiserver"), f"--etcd-servers={etcd}", f"--secure-port={port}"]
    command += ["--bind-address=127.0.0.1", f"--cert-dir={folder / 'certs'}"]
    command += [f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}"]
    command += ["--service-account-issuer=https://tests", "--service-cluster-ip-range=10.0.0.0/24"]
    command += ["--authorization-mode=RBAC", f"--token-auth-file={tokens}"]
    # Pods of accounts that no controller made are admitted, as in envtest.
    command += ["--disable-admission-plugins=ServiceAccount", "--allow-privileged=true"]
    _start(command, folder / "apiserver.log", processes)
    plane = ControlPlane(f"https://127.0.0.1:{port}", folder)
    _wait_until_ready(plane, folder / "apiserver.log", processes[-1])
    return plane


def _wait_until_ready(plane: ControlPlane, log: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        with contextlib.suppress(ApiRefusal, OSError):
            if plane.request("GET", "/readyz") == "ok":
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the API server did not start:\n{log.read_text()[-3000:]}")
        time.sleep(0.2)


def _install(plane: ControlPlane) -> None:
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    crd = yaml.safe_load((ROOT / "manifests/crd.yaml").read_text())
    plane.apply(crd, crds)
    plane.create_namespace(OPERATOR_NAMESPACE)
    for manifest in yaml.safe_load_all((ROOT / "manifests/rbac.yaml").read_text()):
        group = "/api/v1" if manifest["apiVersion"] == "v1" else f"/apis/{manifest['apiVersion']}"
        namespace = manifest["metadata"].get("namespace")
        where = f"/namespaces/{namespace}" if namespace else ""
        plane.apply(manifest, f"{group}{where}/{manifest['kind'].lower()}s")
    deadline = time.monotonic() + 30
    while True:  # served, and its schema enforced
        condition = plane.request("GET", f"{crds}/{crd['metadata']['name']}")["status"]
        types = {c["type"] for c in condition.get("conditions", []) if c["status"] == "True"}
        if {"Established", "NamesAccepted"} <= types:
            break
        assert time.monotonic() < deadline, condition
        time.sleep(0.1)


def _start(command: list[str | None], log: Path, processes: list[subprocess.Popen[bytes]]) -> None:
    with log.open("wb") as output:
        arguments = [part for part in command if part is not None]
        processes.append(subprocess.Popen(arguments, stdout=output, stderr=output))


_ADVICE = f"""
The tests in tests/operator_api start programs of Kubernetes. Put them into one folder and name it,
unless it is {DEFAULT_FOLDER}:

    export KUBEBUILDER_ASSETS=/path/to/folder

etcd and kube-apiserver: controller-runtime's setup-envtest downloads them and prints the folder,

    go install sigs.k8s.io/controller-runtime/tools/setup-envtest@latest
    export KUBEBUILDER_ASSETS="$(setup-envtest use --print path)"

kube-controller-manager: from kubernetes-server-linux-<architecture>.tar.gz of the same release of
Kubernetes, into the same folder. Without it, tests that need pods are skipped.
"""


def main() -> None:
    """Tell what is here, and how to provide the rest."""
    for name in ("etcd", "kube-apiserver", "kube-controller-manager"):
        print(f"{name:24} {binary(name) or 'not found'}")
    print(f"tests of the operator: {describe_tier()}")
    if not has_controllers():
        print(_ADVICE)


if __name__ == "__main__":
    main()
