"""`openworkflow runs events`: what a run has emitted, and what it emits until it ends."""

from typing import Any
from uuid import UUID

import click

from openworkflow.cli import render
from openworkflow.cli.codec import client_of, codec_option
from openworkflow.cli.options import (
    Database,
    RunId,
    database,
    database_options,
    json_option,
    run_async,
)
from openworkflow.client.plain import plain_event
from openworkflow.core.envelope import described
from openworkflow.core.errors import RunNotFound
from openworkflow.core.printable import printable_json
from openworkflow.core.progress import EventsAsked, RunEvent, checked_topic

PAGE = 1000
"""Events that are read at once."""


@click.command()
@click.argument("run_id", type=RunId())
@click.option("--topic", help="Only events of this topic.")
@click.option("--from-offset", type=click.IntRange(0), default=0, help="The first to be shown.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the run ends.")
@codec_option
@database_options
@json_option
def events(
    run_id: UUID,
    topic: str | None,
    from_offset: int,
    follow: bool,
    url: str | None,
    namespace: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Show what a run has emitted.

    A line for each event; with --json, a document for each.
    """
    asked = EventsAsked(run_id, from_offset, None if topic is None else checked_topic(topic))
    run_async(_show(database(url, namespace, schema), asked, follow, as_json))


async def _show(where: Database, asked: EventsAsked, follow: bool, as_json: bool) -> None:
    async with where.connect(migrate=False) as backend:
        ow = client_of(backend)
        if follow:
            async for event in ow._follow(asked.run_id, asked.topic, asked.event_no):
                _say(await plain_event(ow._payloads, event), as_json)
            return
        while True:
            (found,) = await backend.progress.events([asked], PAGE)
            if found is None:
                raise RunNotFound(asked.run_id)
            for event in found.events:
                _say(await plain_event(ow._payloads, event), as_json)
            if not found.events:
                return
            asked = asked._replace(event_no=found.events[-1].offset + 1)


def _say(event: RunEvent, as_json: bool) -> None:
    if as_json:
        render.as_json(event)
        return
    value: Any = event.value
    told = value if isinstance(value, str) else described(value) or printable_json(value)
    by = "" if event.step is None else f"  ({event.step}, attempt {event.attempt})"
    render.say(f"{event.offset:>6}  {render.when(event.created_at)}  {event.topic}  {told}{by}")
