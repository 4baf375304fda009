"""`openworkflow signal`: tell a run, or all that wait for a topic, that something has happened."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import click

from openworkflow.cli import render
from openworkflow.cli.options import (
    DurationText,
    database,
    database_options,
    json_option,
    parse_json,
    run_async,
    with_client,
)


@click.command()
@click.argument("to", metavar="RUN_ID NAME | TOPIC", nargs=-1, required=True)
@click.option("--value", "-v", "text", help="What to send, as JSON.")
@click.option("--key", help="Idempotency key: a second signal with it is not sent.")
@click.option("--keep-for", type=DurationText(), help="Of a topic; 24h unless given.")
@database_options
@json_option
def signal(
    to: tuple[str, ...],
    text: str | None,
    key: str | None,
    keep_for: timedelta | None,
    url: str | None,
    namespace: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Send a signal to a run, or to a TOPIC.

    To all that wait for the topic now, or before it is over.
    """
    target = _target(to)
    value = parse_json("--value", text)
    options = {"idempotency_key": key, "keep_for": keep_for}
    given = {name: option for name, option in options.items() if option is not None}
    where = database(url, namespace, schema)
    sent: UUID = run_async(with_client(where, "signal", *target, value, **given))
    if as_json:
        render.as_json({"id": sent})
    else:
        render.say(str(sent))


def _target(to: tuple[str, ...]) -> tuple[Any, ...]:
    if len(to) == 1:
        if _run_id(to[0]) is not None:
            raise click.UsageError(f"{to[0]} is a run's id; give the NAME of the signal after it")
        return to
    if len(to) > 2:
        raise click.UsageError("give RUN_ID and NAME, or a TOPIC; the value is --value JSON")
    if (run_id := _run_id(to[0])) is None:
        raise click.UsageError(
            f"{to[0]!r} is no run's id; for a topic leave out {to[1]!r}, or give it as --value"
        )
    return run_id, to[1]


def _run_id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
