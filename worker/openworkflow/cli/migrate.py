"""`openworkflow migrate`: bring the tables up to date, or show what that would do."""

import click
from rich.table import Table

from openworkflow.cli.options import Database, database, database_options, json_option, run_async
from openworkflow.cli.render import as_json, console, when


@click.command()
@database_options
@click.option("--status", "show_status", is_flag=True, help="Show which migrations were applied.")
@click.option("--dry-run", is_flag=True, help="Print the SQL that would be run, and run nothing.")
@json_option
def migrate(
    url: str | None,
    namespace: str | None,
    schema: str | None,
    show_status: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Create or update the tables. Safe to repeat, and while workers run."""
    where = database(url, namespace, schema)
    if dry_run:
        run_async(_dry_run(where))
    elif show_status:
        run_async(_status(where, as_json))
    else:
        run_async(_migrate(where, as_json))


async def _migrate(where: Database, json_wanted: bool) -> None:
    async with where.connect(migrate=False) as backend:
        applied = await backend.migrate()
    if json_wanted:
        as_json({"applied": [m.version for m in applied]})
        return
    for migration in applied:
        click.echo(f"applied {migration.version:04d} {migration.name}")
    click.echo(f"schema {where.schema} is up to date")


async def _status(where: Database, json_wanted: bool) -> None:
    async with where.connect(migrate=False) as backend:
        states = await backend.migration_states()
    if json_wanted:
        as_json(
            [
                {
                    "version": s.migration.version,
                    "name": s.migration.name,
                    "applied_at": s.applied_at,
                }
                for s in states
            ]
        )
        return
    table = Table("VERSION", "NAME", "APPLIED", box=None, pad_edge=False, header_style="bold")
    for state in states:
        applied = when(state.applied_at) or "[yellow]not yet[/]"
        table.add_row(f"{state.migration.version:04d}", state.migration.name, applied)
    console().print(table)


async def _dry_run(where: Database) -> None:
    async with where.connect(migrate=False) as backend:
        missing = [s.migration for s in await backend.migration_states() if s.applied_at is None]
    for migration in missing:
        click.echo(f"-- {migration.version:04d} {migration.name}")
        click.echo(migration.sql)
    if not missing:
        click.echo(f"-- schema {where.schema} is up to date")
