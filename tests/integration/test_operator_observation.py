"""What the operator reads of a real database, what it costs, and what goes wrong."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from openworkflow.backend.blueprint import known
from openworkflow.backend.namespace import Namespace
from openworkflow_operator.api.spec import Key
from openworkflow_operator.database import queries, refused
from openworkflow_operator.database.answers import Question
from openworkflow_operator.database.connection import KNOWN_CONTRACT, ConnectOptions, Database, Told
from openworkflow_operator.database.diagnosis import diagnose
from openworkflow_operator.database.dsn import Dsn, TlsMode, parse
from openworkflow_operator.database.observatory import Look, Observatory, Target, pause_after
from openworkflow_operator.decide.observation import DatabaseProblem, DatabaseReason, Observation
from tests.helpers import eventually

LOCAL = ConnectOptions(allow_loopback=True)
KEY = Key("shop", "orders")


def question(namespace_id: str = "orders", limit: int = 100, lead: float = 20) -> Question:
    return Question(namespace_id, limit, limit, lead)


async def insert(sql: asyncpg.Connection[Any], count: int = 1, **columns: str) -> None:
    """Insert runs; the columns are SQL."""
    values = {"workflow_name": "'w'", "namespace_id": "'orders'", "status": "'pending'"}
    values |= {"available_at": "now() - interval '1 second'"} | columns
    await sql.execute(
        f"INSERT INTO workflow_runs ({', '.join(values)}) "
        f"SELECT {', '.join(values.values())} FROM generate_series(1, {count})"
    )


async def look(database: Database, *questions: Question) -> Observation:
    found = await database.look(questions or [question()], serial=1)
    return found["orders"]


async def test_an_empty_namespace_is_seen_as_empty(database: Database) -> None:
    seen = await look(database)

    assert (0, 0, 0, 0.0) == (
        seen.demand.due,
        seen.demand.running,
        seen.demand.waking,
        seen.demand.oldest_due_age,
    )
    assert seen.demand.service_seconds is None
    assert not seen.demand.saturated


async def test_due_waking_and_sleeping_runs_are_told_apart(
    database: Database, sql: asyncpg.Connection[Any]
) -> None:
    await insert(sql, 3, available_at="now() - interval '60 seconds'")
    await insert(sql, 2, available_at="now() + interval '10 seconds'")
    await insert(sql, 4, available_at="now() + interval '1 hour'")
    await insert(sql, 5, available_at="'infinity'")
    await insert(sql, 6, namespace_id="'other'")
    await insert(sql, 7, status="'succeeded'")

    seen = await look(database)

    assert (3, 2) == (seen.demand.due, seen.demand.waking)
    assert 60 <= seen.demand.oldest_due_age < 70
    assert seen.next_wake_seconds is not None
    assert 5 < seen.next_wake_seconds <= 10


async def test_a_parent_that_waits_is_no_demand_and_its_child_is(
    database: Database, sql: asyncpg.Connection[Any]
) -> None:
    parent, child = f"'{UUID(int=1)}'", f"'{UUID(int=2)}'"
    await insert(sql, id=parent, available_at="'infinity'", claim_no="1")
    await insert(sql, id=child, parent_run_id=parent)
    await sql.execute(
        "INSERT INTO workflow_children"
        " (id, namespace_id, parent_run_id, step_id, on_close, wake_at)"
        f" VALUES ({child}, 'orders', {parent}, {child}, 'cancel', 0)"
    )
    before = (await look(database)).demand.due

    ended = "SET status = 'succeeded', completed_at = now()"
    await sql.execute(f"UPDATE workflow_runs {ended} WHERE id = {child}")

    assert (1, 1) == (before, (await look(database)).demand.due)
    due = "SELECT id FROM workflow_runs WHERE status = 'pending' AND available_at <= now()"
    assert UUID(int=1) == await sql.fetchval(due)


async def test_running_runs_are_counted_by_pod_those_of_dead_workers_too(
    database: Database, sql: asyncpg.Connection[Any]
) -> None:
    lease = "now() + interval '30 seconds'"
    running = {"status": "'running'", "claim_no": "1", "started_at": "now() - interval '4 s'"}
    await insert(sql, 3, worker_id="'pod-a/0a1b2c3d'", available_at=lease, **running)
    await insert(sql, 1, worker_id="'pod-a/ffffffff'", available_at=lease, **running)
    await insert(sql, 2, worker_id="'pod-b/0a1b2c3d'", **running)

    seen = await look(database)

    assert {"pod-a": 4, "pod-b": 2} == seen.busy
    assert 6 == seen.demand.running
    assert seen.demand.service_seconds == pytest.approx(8, abs=1)


async def test_runs_that_slept_say_nothing_about_the_service_time(
    database: Database, sql: asyncpg.Connection[Any]
) -> None:
    slept = {"status": "'running'", "claim_no": "2", "started_at": "now() - interval '1 day'"}
    await insert(sql, 3, worker_id="'a/1'", **slept)

    assert (await look(database)).demand.service_seconds is None


async def test_counts_stop_at_their_limit_and_say_so(
    database: Database, sql: asyncpg.Connection[Any]
) -> None:
    await insert(sql, 500)

    seen = await look(database, question(limit=100))

    assert (100, True) == (seen.demand.due, seen.demand.saturated)


async def test_all_namespaces_are_answered_at_once_absurd_times_included(
    database: Database, sql: asyncpg.Connection[Any]
) -> None:
    await insert(sql, 1, available_at="'-infinity'")
    await insert(sql, 2, namespace_id="'b'")
    asked = [question(), question("b"), question("nothing there")]

    seen = await database.look(asked, serial=5)

    assert [1, 2, 0] == [seen[q.namespace_id].demand.due for q in asked]
    assert {5} == {view.serial for view in seen.values()}


async def test_a_long_backlog_costs_what_a_short_one_does(
    database: Database, sql: asyncpg.Connection[Any]
) -> None:
    """Buffers, not time: they do not depend on the machine."""
    await insert(sql, 300)
    short = await buffers(sql)
    await insert(sql, 60_000)
    await insert(sql, 20_000, available_at="now() + interval '1 day'")
    await insert(sql, 20_000, namespace_id="'other'")

    assert await buffers(sql) <= 2 * short + 50


async def test_every_build_is_looked_at_however_many_came_after_it(
    database: Database, sql: asyncpg.Connection[Any]
) -> None:
    await register(sql, "b0", age=900, share=100)
    for number in range(1, 70):
        await register(sql, f"b{number}", age=900 - number)
    sleeps = {"build_id": "'b1'", "pinned": "true", "available_at": "now() + interval '1 day'"}
    await insert(sql, 1, **sleeps)

    views = (await look(database, replace(question(), build="b69"))).builds or {}

    assert 70 == len(views)
    assert (100, True) == (views["b0"].share, views["b1"].runs_left)


async def test_new_runs_are_seen_behind_the_backlog_of_a_build(
    database: Database, sql: asyncpg.Connection[Any]
) -> None:
    await register(sql, "old", age=900)
    await register(sql, "new", age=60, share=100)
    pinned = {"build_id": "'old'", "pinned": "true", "available_at": "now() - interval '1 hour'"}
    await insert(sql, 150, **pinned)
    await insert(sql, 2)

    seen = await look(database, replace(question(limit=100), build="new"))

    assert seen.new is not None
    assert (2, False) == (seen.new.due, seen.new.saturated)
    assert seen.new.oldest_due_age < 60
    assert (seen.builds or {})["old"].saturated
    await insert(sql, 20_000, **pinned)
    seen = await look(database, replace(question(limit=100), build="new"))
    assert seen.new is not None
    assert (0, True) == (seen.new.due, seen.new.saturated)


async def test_only_the_runs_of_the_build_in_its_ramp_are_judged(
    sql: asyncpg.Connection[Any],
) -> None:
    """However long ago others were promoted, and however much came since."""
    for share, build in [(0, "old"), (0, "older"), (90, "main"), (10, "new")]:
        await register(sql, build, age=60, share=share)
    await sql.execute("UPDATE workflow_builds SET promoted_at = now() - interval '1 min'")
    runs = {"status": "'succeeded'", "completed_at": "now()", "build_id": "'main'"}
    await insert(sql, 10, **runs)
    few = await buffers_of_builds(sql, "new")
    for name in ("'a'", "'b'", "'c'"):
        await insert(sql, 10_000, **runs | {"workflow_name": name})

    of_ramp = await buffers_of_builds(sql, "new")
    assert few <= of_ramp < few + 3 * 2000  # twice the runs that hold fifty, and their index
    assert await buffers_of_builds(sql, "main") < 5000 + few


async def register(sql: asyncpg.Connection[Any], build: str, age: float, share: int = 0) -> None:
    await sql.execute(
        "INSERT INTO workflow_builds (namespace_id, build_id, takes_to, created_at)"
        " VALUES ('orders', $1, $2, now() - $3 * interval '1 second')",
        build,
        share,
        float(age),
    )


async def buffers_of_builds(sql: asyncpg.Connection[Any], wanted: str) -> int:
    lists = [["orders"], [200], [200], [20.0], [wanted], [None], [50]]
    return await buffers(sql, "observe_builds", *lists, 500)


async def buffers(
    sql: asyncpg.Connection[Any], name: str = "observe_runs", *arguments: object
) -> int:
    await sql.execute("VACUUM ANALYZE workflow_runs")
    statement = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + queries.load("public")[name]
    arguments = arguments or (["orders"], [200], [200], [20.0])
    async with sql.transaction():
        await sql.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        plan = json.loads(await sql.fetchval(statement, *arguments))
    total = plan[0]["Plan"]
    return int(total["Shared Hit Blocks"] + total["Shared Read Blocks"])


async def test_a_role_that_may_read_four_columns_is_enough(
    database_url: str, sql: asyncpg.Connection[Any]
) -> None:
    await sql.execute("""
        DO $$ BEGIN CREATE ROLE observer LOGIN PASSWORD 'p'; EXCEPTION WHEN OTHERS THEN END $$;
        GRANT SELECT (namespace_id, status, available_at, worker_id, started_at, claim_no)
          ON workflow_runs TO observer""")
    await insert(sql, 2)
    own = parse(database_url)
    as_observer = Dsn(own.hosts, own.ports, own.database, "observer", "p", own.tls)

    database = await Database.connect(as_observer, "public", LOCAL)
    try:
        assert 2 == (await look(database)).demand.due
    finally:
        database.terminate()


async def test_the_session_cannot_write(database: Database) -> None:
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await database._read("start_canary", "orders", "v1", "w")


async def reason(url: str | Dsn, schema: str = "public", options: ConnectOptions = LOCAL) -> str:
    try:
        target = url if isinstance(url, Dsn) else parse(url)
        database = await Database.connect(target, schema, options)
    except Exception as error:
        return diagnose(error).reason
    database.terminate()
    return "Reachable"


async def test_what_goes_wrong_has_its_reason(
    database_url: str, empty_database_url: str, sql: asyncpg.Connection[Any], unused_port: int
) -> None:
    own = parse(database_url)
    changed = Dsn(own.hosts, own.ports, "no such database", own.user, own.password, own.tls)

    assert "Reachable" == await reason(own)
    assert "DatabaseNotFound" == await reason(changed)
    assert "SchemaMissing" == await reason(empty_database_url)
    assert "SchemaMissing" == await reason(own, schema="elsewhere")
    assert "Unreachable" == await reason(f"postgresql://u:p@127.0.0.1:{unused_port}/d")
    assert "Unreachable" == await reason("postgresql://u:p@no-such-host.invalid/d")
    assert "InvalidURL" == await reason("postgresql://u:p@localhost/d", options=ConnectOptions())
    full = Dsn(own.hosts, own.ports, own.database, own.user, own.password, TlsMode.VERIFY_FULL)
    assert "TLSFailed" == await reason(full)
    await sql.execute("INSERT INTO openworkflow_migrations VALUES (-9999, 'additive')")
    assert "Reachable" == await reason(own)
    newer = f"INSERT INTO openworkflow_migrations VALUES ({KNOWN_CONTRACT + 1}, 'later')"
    await sql.execute(newer)
    assert "SchemaTooNew" == await reason(own)


def test_the_operator_knows_the_contract_of_the_worker() -> None:
    assert max(migration.number for migration in known()) == KNOWN_CONTRACT


async def test_a_notify_wakes_the_operator_in_much_less_than_a_poll(
    database_url: str, sql: asyncpg.Connection[Any]
) -> None:
    async with Watching(database_url, poll=60, idle=True) as seen:
        await eventually(lambda: seen.view() is not None)
        await asyncio.sleep(0.5)  # past the shortest pause, into the long one
        async with asyncio.timeout(25):
            await insert(sql, 3)
            await sql.execute("SELECT pg_notify($1, '')", WORK_CHANNEL)
            await eventually(lambda: seen.due() == 3)


async def test_a_fleet_that_becomes_idle_is_listened_for_before_the_next_poll(
    database_url: str, sql: asyncpg.Connection[Any]
) -> None:
    async with Watching(database_url, poll=60) as seen:
        await eventually(lambda: seen.view() is not None)
        seen.observatory.watch(KEY, target(database_url, "orders", poll=60, idle=True))
        await eventually(lambda: len(seen.looks) == 2)
        await insert(sql, 3)
        await sql.execute("SELECT pg_notify($1, '')", WORK_CHANNEL)
        await eventually(lambda: seen.due() == 3)


async def test_a_database_that_comes_back_is_read_again(
    database_url: str, sql: asyncpg.Connection[Any]
) -> None:
    async with Watching(database_url, poll=0.3) as seen:
        await eventually(lambda: seen.due() == 0)
        await sql.execute("ALTER TABLE workflow_runs RENAME TO away")
        await eventually(lambda: seen.reason() == "SchemaMissing")
        await sql.execute("ALTER TABLE away RENAME TO workflow_runs")
        await insert(sql, 2)
        await eventually(lambda: seen.due() == 2)
        assert "SchemaMissing" in {look.reason for look in seen.looks}


async def test_a_statement_that_hangs_is_given_up(
    database_url: str, sql: asyncpg.Connection[Any]
) -> None:
    async with sql.transaction():
        await sql.execute("LOCK TABLE workflow_runs")
        async with Watching(database_url, poll=0.3) as seen:
            await eventually(lambda: seen.reason() is not None)
            assert "TimedOut" == seen.reason()


async def test_two_resources_of_one_database_share_a_connection(database_url: str) -> None:
    async with Watching(database_url, poll=0.3) as seen:
        seen.observatory.watch(Key("shop", "b"), target(database_url, "b", poll=0.3))
        await eventually(lambda: seen.observatory.view(Key("shop", "b")) is not None)

        assert 1 == seen.observatory.connections
        seen.observatory.forget(Key("shop", "b"))
        seen.observatory.forget(KEY)
        assert 0 == seen.observatory.connections


async def test_what_a_fleet_does_is_stored_after_the_next_look_and_the_last_word_counts(
    database_url: str, sql: asyncpg.Connection[Any]
) -> None:
    stored = "SELECT resource, status FROM workflow_fleets WHERE namespace_id = 'orders'"

    async with Watching(database_url, poll=0.2) as seen:
        for ready in (0, 1):
            seen.observatory.tell(KEY, Told("orders", str(KEY), json.dumps({"ready": ready})))
        await eventually(lambda: sql.fetchrow(stored))
        first = await sql.fetchrow(stored)
        seen.observatory.tell(KEY, Told("orders", str(KEY), json.dumps({"ready": 2})))

        async def is_newer() -> bool:
            return bool(await sql.fetchrow(stored) != first)

        await eventually(is_newer)

    assert first is not None
    assert ("shop/orders", {"ready": 1}) == (first["resource"], json.loads(first["status"]))


async def test_what_cannot_be_stored_of_a_fleet_costs_no_look(
    database_url: str, sql: asyncpg.Connection[Any]
) -> None:
    """Tables from before it, somebody's lock, text that is no JSON, a role that may only read."""
    told = Told("orders", str(KEY), "{}")
    lock = await asyncpg.connect(database_url)
    async with Watching(database_url, poll=0.1) as seen:
        seen.observatory.tell(KEY, Told("orders", str(KEY), "no JSON"))
        await looks_on(seen)
        async with lock.transaction():
            await lock.execute("LOCK TABLE workflow_fleets")
            seen.observatory.tell(KEY, told)
            await looks_on(seen)
        seen.observatory.tell(KEY, told)
        await eventually(lambda: sql.fetchval("SELECT count(*) FROM workflow_fleets"))
        await sql.execute("DROP TABLE workflow_fleets")
        seen.observatory.tell(KEY, told)
        await looks_on(seen)
    await lock.close()


async def test_a_migration_and_a_grant_are_found_on_the_connection_that_missed_them(
    database_url: str, sql: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator is upgraded before the tables: it told nothing until its connection broke."""
    monkeypatch.setattr(refused, "AGAIN_SECONDS", 0.5)
    told = Told("orders", str(KEY), "{}")
    names = "workflow_fleets", "workflow_served"
    for name in names:
        await sql.execute(f"ALTER TABLE {name} RENAME TO {name}_later")
    await insert(sql, 3)
    async with Watching(database_url, poll=0.1) as seen:
        seen.observatory.tell(KEY, told)
        await eventually(lambda: seen.due() == 3)
        await looks_on(seen)
        for name in names:
            await sql.execute(f"ALTER TABLE {name}_later RENAME TO {name}")
        await serve(sql, "another")
        await eventually(lambda: seen.unserved() == 3)

        async def is_told() -> bool:
            seen.observatory.tell(KEY, told)
            return bool(await sql.fetchval("SELECT count(*) FROM workflow_fleets"))

        await eventually(is_told)


async def looks_on(seen: Watching) -> None:
    """Some more looks, all of them good."""
    before = len(seen.looks)
    await eventually(lambda: len(seen.looks) >= before + 3, 30)
    assert [None] * 3 == [look.reason for look in seen.looks[before : before + 3]]


async def test_another_password_takes_nothing_back_that_was_seen(
    database_url: str, sql: asyncpg.Connection[Any]
) -> None:
    """A rotation made every fleet not ready for a moment, with a warning."""
    await insert(sql, 2)
    async with Watching(database_url, poll=60) as seen:
        await eventually(lambda: seen.due() == 2)
        rotated = database_url + ("&" if "?" in database_url else "?") + "sslmode=disable"
        seen.observatory.watch(KEY, target(rotated, "orders", 60))
        at_once = seen.due()
        await insert(sql)
        await eventually(lambda: len(seen.looks) > 1)
        elsewhere = replace(parse(rotated), database="elsewhere")
        seen.observatory.watch(KEY, replace(target(rotated, "orders", 60), dsn=elsewhere))

        assert 2 == at_once
        assert seen.view() is None


@pytest.mark.parametrize(
    ("failures", "reason", "pause"),
    [
        (0, None, 1.0),
        (1, DatabaseReason.UNREACHABLE, 2.0),
        (9, DatabaseReason.UNREACHABLE, 5.0),
        (9, DatabaseReason.TIMED_OUT, 5.0),
        (9, DatabaseReason.AUTHENTICATION_FAILED, 30.0),
        (99_999, DatabaseReason.SCHEMA_MISSING, 30.0),
    ],
)
def test_what_comes_back_by_itself_is_found_within_seconds(
    failures: int, reason: DatabaseReason | None, pause: float
) -> None:
    """A PostgreSQL that was back for 34 s was called unreachable."""
    assert pause == pause_after(1.0, failures, reason)
    assert 20.0 == pause_after(20.0, min(failures, 3), reason)


WORK_CHANNEL = Namespace("orders", "public").work_channel


def target(url: str, namespace_id: str, poll: float, idle: bool = False) -> Target:
    return Target(parse(url), "public", question(namespace_id), poll, idle)


class Watching:
    """An observatory that looks at the namespace `orders`."""

    def __init__(self, url: str, poll: float, idle: bool = False) -> None:
        self.looks: list[Look] = []
        self.observatory = Observatory(lambda _: None, LOCAL, self.looks.append)
        self._target = target(url, "orders", poll, idle)

    async def __aenter__(self) -> Watching:
        self.observatory.watch(KEY, self._target)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.observatory.__aexit__()
        await asyncio.sleep(0)

    def view(self) -> object:
        return self.observatory.view(KEY)

    def due(self) -> int | None:
        view = self.observatory.view(KEY)
        return view.demand.due if isinstance(view, Observation) else None

    def unserved(self) -> int | None:
        view = self.observatory.view(KEY)
        return view.demand.unserved if isinstance(view, Observation) else None

    def reason(self) -> str | None:
        view = self.observatory.view(KEY)
        return view.reason if isinstance(view, DatabaseProblem) else None


async def serve(sql: asyncpg.Connection[Any], name: str, version: str = "", age: int = 0) -> None:
    await sql.execute(
        "INSERT INTO workflow_served (namespace_id, workflow_name, version, seen_at)"
        " VALUES ('orders', $1, $2, now() - $3 * interval '1 minute')",
        *(name, version, age),
    )


async def test_runs_of_what_no_worker_serves_call_for_one_pod_and_no_more(
    database: Database, sql: asyncpg.Connection[Any]
) -> None:
    """Six thousand of them held a fleet at its maximum forever."""
    hour = "now() - interval '1 hour'"
    await insert(sql, 500, workflow_name="'gone'", available_at=hour)
    await insert(sql, 40, workflow_name="'w'", version="'1'", available_at=hour)
    await insert(sql, 30, workflow_name="'gone'", available_at="now() + interval '10 seconds'")
    await insert(sql, 2, available_at="now() + interval '10 seconds'")
    before = await look(database)
    await serve(sql, "w")
    await insert(sql, 3)

    seen = (await look(database)).demand

    assert (100, True, 32, 0) == (
        before.demand.due,
        before.demand.saturated,
        before.demand.waking,
        before.demand.unserved,
    )
    assert (3, False, 2, 97) == (seen.due, seen.saturated, seen.waking, seen.unserved)
    assert seen.oldest_due_age < 60 < 3600 <= seen.oldest_unserved_age


async def test_what_was_not_said_for_an_hour_while_others_were_is_served_no_more(
    database: Database, sql: asyncpg.Connection[Any]
) -> None:
    await insert(sql, 3)
    await insert(sql, 4, workflow_name="'old'")
    await serve(sql, "w", age=600)
    await serve(sql, "old", age=620)
    asleep = (await look(database)).demand
    await sql.execute("UPDATE workflow_served SET seen_at = now() WHERE workflow_name = 'w'")

    awake = (await look(database)).demand

    assert (7, 0) == (asleep.due, asleep.unserved)
    assert (3, 4) == (awake.due, awake.unserved)


async def test_new_and_pinned_runs_of_what_nobody_serves_are_left_out_of_builds_too(
    database: Database, sql: asyncpg.Connection[Any]
) -> None:
    await register(sql, "v1", 60, 100)
    await insert(sql, 3)
    await insert(sql, 5, workflow_name="'gone'")
    await insert(sql, 2, pinned="true", build_id="'v1'")
    await serve(sql, "w")

    seen = await look(database, Question("orders", 100, 100, 20, build="v1"))

    assert seen.new is not None
    assert (3, 5, 5) == (seen.new.due, seen.demand.due, seen.demand.unserved)


async def test_what_is_served_and_not_due_has_no_age(
    database: Database, sql: asyncpg.Connection[Any]
) -> None:
    await register(sql, "v1", 60, 100)
    await serve(sql, "w")
    await insert(sql, available_at="now() + interval '5 seconds'")

    seen = await look(database, Question("orders", 100, 100, 20, build="v1"))

    assert seen.new is not None
    assert (0, 1) == (seen.demand.due, seen.demand.waking)
    assert (0, 0) == (seen.demand.oldest_due_age, seen.new.oldest_due_age)


async def test_counting_what_is_served_is_bounded_whatever_the_backlog(
    database: Database, sql: asyncpg.Connection[Any]
) -> None:
    for number in range(5):
        await serve(sql, f"w{number}")
    lists = [["orders"], [200], [20.0]]
    few = await buffers(sql, "observe_served", *lists)
    await insert(sql, 20000, workflow_name="'gone'")
    await insert(sql, 20000, workflow_name="'w1'")

    assert await buffers(sql, "observe_served", *lists) < few + 700


async def test_what_nobody_serves_is_named_and_nothing_is_asked_where_all_is_served(
    database: Database, sql: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await serve(sql, "w")
    await insert(sql, 3)
    asked: list[str] = []
    read = Database._read

    async def counted(self: Database, statement: str, *arguments: object) -> list[Any]:
        asked.append(statement)
        return await read(self, statement, *arguments)

    monkeypatch.setattr(Database, "_read", counted)
    assert () == (await look(database)).demand.unserved_names
    assert 2 == len(asked)
    await insert(sql, 4, workflow_name="'gone'")
    await insert(sql, 1, workflow_name="'w'", version="'2'")
    await insert(sql, 1, workflow_name="E'<script>\\n'")

    seen = (await look(database)).demand

    assert ("(a name that is not shown)", "gone", "w 2") == seen.unserved_names


async def test_naming_what_nobody_serves_is_bounded_whatever_the_backlog(
    database: Database, sql: asyncpg.Connection[Any]
) -> None:
    await serve(sql, "w")
    await insert(sql, 1000, workflow_name="'gone'")
    few = await buffers(sql, "observe_unserved", ["orders"])
    await insert(sql, 20000, workflow_name="'gone'")

    assert await buffers(sql, "observe_unserved", ["orders"]) < few + 300
