"""Schedules of a resource: refused, told, stored and stopped by an operator under its own Role."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg
import pytest

from openworkflow_operator.database.connection import Database
from openworkflow_operator.database.schedules import Pace
from openworkflow_operator.process import Operator
from tests.control_plane import ApiRefusal
from tests.helpers import eventually
from tests.kubernetes_space import FAST, Space

Start = Callable[..., AbstractAsyncContextManager[Operator]]
NIGHTLY = {"name": "nightly", "workflow": "report", "cron": "0 0 1 1 *", "input": {"of": ["all"]}}
NAMES = "select array_agg(name order by name) from workflow_schedules where retired_at is null"


def told(space: Space) -> tuple[str, str] | None:
    return space.condition("SchedulesStored")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cron": "0 9 * *"}, "should match"),
        ({"cron": "0 0 9 * * *"}, "should match"),
        ({"timeZone": "Europe Berlin"}, "should match"),
        ({"name": "a\nb"}, "should match"),
        ({"overlap": "skip"}, "Unsupported value"),
        ({"catchUp": "All"}, "`overlap` must be QueueAll or Allow"),
        ({"catchUp": "All", "overlap": "QueueOne"}, "`overlap` must be QueueAll or Allow"),
        ({"jitterSeconds": 86401}, "less than or equal to 86400"),
        ({"catchUpSeconds": 0}, "greater than or equal to 1"),
    ],
    ids=str,
)
def test_what_the_schema_can_tell_is_refused(
    space: Space, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ApiRefusal, match=message):
        space.resource(schedules=[NIGHTLY | changes])


def test_names_are_unique_and_defaults_are_filled_in(space: Space) -> None:
    with pytest.raises(ApiRefusal, match="Duplicate value"):
        space.resource(schedules=[NIGHTLY, NIGHTLY])

    (made,) = space.resource(schedules=[NIGHTLY])["spec"]["schedules"]

    assert made == NIGHTLY | {
        "timeZone": "UTC",
        "overlap": "Skip",
        "catchUp": "Last",
        "catchUpSeconds": 3600,
        "jitterSeconds": 0,
    }


async def test_they_are_stored_changed_and_stopped(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    bad = {"name": "mars", "workflow": "report", "cron": "0 0 1 1 *", "timeZone": "Mars/Olympus"}
    tenant.resource(scaling=FAST, schedules=[NIGHTLY, bad])
    async with start():
        await eventually(lambda: told(tenant) == ("False", "SchedulesInvalid"), deadline=20)
        row = await sql.fetchrow("select * from workflow_schedules")
        assert row is not None
        assert ("nightly", "resource", "orders") == (
            *(row["name"], row["source"], row["namespace_id"]),
        )
        # Nothing is due, so nobody is woken; nor does the fleet depend on it.
        await eventually(lambda: tenant.condition("ScalingActive") == ("True", "Following"))
        assert 0 == tenant.replicas()
        tenant.patch({"schedules": [NIGHTLY | {"cron": "0 0 2 2 *"}]})
        await eventually(lambda: told(tenant) == ("True", "Stored"), deadline=20)
        assert "0 0 2 2 *" == await sql.fetchval("select cron from workflow_schedules")
    tenant.patch({"schedules": None})
    # An operator that did not store it takes it back.
    async with start():
        await eventually(lambda: told(tenant) == ("True", "NotDeclared"), deadline=20)
        assert await sql.fetchval(NAMES) is None
        due = "select available_at::text from workflow_runs where schedule_name = 'nightly'"
        assert "infinity" == await sql.fetchval(due)


async def test_a_pod_is_there_before_the_next_fire_from_zero(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    tenant.resource(scaling=FAST | {"activationLeadSeconds": 30}, schedules=[NIGHTLY])
    async with start():
        await eventually(lambda: told(tenant) == ("True", "Stored"), deadline=20)
        await eventually(lambda: tenant.replicas() == 0, deadline=20)
        await sql.execute("update workflow_runs set available_at = now() + interval '25 seconds'")
        await eventually(lambda: tenant.replicas() == 1, deadline=20)


async def test_a_paused_resource_has_nothing_stored_and_nothing_stopped(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    tenant.resource(scaling=FAST, schedules=[NIGHTLY])
    async with start():
        await eventually(lambda: told(tenant) == ("True", "Stored"), deadline=20)
        tenant.patch({"paused": True, "schedules": [NIGHTLY | {"name": "other"}]})
        await eventually(lambda: told(tenant) == ("Unknown", "Paused"), deadline=20)
        assert ["nightly"] == await sql.fetchval(NAMES)
        tenant.patch({"paused": False})
        await eventually(lambda: told(tenant) == ("True", "Stored"), deadline=20)
        assert ["other"] == await sql.fetchval(NAMES)


async def test_a_resource_made_again_stops_what_the_former_one_declared(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    tenant.resource(scaling=FAST, schedules=[NIGHTLY])
    async with start():
        await eventually(lambda: told(tenant) == ("True", "Stored"), deadline=20)
        tenant.delete("workflownamespaces", "orders", "/apis/openworkflow.dev/v1alpha1")
        assert ["nightly"] == await sql.fetchval(NAMES)
        tenant.resource(scaling=FAST)
        await eventually(lambda: told(tenant) == ("True", "NotDeclared"), deadline=20)
        assert await sql.fetchval(NAMES) is None


async def test_of_two_with_one_database_only_the_older_ones_schedules_are_stored(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    tenant.resource(scaling=FAST, namespaceId="shared", schedules=[NIGHTLY])
    async with start():
        await eventually(lambda: told(tenant) == ("True", "Stored"), deadline=20)
        other = NIGHTLY | {"name": "other"}
        await asyncio.sleep(1.1)  # creation times have whole seconds
        tenant.resource("younger", scaling=FAST, namespaceId="shared", schedules=[other])
        conflict = ("Unknown", "Conflict")
        await eventually(
            lambda: tenant.condition("SchedulesStored", "younger") == conflict, deadline=20
        )
        assert ["nightly"] == await sql.fetchval(NAMES)
        tenant.delete("workflownamespaces", "orders", "/apis/openworkflow.dev/v1alpha1")
        await eventually(
            lambda: tenant.condition("SchedulesStored", "younger") == ("True", "Stored"),
            deadline=20,
        )
        assert ["other"] == await sql.fetchval(NAMES)


async def test_a_slow_table_of_schedules_holds_no_fleet_and_is_told(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any]
) -> None:
    async with start() as operator:
        operator.pace = Pace(0.2, 0.2, 0.5)
        async with sql.transaction():
            await sql.execute("lock table workflow_schedules in access exclusive mode")
            tenant.resource(scaling=FAST, schedules=[NIGHTLY])
            await eventually(lambda: told(tenant) == ("False", "TimedOut"), deadline=20)
            await eventually(lambda: tenant.condition("ScalingActive") == ("True", "Following"))
        await eventually(lambda: told(tenant) == ("True", "Stored"), deadline=30)


async def test_who_declares_none_is_asked_about_once(
    tenant: Space, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    read = Database.read

    async def counted(self: Database, name: str, *arguments: object) -> list[Any]:
        asked.append(name)
        return await read(self, name, *arguments)

    monkeypatch.setattr(Database, "read", counted)
    tenant.resource(scaling=FAST)
    for _ in range(2):
        async with start():
            await eventually(lambda: told(tenant) == ("True", "NotDeclared"), deadline=20)
            await eventually(lambda: tenant.replicas() == 0, deadline=20)
            tenant.patch({"scaling": {"maxReplicas": 5}})
    assert ["look_at_schedules"] == asked


@pytest.mark.parametrize("where", ["input", "affinity"])
async def test_a_resource_that_is_nested_deeper_than_python_reads_hides_no_other(
    tenant: Space, start: Start, where: str
) -> None:
    """The API server takes 10,000 levels, in whatever part of a resource may be anything."""
    spec: dict[str, Any] = {"database": {"secretRef": {"name": "orders-database"}}}
    spec |= {"worker": {"image": "i", "workflows": ["shop"]}, "scaling": FAST}
    if where == "input":
        spec["schedules"] = [NIGHTLY | {"input": "DEEP"}]
    else:
        spec["worker"] |= {"affinity": {"a": "DEEP"}}
    raw = {"apiVersion": "openworkflow.dev/v1alpha1", "kind": "WorkflowNamespace"}
    text = json.dumps(raw | {"metadata": {"name": "deep"}, "spec": spec})
    deep = text.replace('"DEEP"', "[" * 3000 + "]" * 3000)
    path = tenant.path("workflownamespaces", group="/apis/openworkflow.dev/v1alpha1")
    tenant.plane.send("POST", path, deep.encode())
    tenant.resource(scaling=FAST, schedules=[NIGHTLY])
    async with start():
        await eventually(lambda: told(tenant) == ("True", "Stored"), deadline=20)
