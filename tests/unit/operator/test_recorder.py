"""How many Events a resource may have."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from openworkflow_operator.api.kinds import Kind
from openworkflow_operator.api.spec import Database, Key, Worker, WorkflowNamespace
from openworkflow_operator.cluster import recorder
from openworkflow_operator.cluster.recorder import MOST_AT_ONCE, REST_SECONDS, Recorder


class Cluster:
    def __init__(self) -> None:
        self.made: list[str] = []

    async def create(self, kind: Kind, namespace: str, body: dict[str, Any]) -> None:
        self.made.append(body["type"])


async def test_news_that_is_another_each_time_is_told_now_and_then_and_hides_no_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, cluster = [1000.0], Cluster()
    monkeypatch.setattr(recorder, "time", SimpleNamespace(monotonic=lambda: now[0]))
    told = Recorder(cast(Any, cluster))
    names = ("orders", "carts")
    orders, carts = (
        WorkflowNamespace(Key("shop", name), name, 1, "", name, Database("s"), Worker("i"))
        for name in names
    )
    for second in range(600):
        now[0] += 1
        await told.tell(orders, "Normal", "ScaledUp", f"from 1 to {second} workers")
    assert MOST_AT_ONCE + 580 // REST_SECONDS <= len(cluster.made) <= MOST_AT_ONCE + 61
    before = len(cluster.made)
    await told.tell(orders, "Warning", "NameTaken", "")
    await told.tell(carts, "Normal", "ScaledUp", "")
    assert len(cluster.made) == before + 2
