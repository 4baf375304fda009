"""`openworkflow schedules`: what runs again and again, and by hand what is to be done about it."""

import dataclasses
import json
from datetime import UTC, datetime
from typing import Any

import click

from openworkflow.cli import render, render_schedules
from openworkflow.cli.answers import answer
from openworkflow.cli.codec import codec_option
from openworkflow.cli.counting import counted
from openworkflow.cli.options import (
    database,
    database_options,
    json_option,
    run_async,
    with_client,
)
from openworkflow.core.schedule import Schedule

NEXT = 5
"""Instants that `show` names."""


class Instant(click.ParamType[datetime]):
    """A time in ISO 8601; in UTC if it names no zone."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime:
        """Refuse what is no time."""
        try:
            found = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time, such as 2026-11-01 or 2026-11-01T09:00+01:00")
        return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


@click.group()
def schedules() -> None:
    """Look at schedules, pause them, run them by hand."""


@schedules.command("list")
@codec_option
@database_options
@json_option
def list_schedules(
    url: str | None, namespace: str | None, schema: str | None, as_json: bool
) -> None:
    """List schedules by name."""
    found = run_async(with_client(database(url, namespace, schema), "schedules.list"))
    if as_json:
        render.as_json({"schedules": [_fields(each) for each in found]})
    elif found:
        render.console().print(render_schedules.schedules_table(found))
    else:
        render.say('no schedules: declare one with @workflow(schedule=Cron("0 9 * * *"))')


@schedules.command()
@click.argument("name")
@codec_option
@database_options
@json_option
def show(
    name: str, url: str | None, namespace: str | None, schema: str | None, as_json: bool
) -> None:
    """Show a schedule, and when it is to run next."""
    found = run_async(with_client(database(url, namespace, schema), "schedules.get", name))
    if as_json:
        render.as_json(_fields(found))
    else:
        render.console().print(render_schedules.schedule_details(found, NEXT))


@schedules.command()
@click.argument("name")
@click.option("--reason", help="Shown to whoever wonders why it does not run.")
@database_options
@json_option
def pause(
    name: str,
    reason: str | None,
    url: str | None,
    namespace: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Have no occurrence of NAME begin until it is resumed.

    Whatever is deployed meanwhile.
    """
    where = database(url, namespace, schema)
    run_async(with_client(where, "schedules.pause", name, reason))
    answer(as_json, {"name": name, "paused": True}, f"schedule {name} is paused")


@schedules.command()
@click.argument("name")
@database_options
@json_option
def resume(
    name: str, url: str | None, namespace: str | None, schema: str | None, as_json: bool
) -> None:
    """Go on with the next instant of NAME.

    What was missed while it was paused is not run.
    """
    where = database(url, namespace, schema)
    found: Schedule = run_async(with_client(where, "schedules.resume", name))
    (following,) = found.upcoming(1) or (None,)
    answer(
        as_json,
        {"name": name, "paused": False, "next": following},
        f"schedule {name} runs next at {following or 'no time'}",
    )


@schedules.command()
@click.argument("name")
@database_options
@json_option
def trigger(
    name: str, url: str | None, namespace: str | None, schema: str | None, as_json: bool
) -> None:
    """Have an occurrence of NAME begin now."""
    where = database(url, namespace, schema)
    handle = run_async(with_client(where, "schedules.trigger", name))
    answer(as_json, {"id": handle.id, "schedule_name": name}, str(handle.id))


@schedules.command()
@click.argument("name")
@click.option("--from", "start", type=Instant(), required=True, help="The first time it may be.")
@click.option("--to", "end", type=Instant(), required=True, help="Before this time.")
@database_options
@json_option
def backfill(
    name: str,
    start: datetime,
    end: datetime,
    url: str | None,
    namespace: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Run the occurrences of NAME in a time that is over.

    Those that have not run.

    One after the other, unless the schedule lets them overlap. Times without a zone are UTC.
    """
    where = database(url, namespace, schema)
    made = run_async(with_client(where, "schedules.backfill", name, start, end))
    answer(
        as_json,
        {"name": name, "occurrences": made},
        f"{counted(made, 'occurrence')} of schedule {name} to run",
    )


@schedules.command()
@click.argument("name")
@database_options
@json_option
def delete(
    name: str, url: str | None, namespace: str | None, schema: str | None, as_json: bool
) -> None:
    """Forget NAME, and cancel its runs that have not begun.

    One that code declares comes back as long as workers have that code.
    """
    run_async(with_client(database(url, namespace, schema), "schedules.delete", name))
    answer(as_json, {"name": name, "deleted": True}, f"schedule {name} is deleted")


def _fields(schedule: Schedule) -> dict[str, Any]:
    """A schedule as JSON has it: the input is a value, as that of a run, and no text of JSON."""
    stored = None if schedule.input is None else json.loads(schedule.input)
    return dataclasses.asdict(schedule) | {"input": stored}
