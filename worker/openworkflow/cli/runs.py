"""`openworkflow runs`: look at runs, ask why they are not done, cancel them, retry them."""

from typing import Any, TextIO
from uuid import UUID

import click

from openworkflow.backend.backend import Page, RunFilter
from openworkflow.cli import histories, render
from openworkflow.cli.answers import answer
from openworkflow.cli.bulk import Wish, bulk_options, in_bulk, single
from openworkflow.cli.codec import client_of, codec_option
from openworkflow.cli.counting import counted
from openworkflow.cli.events import events
from openworkflow.cli.options import (
    Database,
    RunId,
    StatusChoice,
    database,
    database_options,
    json_option,
    parse_json,
    run_async,
    with_client,
)
from openworkflow.client.plain import plain_progress
from openworkflow.core.printable import printable_json
from openworkflow.core.standing import word
from openworkflow.core.workflow_run import RunStatus, WorkflowRun


@click.group()
def runs() -> None:
    """Look at runs, and do something about them."""


@runs.command("list")
@click.option("--status", type=StatusChoice())
@click.option("--workflow", help="Only runs of this workflow.")
@click.option("--version", help="Only runs of this version.")
@click.option("--worker", "worker_id", help="Only runs that this worker holds.")
@click.option("--build", "build_id", help="Only runs that this build began.")
@click.option("--schedule", "schedule_name", help="Only runs that this schedule started.")
@click.option("--parent", "parent_run_id", type=RunId(), help="Only children of this run.")
@click.option("--where", help='A filter, such as "status:failed tag.customer:acme started>2h".')
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--after", "cursor", help="Go on where the page before ended.")
@codec_option
@database_options
@json_option
def list_runs(
    status: str | None,
    workflow: str | None,
    version: str | None,
    worker_id: str | None,
    build_id: str | None,
    schedule_name: str | None,
    parent_run_id: UUID | None,
    where: str | None,
    limit: int,
    cursor: str | None,
    url: str | None,
    namespace: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """List runs, newest first.

    Of a run that has not ended STATUS says where it stands: queued, scheduled, sleeping, retrying,
    waiting, paused, limited, build, unserved, running or lost; `runs explain` says more.
    """
    wanted = RunFilter(
        status=RunStatus(status) if status else None,
        workflow_name=workflow,
        version=version,
        worker_id=worker_id,
        build_id=build_id,
        schedule_name=schedule_name,
        parent_run_id=parent_run_id,
    )
    if where is not None and wanted != RunFilter():
        raise click.UsageError("say in --where what the other options say")
    options = {"limit": limit, "cursor": cursor, "where": where}
    place = database(url, namespace, schema)
    page, told, states = run_async(_page(place, wanted if where is None else None, options))
    if as_json:
        found = {"states": _by_text(states), "progress": _by_text(told)}
        render.as_json({"runs": page.runs, **found, "next": page.next_cursor})
        return
    if not page.runs:
        render.say(f"no runs in namespace {place.namespace!r}")
        return
    render.console().print(render.runs_table(page.runs, told, states))
    if page.next_cursor:
        render.say(f"\nmore: --after {page.next_cursor}")


def _by_text(found: dict[UUID, Any]) -> dict[str, Any]:
    """The ids of runs as keys of JSON."""
    return {str(run_id): value for run_id, value in found.items()}


async def _page(
    where: Database, run_filter: RunFilter | None, options: dict[str, Any]
) -> tuple[Page, dict[UUID, Any], dict[UUID, str]]:
    """A page of runs, the statuses that those have set, and in a word where each stands."""
    async with where.connect(migrate=False) as backend:
        ow = client_of(backend)
        page = await ow.list_runs(run_filter, **options)
        told = await backend.progress.of_runs([run.id for run in page.runs])
        plain = {key: await plain_progress(ow._payloads, each) for key, each in told.items()}
        says = {key: each.status for key, each in plain.items() if each.status is not None}
        open_ids = [run.id for run in page.runs if not run.status.finished]
        if not open_ids:
            return page, says, {}
        known, served = await backend.control.standings(open_ids), await backend.control.served()
        return page, says, {run.id: word(run, known.get(run.id), served) for run in page.runs}


@runs.command()
@click.argument("run_id", type=RunId())
@codec_option
@database_options
@json_option
def show(
    run_id: UUID, url: str | None, namespace: str | None, schema: str | None, as_json: bool
) -> None:
    """Show a run and the timeline of its steps."""
    found = run_async(with_client(database(url, namespace, schema), "get_run", run_id))
    if as_json:
        render.as_json(found)
        return
    for part in render.details(found):
        render.console().print(part)


@runs.command()
@click.argument("run_id", type=RunId())
@database_options
@json_option
def explain(
    run_id: UUID, url: str | None, namespace: str | None, schema: str | None, as_json: bool
) -> None:
    """Say in one sentence why a run is not done."""
    where = database(url, namespace, schema)
    told = run_async(with_client(where, "explain", run_id))
    if as_json:
        render.as_json(told)
        return
    render.say(f"{told.run_id} is {told.status}: {told.sentence}")
    says = run_async(with_client(where, "progress", run_id)).status
    if says is not None:
        render.say(f"it says {printable_json(says)}")


@runs.command()
@click.argument("run_id", type=RunId(), required=False)
@click.option("--force", is_flag=True, help="At once: undo nothing of what it has done.")
@bulk_options
@database_options
@json_option
def cancel(
    run_id: UUID | None,
    force: bool,
    wish: Wish,
    url: str | None,
    namespace: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Cancel a run that has not ended, or all that a filter means.

    What it has done is undone first, where its steps have an undo.
    """
    where = database(url, namespace, schema)
    if single(run_id, wish) is None:
        if force:
            raise click.UsageError("--force is for one run")
        in_bulk(where, "cancel", wish, as_json)
        return
    run = run_async(with_client(where, "cancel", run_id, force=force))
    if as_json or run.status.finished:
        _tell(run, as_json)
    else:
        render.say(f"{run.id} is {run.status}: its steps are undone, and then it is canceled")


@runs.command()
@click.argument("run_id", type=RunId(), required=False)
@click.option("--from-step", help="From this step on, whatever was recorded; not where it failed.")
@bulk_options
@codec_option
@database_options
@json_option
def retry(
    run_id: UUID | None,
    from_step: str | None,
    wish: Wish,
    url: str | None,
    namespace: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Start a failed or canceled run again.

    From the step that failed; or all runs of a filter.
    """
    where = database(url, namespace, schema)
    if single(run_id, wish) is None:
        if from_step is not None:
            raise click.UsageError("--from-step is for one run")
        in_bulk(where, "retry", wish, as_json)
    else:
        _tell(run_async(with_client(where, "retry", run_id, from_step=from_step)), as_json)


@runs.command()
@bulk_options
@database_options
@json_option
def delete(
    wish: Wish, url: str | None, namespace: str | None, schema: str | None, as_json: bool
) -> None:
    """Delete the runs of a filter that have ended, with their steps."""
    single(None, wish)
    in_bulk(database(url, namespace, schema), "delete", wish, as_json)


@runs.command()
@click.argument("run_id", type=RunId())
@click.option("--from-step", help="The first step to be done anew. [default: the last recorded]")
@click.option("--input", "-i", "text", help="Another input, as JSON.")
@click.option(
    "--result",
    "results",
    metavar="STEP=JSON",
    multiple=True,
    help="Go on as if the step had returned this; may be given again.",
)
@click.option("--version", help="Another version of the workflow.")
@click.option("--build", help="Bind the new run to this build.")
@codec_option
@database_options
@json_option
def fork(
    run_id: UUID,
    from_step: str | None,
    text: str | None,
    results: tuple[str, ...],
    version: str | None,
    build: str | None,
    url: str | None,
    namespace: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Start a new run with a part of another's history.

    Up to a step; prints the id of the new one.
    """
    options: dict[str, Any] = {"from_step": from_step, "build": build}
    if text is not None:
        options["input"] = parse_json("--input", text)
    if version is not None:
        options["version"] = version
    options["results"] = dict(_result(each) for each in results)
    handle = run_async(with_client(database(url, namespace, schema), "fork", run_id, **options))
    answer(as_json, {"id": handle.id, "forked_from": run_id}, str(handle.id))


def _result(text: str) -> tuple[str, Any]:
    step, sign, value = text.partition("=")
    if not sign:
        raise click.UsageError(f"--result is STEP=JSON, such as 'charge=\"receipt-1\"', not {text}")
    return step, parse_json("--result", value, f"{step}=")


@runs.command()
@click.option("--workflow", help="Only runs of this workflow.")
@click.option("--status", "statuses", type=StatusChoice(), multiple=True)
@click.option("--limit", type=click.IntRange(1, 100_000), default=500, show_default=True)
@click.option("--output", type=click.File("w", lazy=True), default="-", help="A file; - is stdout.")
@database_options
@json_option
def export(
    workflow: str | None,
    statuses: tuple[str, ...],
    limit: int,
    output: TextIO,
    url: str | None,
    namespace: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Write histories for `replay-check --from-file`.

    Newest first, a line of JSON for each run.

    They hold inputs and results as they are stored, encoded ones too.
    """
    chosen = [RunStatus(status) for status in statuses] or list(RunStatus)
    where = database(url, namespace, schema)
    written = run_async(_export(where, workflow, chosen, limit, output))
    if not as_json:  # the lines are JSON anyway; one more would be taken for a run
        render.say(f"{counted(written, 'history', 'histories')} written", err=True)


async def _export(
    where: Database, workflow: str | None, statuses: list[RunStatus], limit: int, output: TextIO
) -> int:
    written = 0
    async with where.connect(migrate=False) as backend:
        found = histories.recorded(backend, workflow=workflow, statuses=statuses, limit=limit)
        async for run in found:
            output.write(histories.line_of(run) + "\n")
            written += 1
    return written


runs.add_command(events)


def _tell(run: WorkflowRun, json_wanted: bool) -> None:
    if json_wanted:
        render.as_json(run)
    else:
        render.say(f"{run.id} is {run.status}")
