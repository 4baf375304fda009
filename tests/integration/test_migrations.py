"""The schema makes itself: once, whole, and never over somebody else's tables."""

import asyncio
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from openworkflow.backend.backend import BackendPostgres, NewRun
from openworkflow.backend.migrations import known
from openworkflow.core.errors import BackendError


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


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
    assert [migration.version for migration in known()] == [row["version"] for row in versions]
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


@pytest.mark.parametrize("migrate", [True, False])
async def test_a_schema_newer_than_the_code_is_refused(database_url: str, migrate: bool) -> None:
    await _execute(
        database_url, "INSERT INTO openworkflow_migrations (version, name) VALUES (9999, 'x')"
    )

    with pytest.raises(BackendError, match="version 9999, newer than this program"):
        await BackendPostgres.connect(database_url, migrate=migrate)


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
        assert ["workflow_runs INSERT", "step_attempts INSERT", "workflow_builds INSERT"] == [
            missing for missing in found if missing.endswith("INSERT")
        ]
        await backend.stop()
    finally:
        await _execute(database_url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")
