"""What one tenant, or one namespace, may cost the process that serves all of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from kubernetes.aio.client import ApiClient, Configuration

from openworkflow_operator import process
from openworkflow_operator.api.kinds import Kind
from openworkflow_operator.api.spec import Key
from openworkflow_operator.cluster.client import Cluster, ClusterError
from openworkflow_operator.process import Operator
from openworkflow_operator.settings import Settings
from tests.helpers import eventually

SLOW, GOOD = Key("shop", "slow"), Key("shop", "good")


@pytest.fixture
async def operator() -> AsyncIterator[Operator]:
    async with ApiClient(Configuration(host="http://127.0.0.1:1")) as client:
        yield Operator(client, Settings(namespaces=("a", "b"), port=0, workers=1))


class Visits:
    """Stands in for the reconciler and its observatory: one resource's visits never end."""

    connections = 0

    def __init__(self) -> None:
        self.ended: list[Key] = []

    async def reconcile(self, key: Key) -> float | None:
        if key == SLOW:
            await asyncio.sleep(3600)
        self.ended.append(key)
        return None


async def test_a_visit_that_does_not_end_is_given_up_and_the_others_go_on(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "VISIT_SECONDS", 0.05)
    visits = Visits()
    working = asyncio.create_task(operator._work(cast(Any, visits), cast(Any, visits)))
    try:
        for key in (SLOW, GOOD):
            operator.queue.add(key)
        await eventually(lambda: visits.ended == [GOOD])
        assert 1 == operator.metrics.reconciles.labels("failed")._value.get()
        assert 0 == operator.metrics.reconciles.labels("bug")._value.get()
    finally:
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
    assert process.VISIT_SECONDS < process.STALLED_SECONDS, "one tenant must not end the process"


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> set[str | None]:
    """Namespaces whose lists are refused; the others are empty."""
    refused: set[str | None] = {"b"}

    async def listed(
        _: Cluster, kind: Kind, namespace: str | None, selector: str | None = None
    ) -> tuple[list[Any], str]:
        if namespace in refused:
            raise ClusterError(403, "Forbidden", f"{kind.plural} in {namespace}")
        return [], "1"

    async def watched(*_: object) -> AsyncIterator[tuple[str, Any]]:
        await asyncio.sleep(3600)
        yield "", {}

    monkeypatch.setattr(Cluster, "list", listed)
    monkeypatch.setattr(Cluster, "watch", watched)
    return refused


async def test_a_namespace_that_may_not_be_listed_holds_up_no_other(
    operator: Operator, refused: set[str | None]
) -> None:
    running = [asyncio.create_task(informer.run()) for informer in operator._informers]
    try:
        await eventually(lambda: operator.not_ready() is None)
        await operator.relist()  # else the process would count as dead
        refused.add("a")
        with pytest.raises(ClusterError):
            await operator.relist()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_an_operator_that_may_list_nothing_is_not_ready(
    operator: Operator, refused: set[str | None]
) -> None:
    refused.add("a")
    running = [asyncio.create_task(informer.run()) for informer in operator._informers]
    try:
        await eventually(lambda: "no list of" in (operator.not_ready() or ""))
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
