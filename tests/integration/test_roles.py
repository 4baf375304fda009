"""Each role may do what it is for, through the real client, worker and commands, and no more."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from openworkflow import OpenWorkflow, Step, workflow
from openworkflow.backend import blueprint
from openworkflow.backend.arranging import Wish, arrange
from openworkflow.backend.roles import OWNED, Kind
from openworkflow.core.errors import BackendError
from openworkflow.core.workflow_run import RunStatus
from openworkflow_operator.database.connection import ConnectOptions, Database
from openworkflow_operator.database.dsn import parse
from openworkflow_operator.database.routes import fail_batch
from tests.database_roles import (
    Roles,
    client_of,
    command,
    connected,
    double,
    doubled,
    name_in,
    refused,
    roles_of,
    working,
)
from tests.migrating import Program, migration

PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")


@pytest.fixture
async def roles(database_url: str) -> AsyncIterator[Roles]:
    async with roles_of(database_url) as made:
        await made.arrange()
        yield made


@workflow
async def countdown(n: int, step: Step) -> str:
    await step.run("double", double, n)
    if n:
        await step.continue_as_new(n - 1)
    return "done"


async def test_one_enqueues_another_works_a_third_reads(roles: Roles) -> None:
    urls = [await roles.login(roles.shared(kind)) for kind in ("enqueuer", "worker", "reader")]
    async with (
        connected(urls[0]) as enqueuer,
        connected(urls[1]) as worker,
        connected(urls[2]) as reader,
        working(worker, doubled, countdown, build_id="b1", build_policy="pinned"),
        client_of(reader) as observer,
    ):
        client = OpenWorkflow(enqueuer)
        run = await client.run_workflow(doubled, 7, idempotency_key="seven")
        again = await client.run_workflow(doubled, 7, idempotency_key="seven")
        many = await client.run_workflows(doubled, [1, 2, 3])
        rounds = await client.run_workflow(countdown, 2)

        assert run.id == again.id
        for handle, expected in ((run, 14), (rounds, "done"), (many[2], 6)):
            assert expected == await observer.handle(handle.id).result(timeout=30)
        assert 5 == len((await observer.list_runs()).runs)
        assert ["b1"] == [build.build_id for build in await reader.builds.list()]


async def test_an_enqueuer_starts_runs_in_its_own_transaction(roles: Roles) -> None:
    url = await roles.login(roles.shared("enqueuer"))
    async with connected(url) as backend:
        connection = await asyncpg.connect(url)
        async with connection.transaction():
            await OpenWorkflow(backend).run_workflow(doubled, 7, connection=connection)
        await connection.close()

    async with connected(roles.url) as backend:
        assert 1 == (await backend.count_runs())[RunStatus.PENDING]


async def test_an_enqueuer_signals_what_it_may_not_change(roles: Roles) -> None:
    """The wake is the doing of a trigger, with the rights of the owner."""
    url = await roles.login(roles.shared("enqueuer"))
    async with connected(url) as backend, connected(roles.url) as admin:
        client = OpenWorkflow(backend)
        run = await client.run_workflow(doubled, 7)
        await run.signal("n", 1, idempotency_key="k")
        await run.signal("n", 1, idempotency_key="k")
        await client.signal("t", 2)
        connection = await asyncpg.connect(url)
        await connection.execute("select openworkflow_signal($1, 'm')", run.id)
        await connection.close()

        (row,) = await admin._fetch(
            "select wake_no, available_at <= now() as due from workflow_runs"
        )
        assert (2, True) == tuple(row)
    for statement in (
        "select payload from workflow_messages",
        "delete from workflow_messages",
        "update workflow_runs set wake_no = 7",
    ):
        await refused(url, statement)
    reader = await roles.login(roles.shared("reader"))
    await refused(reader, f"select openworkflow_signal('{run.id}', 'm')")


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        ("reader", ["runs", "list"]),
        ("reader", ["builds", "list"]),
        ("worker", ["runs", "list"]),
        ("operator", ["prune", "--older-than", "30d"]),
        ("worker", ["doctor"]),
        ("operator", ["doctor"]),
        ("owner", ["migrate"]),
    ],
)
async def test_a_command_works_for_the_role_that_it_is_for(
    roles: Roles, kind: str, args: list[str]
) -> None:
    # Off in the server of the tests, which doctor would call a problem.
    await roles.execute(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = on',"
        " current_database()); END $$"
    )
    code, said = await command(await roles.login(roles.shared(kind)), *args)

    assert 0 == code, said


@pytest.mark.parametrize(
    ("kind", "args", "word"),
    [
        ("reader", ["runs", "cancel", "0197a5be-7b3c-7c1e-9d59-6d5e8b1c2f3a"], "workflow_runs"),
        ("reader", ["run", "ship"], "workflow_pauses"),
        ("reader", ["prune", "--older-than", "30d"], "workflow_runs"),
        ("enqueuer", ["runs", "list"], "workflow_runs"),
        ("worker", ["prune", "--older-than", "30d"], "workflow_runs"),
        ("worker", ["builds", "promote", "b1"], "workflow_builds"),
        ("worker", ["pause", "ship"], "workflow_pauses"),
        ("worker", ["resume", "ship"], "workflow_pauses"),
        ("worker", ["migrate", "--roles"], "may not arrange the roles"),
    ],
)
async def test_a_command_beyond_a_role_is_refused_in_a_line_that_names_it(
    roles: Roles, kind: str, args: list[str], word: str
) -> None:
    url = await roles.login(roles.shared(kind))

    code, said = await command(url, *args)

    assert 1 == code, said
    assert word in said
    assert name_in(url) in said
    assert "pw@" not in said


async def test_doctor_names_each_right_that_a_worker_lacks(roles: Roles) -> None:
    """One was told that all was well whose every claim was refused: it may not lock the pauses."""
    role = roles.shared("worker")
    rows = await rights_of(role, roles.url)
    async with connected(await roles.login(role)) as backend:
        for table, privilege, column in rows:
            right = f"{privilege} ({column})" if column else privilege
            await roles.execute(f"revoke {right} on {table} from {role}")
            try:
                missing = (await backend.diagnostics()).missing_privileges
            except BackendError as error:  # it may not even look
                missing = re.findall(r"lacks (.*), without", str(error))
            await roles.execute(f"grant {right} on {table} to {role}")
            assert [f"{table} {privilege} {column}".rstrip()] == missing

        assert not (await backend.diagnostics()).missing_privileges
    assert len(rows) > 50


async def rights_of(role: str, url: str) -> list[tuple[str, str, str]]:
    """What PostgreSQL says that it may do, of tables and columns, but for what doctor needs."""
    by_hand = "openworkflow_migrations", "openworkflow_roles", "workflow_fleets"
    connection = await asyncpg.connect(url)
    rows = await connection.fetch(
        "select table_name, privilege_type, '' as column_name"
        "  from information_schema.role_table_grants where grantee = $1"
        " union select table_name, privilege_type, column_name"
        "  from information_schema.role_column_grants given where grantee = $1"
        "   and not has_table_privilege($1::text, format('%I.%I', table_schema, table_name),"
        "                               privilege_type)",
        role,
    )
    await connection.close()
    return [tuple(row) for row in rows if row["table_name"] not in by_hand]


async def test_doctor_tells_a_role_what_it_lacks_for_work(roles: Roles) -> None:
    for kind, lacks in (("worker", False), ("operator", False), ("reader", True)):
        async with connected(await roles.login(roles.shared(kind))) as backend:
            assert lacks == bool((await backend.diagnostics()).missing_privileges), kind


@pytest.mark.parametrize(
    ("kind", "statement"),
    [
        (kind, statement)
        for statement, kinds in {
            "select input from workflow_runs": ["enqueuer"],
            "select output from workflow_runs": ["enqueuer"],
            "select from step_attempts": ["enqueuer"],
            "update workflow_runs set status = 'canceled'": ["enqueuer", "reader"],
            "insert into workflow_runs (workflow_name, status, available_at, output)"
            " values ('x', 'succeeded', now(), '1')": ["enqueuer"],
            "insert into workflow_runs (workflow_name, status, available_at)"
            " values ('x', 'pending', now())": ["reader"],
            "delete from workflow_runs": ["enqueuer", "reader", "worker"],
            "delete from step_attempts": ["enqueuer", "reader"],
            "update workflow_builds set takes_to = 100": ["enqueuer", "reader", "worker"],
            "truncate step_attempts": ["enqueuer", "reader", "worker", "operator"],
            "drop table step_attempts": ["enqueuer", "reader", "worker", "operator"],
            "alter table workflow_runs disable row level security": ["worker", "operator"],
            "create index on workflow_runs (status)": ["worker", "operator"],
            "insert into openworkflow_migrations (version, name) values (99, 'x')": [
                *("enqueuer", "reader", "worker", "operator")
            ],
            "update openworkflow_roles set namespace_id = null": [
                *("enqueuer", "reader", "worker", "operator")
            ],
        }.items()
        for kind in kinds
    ],
)
async def test_what_a_role_is_not_for_postgresql_refuses(
    roles: Roles, kind: str, statement: str
) -> None:
    said = await refused(await roles.login(roles.shared(kind)), statement)

    assert "permission denied" in said or "must be owner" in said


async def test_the_operator_of_kubernetes_looks_prunes_and_promotes_with_its_role(
    roles: Roles,
) -> None:
    await roles.execute("insert into workflow_builds (namespace_id, build_id) values ('a', 'b1')")
    options = ConnectOptions(allow_loopback=True)
    url = await roles.login(roles.shared("operator"))
    database = await Database.connect(parse(url), "public", options)

    async with database.writing() as fetch:
        assert await fetch("promote_build", "a", "b1", 100)
    async with database.writing() as fetch:
        assert await fetch("start_canary", "a", "b1", "canary")
        assert await fetch("stop_canary", "a", "b1")
        await fetch("delete_build", "a", "b1")
    await fail_batch(database, "a", "b1")
    await database.prune([], _FIRST, 10)

    database.terminate()


_FIRST = UUID(int=0)


async def test_a_role_has_what_docs_security_says_and_nothing_else(
    roles: Roles, sql: asyncpg.Connection[Any]
) -> None:
    """Also a table that a migration adds has to be thought of."""
    tables = {*blueprint.made_by(blueprint.known()).tables, *OWNED}
    found = {
        (kind, table): await _privileges(sql, roles.shared(kind), table)
        for kind in Kind
        if kind is not Kind.OWNER
        for table in tables
    }

    assert documented() == {place: words for place, words in found.items() if words}


async def _privileges(sql: asyncpg.Connection[Any], role: str, table: str) -> str:
    whole, some = [], []
    for word in PRIVILEGES:
        if await sql.fetchval("select has_table_privilege($1, $2, $3)", role, table, word):
            whole.append(word)
        elif word in ("SELECT", "INSERT", "UPDATE"):
            rows = await sql.fetch(
                "select attname from pg_attribute where attrelid = $2::text::regclass "
                "and attnum > 0 and has_column_privilege($1, attrelid, attname, $3)",
                *(role, table, word),
            )
            some += [f"{word} of {len(rows)} columns"] if rows else []
    return ", ".join([*whole, *some])


def documented() -> dict[tuple[str, str], str]:
    """The table of docs/security.md, without empty cells."""
    text = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    lines = re.findall(r"^\| (.*) \|$", text.partition("## Roles")[2].partition("\n- ")[0], re.M)
    head, *rows = [[cell.strip("` ") for cell in line.split("|")] for line in lines]
    rows = [row for row in rows if row[0] in set(Kind) - {Kind.OWNER}]
    return {
        (row[0], table): cell
        for row in rows
        for table, cell in zip(head[1:], row[1:], strict=True)
        if cell
    }


async def test_to_arrange_roles_again_changes_nothing_and_waits_for_nobody(
    roles: Roles, sql: asyncpg.Connection[Any]
) -> None:
    async with sql.transaction():
        await sql.execute("lock table workflow_runs, step_attempts in access share mode")
        done = await asyncio.wait_for(roles.arrange(), 25)

    assert not [each for each in done if not each.startswith(("grant", "revoke"))]


async def test_what_a_role_was_given_by_hand_is_taken_back(roles: Roles) -> None:
    await roles.execute(f"grant delete on workflow_runs to {roles.shared('reader')}")

    await roles.arrange()

    await refused(await roles.login(roles.shared("reader")), "delete from workflow_runs")


async def test_a_later_migration_by_a_member_of_the_owner_leaves_the_roles_as_they_ought_to_be(
    roles: Roles, program: Program, sql: asyncpg.Connection[Any]
) -> None:
    newest = migration(99, "later", "ALTER TABLE workflow_runs ADD COLUMN later TEXT;")
    await roles.execute(f"revoke select on workflow_runs from {roles.shared('worker')}")
    program.knows(*blueprint.known(), newest)

    async with connected(await roles.login(roles.shared("owner"))):
        pass

    worker = roles.shared("worker")
    assert await sql.fetchval(
        "select has_column_privilege($1, 'workflow_runs', 'later', 'UPDATE')", worker
    )
    assert await sql.fetchval("select has_table_privilege($1, 'workflow_runs', 'SELECT')", worker)


async def test_a_role_that_may_create_roles_and_owns_the_schema_needs_to_be_no_superuser(
    empty_database_url: str,
) -> None:
    async with roles_of(empty_database_url) as roles:
        url = await roles.login(options="createrole")
        name = name_in(url)
        await roles.execute(f"create schema ours authorization {name}")
        async with connected(url, schema="ours"):
            pass

        await arrange(url, "ours", Wish(roles.prefix))
        await arrange(url, "ours", Wish())

        async with connected(await roles.login(roles.shared("worker")), schema="ours") as backend:
            assert not (await backend.diagnostics()).missing_privileges


async def test_a_role_of_somebody_else_is_not_given_anything(
    database_url: str, sql: asyncpg.Connection[Any]
) -> None:
    async with roles_of(database_url) as roles:
        await sql.execute(f"create role {roles.shared('worker')}")

        with pytest.raises(BackendError, match="was not made for this schema"):
            await roles.arrange()

        assert not await sql.fetchval("select to_regclass('openworkflow_roles') is not null")


async def test_roles_keep_their_names(roles: Roles) -> None:
    await arrange(roles.url, "public", Wish())

    with pytest.raises(BackendError, match="leave out --role-prefix"):
        await arrange(roles.url, "public", Wish("another"))


async def test_the_sql_of_a_dry_run_can_be_run_by_hand(database_url: str) -> None:
    async with roles_of(database_url) as roles:
        prefix = ["--role-prefix", roles.prefix]
        code, said = await command(database_url, "migrate", "--roles", *prefix, "--dry-run")
        assert 0 == code
        await roles.execute(said)

        done = await roles.arrange()

        assert not [each for each in done if not each.startswith(("grant", "revoke"))]
        url = await roles.login(roles.shared("worker"))
        async with connected(url) as backend:
            assert not (await backend.diagnostics()).missing_privileges
