"""A real API server once, a namespace for each test, and the operator under its shipped Role."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from kubernetes.aio.client import ApiClient, Configuration

from openworkflow_operator.cluster.client import connected
from openworkflow_operator.process import Operator
from openworkflow_operator.settings import Settings
from tests.api_proxy import ApiProxy, proxied
from tests.control_plane import OPERATOR_NAMESPACE, ControlPlane, is_available, started
from tests.kubernetes_space import Space

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    absent = pytest.mark.skip(reason="needs kube-apiserver and etcd; set KUBEBUILDER_ASSETS")
    for item in items:
        if HERE in item.path.parents:
            # One API server for all of them, whatever xdist does with other tests.
            item.add_marker(pytest.mark.xdist_group("operator_api"))
            if not is_available():
                item.add_marker(absent)


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """The API server of this session."""
    with started() as plane:
        yield plane


@pytest.fixture
def space(plane: ControlPlane) -> Space:
    """A namespace of the test's own."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    plane.create_namespace(name)
    return Space(plane, name)


@pytest.fixture
async def client(plane: ControlPlane) -> AsyncIterator[ApiClient]:
    """A client with exactly the operator's permissions."""
    async with _client(plane, plane.url) as client:
        yield client


@pytest.fixture
async def proxy(plane: ControlPlane) -> AsyncIterator[ApiProxy]:
    """A proxy before the API server, which answers wrongly where the test says so."""
    async with proxied(plane.url) as proxy:
        yield proxy


@pytest.fixture
def tenant(space: Space, database_url: str) -> Space:
    """A namespace with the Secret of the test's database."""
    space.secret(database_url)
    return space


Start = Callable[..., contextlib.AbstractAsyncContextManager[Operator]]


@pytest.fixture
def start(client: ApiClient, space: Space) -> Start:
    """Start an operator for the test's namespace; it is stopped gracefully after the block."""
    return _starting(client, space)


@pytest.fixture
async def start_behind(plane: ControlPlane, proxy: ApiProxy, space: Space) -> AsyncIterator[Start]:
    """The same for one that reaches the API server by the proxy."""
    async with _client(plane, proxy.url) as client:
        yield _starting(client, space)


def _client(plane: ControlPlane, url: str) -> ApiClient:
    configuration = Configuration(host=url)
    configuration.verify_ssl = False
    token = plane.token(OPERATOR_NAMESPACE, "openworkflow-operator")
    configuration.api_key = {"BearerToken": f"Bearer {token}"}
    return connected(configuration)


def _starting(client: ApiClient, space: Space) -> Start:
    @contextlib.asynccontextmanager
    async def start(watch: object = None, **settings: object) -> AsyncIterator[Operator]:
        defaults = {
            "namespaces": (space.name,),
            # The Lease has one name, so each test has it in a place of its own.
            "namespace": OPERATOR_NAMESPACE,
            "identity": f"{os.getpid()}-{uuid.uuid4().hex[:6]}",
            # As in a cluster: on a busy machine an answer may take seconds.
            "lease_seconds": 15.0,
            "resync_seconds": 60.0,
            "port": 0,
            "allow_loopback": True,
        }
        operator = Operator(client, Settings(**(defaults | settings)))  # type: ignore[arg-type]
        task = asyncio.create_task(operator.run(watch))  # type: ignore[arg-type]
        try:
            yield operator
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        assert not operator.metrics.reconciles.labels("bug")._value.get(), "see the log"

    return start
