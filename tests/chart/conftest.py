"""Real helm, and where the binaries are a real API server on which nothing is installed yet."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control_plane import ApiRefusal, ControlPlane, is_available, started
from tests.helm import Cluster

HERE = Path(__file__).parent
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Not when this file is read, which may be before `.tools/bin` is in the path.
    helm = shutil.which("helm")
    for item in items:
        if HERE not in item.path.parents:
            continue
        item.add_marker(pytest.mark.xdist_group("chart"))
        if helm is None:
            item.add_marker(pytest.mark.skip(reason="needs helm (make test-programs)"))
        elif "helm_on_cluster" in getattr(item, "fixturenames", ()) and not is_available():
            item.add_marker(pytest.mark.skip(reason="needs kube-apiserver and etcd"))


@pytest.fixture(scope="session")
def bare_plane() -> Iterator[ControlPlane]:
    """An API server without our CRD."""
    with started(bare=True) as plane:
        yield plane


@pytest.fixture
def helm_on_cluster(bare_plane: ControlPlane, tmp_path: Path) -> Iterator[Cluster]:
    """helm and the API server; the CRD, which helm leaves, is gone for the next test."""
    yield Cluster(bare_plane, tmp_path)
    with contextlib.suppress(ApiRefusal):
        bare_plane.request("DELETE", f"{CRDS}/workflownamespaces.openworkflow.dev")
    deadline = time.monotonic() + 30
    while bare_plane.request("GET", CRDS)["items"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
