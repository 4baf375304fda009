"""A standby takes over that lacks the last commits: nothing is built on what is gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from openworkflow import (
    BackendPostgres,
    OpenWorkflow,
    ResultTimeout,
    RunNotFound,
    Step,
    workflow,
)
from openworkflow.backend import liveness, queries
from openworkflow.backend.incarnation import Held, keep_whole
from openworkflow.backend.records import NewRun
from openworkflow.core.ids import uuid7
from openworkflow.core.step_attempt import StepStatus
from tests.chaos.proxy import Proxy
from tests.database_roles import command
from tests.flushes import claim, completion_of, flush, session_of, step_of, success_of
from tests.guarded_postgres import has_pgbouncer, pooler_of
from tests.helpers import eventually
from tests.local_postgres import FAST_AND_UNSAFE, LocalPostgres, Standby, embedded_programs
from tests.two_servers import migrated, proxy_to, two_servers


@dataclass
class Pair:
    """A server, and a standby that follows it and is not waited for."""

    primary: LocalPostgres
    standby: Standby
    proxy: Proxy
    sql: asyncpg.Connection

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.proxy.port}/postgres"

    async def recorded(self) -> dict[str, list[str]]:
        """The names of the steps of all runs, in the order in which they ended."""
        rows = await self.sql.fetch(
            "select workflow_name, array_agg(step_name order by completion_no) as steps"
            "  from step_attempts join workflow_runs run on run.id = workflow_run_id"
            " where completion_no is not null group by 1"
        )
        return {row["workflow_name"]: row["steps"] for row in rows}

    async def standing(self) -> list[dict[str, Any]]:
        """How runs stand, of a test that failed."""
        columns = "status, claim_no, worker_id, wake_no, paused, available_at - now() as left"
        query = f"select workflow_name, {columns} from workflow_runs"
        return [dict(row) for row in await self.sql.fetch(query)]

    async def eventually(self, query: str) -> None:
        """Wait until it is true."""

        async def is_true() -> bool:
            return bool(await self.sql.fetchval(query))

        await eventually(is_true)

    async def stop_following(self) -> None:
        """From here on, what is committed is on the first server only."""
        connection = await asyncpg.connect(self.standby.url())
        now = await self.sql.fetchval("select pg_current_wal_lsn()::text")

        async def has_all() -> bool:
            lsn = "select pg_last_wal_replay_lsn() >= $1::text::pg_lsn"
            return bool(await connection.fetchval(lsn, now))

        await eventually(has_all)
        await connection.execute("alter system set primary_conninfo = ''")
        await connection.execute("select pg_reload_conf()")

        async def is_alone() -> bool:
            return not await self.sql.fetchval("select count(*) from pg_stat_replication")

        await eventually(is_alone)
        await connection.close()

    async def fail_over(self) -> None:
        """The first server dies, and the standby takes its place."""
        await self.sql.close()
        self.proxy.upstream_port = self.standby.port
        self.proxy.pause()
        await asyncio.to_thread(self.primary.crash)
        self.proxy.cut()
        await asyncio.to_thread(self.standby.promote)
        self.proxy.resume()
        self.sql = await asyncpg.connect(self.standby.url())


@contextlib.asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    programs = embedded_programs()
    library = programs.parent / "lib"
    found = library if library.is_dir() else None
    primary = LocalPostgres(programs, found, {**FAST_AND_UNSAFE, "synchronous_commit": "on"})
    try:
        await asyncio.to_thread(primary.start)
        backend = await BackendPostgres.connect(primary.url())
        await backend.stop()
        standby = Standby(programs, found, primary_port=primary.port)
        try:
            await asyncio.to_thread(standby.start)
            async with proxy_to(primary.port) as proxy:
                sql = await asyncpg.connect(primary.url())
                both = Pair(primary, standby, proxy, sql)
                yield both
                await both.sql.close()
        finally:
            standby.stop()
    finally:
        primary.stop()


class Program:
    """Functions of steps that are held up, and what was called."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.may_end: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def draw(self, name: str) -> str:
        """Another result each time, once it may end."""
        self.calls.append(name)
        drawn = f"{name} {self.calls.count(name)}"
        await self.may_end[name].wait()
        return drawn

    def begun(self, *names: str) -> bool:
        return set(names) <= set(self.calls)


@contextlib.asynccontextmanager
async def working(url: str, *workflows: Any) -> AsyncIterator[OpenWorkflow]:
    """A worker, and who starts runs, on the server that is there."""
    backend = await BackendPostgres.connect(url)
    try:
        ow = OpenWorkflow(backend)
        long = timedelta(minutes=10)
        async with ow.new_worker(workflows=list(workflows), lease=long, rest=long):
            yield ow
    finally:
        await backend.stop()


@pytest.mark.parametrize("pooled", [False, True])
async def test_runs_go_on_from_what_the_standby_has(pooled: bool, tmp_path: Path) -> None:
    """What was recorded before `stop_following` is there, all after that is not.

    Steps were recorded on results that were gone, waits were ended that had not begun, events were
    numbered after such as there were not.
    """
    if pooled and not has_pgbouncer():
        pytest.skip("pgbouncer is not installed (make test-programs)")
    program = Program()
    draw, may_end = program.draw, program.may_end

    @workflow
    async def whole(step: Step) -> list[str]:
        return [await step.run("a", draw, "whole a"), await step.run("b", draw, "whole b")]

    @workflow
    async def holed(step: Step) -> list[str]:
        drawn = await step.run("a", draw, "holed a")
        return [drawn, await step.run("b", draw, f"holed b of {drawn}")]

    @workflow
    async def ended(step: Step) -> str:
        return await step.run("a", draw, "ended a")

    @workflow
    async def waiting(step: Step) -> str:
        await step.run("a", draw, "waiting a")
        await step.wait_for_signal("go")
        return await step.run("b", draw, "waiting b")

    @workflow
    async def telling(step: Step) -> str:
        await step.run("a", draw, "telling a")
        step.emit("news", "first")
        drawn = await step.run("b", draw, "telling b")
        step.emit("news", "second")
        return drawn

    @workflow
    async def claimed(step: Step) -> str:
        return await step.run("a", draw, "claimed a")

    @workflow
    async def served_by_nobody(step: Step) -> None:
        pass

    all_of_them = (whole, holed, ended, waiting, telling, claimed)
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(100):
        servers = await stack.enter_async_context(pair())
        url = stack.enter_context(pooler_of(servers.url, tmp_path)) if pooled else servers.url
        ow = await stack.enter_async_context(working(url, *all_of_them))
        await ow.pause(workflow=claimed)
        runs = {each.name: await ow.run_workflow(each) for each in all_of_them}
        may_end["whole a"].set()
        await eventually(
            lambda: program.begun("whole b", "holed a", "ended a", "waiting a", "telling a")
        )
        assert "lacks the last commits" in (await command(servers.url, "doctor"))[1]
        assert "is a standby" in (await command(servers.standby.url(), "doctor"))[1]
        await servers.stop_following()
        await ow.resume(workflow=claimed)
        for name in ("holed a", "ended a", "waiting a", "telling a"):
            may_end[name].set()
        first = await runs["ended"].result()
        await eventually(lambda: program.begun("holed b of holed a 1", "telling b", "claimed a"))
        await servers.eventually("select count(*) = 1 from workflow_events")
        await servers.eventually(
            "select status = 'running' from step_attempts where kind = 'signal'"
        )
        gone = await ow.run_workflow(served_by_nobody)

        await servers.fail_over()
        for name in [*may_end, "holed b of holed a 2", "waiting b"]:
            may_end[name].set()
        await ow.resume(workflow=claimed)
        await ow.signal(runs["waiting"].id, "go", None)
        try:
            results = {name: await run.result(timeout=40) for name, run in runs.items()}
        except ResultTimeout as error:
            raise AssertionError(program.calls, await servers.standing()) from error

        assert "ended a 1" == first
        assert {
            "whole": ["whole a 1", "whole b 1"],  # called once: what it rests on is there
            "holed": ["holed a 2", "holed b of holed a 2 1"],
            "ended": "ended a 2",
            "waiting": "waiting b 1",
            "telling": "telling b 2",
            "claimed": "claimed a 2",
        } == results
        assert await servers.recorded() == {
            "whole": ["a", "b"],
            "holed": ["a", "b"],
            "ended": ["a"],
            "waiting": ["a", "go", "b"],
            "telling": ["a", "b"],
            "claimed": ["a"],
        }
        assert [0, 1] == await servers.sql.fetchval(
            "select array_agg(event_no) from workflow_events"
        )
        with pytest.raises(RunNotFound):
            await gone.result(timeout=10)


async def test_a_claim_is_its_workers_alone(backend: BackendPostgres) -> None:
    """A standby that lacks a claim gives its number to the next one who claims the run."""
    await backend.create_workflow_runs([NewRun("a"), NewRun("a")])
    session = await session_of(backend)
    one, other = await claim(session, "a", worker="host/new")
    step, end = success_of(one, "s"), completion_of(other)

    kept = await flush(session, successes=[step], completions=[end], worker="host/old")
    assert {step.id, other.id} == kept.lost

    kept = await flush(session, successes=[step], completions=[end], worker="host/new")
    assert not kept.lost
    await session.close()


async def test_what_has_ended_meanwhile_lacks_nothing(
    backend: BackendPostgres, sql: asyncpg.Connection
) -> None:
    """As after an outage that was longer than the leases."""
    names = ["whole", "lacks a row", "is going on", "is another's", "was never claimed", "is gone"]
    await backend.create_workflow_runs([NewRun("a")] * len(names))
    session = await session_of(backend)
    runs = dict(zip(names, await claim(session, "a", worker="w"), strict=True))
    over = success_of(runs["whole"], "s")
    goes_on = step_of(runs["is going on"], "s", status=StepStatus.RUNNING, output=None)
    await flush(session, successes=[over], steps=[goes_on], worker="w")
    await sql.execute(
        "update workflow_runs set claim_no = 2, worker_id = 'x' where id = $1",
        runs["is another's"].id,
    )
    await sql.execute(
        "update workflow_runs set claim_no = 0, worker_id = null, status = 'pending' where id = $1",
        runs["was never claimed"].id,
    )
    await sql.execute("delete from workflow_runs where id = $1", runs["is gone"].id)
    ended = {"whole": [over.id], "lacks a row": [uuid7()], "is going on": [goes_on.id]}
    held = [Held(run.id, 1, None, 0, ended.get(name, []), [over.id]) for name, run in runs.items()]

    found = await keep_whole(sql.fetch, queries.load("public"), "w", held)

    assert {(runs["whole"].id, 1)} == found.standing
    assert 4 == found.lacking  # all but one, of which no more is known than that it has ended
    rows = await sql.fetch("select id, claim_no, worker_id from workflow_runs")
    assert {
        "whole": (1, "w"),
        "lacks a row": (1, None),
        "is going on": (1, None),
        "is another's": (2, "x"),
        "was never claimed": (1, None),
    } == {
        name: row[1:] for row in map(tuple, rows) for name, run in runs.items() if run.id == row[0]
    }
    await session.close()


async def test_a_lock_on_one_run_holds_up_no_comparison(
    backend: BackendPostgres, sql: asyncpg.Connection, database_url: str
) -> None:
    """Somebody has rows open, on a server that was just started: all runs of the worker waited."""
    names = ["locked", "free", "taken over"]
    await backend.create_workflow_runs([NewRun("a")] * len(names))
    session = await session_of(backend)
    runs = dict(zip(names, await claim(session, "a", worker="w"), strict=True))
    held = [Held(run.id, 1, None, 0, [], []) for run in runs.values()]
    lacking = [Held(runs["taken over"].id, 1, None, 0, [uuid7()], [])]
    other = await asyncpg.connect(database_url)

    async def waits() -> bool:
        await other.execute("select pg_stat_clear_snapshot()")
        waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
        return bool(await other.fetchval(f"{waiting} and datname = current_database()"))

    async with asyncio.timeout(20):
        async with other.transaction():
            await other.execute(
                "select from workflow_runs where id = $1 for update", runs["locked"].id
            )
            found = await keep_whole(sql.fetch, queries.load("public"), "w", held)
            assert {(run.id, 1) for run in runs.values()} == found.standing

            await other.execute(
                "update workflow_runs set claim_no = 2, worker_id = 'x' where id = $1",
                runs["taken over"].id,
            )
            compared = asyncio.ensure_future(
                keep_whole(sql.fetch, queries.load("public"), "w", lacking)
            )
            await eventually(waits)
        await compared
    row = "select (claim_no, worker_id) = (2, 'x') from workflow_runs where id = $1"
    assert await sql.fetchval(row, runs["taken over"].id)
    await session.close()
    await other.close()


async def test_runs_go_on_from_a_dump_that_is_restored_under_them() -> None:
    """Into a database of the same name, on the same server, which was not restarted."""
    program = Program()

    @workflow
    async def restored(step: Step) -> list[str]:
        drawn = await step.run("a", program.draw, "a")
        return [drawn, await step.run("b", program.draw, f"b of {drawn}")]

    programs = embedded_programs()
    library = programs.parent / "lib"
    server = LocalPostgres(programs, library if library.is_dir() else None)
    try:
        await asyncio.to_thread(server.start)
        async with working(server.url(), restored) as ow, asyncio.timeout(100):
            run = await ow.run_workflow(restored)
            await eventually(lambda: program.begun("a"))
            dump = str(server.root / "dump")
            await asyncio.to_thread(server.run, "pg_dump", "-Fc", "-f", dump, server.url())
            program.may_end["a"].set()
            await eventually(lambda: program.begun("b of a 1"))
            await asyncio.to_thread(_restore, server, dump)
            for name in ("b of a 1", "b of a 2"):
                program.may_end[name].set()

            assert ["a 2", "b of a 2 1"] == await run.result()
    finally:
        server.stop()


def _restore(server: LocalPostgres, dump: str) -> None:
    elsewhere = server.url("template1")
    server.run("psql", "-c", "drop database postgres with (force)", elsewhere)
    server.run("psql", "-c", "create database postgres template template0", elsewhere)
    server.run("pg_restore", "-d", server.url(), dump)


async def test_leases_are_kept_where_the_runs_are() -> None:
    """The first server is still there, and so are connections to it: a name leads elsewhere.

    One that was lost is opened on the new server; the heartbeat went on extending leases of rows
    that nobody looks at any more, so that each run was taken over after a lease.
    """
    with two_servers() as (first, second):
        await migrated(first, second)
        async with proxy_to(first.port) as proxy:
            url = f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres"
            backend = await BackendPostgres.connect(url)
            session, heartbeat = await backend.open_session(1), await backend.open_heartbeat()
            await flush(session)
            await heartbeat.beat("w", timedelta(seconds=9), [])
            proxy.upstream_port = second.port
            session._links[0].drop()

            await flush(session)
            await backend.create_workflow_runs([NewRun("a")])
            (run,) = await claim(session, "a", worker="w")

            standing = await heartbeat.beat("w", timedelta(seconds=9), [(run.id, run.claim_no)])
            assert {(run.id, run.claim_no)} == standing
            await heartbeat.close()
            await session.close()
            await backend.stop()


async def test_a_number_is_given_once_where_an_earlier_claim_of_the_worker_is_known(
    backend: BackendPostgres, sql: asyncpg.Connection
) -> None:
    """The server lacks a park and the claim after it: the next one was given the same number."""
    await backend.create_workflow_runs([NewRun("a"), NewRun("a"), NewRun("a")])
    session = await session_of(backend)
    parked, paused, others = await claim(session, "a", worker="w")
    await sql.execute("update workflow_runs set worker_id = 'x' where id = $1", others.id)
    await sql.execute("update workflow_runs set paused = true where id = $1", paused.id)
    held = [Held(run.id, 2, None, 0, [], []) for run in (parked, paused, others)]

    found = await keep_whole(sql.fetch, queries.load("public"), "w", held)

    assert set() == found.standing
    assert 3 == found.lacking
    columns = "id, (claim_no, status, worker_id, available_at <= now(), due_at <= now())"
    rows = {row["id"]: row[1] for row in await sql.fetch(f"select {columns} from workflow_runs")}
    assert (2, "pending", None, True, None) == rows[parked.id]
    assert (2, "pending", None, False, True) == rows[paused.id]
    assert (1, "running", "x") == rows[others.id][:3]
    await session.close()


async def copy(before: asyncpg.Connection, after: asyncpg.Connection, *tables: str) -> None:
    """Have one database know what another does, as far as that goes now."""
    for table in tables:
        for row in await before.fetch(f"select to_jsonb(each)::text from {table} each"):
            same = f"jsonb_populate_record(null::{table}, $1::jsonb)"
            await after.execute(f"insert into {table} select * from {same}", row[0])


async def test_a_signal_is_heard_of_a_server_that_knows_of_fewer_wakes() -> None:
    """The run had been woken on the server before, and took the next wake for that one.

    Nobody tells a worker of it that does not listen just then, or reaches the server by a pooler;
    what it was parked with held, too, so that the signal was never taken.
    """

    @workflow
    async def waiting(step: Step) -> str:
        return await step.wait_for_signal("go", timeout="5m", type=str)

    with two_servers() as (first, second):
        await migrated(first, second)
        async with proxy_to(first.port) as proxy, asyncio.timeout(60):
            url = f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres"
            before, after = [await asyncpg.connect(each.url()) for each in (first, second)]
            backend, there = [await BackendPostgres.connect(each) for each in (url, second.url())]
            ow, long = OpenWorkflow(backend), timedelta(minutes=10)
            worker = ow.new_worker(workflows=[waiting], lease=long, rest=long)
            await worker.start()
            run = await ow.run_workflow(waiting)
            subscribed = "select count(*) = 1 from workflow_subscriptions"
            await eventually(lambda: before.fetchval(subscribed))
            await copy(before, after, "workflow_runs", "step_attempts", "workflow_subscriptions")
            await before.execute("update workflow_runs set wake_no = wake_no + 1")
            assert worker._parts is not None
            inboxes = worker._parts.mail._inboxes
            await eventually(lambda: run.id in inboxes and inboxes[run.id].wake_no == 1)
            await OpenWorkflow(there).signal(run.id, "go", "gone")

            proxy.upstream_port = second.port
            proxy.cut()

            assert "gone" == await run.result(timeout=20)
            assert 1 == await after.fetchval("select claim_no from workflow_runs")
            await worker.stop()
            for each in (backend, there, before, after):
                await (each.stop() if isinstance(each, BackendPostgres) else each.close())


async def test_a_run_that_a_heartbeat_finds_gone_goes_on_at_once() -> None:
    """The heartbeat is the first on a server that lacks the claim.

    The run was given the same number again, which the guard took for the claim that was gone: its
    new execution was dropped, and it waited for its lease to end.
    """
    program = Program()

    @workflow
    async def lost(step: Step) -> str:
        return await step.run("a", program.draw, "a")

    with two_servers() as (first, second):
        await migrated(first, second)
        async with proxy_to(first.port) as proxy, asyncio.timeout(60):
            url = f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres"
            backend = await BackendPostgres.connect(url)
            ow = OpenWorkflow(backend)
            run = await ow.run_workflow(lost)
            before, after = [await asyncpg.connect(each.url()) for each in (first, second)]
            await copy(before, after, "workflow_runs")
            worker = ow.new_worker(workflows=[lost], lease=timedelta(minutes=10))
            await worker.start()
            await eventually(lambda: program.begun("a"))

            proxy.upstream_port = second.port
            beating = "query like '%extended as%' and pid <> pg_backend_pid()"
            end = "select bool_or(pg_terminate_backend(pid)) from pg_stat_activity"
            await eventually(lambda: before.fetchval(f"{end} where {beating}"))
            assert worker._parts is not None
            worker._parts.heartbeat.hurry()
            await eventually(lambda: not worker.slots_used)
            proxy.cut()
            program.may_end["a"].set()

            assert "a 2" == await run.result(timeout=20)
            assert 2 == await after.fetchval("select claim_no from workflow_runs")
            await worker.stop()
            await backend.stop()
            await before.close()
            await after.close()


async def test_wake_ups_are_heard_where_the_runs_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever listened stayed on the server before, which answers still, and heard nothing."""
    monkeypatch.setattr(liveness, "CHECK_SECONDS", 0.2)
    with two_servers() as (first, second):
        await migrated(first, second)
        async with proxy_to(first.port) as proxy, asyncio.timeout(60):
            url = f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres"
            backend = await BackendPostgres.connect(url)
            session, listener = await backend.open_session(1), backend.listen()
            async with listener:
                await eventually(lambda: listener.healthy)
                await flush(session)
                proxy.upstream_port = second.port
                session._links[0].drop()

                await flush(session)

                after = await asyncpg.connect(second.url())
                listening = "select true from pg_stat_activity where query ilike 'listen %'"
                await eventually(lambda: after.fetchval(listening))
                await eventually(lambda: listener.healthy)
                await after.close()
            await session.close()
            await backend.stop()
