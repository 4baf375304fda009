"""Sets owners, grants and policies as the register of roles asks for, in an open transaction.

What is there already is left as it is, so that to repeat it waits for nobody.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from openworkflow.backend import roles
from openworkflow.backend.roles import Kind, Role
from openworkflow_contract.statements import quoted

Connection = Any
"""An asyncpg connection."""

_EXISTING = "select rolname::text as name from pg_roles where rolname = any($1::text[]::name[])"
_TABLES = """
select relname::text as name, pg_get_userbyid(relowner)::text as owner, relrowsecurity as guarded
  from pg_class
 where relnamespace = (select oid from pg_namespace where nspname = $1)
   and relname = any($2::text[]::name[]) and relkind in ('r', 'p')"""
_FUNCTIONS = """
select proname::text as name from pg_proc
 where pronamespace = (select oid from pg_namespace where nspname = $1)
   and proname = any($2::text[]::name[]) and pg_get_userbyid(proowner) <> $3"""
_POLICIES = """
select tablename::text as table, policyname::text as name
  from pg_policies where schemaname = $1 and tablename = any($2::text[]::name[])"""


async def are_wanted(connection: Connection, schema: str) -> bool:
    """Whether somebody asked for roles in this schema."""
    register = f"{quoted(schema)}.{roles.REGISTER}"
    return bool(await connection.fetchval("select to_regclass($1) is not null", register))


async def renew(connection: Connection, schema: str) -> None:
    """Give the roles what they ought to have, after a migration changed the tables."""
    found = await registered(connection, schema)
    there = await existing(connection, [role.name for role in found])
    wanted = [role for role in found if role.name in there]
    for statement in await provisions(connection, schema, wanted):
        await connection.execute(statement)


async def registered(connection: Connection, schema: str) -> list[Role]:
    """The roles of the register."""
    register = f"{quoted(schema)}.{roles.REGISTER}"
    rows = await connection.fetch(f"select * from {register} order by role_name")  # noqa: S608
    return [
        Role(row["role_name"], tuple(map(Kind, row["kinds"])), row["namespace_id"]) for row in rows
    ]


async def existing(connection: Connection, names: Sequence[str]) -> frozenset[str]:
    """The names that are roles of the server: one may have been dropped since."""
    rows = await connection.fetch(_EXISTING, names)
    return frozenset(row["name"] for row in rows)


async def provisions(connection: Connection, schema: str, wanted: Sequence[Role]) -> list[str]:
    """The statements that set owners, grants, and policies where some role is bound."""
    tables = await connection.fetch(_TABLES, schema, list(roles.OWNED))
    owner, found = owner_of(wanted), {row["name"]: row for row in tables}
    given = [one for role in wanted for one in roles.grants(schema, role)]
    given += [
        f"alter table {quoted(schema)}.{name} owner to {quoted(owner)}"
        for name in roles.OWNED
        if name not in found or found[name]["owner"] != owner
    ]
    functions = await connection.fetch(_FUNCTIONS, schema, list(roles.FUNCTIONS), owner)
    given += [
        f"alter function {quoted(schema)}.{row['name']}() owner to {quoted(owner)}"
        for row in functions
    ]
    guarded = {name for name, row in found.items() if row["guarded"]}
    if guarded or any(role.namespace_id is not None for role in wanted):
        rows = await connection.fetch(_POLICIES, schema, list(roles.GUARDED))
        there = {(row["table"], row["name"]) for row in rows}
        there |= {(name, roles.ENABLED) for name in guarded}
        made = roles.policies(schema, wanted)
        given += [statement for key, statement in made.items() if key not in there]
    return given


def owner_of(among: Iterable[Role]) -> str:
    """The name of the role that the tables belong to."""
    return next(role.name for role in among if Kind.OWNER in role.kinds)
