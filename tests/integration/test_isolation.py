"""A role that is bound to a namespace sees and writes its rows only, whatever SQL it sends."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from openworkflow import OpenWorkflow, Step, workflow
from openworkflow.backend import blueprint, flush, queries
from openworkflow.backend.arranging import Wish, arrange
from openworkflow.backend.connection import WORKER_SETTINGS
from openworkflow.backend.flush import PARTS, Shape
from openworkflow.backend.records import NewRun
from openworkflow.backend.roles import GUARDED, Kind, Role, parse_binding
from openworkflow.core.errors import BackendError, ConfigurationError, RunNotFound
from tests.database_roles import (
    Roles,
    client_of,
    command,
    connected,
    doubled,
    name_in,
    refused,
    roles_of,
    working,
)
from tests.migrating import Program, migration

TABLES = (
    "workflow_runs",
    "workflow_builds",
    "workflow_served",
    "workflow_messages",
    "workflow_subscriptions",
    "workflow_pauses",
    "workflow_fleets",
    "workflow_children",
    "workflow_limits",
    "workflow_keys",
    "step_attempts",
    "workflow_progress",
    "workflow_events",
)
MODIFIES = re.compile(r"\b(Update|Insert) on")


@pytest.fixture
async def roles(database_url: str) -> AsyncIterator[Roles]:
    async with roles_of(database_url) as made:
        await made.arrange()
        yield made


async def bind(roles: Roles, namespace: str, *kinds: Kind) -> str:
    """The URL of a role that is bound to the namespace."""
    url = await roles.login()
    await roles.arrange(bind=[Role(name_in(url), kinds or (Kind.WORKER,), namespace)])
    return url


@pytest.fixture
async def a(roles: Roles) -> str:
    """The URL of a worker of namespace a; there is a run, a step and a build of namespace b."""
    await roles.execute(
        "insert into workflow_runs (id, namespace_id, workflow_name, status, available_at, input)"
        f" values ('{THEIRS}', 'b', 'w', 'pending', now(), '\"theirs\"')",
        "insert into step_attempts (workflow_run_id, step_name, kind, status, output)"
        f" values ('{THEIRS}', 's', 'run', 'succeeded', '\"theirs\"')",
        "insert into workflow_builds (namespace_id, build_id) values ('b', 'b1')",
        "insert into workflow_served (namespace_id, workflow_name) values ('b', 'w')",
        f"select openworkflow_signal('{THEIRS}', 'n', '\"theirs\"')",
        "insert into workflow_subscriptions (workflow_run_id, topic, namespace_id, waiting)"
        f" values ('{THEIRS}', 't', 'b', true)",
        "insert into workflow_pauses (namespace_id, workflow_name) values ('b', 'w')",
        "insert into workflow_fleets (namespace_id, resource, status) values ('b', 'b/b', '{}')",
        f"insert into workflow_progress (workflow_run_id, claim_no) values ('{THEIRS}', 1)",
        "insert into workflow_events (workflow_run_id, event_no, topic)"
        f" values ('{THEIRS}', 0, 't')",
        "insert into workflow_children"
        " (id, namespace_id, parent_run_id, step_id, on_close, wake_at)"
        f" values ('{CHILD}', 'b', '{THEIRS}', '{CHILD}', 'cancel', 0)",
        "insert into workflow_limits (namespace_id, name, slots) values ('b', 'w', 1)",
        "insert into workflow_keys (namespace_id, workflow_name, key, run_id)"
        f" values ('b', 'w', 'k', '{THEIRS}')",
    )
    return await bind(roles, "a", Kind.OPERATOR)


THEIRS = "00000000-0000-7000-8000-000000000001"
CHILD = "00000000-0000-8000-8100-000000000001"


async def test_client_worker_and_commands_of_a_tenant_work_beside_another(roles: Roles) -> None:
    urls = {name: await bind(roles, name, Kind.OPERATOR) for name in ("a", "b")}
    async with (
        connected(urls["a"], namespace_id="a") as of_a,
        connected(urls["b"], namespace_id="b") as of_b,
        working(of_a, doubled, build_id="b1", build_policy="pinned"),
        client_of(of_a) as client,
    ):
        theirs = await OpenWorkflow(of_b).run_workflow(doubled, 1)
        runs = await client.run_workflows(doubled, list(range(20)))
        keyed = await client.run_workflow(doubled, 21, idempotency_key="once")

        assert [2 * n for n in range(20)] == [await run.result(timeout=30) for run in runs]
        assert 42 == await keyed.result(timeout=30)
        assert "pending" == await theirs.status()
        with pytest.raises(RunNotFound):
            await client.handle(theirs.id).status()
        assert not (await of_a.diagnostics()).missing_privileges
    code, said = await command(urls["a"], "runs", "list", "-n", "a", "--limit", "50", "--json")
    assert (0, 21) == (code, said.count('"workflow_name"')), said
    code, said = await command(urls["a"], "runs", "list", "-n", "b", "--json")
    assert (0, 0) == (code, said.count('"workflow_name"')), said


@workflow
async def tells(step: Step) -> None:
    step.emit("t", 1)
    step.set_status("told")
    step.tag(stage="end")


async def test_a_run_of_a_tenant_tells_and_nobody_else_hears_it(roles: Roles) -> None:
    urls = {name: await bind(roles, name, Kind.WORKER) for name in ("a", "b")}
    async with (
        connected(urls["a"], namespace_id="a") as of_a,
        connected(urls["b"], namespace_id="b") as of_b,
        connected(urls["b"], namespace_id="a") as disguised,
        working(of_a, tells),
        client_of(of_a) as client,
    ):
        run = await client.run_workflow(tells)
        await run.result(timeout=30)

        assert [1] == [event.value async for event in run.events()]
        assert "told" == (await run.progress()).status
        for other in (of_b, disguised):
            with pytest.raises(RunNotFound):
                await OpenWorkflow(other).progress(run.id)
            with pytest.raises(RunNotFound):
                await anext(OpenWorkflow(other).events(run.id))


async def test_one_that_names_another_namespace_gets_nothing_of_it(a: str) -> None:
    async with connected(a, namespace_id="b") as backend, connected(a, namespace_id="a") as of_a:
        assert [] == (await backend.list_workflow_runs()).runs
        assert [] == await backend.builds.list()
        with pytest.raises(BackendError, match=r"row-level security policy .* names another"):
            await backend.create_workflow_runs([NewRun("w")])
        for client in (OpenWorkflow(backend), OpenWorkflow(of_a)):
            with pytest.raises(RunNotFound):
                await client.signal(UUID(THEIRS), "n")


async def test_the_end_of_a_tenants_run_wakes_and_cancels_no_run_of_another(
    a: str, sql: asyncpg.Connection[Any]
) -> None:
    """Whoever may write a run may say of what it is a child."""
    everything = (
        "select array_agg(t order by t)::text from workflow_runs t where namespace_id = 'b'"
    )
    before = await sql.fetchval(everything)
    tenant = await asyncpg.connect(a)
    await tenant.execute(
        "insert into workflow_runs"
        " (id, namespace_id, workflow_name, status, available_at, parent_run_id, is_parent)"
        f" values ('{OURS}', 'a', 'w', 'pending', now(), '{THEIRS}', true)"
    )
    await tenant.execute(
        "insert into workflow_children"
        " (id, namespace_id, parent_run_id, step_id, number, on_close, wake_at)"
        f" values ('{OURS}', 'a', '{THEIRS}', '{CHILD}', 1, 'cancel', 9)"
    )
    await tenant.execute(
        f"update workflow_runs set status = 'canceled', completed_at = now() where id = '{OURS}'"
    )
    await tenant.close()

    assert before == await sql.fetchval(everything)
    assert not await sql.fetchval("select bool_or(orphaned) from workflow_children")


OURS = "00000000-0000-8000-8100-000000000002"


@pytest.mark.parametrize("table", TABLES)
async def test_rows_of_another_namespace_are_neither_seen_nor_changed_nor_deleted(
    a: str, table: str, sql: asyncpg.Connection[Any]
) -> None:
    everything = f"select md5(array_agg(t order by t)::text) from {table} t"
    before = await sql.fetchval(everything)
    tenant = await asyncpg.connect(a)

    columns = {
        "workflow_builds": "build_id",
        "workflow_served": "workflow_name",
        "workflow_messages": "name",
        "workflow_subscriptions": "topic",
        "workflow_pauses": "workflow_name",
        "workflow_fleets": "resource",
        "workflow_events": "topic",
        "workflow_limits": "name",
        "workflow_keys": "key",
    }
    column = columns.get(table, "status")
    for statement in (
        f"update {table} set {column} = '{1 if table == 'workflow_progress' else 'x'}'",
        f"delete from {table}",
    ):
        assert statement[:6].upper() + " 0" == await tenant.execute(statement)
    assert 0 == await tenant.fetchval(f"select count(*) from {table}")
    assert before == await sql.fetchval(everything)
    await tenant.close()


@pytest.mark.parametrize(
    "statement",
    [
        "insert into workflow_runs (namespace_id, workflow_name, status, available_at)"
        " values ('b', 'w', 'pending', now())",
        "insert into workflow_builds (namespace_id, build_id) values ('b', 'b2')",
        "insert into workflow_served (namespace_id, workflow_name) values ('b', 'x')",
        "insert into workflow_pauses (namespace_id, workflow_name) values ('b', 'x')",
        "insert into workflow_fleets (namespace_id, resource, status) values ('b', 'a/a', '{}')"
        " on conflict (namespace_id) do update set resource = excluded.resource",
        "insert into workflow_children (id, namespace_id, parent_run_id, step_id, on_close)"
        f" values (gen_random_uuid(), 'b', '{THEIRS}', gen_random_uuid(), 'cancel')",
        "insert into workflow_limits (namespace_id, name, slots) values ('b', 'x', 1)",
        "insert into step_attempts (workflow_run_id, step_name, kind, status)"
        f" values ('{THEIRS}', 's', 'run', 'running')",
        "insert into workflow_messages (id, namespace_id, name, expires_at)"
        " values (gen_random_uuid(), 'b', 't', now() + interval '1 d')",
        "insert into workflow_messages (id, namespace_id, workflow_run_id, name)"
        f" values (gen_random_uuid(), 'a', '{THEIRS}', 'n')",
        "select openworkflow_signal_topic('t', namespace => 'b')",
        "insert into workflow_subscriptions (workflow_run_id, topic, namespace_id, waiting)"
        f" values ('{THEIRS}', 't', 'b', true)",
        "insert into workflow_events (workflow_run_id, event_no, topic)"
        f" values ('{THEIRS}', 1, 't')",
        f"insert into workflow_progress (workflow_run_id, claim_no) values ('{THEIRS}', 1)",
        "insert into workflow_runs (namespace_id, workflow_name, status, available_at)"
        " values ('a', 'w', 'pending', now()); update workflow_runs set namespace_id = 'b'",
        "insert into openworkflow_roles values (current_user, '{}', 'b')",
        "update openworkflow_roles set namespace_id = 'b'",
        "alter table workflow_runs disable row level security",
        "create policy mine on workflow_runs using (true)",
        "set session authorization postgres",
        "copy workflow_runs to program 'cat'",
    ],
)
async def test_what_would_cross_the_line_is_refused(a: str, statement: str) -> None:
    await refused(a, statement)


async def test_a_function_of_the_tenant_is_not_shown_the_rows_of_others(a: str) -> None:
    """A condition with a side effect comes after the policy, however cheap it claims to be."""
    tenant = await asyncpg.connect(a)
    heard: list[str] = []
    tenant.add_log_listener(lambda _, message: heard.append(str(message)))
    await tenant.execute(
        "create function pg_temp.tell(text) returns boolean language plpgsql cost 0.0001 as "
        "$$ begin raise notice 'seen %', $1; return true; end $$"
    )

    assert [] == await tenant.fetch("select from workflow_runs where pg_temp.tell(input::text)")
    assert [] == [each for each in heard if "theirs" in each]
    await tenant.close()


async def test_a_tenant_does_not_learn_who_the_others_are(a: str, roles: Roles) -> None:
    await bind(roles, "b")
    tenant = await asyncpg.connect(a)

    rows = await tenant.fetch("select role_name, namespace_id from openworkflow_roles")

    assert [(name_in(a), "a")] == [tuple(row) for row in rows]
    await tenant.close()


async def test_roles_of_all_namespaces_still_see_all(a: str, roles: Roles) -> None:
    reader = await roles.login(roles.shared("reader"))
    async with connected(reader, namespace_id="b") as backend:
        assert 1 == len((await backend.list_workflow_runs()).runs)
        assert 1 == len(await backend.builds.list())


async def test_a_role_that_is_neither_bound_nor_of_all_sees_nothing(a: str, roles: Roles) -> None:
    stranger = await roles.login()
    await roles.execute(f"grant select on workflow_runs, openworkflow_roles to {name_in(stranger)}")
    connection = await asyncpg.connect(stranger)

    assert 0 == await connection.fetchval("select count(*) from workflow_runs")
    await connection.close()


@pytest.mark.parametrize("options", ["superuser", "bypassrls", "createrole"])
async def test_a_role_that_no_policy_holds_cannot_be_bound(roles: Roles, options: str) -> None:
    url = await roles.login(options=options)

    with pytest.raises(BackendError, match="no policy holds it"):
        await roles.arrange(bind=[Role(name_in(url), (Kind.WORKER,), "a")])


async def test_a_role_that_could_become_one_of_all_namespaces_cannot_be_bound(roles: Roles) -> None:
    url = await roles.login(roles.shared("reader"))

    with pytest.raises(BackendError, match="could SET ROLE"):
        await roles.arrange(bind=[Role(name_in(url), (Kind.WORKER,), "a")])


async def test_a_role_that_could_become_another_tenant_cannot_be_bound(
    a: str, roles: Roles
) -> None:
    url = await roles.login(name_in(a))

    with pytest.raises(BackendError, match="could SET ROLE"):
        await roles.arrange(bind=[Role(name_in(url), (Kind.WORKER,), "b")])


async def test_whoever_would_lose_sight_of_all_rows_is_named_first(roles: Roles) -> None:
    old = await roles.login()
    await roles.execute(f"grant select on workflow_runs to {name_in(old)}")

    with pytest.raises(BackendError, match=f"{name_in(old)} may read or write"):
        await bind(roles, "a")


async def test_there_has_to_be_such_a_role_and_such_a_kind(roles: Roles) -> None:
    with pytest.raises(BackendError, match="CREATE ROLE"):
        await roles.arrange(bind=[Role("nobody_there", (Kind.WORKER,), "a")])
    with pytest.raises(BackendError, match="of all namespaces"):
        await roles.arrange(bind=[Role(roles.shared("worker"), (Kind.WORKER,), "a")])
    for text in ("shop", "shop=owner", "shop=", "=worker", "shop=worker,boss"):
        with pytest.raises(ConfigurationError, match="operator, worker, enqueuer, reader"):
            parse_binding(text, "a")


async def test_a_tenant_may_be_less_than_a_worker(roles: Roles) -> None:
    url = await bind(roles, "a", Kind.ENQUEUER)

    async with connected(url, namespace_id="a") as backend:
        await OpenWorkflow(backend).run_workflow(doubled, 1, idempotency_key="k")
    await refused(url, "select input from workflow_runs")


async def test_what_is_bound_can_be_released(a: str, roles: Roles) -> None:
    b = await bind(roles, "b")

    await roles.arrange(unbind=[name_in(a)])

    await refused(a, "select from workflow_runs")
    async with connected(b, namespace_id="b") as backend:
        assert 1 == len((await backend.list_workflow_runs()).runs)
    with pytest.raises(BackendError, match="is not bound"):
        await roles.arrange(unbind=[name_in(a)])


async def test_binding_another_role_waits_for_nobody(a: str, roles: Roles) -> None:
    reader = await asyncpg.connect(roles.url)
    async with reader.transaction():
        await reader.execute("lock table workflow_runs, step_attempts in row exclusive mode")
        await asyncio.wait_for(bind(roles, "c"), 25)
    await reader.close()


async def test_a_later_migration_leaves_tenants_and_policies_as_they_are(
    a: str, roles: Roles, program: Program
) -> None:
    gone = await bind(roles, "gone")
    await roles.execute(f"drop owned by {name_in(gone)}; drop role {name_in(gone)}")
    newest = migration(99, "later", "ALTER TABLE workflow_runs ADD COLUMN later TEXT;")
    program.knows(*blueprint.known(), newest)

    async with connected(await roles.login(roles.shared("owner"))):
        pass

    tenant = await asyncpg.connect(a)
    assert [] == await tenant.fetch("select later from workflow_runs")
    await tenant.close()


async def test_every_table_is_guarded_or_says_nothing_of_a_namespace(
    a: str, sql: asyncpg.Connection[Any]
) -> None:
    """So a migration that adds a table has to think of it."""
    rows = await sql.fetch(
        "select relname::text from pg_class where relkind = 'r' and not relrowsecurity"
        " and relnamespace = 'public'::regnamespace"
    )

    assert ["openworkflow_migrations"] == [row["relname"] for row in rows]
    assert {*blueprint.made_by(blueprint.known()).tables} <= {*GUARDED}


async def test_a_database_where_nobody_is_bound_has_no_row_security(
    roles: Roles, sql: asyncpg.Connection[Any]
) -> None:
    assert 0 == await sql.fetchval("select count(*) from pg_class where relrowsecurity")
    assert 0 == await sql.fetchval("select count(*) from pg_policies")


async def test_a_tenant_s_flush_finds_runs_by_their_primary_key(a: str) -> None:
    """The policy is one more condition of each row, and no scan."""
    connection = await asyncpg.connect(a, server_settings=dict(WORKER_SETTINGS))
    shape = Shape(tuple(PARTS), updates=True, claim=True)
    values = ["a" if name == "namespace_id" else None for name in shape.parameters]
    statement = flush.statement(queries.load("public"), shape)

    plan = [row[0] for row in await connection.fetch(f"explain {statement}", *values)]

    scans = [line for line in plan if " on workflow_runs" in line and not MODIFIES.search(line)]
    assert len(scans) >= 5
    assert [] == [line for line in scans if "Index" not in line]
    assert [] == [line for line in plan if "Seq Scan" in line and "openworkflow_roles" not in line]
    await connection.close()


async def test_the_command_binds_and_says_so(roles: Roles) -> None:
    name = name_in(await roles.login())

    code, said = await command(
        roles.url, "migrate", "--roles", "--bind", f"{name}=worker", "-n", "a"
    )
    assert (0, True) == (code, f"role {name} is worker of namespace a" in said), said

    code, said = await command(roles.url, "migrate", "--roles", "--bind", f"{name}=worker")
    assert (2, True) == (code, "--namespace" in said), said
    code, said = await command(roles.url, "migrate", "--bind", f"{name}=worker")
    assert (2, True) == (code, "--roles" in said), said


async def test_names_that_are_odd_are_quoted(database_url: str) -> None:
    async with roles_of(database_url) as roles:
        namespace = "it's \\ {role}; --"
        name = 'odd "name" {schema}'
        await roles.execute('create role "odd ""name"" {schema}"')
        roles.made.append('"odd ""name"" {schema}"')
        try:
            await arrange(
                roles.url,
                "public",
                Wish(roles.prefix, (Role(name, (Kind.READER,), namespace),)),
            )
            connection = await asyncpg.connect(roles.url)
            found = await connection.fetchval(
                "select namespace_id from openworkflow_roles where role_name = $1", name
            )
            await connection.close()
            assert namespace == found
        finally:
            await roles.execute(
                'drop owned by "odd ""name"" {schema}"', 'drop role "odd ""name"" {schema}"'
            )
            roles.made.pop()
