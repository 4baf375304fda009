"""How much is asked for Deployments that are not known, whatever a database says of builds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from openworkflow_operator.api import kinds
from openworkflow_operator.api.kinds import Kind
from openworkflow_operator.api.spec import Database, Key, Worker, WorkflowNamespace
from openworkflow_operator.cluster import strays
from openworkflow_operator.cluster.client import Cluster, ClusterError
from openworkflow_operator.cluster.store import Store
from openworkflow_operator.cluster.strays import MOST_AT_ONCE, PAUSE_SECONDS, Strays

ORDERS = WorkflowNamespace(Key("shop", "orders"), "u", 1, "", "o", Database("s"), Worker("i"))


class Silent:
    """An API server that gives no list of Deployments for as long as it is told to."""

    def __init__(self, error: ClusterError | None = None) -> None:
        self.asked: list[str] = []
        self.error = error

    async def find(self, kind: Kind, namespace: str, name: str) -> None:
        self.asked.append(name)
        if self.error is not None:
            raise self.error


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(strays, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


async def test_a_database_with_other_builds_at_each_look_costs_a_few_requests(
    clock: list[float],
) -> None:
    """It is the tenant's: each look led to ten lists, for which the visit and the API paid."""
    cluster = Silent()
    sought = Strays(cast(Any, cluster), Store())
    for look in range(600):
        clock[0] += 1
        await sought.bring_back(ORDERS, [f"{look}-{number}" for number in range(500)])
    assert len(cluster.asked) <= MOST_AT_ONCE * (600 / PAUSE_SECONDS + 1)


async def test_all_builds_that_have_no_deployment_are_sought_in_turn(clock: list[float]) -> None:
    cluster = Silent()
    sought = Strays(cast(Any, cluster), Store())
    builds = [f"b{number}" for number in range(35)]
    for _ in range(60):
        clock[0] += 1
        await sought.bring_back(ORDERS, builds)
    assert sorted(cluster.asked) == sorted(f"orders-worker-{build}" for build in builds)


async def test_an_api_server_that_gives_no_list_is_not_asked_for_each(clock: list[float]) -> None:
    """Ten answers that do not come were longer than a visit may last, and each visit began anew."""
    cluster = Silent(ClusterError(0, "TimeoutError", "the API server does not answer"))
    sought, builds = Strays(cast(Any, cluster), Store()), ["a", "b", "c"]
    await sought.bring_back(ORDERS, builds)
    assert len(cluster.asked) == 1
    cluster.error = None
    clock[0] += PAUSE_SECONDS
    await sought.bring_back(ORDERS, builds)
    assert {"orders-worker-a", "orders-worker-b", "orders-worker-c"} == set(cluster.asked)


async def test_garbage_for_the_labels_of_a_stray_costs_that_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was a fault of the operator, at each visit, and the rest of the visit was lost."""
    owner = {"uid": "u", "controller": True, "kind": "WorkflowNamespace", "name": "orders"}
    metadata = {"name": "orders-worker-a", "namespace": "shop", "uid": "d", "resourceVersion": "2"}
    stray = {"metadata": metadata | {"ownerReferences": [owner]}, "spec": {}}
    asked = []

    async def answer(verb: str, *_: object, **__: object) -> dict[str, Any]:
        asked.append(verb)
        return {"items": [stray]} if verb == "GET" else {}

    cluster, store = Cluster(cast(Any, None)), Store()
    monkeypatch.setattr(cluster, "_call", answer)
    await Strays(cluster, store).bring_back(ORDERS, ["a"])
    assert asked == ["GET", "PATCH"]
    assert store.get(kinds.DEPLOYMENT, Key("shop", "orders-worker-a")) is None
