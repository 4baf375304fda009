"""Migrations of tables that are in use: whoever works on them is not held up."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from functools import partial

import asyncpg
import pytest

from openworkflow.backend import altering, migrations
from openworkflow.backend.backend import BackendPostgres, NewRun
from openworkflow.backend.blueprint import Migration, known
from openworkflow.core.errors import BackendError
from tests.helpers import eventually
from tests.migrating import Program, migration

INDEX = migration(
    len(known()) + 1,
    "by_worker",
    "CREATE INDEX CONCURRENTLY idx_by_worker\n  ON workflow_runs (worker_id) WHERE worker_id > '';",
    "additive, concurrently",
)


@pytest.fixture
async def old_schema(empty_database_url: str, program: Program) -> str:
    """A database as the version before the contract left it, with a row; programs are newer."""
    program.knows(*known()[:2])
    connection = await asyncpg.connect(empty_database_url)
    await migrations.migrate(connection, "public")
    await connection.execute(
        "insert into workflow_runs (namespace_id, workflow_name, status, available_at) "
        "values ('default', 'a', 'pending', now())"
    )
    await connection.close()
    program.knows(*known())
    return empty_database_url


@pytest.fixture
async def filled(database_url: str, program: Program) -> AsyncIterator[str]:
    """A database with rows, to which the newest migration is to add an index."""
    backend = await BackendPostgres.connect(database_url)
    await backend.create_workflow_runs([NewRun("a")] * 100)
    program.knows(*known(), INDEX)
    yield database_url
    await backend.stop()


@contextlib.asynccontextmanager
async def transaction(url: str, statement: str) -> AsyncIterator[int]:
    """A transaction that did this and stays open; the process id of its connection."""
    connection = await asyncpg.connect(url, server_settings={"application_name": "nightly report"})
    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await connection.execute(statement)
    try:
        yield connection.get_server_pid()
    finally:
        await connection.close()


READER = "SELECT FROM workflow_runs"


async def migrate(url: str, patience: float = 60, *, pooled: bool = False) -> list[Migration]:
    """What a program does when it starts."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET deadlock_timeout = '100ms'")
        return await migrations.migrate(connection, "public", pooled=pooled, patience=patience)
    finally:
        await connection.close()


def has_tried(caplog: pytest.LogCaptureFixture, times: int) -> bool:
    """Whether a migration has stepped back from its lock so often."""
    return caplog.text.count("trying again") >= times


async def enqueue(url: str) -> None:
    """What a client does all day."""
    connection = await asyncpg.connect(url)
    await connection.execute(
        "INSERT INTO workflow_runs (workflow_name, status, available_at)"
        " VALUES ('a', 'pending', now())"
    )
    await connection.close()


async def index_is_valid(url: str) -> bool | None:
    connection = await asyncpg.connect(url)
    valid: bool | None = await connection.fetchval(
        "SELECT indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid"
        " WHERE relname = 'idx_by_worker'"
    )
    await connection.close()
    return valid


async def test_a_long_reader_holds_up_a_migration_and_nobody_else(
    old_schema: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(altering, "FIRST_PAUSE", 0.2)
    async with transaction(old_schema, READER) as pid:
        migrating = asyncio.create_task(migrate(old_schema))
        for attempts in (1, 2):
            await eventually(partial(has_tried, caplog, attempts))
            async with asyncio.timeout(25):
                await enqueue(old_schema)
        assert not migrating.done()

    assert list(known()[2:]) == await migrating
    assert f"0003 wake waits for pid {pid} (nightly report, for" in caplog.text


async def test_a_migration_that_cannot_get_its_lock_names_who_is_in_the_way(
    old_schema: str,
) -> None:
    async with transaction(old_schema, READER) as pid:
        with pytest.raises(BackendError) as caught:
            await migrate(old_schema, patience=1)

    assert re.search(
        rf"migration 0003 wake could not lock workflow_runs within 1 s; in the way is pid {pid} "
        rf"\(nightly report, for \d s\).*pg_terminate_backend\({pid}\).*`openworkflow migrate`",
        str(caught.value),
    )
    assert list(known()[2:]) == await migrate(old_schema)


async def test_programs_that_start_together_do_not_take_turns_at_blocking_a_table(
    old_schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    watch = await asyncpg.connect(old_schema)

    async def waiting() -> int:
        rows = await watch.fetch(
            "SELECT FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
            " AND relation = 'workflow_runs'::regclass"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        return len(rows)

    most = 0
    async with transaction(old_schema, READER), asyncio.TaskGroup() as programs:
        tasks = [programs.create_task(migrate(old_schema)) for _ in range(5)]
        while not has_tried(caplog, 2):
            most = max(most, await waiting())
            await asyncio.sleep(0.02)
        await watch.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'nightly report'"
        )

    assert 1 == most
    assert sorted(known()[2:], key=lambda one: one.version) == sorted(
        (one for task in tasks for one in task.result()), key=lambda one: one.version
    )
    await watch.close()


async def test_an_index_on_a_table_with_rows_is_made_while_others_write(filled: str) -> None:
    async with transaction(filled, READER):
        programs = [asyncio.create_task(migrate(filled)) for _ in range(5)]
        await eventually(lambda: index_is_there(filled))
        async with asyncio.timeout(25):
            await enqueue(filled)
        assert not any(program.done() for program in programs)

    assert [INDEX] == [one for applied in await asyncio.gather(*programs) for one in applied]
    assert await index_is_valid(filled)


async def index_is_there(url: str) -> bool:
    return await index_is_valid(url) is not None


async def test_an_index_that_was_not_finished_is_dropped_and_made_anew(filled: str) -> None:
    async with transaction(filled, "UPDATE workflow_runs SET worker_id = 'w' ") as pid:
        with pytest.raises(
            BackendError,
            match=rf"index idx_by_worker could not.*pid {pid} \(nightly report",
        ):
            await migrate(filled, patience=1)
    async with transaction(filled, READER) as pid:
        with pytest.raises(BackendError, match=rf"index idx_by_worker could not.*pid {pid} "):
            await migrate(filled, patience=1)
    assert await index_is_valid(filled) is False

    assert [INDEX] == await migrate(filled)

    assert await index_is_valid(filled)


async def test_an_index_that_somebody_made_in_advance_is_taken_as_it_is(filled: str) -> None:
    connection = await asyncpg.connect(filled)
    await connection.execute("CREATE INDEX idx_by_worker ON workflow_runs (worker_id)")
    before = await connection.fetchval("SELECT 'idx_by_worker'::regclass::oid")

    assert [INDEX] == await migrate(filled)

    assert before == await connection.fetchval("SELECT 'idx_by_worker'::regclass::oid")
    await connection.close()


async def test_behind_a_pooler_an_index_on_a_table_with_rows_is_refused_with_what_to_do(
    filled: str,
) -> None:
    with pytest.raises(BackendError, match=r"\d{4} by_worker.*pooler.*migrate --url.*itself"):
        await migrate(filled, pooled=True)

    assert not await index_is_there(filled)


async def test_an_index_on_tables_without_rows_needs_neither_a_session_nor_other_transactions_end(
    empty_database_url: str, program: Program
) -> None:
    program.knows(*known(), INDEX)

    async with transaction(empty_database_url, "SELECT FROM pg_class"):
        applied = await migrate(empty_database_url, pooled=True)

    assert [*known(), INDEX] == applied
    assert await index_is_valid(empty_database_url)


async def test_the_lock_of_a_session_is_given_back(filled: str) -> None:
    connection = await asyncpg.connect(filled)

    assert [INDEX] == await migrations.migrate(connection, "public")

    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
    assert 0 == await connection.fetchval(held)
    assert "0" == await connection.fetchval("SHOW lock_timeout")
    await connection.close()
