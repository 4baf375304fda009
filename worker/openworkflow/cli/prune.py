"""`openworkflow prune`: delete finished runs, and their steps, after a while."""

from datetime import timedelta

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from openworkflow.cli.options import (
    Database,
    DurationText,
    database,
    database_options,
    json_option,
    run_async,
)
from openworkflow.cli.render import as_json as print_json
from openworkflow.cli.render import say
from openworkflow.core.workflow_run import RunStatus

FINISHED = [status.value for status in RunStatus if status.finished]


@click.command()
@click.option(
    "--older-than", type=DurationText(), default="30d", show_default=True, help="Ended so long ago."
)
@click.option(
    "--status",
    "statuses",
    type=click.Choice(FINISHED),
    multiple=True,
    default=["succeeded"],
    show_default=True,
    help="May be repeated.",
)
@click.option("--batch", type=click.IntRange(1, 10_000), default=1000, show_default=True)
@click.option("--dry-run", is_flag=True, help="Count, and delete nothing.")
@database_options
@json_option
def prune(
    older_than: timedelta,
    statuses: tuple[str, ...],
    batch: int,
    dry_run: bool,
    url: str | None,
    namespace: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Delete finished runs of the namespace and their steps, in small transactions."""
    chosen = [RunStatus(status) for status in statuses]
    where = database(url, namespace, schema)
    found = run_async(_prune(where, chosen, older_than, batch, dry_run, quiet=as_json))
    if as_json:
        print_json({"deleted": 0 if dry_run else found, "found": found})
    else:
        say(f"{found} runs {'would be' if dry_run else 'were'} deleted")


async def _prune(
    where: Database,
    statuses: list[RunStatus],
    older_than: timedelta,
    batch: int,
    dry_run: bool,
    *,
    quiet: bool,
) -> int:
    async with where.connect(migrate=False) as backend:
        found = sum([n async for n in backend.prune(statuses, older_than, dry_run=True)])
        if dry_run:
            return found
        deleted = 0
        columns = TextColumn("deleting"), BarColumn(), MofNCompleteColumn()
        with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
            bar = progress.add_task("", total=found)
            async for number in backend.prune(statuses, older_than, batch=batch):
                deleted += number
                progress.update(bar, completed=deleted)
        return deleted
