"""What somebody did to our tables, our role or the server's limits costs time and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from openworkflow import BackendPostgres, OpenWorkflow, Step, workflow
from openworkflow.backend import liveness
from openworkflow.backend.records import StepSuccess
from openworkflow.cli.doctor import judge
from openworkflow.core.errors import BackendError
from openworkflow.core.ids import uuid7
from openworkflow.worker.worker import Worker
from tests.flushes import session_of
from tests.helpers import StartWorker, eventually
from tests.local_postgres import FAST_AND_UNSAFE, LocalPostgres, embedded_programs
from tests.refusing import refusing

calls: Counter[str] = Counter()


def call(name: str) -> str:
    calls[name] += 1
    return name


@workflow
async def two_calls(name: str, step: Step) -> str:
    for number in range(2):
        await step.run(f"s{number}", call, f"{name} {number}")
    return name


@workflow
async def pausing(name: str, step: Step) -> str:
    for number in range(15):
        await step.run(f"s{number}", call, f"{name} {number}")
        await asyncio.sleep(0.5)
    return name


@workflow
async def large(input: list[Any], step: Step) -> int:
    return int(input[0])


@pytest.fixture(autouse=True)
def _nothing_was_called() -> None:
    calls.clear()


def name_of(url: str) -> str:
    return urlsplit(url).path[1:]


def refused_of(worker: Worker) -> float:
    labels = {"namespace_id": "default"}
    found = worker.metrics.registry.get_sample_value("openworkflow_writes_refused", labels)
    return found or 0.0


@pytest.mark.parametrize("state", ["22P02", "54000", "42883", "42702"])
async def test_a_trigger_that_fails_in_the_words_of_a_value_or_a_statement_costs_time_only(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any], state: str
) -> None:
    """A wrong value failed every run for good; by a wrong statement its steps were called again and
    again, once in 30 seconds."""
    worker = await start_worker(two_calls)
    async with refusing(sql, "step_attempts", state):
        handles = await ow.run_workflows(two_calls, ["a", "b", "c"])
        await eventually(lambda: refused_of(worker) == 3)
        await eventually(lambda: not worker.ready()[0])
        assert "trigger" in worker.ready()[1]

    assert ["a", "b", "c"] == [await handle.result(timeout=20) for handle in handles]
    assert {1} == set(calls.values())
    assert worker.live()[0]


CHANGED = {
    "a rule": (
        "create rule odd as on insert to step_attempts do instead nothing",
        "drop rule odd on step_attempts",
    ),
    "a type": (
        "alter table step_attempts alter column completion_no type boolean using null",
        "alter table step_attempts alter column completion_no type integer using null",
    ),
}


@pytest.mark.parametrize("kind", CHANGED)
async def test_a_table_that_was_changed_under_our_statements_costs_time_only(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any], kind: str
) -> None:
    """PostgreSQL finds the statement wrong: it was taken for our mistake, and steps were called
    again and again, once in 30 seconds."""
    worker = await start_worker(two_calls)
    change, back = CHANGED[kind]
    await sql.execute(change)
    handles = await ow.run_workflows(two_calls, ["a", "b", "c"])
    await eventually(lambda: refused_of(worker) == 3)
    await eventually(lambda: not worker.ready()[0])
    await sql.execute(back)

    assert ["a", "b", "c"] == [await handle.result(timeout=100) for handle in handles]
    assert {1} == set(calls.values())


async def test_an_end_that_a_trigger_refuses_in_the_words_of_a_value_fails_no_run(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    worker = await start_worker(two_calls)
    async with refusing(sql, "workflow_runs", "54000", "new.status in ('succeeded', 'failed')"):
        handles = await ow.run_workflows(two_calls, ["a", "b", "c"])
        await eventually(lambda: refused_of(worker) == 3)

    assert ["a", "b", "c"] == [await handle.result(timeout=20) for handle in handles]
    assert {1} == set(calls.values())


async def test_an_index_on_an_expression_that_fails_costs_time_only(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    """Whoever added it, to look for numbers, made every run fail whose results are none."""
    worker = await start_worker(two_calls)
    await sql.execute("create index odd on step_attempts (((output ->> 0)::int))")
    run = await ow.run_workflow(two_calls, "none")
    await eventually(lambda: not worker.ready()[0])
    assert "the value itself can be read" in worker.ready()[1]
    await sql.execute("drop index odd")

    assert "none" == await run.result(timeout=20)
    assert {1} == set(calls.values())


async def test_a_row_is_read_without_being_stored(
    backend: BackendPostgres, sql: asyncpg.Connection[Any]
) -> None:
    session = await session_of(backend)
    good = StepSuccess(uuid7(), uuid7(), 1, "s", '"\\u00e9"', 0.1, 1)
    answers = [
        await session.reads(good._replace(output=text)) for text in ("1", "odd", '"\\u0000"')
    ]
    await session.close()

    assert [True, False, False] == answers
    assert 0 == await sql.fetchval("select count(*) from step_attempts")


async def test_a_role_that_was_dropped_and_made_again_is_served(
    database_url: str, sql: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old sessions are of a role that is gone: worker and client were refused until restarted."""
    monkeypatch.setattr(liveness, "REFUSED_SECONDS", 0.2)
    role = f"{name_of(database_url)}_role"
    make = (
        f"create role {role} login; grant usage, create on schema public to {role}; "
        f"grant all on all tables in schema public to {role}"
    )
    await sql.execute(make)
    try:
        async with _worker_of(_of(role, database_url), two_calls) as (ow, worker):
            assert "before" == await (await ow.run_workflow(two_calls, "before")).result(timeout=20)
            await sql.execute(f"drop owned by {role}; drop role {role}")
            await eventually(lambda: not worker.ready()[0])
            await sql.execute(make)

            await eventually(lambda: worker.ready()[0])
            with contextlib.suppress(Exception):
                await ow.run_workflow(two_calls, "refused: the pool does not know yet")
            assert "after" == await (await ow.run_workflow(two_calls, "after")).result(timeout=20)
    finally:
        await sql.execute(f"drop owned by {role}; drop role {role}")


async def test_a_limit_that_was_lifted_for_the_role_is_lifted_for_workers_that_run(
    database_url: str, sql: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log said to raise statement_timeout; whoever did saw no change until a restart."""
    monkeypatch.setattr(liveness, "REFUSED_SECONDS", 0.2)
    database = name_of(database_url)
    await sql.execute(
        f"alter database {database} set statement_timeout = '100ms';"
        "create function slow() returns trigger language plpgsql as "
        "$$ begin perform pg_sleep(0.2); return new; end $$;"
        "create trigger slow before insert on step_attempts for each row execute function slow()"
    )
    async with _worker_of(database_url, two_calls) as (ow, worker):
        run = await ow.run_workflow(two_calls, "slow")
        await eventually(lambda: refused_of(worker) == 1)
        await sql.execute(f"alter database {database} reset statement_timeout")

        assert "slow" == await run.result(timeout=20)
        assert {1} == set(calls.values())


async def test_runs_that_are_too_much_for_one_claim_are_claimed_one_by_one(
    database_url: str, sql: asyncpg.Connection[Any]
) -> None:
    """The same claim was sent again forever, and nothing was claimed any more."""
    await sql.execute(
        "insert into workflow_runs (workflow_name, status, available_at, input) "
        f"select '{large.name}', 'pending', now(), "
        "jsonb_build_array(i, (select string_agg(md5((i * 40000 + j)::text), '') "
        "from generate_series(1, 40000) as j)) from generate_series(1, 12) as i"
    )
    # What a claim takes longer for, the more it takes: a statement has time for a few of them.
    await sql.execute(
        "create function slow() returns trigger language plpgsql as "
        "$$ begin perform pg_sleep(0.05); return new; end $$;"
        "create trigger slow before update on workflow_runs for each row "
        "when (new.status = 'running') execute function slow();"
        f"alter database {name_of(database_url)} set statement_timeout = '300ms'"
    )
    async with _worker_of(database_url, large, concurrency=48) as (ow, _):
        ids = [row["id"] for row in await sql.fetch("select id from workflow_runs order by input")]
        numbers: list[object] = [await ow.handle(run_id).result(timeout=30) for run_id in ids]

    assert list(range(1, 13)) == numbers


ODD = {
    "unlogged": ("alter table step_attempts set unlogged", "step_attempts is unlogged"),
    "replica": (
        "alter database {database} set session_replication_role = replica",
        "session_replication_role is replica",
    ),
    "disabled": (
        "alter table workflow_messages disable trigger all",
        "openworkflow_message_sent is disabled",
    ),
    "before": (
        "create function odd() returns trigger language plpgsql as 'begin return null; end';"
        "create trigger odd before insert on step_attempts for each row execute function odd()",
        "trigger odd of step_attempts may drop rows",
    ),
}


@pytest.mark.parametrize("kind", ODD)
async def test_what_breaks_a_promise_without_a_word_is_told_by_worker_and_doctor(
    database_url: str, sql: asyncpg.Connection[Any], caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """Signals woke nobody, or recorded steps were not there, and nobody was told why."""
    change, words = ODD[kind]
    await sql.execute(change.format(database=name_of(database_url)))

    async with _worker_of(database_url, two_calls):
        assert words in caplog.text
    backend = await BackendPostgres.connect(database_url)
    findings = {each.found: each for each in judge(await backend.diagnostics())}
    await backend.stop()
    (told,) = [each for found, each in findings.items() if words in found]

    assert told.level == ("warning" if kind == "before" else "problem")
    assert told.advice


async def test_nothing_is_told_of_a_database_as_it_is_made(
    backend: BackendPostgres, sql: asyncpg.Connection[Any]
) -> None:
    kinds = {each.kind for each in (await backend.diagnostics()).distortions}

    assert kinds <= {"asynchronous"}


@pytest.mark.parametrize("keys", [None, ["a key", "another"]])
async def test_a_run_that_was_not_stored_is_not_taken_for_started(
    ow: OpenWorkflow, sql: asyncpg.Connection[Any], keys: list[str] | None
) -> None:
    """The client had a handle of it."""
    await sql.execute(ODD["before"][0].replace("step_attempts", "workflow_runs"))

    with pytest.raises(BackendError, match="trigger"):
        await ow.run_workflows(two_calls, ["a", "b"], idempotency_keys=keys)
    with pytest.raises(BackendError, match="trigger"):
        await ow.run_workflow(two_calls, "a")
    assert 0 == await sql.fetchval("select count(*) from workflow_runs")


@pytest.fixture
def full_queue() -> Iterator[str]:
    """The URL of a server whose queue of messages is small."""
    settings = {**FAST_AND_UNSAFE, "max_notify_queue_pages": "64"}
    server = LocalPostgres(embedded_programs(), settings=settings).start()
    yield server.url()
    server.stop()


async def test_a_server_without_room_for_messages_costs_time_only(full_queue: str) -> None:
    """Nothing could be started, and no run could end: the full queue refuses the commit."""
    async with _worker_of(full_queue, two_calls) as (ow, _), _no_room(full_queue):
        runs = [await ow.run_workflow(two_calls, "alone")]
        runs += await ow.run_workflows(two_calls, ["a", "b"])

        assert ["alone", "a", "b"] == [await run.result(timeout=20) for run in runs]
        assert {1} == set(calls.values())


@pytest.fixture
def spent() -> Iterator[str]:
    """The URL of a server that has a few transaction ids left before it assigns no more."""
    server = LocalPostgres(embedded_programs(), settings=FAST_AND_UNSAFE).start()
    server.crash(signal.SIGINT)
    # Two thousand million after the first one, less the three that PostgreSQL keeps back.
    number = 2**31 - 3_000_000
    data = server.root / "data"
    log = data / "pg_xact" / f"{number // 2**20:04X}"
    log.write_bytes(bytes(2**18))
    shutil.chown(log, data.owner(), data.group())
    server.run("pg_resetwal", "-f", "-x", str(number), "-D", str(data))
    server._launch()
    yield server.url()
    server.stop()


async def test_a_server_that_assigns_no_more_transaction_ids_costs_time_only(spent: str) -> None:
    """It says so in the words of a value that is too large: every run in flight failed for good."""
    sql = await asyncpg.connect(spent)
    await sql.execute("alter database template0 allow_connections true")
    async with _worker_of(spent, pausing) as (ow, worker):
        runs = await ow.run_workflows(pausing, ["a", "b", "c"])
        await eventually(lambda: len(calls) >= 3)
        with pytest.raises(asyncpg.ProgramLimitExceededError, match="transaction IDs"):
            await _spend_transaction_ids(sql)
        await eventually(lambda: refused_of(worker) > 0)
        assert worker.live()[0]
        for database in ("postgres", "template1", "template0"):
            other = await asyncpg.connect(_named(database, spent))
            await other.execute("vacuum (freeze)")
            await other.close()

        assert ["a", "b", "c"] == [await run.result(timeout=60) for run in runs]
        assert {1} == set(calls.values())
    await sql.close()


@contextlib.asynccontextmanager
async def _no_room(url: str) -> AsyncIterator[None]:
    """A session listens and does not come to hear: what others send fills the queue."""
    deaf, busy = await asyncpg.connect(url), await asyncpg.connect(url)
    await deaf.execute("listen anything")
    await deaf.execute("begin; select 1")
    with contextlib.suppress(asyncpg.ProgramLimitExceededError):
        while True:
            await busy.execute("select pg_notify('anything', repeat('x', 7900))")
    try:
        yield
    finally:
        deaf.terminate()
        await busy.close()


@contextlib.asynccontextmanager
async def _worker_of(
    url: str, *workflows: Any, concurrency: int = 10
) -> AsyncIterator[tuple[OpenWorkflow, Worker]]:
    backend = await BackendPostgres.connect(url)
    ow = OpenWorkflow(backend)
    worker = ow.new_worker(
        workflows=list(workflows), concurrency=concurrency, drain=timedelta(seconds=1)
    )
    await worker.start()
    try:
        yield ow, worker
    finally:
        await worker.stop()
        await backend.stop()


async def _spend_transaction_ids(sql: asyncpg.Connection[Any]) -> None:
    while True:
        await sql.execute("select pg_current_xact_id()")


def _named(database: str, url: str) -> str:
    """The URL, for this database."""
    return urlsplit(url)._replace(path=f"/{database}").geturl()


def _of(role: str, url: str) -> str:
    """The URL, for this role."""
    split = urlsplit(url)
    return split._replace(netloc=f"{role}@{split.netloc.rpartition('@')[2]}").geturl()
