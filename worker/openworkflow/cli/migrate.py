"""`openworkflow migrate`: bring the tables up to date, or show what that would do."""

import asyncio
import time
from datetime import timedelta

import click

from openworkflow.backend.arranging import Wish, arrange
from openworkflow.backend.failures import ConnectionLost
from openworkflow.backend.migrations import Migration
from openworkflow.backend.roles import parse_binding
from openworkflow.cli.answers import answer
from openworkflow.cli.options import (
    Database,
    DurationText,
    database,
    database_options,
    json_option,
    run_async,
)
from openworkflow.cli.progress import watched
from openworkflow.cli.render import Listing, as_json, console, say, styled, when
from openworkflow.telemetry.logs import mask


@click.command()
@database_options
@click.option("--status", "show_status", is_flag=True, help="Show which migrations were applied.")
@click.option("--dry-run", is_flag=True, help="Print the SQL that would be run, and run nothing.")
@click.option(
    "--wait",
    type=DurationText(),
    default="0s",
    help="How long to wait for a server that does not answer yet, such as 60s. [default: not]",
)
@click.option(
    "--roles",
    "roles_wanted",
    is_flag=True,
    help="Make a role each for owner, operator, worker, enqueuer and reader, and grant to them.",
)
@click.option("--role-prefix", help="Of their names. [default: openworkflow_<database>]")
@click.option(
    "--bind",
    multiple=True,
    metavar="ROLE=KIND",
    help="With --roles: a role that sees the rows of --namespace only; KIND such as worker.",
)
@click.option(
    "--unbind", multiple=True, metavar="ROLE", help="With --roles: take away what --bind gave."
)
@json_option
def migrate(
    url: str | None,
    namespace: str | None,
    schema: str | None,
    show_status: bool,
    dry_run: bool,
    wait: timedelta,
    roles_wanted: bool,
    role_prefix: str | None,
    bind: tuple[str, ...],
    unbind: tuple[str, ...],
    as_json: bool,
) -> None:
    """Create or update the tables. Safe to repeat, and while workers run."""
    where = database(url, namespace, schema)
    if not roles_wanted and (role_prefix or bind or unbind):
        raise click.UsageError("--role-prefix, --bind and --unbind go with --roles")
    if roles_wanted:
        if bind and namespace is None:
            raise click.UsageError("--bind needs --namespace, said in so many words")
        bound = tuple(parse_binding(each, where.namespace) for each in bind)
        run_async(_arrange(where, Wish(role_prefix, bound, unbind), dry_run, wait, as_json))
    elif dry_run:
        run_async(_dry_run(where, as_json))
    elif show_status:
        run_async(_status(where, as_json))
    else:
        run_async(_migrate(where, wait, as_json))


async def _migrate(where: Database, wait: timedelta, json_wanted: bool) -> None:
    applied = await apply(where, wait)
    async with where.connect(migrate=None) as backend:
        mended = await backend.mend_indexes()
    answer(
        json_wanted,
        {"applied": [m.version for m in applied], "mended": mended},
        *(f"applied {migration.version:04d} {migration.name}" for migration in applied),
        *(f"made {index} again" for index in mended),
        f"schema {where.schema} is up to date",
    )


async def _arrange(
    where: Database, wish: Wish, dry_run: bool, wait: timedelta, json_wanted: bool
) -> None:
    if dry_run:
        planned = await arrange(where.url, where.schema, wish, dry_run=True)
        lines = (f"{statement};" for statement in planned)
        answer(json_wanted, {"dry_run": True, "statements": planned}, *lines)
        return
    applied = await apply(where, wait)
    done = await arrange(where.url, where.schema, wish)
    answer(
        json_wanted,
        {"applied": [m.version for m in applied], "statements": done},
        *(f"applied {migration.version:04d} {migration.name}" for migration in applied),
        *(s for s in done if s.startswith(("create role", "create policy"))),
        *(
            f"role {role.name} is {' and '.join(role.kinds)} of namespace {role.namespace_id}, "
            "and no other"
            for role in wish.bind
        ),
        *(f"role {name} may do nothing here any more" for name in wish.unbind),
        f"schema {where.schema} is up to date, and so are its roles",
    )


async def apply(where: Database, wait: timedelta) -> list[Migration]:
    """Apply what is missing, once the server answers."""
    deadline, said = time.monotonic() + wait.total_seconds(), ""
    while True:
        try:
            async with where.connect(migrate=None) as backend:
                return await backend.migrate(_say_begun if watched() else None)
        except ConnectionLost as error:
            if time.monotonic() >= deadline:
                raise
            if said != str(error):
                said = str(error)
                say(f"waiting: {mask(said)}", err=True)
            await asyncio.sleep(0.5)


def _say_begun(migration: Migration) -> None:
    """A line before each one, since an index of a large table takes minutes."""
    say(f"applying {migration.version:04d} {migration.name}", err=True)


async def _status(where: Database, json_wanted: bool) -> None:
    async with where.connect(migrate=None) as backend:
        states = await backend.migration_states()
    if json_wanted:
        found = [
            {
                "version": s.migration.version,
                "name": s.migration.name,
                "additive": s.migration.additive,
                "applied_at": s.applied_at,
            }
            for s in states
        ]
        as_json({"migrations": found})
        return
    table = Listing("VERSION", "NAME", "APPLIED")
    for state in states:
        applied = when(state.applied_at) or styled("not yet", "yellow")
        table.add_row(f"{state.migration.version:04d}", state.migration.name, applied)
    console().print(table)


async def _dry_run(where: Database, json_wanted: bool) -> None:
    async with where.connect(migrate=None) as backend:
        missing = [s.migration for s in await backend.migration_states() if s.applied_at is None]
    lines = [f"-- {m.version:04d} {m.name}\n{m.sql}" for m in missing]
    found = [{"version": m.version, "name": m.name, "sql": m.sql} for m in missing]
    up_to_date = f"-- schema {where.schema} is up to date"
    answer(json_wanted, {"dry_run": True, "migrations": found}, *(lines or [up_to_date]))
