"""The schema makes itself: once, whole, and never over somebody else's tables."""

import asyncio
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from openworkflow import OpenWorkflow
from openworkflow.backend.backend import BackendPostgres, NewRun
from openworkflow.backend.blueprint import known, made_by
from openworkflow.backend.failures import ConnectionLost
from openworkflow.core.errors import BackendError
from tests.guarded_postgres import guarded_server, standby_of
from tests.migrating import Program, migration


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


async def _ledger(url: str) -> list[int]:
    """The numbers in the ledger, the contract first."""
    connection = await asyncpg.connect(url)
    rows = await connection.fetch(
        "SELECT version FROM openworkflow_migrations ORDER BY version DESC"
    )
    await connection.close()
    return [row["version"] for row in rows]


def _as_role(url: str, role: str, password: str) -> str:
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}:{password}@{place}"))


async def test_fifty_workers_that_start_at_once_migrate_once(empty_database_url: str) -> None:
    backends = await asyncio.gather(
        *(BackendPostgres.connect(empty_database_url) for _ in range(50))
    )

    connection = await asyncpg.connect(empty_database_url)
    versions = await connection.fetch("SELECT version FROM openworkflow_migrations")
    assert {migration.number for migration in known()} == {row["version"] for row in versions}
    assert len(known()) == len(versions)
    await connection.close()
    for backend in backends:
        await backend.stop()


async def test_connecting_again_changes_nothing(database_url: str) -> None:
    backend = await BackendPostgres.connect(database_url)
    before = await backend.migration_states()

    assert [] == await backend.migrate()

    assert before == await backend.migration_states()
    assert all(state.applied_at is not None for state in before)
    await backend.stop()


async def test_another_schema_takes_nothing_from_the_one_in_public(database_url: str) -> None:
    """A migration that drops what outlived the runs found the tables of public, and dropped those.

    They held the signals, events, children and limits of runs that were in progress.
    """
    async with await BackendPostgres.connect(database_url) as backend:
        await OpenWorkflow(backend).signal("topic", 1)
        async with await BackendPostgres.connect(database_url, schema="Else where") as other:
            assert not await other.schema_loss()
        assert not await backend.schema_loss()
    connection = await asyncpg.connect(database_url)
    assert 1 == await connection.fetchval("select count(*) from public.workflow_messages")
    await connection.close()


async def test_without_migrate_nothing_is_made_and_the_error_says_what_to_run(
    empty_database_url: str,
) -> None:
    backend = await BackendPostgres.connect(empty_database_url, migrate=False)

    with pytest.raises(BackendError, match="openworkflow migrate"):
        await backend.create_workflow_runs([NewRun("a")])

    assert all(state.applied_at is None for state in await backend.migration_states())
    assert list(known()) == await backend.migrate()
    assert await backend.create_workflow_runs([NewRun("a")])
    await backend.stop()


async def test_a_schema_that_is_not_there_is_refused_unless_it_is_to_be_made(
    database_url: str,
) -> None:
    with pytest.raises(BackendError, match=r"no schema 'shp'.*OPENWORKFLOW_SCHEMA.*migrate"):
        await BackendPostgres.connect(database_url, schema="shp", migrate=False)

    backend = await BackendPostgres.connect(database_url, schema="shp", migrate=None)
    await backend.migrate()
    await backend.stop()
    again = await BackendPostgres.connect(database_url, schema="shp", migrate=False)
    assert await again.create_workflow_runs([NewRun("a")])
    await again.stop()


@pytest.mark.parametrize("migrate", [True, False])
async def test_a_newer_contract_is_refused(database_url: str, migrate: bool) -> None:
    await _execute(
        database_url, "INSERT INTO openworkflow_migrations (version, name) VALUES (9999, 'x')"
    )

    with pytest.raises(BackendError, match=r"contract 9999, newer than this program.*upgrade"):
        await BackendPostgres.connect(database_url, migrate=migrate)


@pytest.mark.parametrize("migrate", [True, False])
async def test_newer_additive_migrations_are_left_alone(database_url: str, migrate: bool) -> None:
    await _execute(
        database_url,
        "ALTER TABLE workflow_runs ADD COLUMN later INT NOT NULL DEFAULT 0",
        "INSERT INTO openworkflow_migrations (version, name) VALUES (-9999, 'later')",
    )

    backend = await BackendPostgres.connect(database_url, migrate=migrate)

    assert [] == await backend.migrate()
    assert await backend.create_workflow_runs([NewRun("a")])
    assert -9999 in await _ledger(database_url)
    await backend.stop()


async def test_the_files_are_understood_as_postgresql_understands_them(
    sql: asyncpg.Connection,
) -> None:
    columns = await sql.fetch(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND table_name <> 'openworkflow_migrations'"
    )
    indexes = await sql.fetch(
        "SELECT indexname FROM pg_indexes WHERE schemaname = 'public' AND indexname !~ '_pkey$'"
    )
    made = made_by(known())

    assert {(column.table, column.name) for column in made.columns} == set(map(tuple, columns))
    assert {index.name for index in made.indexes} == {row["indexname"] for row in indexes}


async def test_programs_from_before_the_contract_see_the_versions_that_they_know(
    database_url: str,
) -> None:
    assert [2, 1] == [version for version in await _ledger(database_url) if version > 0]


@pytest.mark.parametrize("table", ["workflow_runs", "step_attempts"])
async def test_tables_of_somebody_else_are_left_alone(empty_database_url: str, table: str) -> None:
    await _execute(empty_database_url, f"CREATE TABLE {table} (id INT)")

    with pytest.raises(BackendError, match=f"already has a table {table}.*another schema"):
        await BackendPostgres.connect(empty_database_url)

    connection = await asyncpg.connect(empty_database_url)
    tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert [table] == [row["tablename"] for row in tables]
    await connection.close()
    beside = await BackendPostgres.connect(empty_database_url, schema="openworkflow")
    await beside.stop()


async def test_a_role_that_may_not_create_tables_is_told_what_to_grant(
    empty_database_url: str,
) -> None:
    role = "openworkflow_reader_" + empty_database_url[-8:]
    await _execute(
        empty_database_url,
        f"CREATE ROLE {role} LOGIN PASSWORD 'hush'",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    )
    try:
        with pytest.raises(BackendError, match="GRANT CREATE, USAGE ON SCHEMA") as caught:
            await BackendPostgres.connect(_as_role(empty_database_url, role, "hush"))

        assert role in str(caught.value)
        assert "hush" not in str(caught.value)
    finally:
        await _execute(empty_database_url, f"DROP ROLE {role}")


async def test_a_role_that_may_not_write_is_told_so(database_url: str) -> None:
    role = "openworkflow_reader_" + database_url[-8:]
    await _execute(
        database_url,
        f"CREATE ROLE {role} LOGIN PASSWORD 'hush'",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
    )
    try:
        backend = await BackendPostgres.connect(_as_role(database_url, role, "hush"))

        with pytest.raises(BackendError, match=f"permission denied.*grant it to role '{role}'"):
            await backend.create_workflow_runs([NewRun("a")])

        found = (await backend.diagnostics()).missing_privileges
        read_only = ("workflow_pauses", "workflow_fleets", "workflow_limit_")
        written = {t for t in made_by(known()).tables if not t.startswith(read_only)}
        assert {f"{table} INSERT" for table in written} == {
            missing for missing in found if missing.endswith("INSERT")
        }
        await backend.stop()
    finally:
        await _execute(database_url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


async def test_a_role_that_does_not_own_the_tables_is_told_who_has_to_migrate(
    empty_database_url: str, program: Program
) -> None:
    program.knows(*known()[:2])
    await (await BackendPostgres.connect(empty_database_url)).stop()
    program.knows(*known())
    role = "openworkflow_stranger_" + empty_database_url[-8:]
    await _execute(
        empty_database_url,
        f"CREATE ROLE {role} LOGIN PASSWORD 'hush'",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
    )
    try:
        with pytest.raises(
            BackendError, match=r"must be owner.*with the role that owns the tables"
        ):
            await BackendPostgres.connect(_as_role(empty_database_url, role, "hush"))
    finally:
        await _execute(empty_database_url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


@pytest.mark.parametrize("migrate", [True, False])
async def test_a_look_at_an_up_to_date_schema_writes_nothing(
    database_url: str, migrate: bool
) -> None:
    url = f"{database_url}?options=-c%20default_transaction_read_only%3Don"

    backend = await BackendPostgres.connect(url, migrate=migrate)

    assert await backend.count_runs()
    await backend.stop()


async def test_a_standby_is_taken_as_it_is(program: Program) -> None:
    with guarded_server() as primary:
        await (await BackendPostgres.connect(primary.url())).stop()
        with standby_of(primary) as standby:
            for migrate in (True, False):
                backend = await BackendPostgres.connect(standby.url(), migrate=migrate)
                assert await backend.count_runs()
                assert await backend.schema_loss() is None
                await backend.stop()
            program.knows(*known(), migration(99, "later", "CREATE TABLE later (id INT);"))
            with pytest.raises(ConnectionLost, match="this is a standby"):
                await BackendPostgres.connect(standby.url())


async def test_a_migration_that_fails_leaves_those_before_it_applied(
    empty_database_url: str, program: Program
) -> None:
    half = migration(known()[-1].version + 1, "half", "CREATE TABLE half (id INT); SELECT nothing;")
    program.knows(*known(), half)

    with pytest.raises(BackendError, match='column "nothing" does not exist'):
        await BackendPostgres.connect(empty_database_url)

    assert {migration.number for migration in known()} == set(await _ledger(empty_database_url))
    whole = migration(known()[-1].version + 1, "half", "CREATE TABLE half (id INT);")
    program.knows(*known(), whole)
    backend = await BackendPostgres.connect(empty_database_url)
    assert all(state.applied_at for state in await backend.migration_states())
    await backend.stop()


async def test_both_tables_dropped_are_made_again(
    backend: BackendPostgres, database_url: str
) -> None:
    await backend.builds.register("v1")
    await _execute(
        database_url,
        "INSERT INTO openworkflow_migrations (version, name) VALUES (-9999, 'later')",
        "DROP TABLE step_attempts; DROP TABLE workflow_runs;",
    )
    assert all(state.applied_at is None for state in await backend.migration_states())

    assert list(known()) == await backend.migrate()

    assert await backend.create_workflow_runs([NewRun("a")])
    assert ["v1"] == [build.build_id for build in await backend.builds.list()]
    assert -9999 not in await _ledger(database_url)  # whoever knows it applies it again


LOSSES = {
    "DROP TABLE step_attempts": "table step_attempts is gone and workflow_runs is not.*"
    "DROP TABLE workflow_runs; and `openworkflow migrate`",
    "DROP TABLE workflow_runs CASCADE": "table workflow_runs is gone and step_attempts is not.*"
    "DROP TABLE step_attempts; and `openworkflow migrate`",
    "DROP TABLE workflow_builds": "table workflow_builds is gone.*CREATE TABLE.*workflow_builds",
    "ALTER TABLE workflow_runs DROP COLUMN pinned": "column pinned of workflow_runs is gone.*"
    "ADD COLUMN pinned BOOLEAN NOT NULL DEFAULT FALSE",
}


@pytest.mark.parametrize("harm", LOSSES)
async def test_what_held_data_is_not_made_again_unasked(
    backend: BackendPostgres, database_url: str, harm: str
) -> None:
    await _execute(database_url, harm)

    with pytest.raises(BackendError, match=LOSSES[harm]):
        await BackendPostgres.connect(database_url)

    loss = await backend.schema_loss()
    assert loss is not None
    assert loss.found in LOSSES[harm]


@pytest.mark.parametrize(
    "harm", ["DROP TABLE workflow_builds", "ALTER TABLE workflow_runs DROP COLUMN pinned"]
)
async def test_the_advice_for_a_loss_mends_it(
    backend: BackendPostgres, database_url: str, harm: str
) -> None:
    await _execute(database_url, harm)
    loss = await backend.schema_loss()
    assert loss is not None

    await _execute(database_url, loss.advice.partition(", by ")[2])

    assert await backend.schema_loss() is None
    assert [] == await backend.migrate()
    assert (await backend.diagnostics()).violations == []


async def test_a_lost_index_keeps_nobody_from_connecting_and_is_made_again_on_request(
    database_url: str, sql: asyncpg.Connection
) -> None:
    await sql.execute("DROP INDEX idx_workflow_runs_lease, idx_workflow_runs_idempotency")
    await sql.execute(
        "UPDATE pg_index SET indisvalid = false"
        " WHERE indexrelid = 'idx_step_attempts_workflow_run'::regclass"
    )
    backend = await BackendPostgres.connect(database_url)
    with pytest.raises(BackendError, match=r"an index is missing: run `openworkflow migrate`"):
        await backend.create_workflow_runs([NewRun("a")])
    assert 3 == len((await backend.diagnostics()).missing_indexes)

    mended = await backend.mend_indexes()

    assert ["lease", "idempotency", "workflow_run"] == [name.rpartition("s_")[2] for name in mended]
    assert [] == (await backend.diagnostics()).missing_indexes
    assert [] == await backend.mend_indexes()
    assert await backend.create_workflow_runs([NewRun("a")])
    await backend.stop()
