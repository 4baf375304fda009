"""`openworkflow pause`, `resume` and `pauses`; and `runs pause`, `runs resume` for single runs."""

import getpass
from typing import Any
from uuid import UUID

import click

from openworkflow.cli import render
from openworkflow.cli.answers import answer
from openworkflow.cli.bulk import Wish, bulk_options, in_bulk, single
from openworkflow.cli.counting import counted
from openworkflow.cli.options import (
    RunId,
    database,
    database_options,
    json_option,
    run_async,
    with_client,
)
from openworkflow.cli.runs import runs


@click.command()
@click.argument("workflow", required=False)
@click.option("--all", "everything", is_flag=True, help="Everything in the namespace.")
@click.option("--reason", help="Why, for whoever asks.")
@click.option("--by", help="Who pauses it. [default: the user of this machine]")
@database_options
@json_option
def pause(
    workflow: str | None,
    everything: bool,
    reason: str | None,
    by: str | None,
    url: str | None,
    namespace: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Hold back all runs of WORKFLOW, in all workers.

    From their next claim on.
    """
    options = _what(workflow, everything) | {"reason": reason, "by": by or user()}
    held = run_async(with_client(database(url, namespace, schema), "pause", **options))
    answer(
        as_json,
        {"held": held},
        f"{workflow or 'everything'} is paused; {counted(held, 'unfinished run')} "
        f"{'is' if held == 1 else 'are'} held",
    )


@click.command()
@click.argument("workflow", required=False)
@click.option("--all", "everything", is_flag=True, help="Everything in the namespace.")
@database_options
@json_option
def resume(
    workflow: str | None,
    everything: bool,
    url: str | None,
    namespace: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """End the pause of WORKFLOW, or that of the namespace."""
    options = _what(workflow, everything)
    resumed = run_async(with_client(database(url, namespace, schema), "resume", **options))
    sentence = f"{workflow or 'everything'} {'goes on' if resumed else 'was not paused'}"
    answer(as_json, {"resumed": resumed}, sentence)


@click.command()
@database_options
@json_option
def pauses(url: str | None, namespace: str | None, schema: str | None, as_json: bool) -> None:
    """List the workflows that are paused, by whom and why."""
    found = run_async(with_client(database(url, namespace, schema), "pauses"))
    if as_json:
        render.as_json({"pauses": found})
    elif found:
        render.console().print(render.pauses_table(found))
    else:
        render.say("no workflow is paused")


@runs.command("pause")
@click.argument("run_id", type=RunId(), required=False)
@click.option("--reason", help="Why, for whoever asks.")
@click.option("--by", help="Who pauses it. [default: the user of this machine]")
@bulk_options
@database_options
@json_option
def pause_run(
    run_id: UUID | None,
    reason: str | None,
    by: str | None,
    wish: Wish,
    url: str | None,
    namespace: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Hold back a run, or all that a filter means.

    From its next claim on.
    """
    where, by = database(url, namespace, schema), by or user()
    if single(run_id, wish) is None:
        in_bulk(where, "pause", wish, as_json, reason=reason, by=by)
        return
    held = run_async(with_client(where, "pause", run_id, reason=reason, by=by))
    answer(as_json, {"held": held}, f"{run_id} is paused")


@runs.command("resume")
@click.argument("run_id", type=RunId(), required=False)
@bulk_options
@database_options
@json_option
def resume_run(
    run_id: UUID | None,
    wish: Wish,
    url: str | None,
    namespace: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """End the pause of a run, or of all that a filter means."""
    where = database(url, namespace, schema)
    if single(run_id, wish) is None:
        in_bulk(where, "resume", wish, as_json)
        return
    resumed = run_async(with_client(where, "resume", run_id))
    sentence = f"{run_id} {'goes on' if resumed else 'was not paused'}"
    answer(as_json, {"resumed": resumed}, sentence)


def user() -> str | None:
    """Who works at this machine, as far as it says."""
    try:
        return getpass.getuser()[:200] or None
    except (OSError, KeyError):
        return None


def _what(workflow: str | None, everything: bool) -> dict[str, Any]:
    if (workflow is None) != everything:
        raise click.UsageError("which workflow? give its name, or --all")
    return {"workflow": workflow, "everything": everything}
