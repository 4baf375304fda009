"""What a resource claims counts only with credentials that open the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg
import pytest

from openworkflow import BackendPostgres
from openworkflow_operator import reconcile
from openworkflow_operator.cluster import credentials
from openworkflow_operator.process import Operator
from tests.control_plane import ControlPlane
from tests.guarded_postgres import guarded_server
from tests.helpers import eventually
from tests.kubernetes_space import FAST, Space
from tests.local_postgres import LocalPostgres
from tests.postgres import run_sync

Start = Callable[..., AbstractAsyncContextManager[Operator]]
CONFLICT, READY = ("False", "Conflict"), ("True", "Ready")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed Secret is noticed in a fraction of a second."""
    monkeypatch.setattr(credentials, "FRESH_SECONDS_IN_TROUBLE", 0.2)
    monkeypatch.setattr(credentials, "FRESH_SECONDS", 0.5)
    monkeypatch.setattr(reconcile, "UNTOLD_RETRY_SECONDS", 0.3)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A database that asks for a password; the URL has a place for it."""

    async def prepare(server: LocalPostgres) -> None:
        await (await BackendPostgres.connect(server.url())).stop()
        connection = await asyncpg.connect(server.url())
        await connection.execute(
            "CREATE ROLE careful LOGIN PASSWORD 'right';"
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO careful;"
            "INSERT INTO workflow_runs (workflow_name, namespace_id, status, available_at)"
            " SELECT 'w', 'orders', 'pending', now() FROM generate_series(1, 15)"
        )
        await connection.close()

    with guarded_server() as server:
        run_sync(lambda: prepare(server))
        yield f"postgresql://careful:{{}}@127.0.0.1:{server.port}/postgres"


async def test_an_older_resource_without_valid_credentials_puts_nobody_out_of_action(
    plane: ControlPlane, space: Space, start: Start, url: str
) -> None:
    intruder = Space(plane, f"{space.name}-intruder")
    plane.create_namespace(intruder.name)
    intruder.secret(url.format("wrong"))
    intruder.resource("shadow", namespaceId="orders", scaling=FAST)
    space.secret(url.format("right"))
    await asyncio.sleep(1.1)  # creation times have whole seconds
    space.resource(scaling=FAST)
    async with start(namespaces=(space.name, intruder.name)):
        await eventually(lambda: space.condition("Ready") is not None, deadline=20)
        refused = ("False", "AuthenticationFailed")
        await eventually(
            lambda: intruder.condition("DatabaseReachable", "shadow") == refused, deadline=20
        )
        await eventually(lambda: space.replicas() == 2, deadline=20)
        assert CONFLICT != space.condition("Ready")

        intruder.secret(url.format("right"))  # now it is the older one by right
        await eventually(lambda: space.condition("Ready") == CONFLICT, deadline=20)
        assert intruder.name not in str(space.get()) + str(space.events())
        assert "shadow" not in str(space.get()) + str(space.events())


async def test_of_two_with_valid_credentials_the_younger_changes_nothing_before_it_yields(
    plane: ControlPlane, space: Space, start: Start, url: str
) -> None:
    space.secret(url.format("right"))
    space.resource("elder", namespaceId="orders", scaling=FAST)
    await asyncio.sleep(1.1)
    space.resource("younger", namespaceId="orders", scaling=FAST)
    async with start():
        await eventually(lambda: space.condition("Ready", "younger") == CONFLICT, deadline=20)
        await eventually(
            lambda: (space.deployment("elder-worker") or {"spec": {}})["spec"].get("replicas") == 2,
            deadline=20,
        )
        assert space.deployment("younger-worker") is None
        found: list[dict[str, Any]] = space.get("younger")["status"]["conditions"]
        assert "elder" in next(c["message"] for c in found if c["type"] == "Ready")
