"""`openworkflow signal`: tell a run, or all that wait for a topic, that something has happened."""

import logging
from datetime import timedelta
from typing import Any
from uuid import UUID

import click

from openworkflow.cli import render
from openworkflow.cli.answers import answer
from openworkflow.cli.codec import client_of, codec_option
from openworkflow.cli.options import (
    Database,
    DurationText,
    database,
    database_options,
    json_option,
    parse_json,
    run_async,
)
from openworkflow.client import OpenWorkflow
from openworkflow.core.errors import BackendError
from openworkflow.core.step_attempt import StepAttempt, StepKind, StepStatus

logger = logging.getLogger(__name__)


@click.command()
@click.argument("to", metavar="RUN_ID NAME | TOPIC", nargs=-1, required=True)
@click.option("--value", "-v", "text", help="What to send, as JSON.")
@click.option("--key", help="Idempotency key: a second signal with it is not sent.")
@click.option("--keep-for", type=DurationText(), help="Of a topic; 24h unless given.")
@codec_option
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
    sent, others = run_async(_send(where, target, value, given))
    answer(as_json, {"id": sent}, str(sent))
    if others:
        note = f"the run waits for {' and '.join(map(repr, others))} now, not for {target[1]!r}"
        render.say(f"{note}, which is kept until it does", err=True)


async def _send(
    where: Database, target: tuple[Any, ...], value: Any, given: dict[str, Any]
) -> tuple[UUID, list[str]]:
    """The id of what was sent, and the signals that the run waits for, if this is none of them."""
    async with where.connect(migrate=False) as backend:
        client = client_of(backend)
        # Before, since the run may take it at once, and wait for the next one.
        waits = await _awaited(client, target[0]) if len(target) > 1 else []
        send: Any = client.signal
        sent: UUID = await send(*target, value, **given)
    return sent, [] if target[-1] in waits else waits


async def _awaited(client: OpenWorkflow, run_id: UUID) -> list[str]:
    """The names of the signals that a run waits for; none, if that is not known."""
    try:
        steps = (await client.get_run(run_id)).steps
    except BackendError as error:  # a role that may send, and not look
        logger.debug("what the run waits for is not known: %s", error)
        return []
    names = {step.step_name for step in steps}
    waits = [
        step for step in steps if (step.kind, step.status) == (StepKind.SIGNAL, StepStatus.RUNNING)
    ]
    return sorted({_name(step, names) for step in waits})


def _name(step: StepAttempt, names: set[str]) -> str:
    """What a step waits for: its key without an ordinal, of which the first has none."""
    if isinstance(step.context, dict) and "name" in step.context:
        return str(step.context["name"])
    name, _, ordinal = step.step_name.rpartition(":")
    return name if ordinal.isdigit() and name in names else step.step_name


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
