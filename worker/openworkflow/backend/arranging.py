"""Arranges who may do what in a schema: its roles, and which of them see one namespace only.

All is one transaction under the lock of migrations, so nobody is ever left with half of it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import asyncpg

from openworkflow.backend import granting, migrations, roles
from openworkflow.backend.altering import NO_TIME_LIMITS, Patience, insist
from openworkflow.backend.connection import Connection, connect
from openworkflow.backend.failures import DRIVER_ERRORS, as_backend_error, one_line
from openworkflow.backend.ledger import look
from openworkflow.backend.roles import Role
from openworkflow.backend.url import Dsn, parse
from openworkflow.core.errors import BackendError
from openworkflow_contract.statements import quoted

PATIENCE = 60.0
"""Seconds to get the locks in."""

_ATTRIBUTES = """
select rolname::text as name,
       case when rolsuper then 'a superuser'
            when rolbypassrls then 'exempt from row security (BYPASSRLS)'
            else 'allowed to give itself other roles (CREATEROLE)' end as what
  from pg_roles
 where rolname = any($1::text[]::name[]) and (rolsuper or rolbypassrls or rolcreaterole)
 limit 1"""
_MEMBERS = """
select member.rolname::text as name, whole.rolname::text as other
  from pg_roles as member, pg_roles as whole
 where member.rolname = any($1::text[]::name[]) and whole.rolname = any($2::text[]::name[])
   and member.oid <> whole.oid and pg_has_role(member.oid, whole.oid, 'MEMBER')
 limit 1"""
# Who would see nothing once row security is on: whoever was granted something by other hands.
_GRANTEES = """
select distinct case grantee when 0 then 'PUBLIC' else pg_get_userbyid(grantee)::text end as name
  from pg_class, aclexplode(relacl)
 where relnamespace = (select oid from pg_namespace where nspname = $1)
   and relname = any($2::text[]::name[]) and grantee <> relowner"""


@dataclass(frozen=True, slots=True)
class Wish:
    """What roles there are to be."""

    prefix: str | None = None
    """Prefix of the roles of all namespaces; None for the one they have, or the default."""
    bind: tuple[Role, ...] = ()
    unbind: tuple[str, ...] = ()


async def arrange(url: str, schema: str, wish: Wish, *, dry_run: bool = False) -> list[str]:
    """Make it so; returns the SQL that was run, or that `dry_run` would run.

    The schema must be up to date. Raises BackendError, also for a role that would not be held by
    what it is to be bound to, and ConfigurationError.
    """
    dsn = parse(url)
    connection = await connect(dsn, application_name="openworkflow-cli", pooled=True)
    try:
        async with connection.transaction(isolation="read_committed"):
            await connection.fetch(NO_TIME_LIMITS, True)
            number = migrations.lock(schema)
            if not await connection.fetchval("select pg_try_advisory_xact_lock($1)", number):
                raise BackendError(f"schema {schema!r} is being migrated; try again")
            if (await look(connection, schema)).missing:
                raise BackendError(
                    f"schema {schema!r} is not up to date; run `openworkflow migrate` first"
                )
            return await _arrange(connection, schema, wish, dsn, dry_run)
    except asyncpg.InsufficientPrivilegeError as error:
        raise BackendError(
            f"role {dsn.user!r} may not arrange the roles of schema {schema!r}: {one_line(error)}; "
            "use one that may create roles (CREATEROLE) and owns tables and schema"
        ) from error
    except DRIVER_ERRORS as error:
        raise as_backend_error(error, dsn) from error
    finally:
        connection.terminate()


async def _arrange(
    connection: Connection, schema: str, wish: Wish, dsn: Dsn, dry_run: bool
) -> list[str]:
    exists = await granting.are_wanted(connection, schema)
    known = await granting.registered(connection, schema) if exists else []
    shared = _shared(known, wish, dsn, schema)
    bound = await _bound(connection, schema, known, wish)
    _refuse_shared(shared, wish)
    first = [] if exists else roles.make_register(schema)
    first += await _make(connection, shared, known)
    first += [roles.enter(schema, role) for role in [*shared, *bound] if role not in known]
    for role in known:
        if role.namespace_id is not None and role.name not in {each.name for each in bound}:
            first.append(roles.strike(schema, role.name))
    for name in wish.unbind:
        first += roles.take_all(schema, name)
    if bound:
        await _refuse_escape(connection, [role.name for role in bound], shared)
        leaving = [Role(name, ()) for name in wish.unbind]
        await _refuse_blindness(connection, schema, shared, [*bound, *leaving])
    done: list[str] = []

    async def apply() -> None:
        done[:] = first + await granting.provisions(connection, schema, [*shared, *bound])
        for statement in [] if dry_run else done:
            await connection.execute(statement)

    await insist(connection, schema, "roles", roles.OWNED, apply, Patience(PATIENCE))
    return done


def _shared(known: Sequence[Role], wish: Wish, dsn: Dsn, schema: str) -> list[Role]:
    """The roles of all namespaces, which keep the names they were given first."""
    found = [role for role in known if role.namespace_id is None]
    if not found:
        return roles.shared_roles(wish.prefix or roles.default_prefix(dsn.database, schema))
    if wish.prefix and roles.shared_roles(wish.prefix)[0] not in found:
        raise BackendError(
            f"the roles of schema {schema!r} are called {', '.join(role.name for role in found)}; "
            "leave out --role-prefix"
        )
    return found


async def _bound(
    connection: Connection, schema: str, known: Sequence[Role], wish: Wish
) -> list[Role]:
    """The roles that are to see one namespace each; those that were dropped are forgotten."""
    found = {role.name: role for role in known if role.namespace_id is not None}
    if strangers := sorted(set(wish.unbind) - found.keys()):
        raise BackendError(
            f"role {strangers[0]!r} is not bound to a namespace of schema {schema!r}"
        )
    found |= {role.name: role for role in wish.bind}
    there = await granting.existing(connection, list(found))
    for role in wish.bind:
        if role.name not in there:
            raise BackendError(
                f"there is no role {role.name!r}; make it first: CREATE ROLE {quoted(role.name)} "
                "LOGIN PASSWORD '...'"
            )
    return [role for role in found.values() if role.name in there - set(wish.unbind)]


async def _make(connection: Connection, shared: Iterable[Role], known: Sequence[Role]) -> list[str]:
    """The statements that make the roles which are not there."""
    names = [role.name for role in shared]
    there = await granting.existing(connection, names)
    if foreign := sorted(there - {role.name for role in known}):
        raise BackendError(
            f"the server has a role {foreign[0]!r} that was not made for this schema, and what it "
            "may do is not to be added to; choose names with --role-prefix"
        )
    made = [f"create role {quoted(name)} nologin" for name in names if name not in there]
    owner = granting.owner_of(shared)
    if owner not in there or not await connection.fetchval(
        "select pg_has_role($1, 'USAGE')", owner
    ):
        made.append(f"grant {quoted(owner)} to current_user")
    return made


def _refuse_shared(shared: Sequence[Role], wish: Wish) -> None:
    names = {role.name for role in shared}
    for role in wish.bind:
        if role.name in names:
            raise BackendError(
                f"role {role.name!r} is one of all namespaces; bind one of the tenant's own"
            )


async def _refuse_escape(
    connection: Connection, bound: Sequence[str], shared: Sequence[Role]
) -> None:
    """Refuse what would look like isolation and be none."""
    for row in await connection.fetch(_ATTRIBUTES, bound):
        raise BackendError(
            f"role {row['name']!r} is {row['what']}, so no policy holds it; bind another one"
        )
    names = [*bound, *(role.name for role in shared)]
    for row in await connection.fetch(_MEMBERS, bound, names):
        raise BackendError(
            f"role {row['name']!r} is a member of {row['other']}, so it could SET ROLE to it and "
            f"see what that sees; REVOKE {quoted(row['other'])} FROM {quoted(row['name'])}"
        )


async def _refuse_blindness(
    connection: Connection, schema: str, shared: Sequence[Role], bound: Sequence[Role]
) -> None:
    """Refuse to leave somebody who has worked with the tables with no rows and no error."""
    rows = await connection.fetch(_GRANTEES, schema, list(roles.GUARDED))
    ours = {role.name for role in [*shared, *bound]}
    if others := sorted({row["name"] for row in rows} - ours):
        raise BackendError(
            f"{', '.join(others)} may read or write tables of schema {schema!r} by grants that "
            "this command did not make, and would see no rows any more; REVOKE them, and GRANT one "
            f"of {', '.join(role.name for role in shared)} instead"
        )
