"""`openworkflow prune`: delete finished runs, and their steps, after a while."""

import sys
from datetime import timedelta

import click

from openworkflow.cli.answers import answer
from openworkflow.cli.counting import counted, were
from openworkflow.cli.options import (
    Database,
    DurationText,
    database,
    database_options,
    json_option,
    run_async,
)
from openworkflow.cli.progress import progress
from openworkflow.cli.render import say, when
from openworkflow.core.workflow_run import RunStatus

FINISHED = [status.value for status in RunStatus if status.finished]


@click.command()
@click.option(
    "--older-than",
    type=DurationText(bare=False),
    default="30d",
    show_default=True,
    help="Ended so long ago; with a unit.",
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
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask, which is done on a terminal only.")
@database_options
@json_option
def prune(
    older_than: timedelta,
    statuses: tuple[str, ...],
    batch: int,
    dry_run: bool,
    yes: bool,
    url: str | None,
    namespace: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Delete finished runs and their steps.

    Those of the namespace, in small transactions.

    Says first what will be deleted, and asks on a terminal.
    """
    chosen = [RunStatus(status) for status in dict.fromkeys(statuses)]
    where = database(url, namespace, schema)
    found, what = run_async(_count(where, chosen, older_than))
    if dry_run:
        answer(as_json, {"found": found, "deleted": 0}, f"{what} would be deleted")
        return
    say(f"deleting {what}", err=True)
    if found and not yes and sys.stdin and sys.stdin.isatty():
        click.confirm("delete them and their steps?", abort=True, err=True)
    deleted = run_async(_delete(where, chosen, older_than, batch, found))
    answer(
        as_json,
        {"found": found, "deleted": deleted},
        f"{counted(deleted, 'run')} {were(deleted)} deleted",
    )


async def _count(
    where: Database, statuses: list[RunStatus], older_than: timedelta
) -> tuple[int, str]:
    """How many runs, and in words which."""
    async with where.connect(migrate=False) as backend:
        found = sum([n async for n in backend.prune(statuses, older_than, dry_run=True)])
        before = when(await backend.now() - older_than)
        return found, (
            f"{counted(found, ' and '.join(statuses) + ' run')} of namespace {where.namespace} at "
            f"{backend.url} that ended before {before}"
        )


async def _delete(
    where: Database,
    statuses: list[RunStatus],
    older_than: timedelta,
    batch: int,
    found: int,
) -> int:
    async with where.connect(migrate=False) as backend:
        deleted = 0
        with progress("deleting", found) as so_far:
            async for number in backend.prune(statuses, older_than, batch=batch):
                deleted += number
                so_far(deleted)
        return deleted
