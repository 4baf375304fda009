"""Changes of who takes new runs that come at once: each pair ends as if one came after the other.

A third connection holds the oldest row, or the youngest, so that both changes queue up behind it,
in a known order and with what the first may have locked already; then it lets go.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from openworkflow.backend.backend import BackendPostgres
from openworkflow.core.errors import InvalidBuildState
from openworkflow_operator.database.connection import ConnectOptions
from openworkflow_operator.database.dsn import parse
from openworkflow_operator.database.routes import carry_out
from openworkflow_operator.decide.rollout import Action, Hold, Promote, Retire
from tests.helpers import eventually

#: Build, the buckets it takes, its age: "c" is new and takes none, "z" was promoted before.
BUILDS = (("b", 10, 100, 4), ("a", 0, 10, 3), ("z", 0, 0, 2), ("c", 0, 0, 1))

Change = Callable[[BackendPostgres, str], Awaitable[object]]
Routing = tuple[tuple[str, int, int, bool], ...]


def by_operator(action: Action) -> Change:
    async def change(_: BackendPostgres, url: str) -> None:
        options = ConnectOptions(allow_loopback=True)
        await carry_out([action], parse(url), "public", "default", options)

    return change


CHANGES: dict[str, Change] = {
    "promote a": lambda backend, _: backend.builds.promote("a"),
    "promote c 10 %": lambda backend, _: backend.builds.promote("c", 10),
    "promote z 50 %": lambda backend, _: backend.builds.promote("z", 50),
    "hold a": lambda backend, _: backend.builds.hold("a"),
    "hold b": lambda backend, _: backend.builds.hold("b"),
    "retire z": lambda backend, _: backend.builds.retire("z"),
    "register d": lambda backend, _: backend.builds.register("d"),
    "operator: promote a 10 %": by_operator(Promote("a", 10)),
    "operator: hold b": by_operator(Hold("b")),
    "operator: retire z": by_operator(Retire("z", "refuse")),
}


async def reset(sql: asyncpg.Connection[Any]) -> None:
    await sql.execute("delete from workflow_builds")
    await sql.executemany(
        "insert into workflow_builds (namespace_id, build_id, takes_from, takes_to, created_at,"
        " promoted_at) values ('default', $1, $2, $3, now() - make_interval(days => $4), now())",
        BUILDS,
    )


async def routing(sql: asyncpg.Connection[Any]) -> Routing:
    rows = await sql.fetch(
        "select build_id, takes_from, takes_to, held_at is not null from workflow_builds"
        " order by build_id"
    )
    return tuple(tuple(row) for row in rows)


async def outcome(name: str, backend: BackendPostgres, url: str) -> str:
    try:
        await CHANGES[name](backend, url)
    except InvalidBuildState:
        return "refused"
    return "done"


@pytest.mark.parametrize("held", ["b", "c"], ids=["the oldest", "the youngest"])
async def test_two_changes_at_once_end_as_one_after_the_other(
    held: str, backend: BackendPostgres, sql: asyncpg.Connection[Any], database_url: str
) -> None:
    """Two holds left a held build all new runs; two promotions gave an old build some back."""
    one_by_one: dict[tuple[str, str], tuple[str, str, Routing]] = {}
    for first, second in itertools.product(CHANGES, repeat=2):
        await reset(sql)
        done = [await outcome(name, backend, database_url) for name in (first, second)]
        one_by_one[first, second] = (done[0], done[1], await routing(sql))

    watcher = await asyncpg.connect(database_url)
    surprises = {}
    for first, second in itertools.product(CHANGES, repeat=2):
        await reset(sql)
        at_once = await _at_once(first, second, held, backend, sql, watcher, database_url)
        swapped = one_by_one[second, first]
        if at_once not in (one_by_one[first, second], (swapped[1], swapped[0], swapped[2])):
            surprises[first, second] = at_once
    await watcher.close()

    assert {} == surprises
    for *_, builds in one_by_one.values():
        assert _each_bucket_has_one_build(builds), builds


async def _at_once(
    first: str,
    second: str,
    held: str,
    backend: BackendPostgres,
    sql: asyncpg.Connection[Any],
    watcher: asyncpg.Connection[Any],
    url: str,
) -> tuple[str, str, Routing]:
    """Both changes, begun in this order while somebody else holds the row of a build."""
    async with sql.transaction():
        await sql.execute("select from workflow_builds where build_id = $1 for update", held)
        tasks: list[asyncio.Task[str]] = []
        for name in (first, second):
            tasks.append(asyncio.create_task(outcome(name, backend, url)))
            await eventually(lambda: _all_wait(tasks, watcher))
    async with asyncio.timeout(25):
        done = await asyncio.gather(*tasks)
    return done[0], done[1], await routing(watcher)


async def _all_wait(tasks: list[asyncio.Task[str]], watcher: asyncpg.Connection[Any]) -> bool:
    """Every change is over, or stands in a queue."""
    waiting = await watcher.fetchval(
        "select count(*) from pg_stat_activity"
        " where wait_event_type = 'Lock' and datname = current_database()"
    )
    return bool(waiting >= sum(not task.done() for task in tasks))


def _each_bucket_has_one_build(builds: Routing) -> bool:
    taken = sorted(
        bucket for _, takes_from, takes_to, _ in builds for bucket in range(takes_from, takes_to)
    )
    return taken == list(range(100))
