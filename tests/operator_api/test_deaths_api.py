"""Whatever becomes of its writes, the operator comes to the same end.

The leading operator dies after each of its effects, and the next one goes on; or each write is
refused once.

Death is a proxy that answers nothing from some write on: the write was taken, and whatever this
operator would have done after it was not. Its Lease is not given back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
from aiohttp import web

from openworkflow_operator.process import Operator
from tests.api_proxy import ApiProxy
from tests.helpers import eventually
from tests.kubernetes_space import FAST, Space, enqueue

Start = Callable[..., AbstractAsyncContextManager[Operator]]

KINDS = {
    "serviceaccounts": "/api/v1",
    "services": "/api/v1",
    "deployments": "/apis/apps/v1",
    "poddisruptionbudgets": "/apis/policy/v1",
    "networkpolicies": "/apis/networking.k8s.io/v1",
}
#: What is another one with each resource, or with time.
OWN = {"uid", "resourceVersion", "creationTimestamp", "managedFields", "generation"}
OWN |= {"openworkflow.dev/applied", "openworkflow.dev/database"}  # hashes, of the name too
MOST = 40
"""More writes than the operator makes until nothing is left to do."""
EVERY = int(os.environ.get("DEATHS_EVERY", "4"))
"""After how many writes more it dies the next time; 1 tries all of them, in two minutes."""


@dataclass(slots=True)
class Death:
    """After so many writes nothing is answered any more."""

    proxy: ApiProxy
    after: int
    writes: int = 0

    async def __call__(self, request: web.Request) -> web.StreamResponse | None:
        if self.writes >= self.after:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=503)
        if request.method != "GET" and "/leases" not in request.path:
            self.writes += 1
        return None

    @property
    def has_come(self) -> bool:
        """Whether it was met."""
        return self.writes >= self.after


async def test_a_leader_that_dies_after_any_write_is_taken_over_to_the_same_end(
    tenant: Space,
    start: Start,
    start_behind: Start,
    proxy: ApiProxy,
    sql: asyncpg.Connection[Any],
) -> None:
    await begin(tenant, sql, "whole")
    async with start(lease_seconds=2.0):
        await settled(tenant, "whole")
    whole = seen_of(tenant, "whole")
    assert set(KINDS) - {"networkpolicies"} <= set(whole)

    died = 0
    for after in range(1, MOST, EVERY):
        name = f"dies-{after}"
        await begin(tenant, sql, name)
        proxy.fault = death = Death(proxy, after)
        async with dying(start_behind):
            ends = asyncio.create_task(settled(tenant, name))
            while not (death.has_come or ends.done()):
                await asyncio.sleep(0.02)
            ends.cancel()
        proxy.fault = None
        died += death.has_come
        async with start(lease_seconds=2.0):
            await settled(tenant, name)
        assert differs(whole, seen_of(tenant, name)) == [], f"after write {after}"
        if not death.has_come:
            break
    assert died >= 12 // EVERY


@dataclass(slots=True)
class RefusedOnce:
    """The first write to each path is refused, as by an API server that is overloaded."""

    status: int
    refused: set[tuple[str, str]] = field(default_factory=set)

    async def __call__(self, request: web.Request) -> web.StreamResponse | None:
        write = (request.method, request.path)
        if request.method == "GET" or write in self.refused:
            return None
        self.refused.add(write)
        answer = {"kind": "Status", "code": self.status, "reason": "Refused", "message": "once"}
        return web.json_response(answer, status=self.status, headers={"Retry-After": "1"})


@pytest.mark.parametrize("status", [409, 429, 503])
async def test_writes_that_are_refused_once_lead_to_the_same_end(
    tenant: Space,
    start: Start,
    start_behind: Start,
    proxy: ApiProxy,
    sql: asyncpg.Connection[Any],
    status: int,
) -> None:
    await begin(tenant, sql, "whole")
    async with start(lease_seconds=2.0):
        await settled(tenant, "whole")
    await begin(tenant, sql, "refused")
    proxy.fault = refused = RefusedOnce(status)
    async with start_behind():
        await settled(tenant, "refused")

    assert differs(seen_of(tenant, "whole"), seen_of(tenant, "refused")) == []
    for plural in {*KINDS, "status"} - {"networkpolicies"}:
        assert any(plural in path for _, path in refused.refused), plural


@contextlib.asynccontextmanager
async def dying(start: Start) -> AsyncIterator[Operator]:
    """An operator whose end may be of any kind."""
    with contextlib.suppress(Exception):
        async with start(lease_seconds=2.0) as operator:
            yield operator


async def begin(space: Space, sql: asyncpg.Connection[Any], name: str) -> None:
    """A tenant with work."""
    await enqueue(sql, 20, name)
    space.resource(name, namespaceId=name, scaling=FAST | {"maxReplicas": 3})


async def settled(space: Space, name: str) -> None:
    """Until the fleet is scaled, and its status says so."""

    def is_so() -> bool:
        fleet = space.deployment(f"{name}-worker")
        status = space.get(name).get("status", {})
        return (
            fleet is not None
            and fleet["spec"]["replicas"] == 2
            and status.get("desiredReplicas") == 2
            and space.condition("ObjectsApplied", name) == ("True", "Applied")
            and space.condition("DatabaseReachable", name) == ("True", "Reachable")
            and space.condition("WorkersAvailable", name) == ("False", "WorkersStarting")
            and space.condition("SchedulesStored", name) == ("True", "NotDeclared")
        )

    await eventually(is_so, deadline=60)


def seen_of(space: Space, name: str) -> dict[str, Any]:
    """What a tenant has, with the name and all that is of one time taken out."""
    found: dict[str, Any] = {}
    for plural, group in KINDS.items():
        for item in space.plane.request("GET", space.path(plural, group=group))["items"]:
            owners = item["metadata"].get("ownerReferences", [])
            if any(owner["name"] == name for owner in owners):
                assert plural not in found, f"two {plural} of {name}"
                found[plural] = plain(item, name)
    status = space.get(name)["status"]
    found["conditions"] = {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}
    found["numbers"] = {k: status.get(k) for k in ("desiredReplicas", "dueRuns", "runningRuns")}
    return found


def differs(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two things are not alike, in lines that a person can read."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted({*one, *other})
        parts = [differs(one.get(key), other.get(key), f"{path}.{key}") for key in keys]
        return [line for part in parts for line in part]
    return [] if one == other else [f"{path}: {one!r} != {other!r}"]


def plain(item: Any, name: str) -> Any:
    """An object without what differs from one tenant to the next."""
    if isinstance(item, dict):
        kept = {key: each for key, each in item.items() if key not in OWN and key != "status"}
        return {key: plain(each, name) for key, each in sorted(kept.items())}
    if isinstance(item, list):
        return [plain(each, name) for each in item]
    text: Any = json.loads(json.dumps(item).replace(name, "NAME"))
    return text
