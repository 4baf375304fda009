"""`openworkflow run`: start a run, and wait for it if asked."""

import asyncio
import contextlib
from datetime import timedelta
from typing import Any
from uuid import UUID

import click

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
from openworkflow.cli.render import as_json as print_json
from openworkflow.cli.render import say
from openworkflow.cli.target import is_module, load_workflows
from openworkflow.client import OpenWorkflow, RunHandle
from openworkflow.core.errors import (
    BackendError,
    ConfigurationError,
    InputValidationError,
    ResultTimeout,
    WorkflowCanceled,
    WorkflowFailed,
)
from openworkflow.core.priority import HIGHEST
from openworkflow.core.workflow import Workflow
from openworkflow.engine.request import needs_input

WHY_SECONDS = 2.0


class _Run(click.Command):
    """Tells who gives the input as an argument that it is an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if "unexpected extra argument" not in error.message:
                raise
            told = f"{error.message}; the input is an option: --input '{{\"id\": 1}}'"
            raise click.UsageError(told, ctx) from None


@click.command(cls=_Run)
@click.argument("target")
@click.option("--input", "-i", "text", help="The input as JSON.")
@click.option("--version", help="Version, for a workflow given by name.")
@click.option("--key", help="Idempotency key: the same one again within 24 h is the same run.")
@click.option("--delay", type=DurationText(), help="Start so much later, such as 10m.")
@click.option("--deadline", type=DurationText(), help="Fail the run if it takes longer.")
@click.option("--tag", "tags", metavar="NAME=VALUE", multiple=True, help="To find it by.")
@click.option("--priority", type=click.IntRange(0, HIGHEST), help="It goes before others.")
@click.option("--wait", is_flag=True, help="Wait for the run to end, and print its result.")
@click.option("--timeout", type=DurationText(), help="Wait no longer than this.")
@codec_option
@database_options
@json_option
def run(
    target: str,
    text: str | None,
    version: str | None,
    key: str | None,
    delay: timedelta | None,
    deadline: timedelta | None,
    tags: tuple[str, ...],
    priority: int | None,
    wait: bool,
    timeout: timedelta | None,
    url: str | None,
    namespace: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Start a run of TARGET, and wait for it if asked.

    A workflow's name, or module:workflow, which checks the input.
    """
    if timeout is not None and not wait:
        raise click.UsageError("--timeout is how long --wait waits; add --wait")
    where = database(url, namespace, schema)
    options = {
        "input": parse_json("--input", text),
        "version": version,
        "idempotency_key": key,
        "available_at": delay,
        "deadline": deadline,
        "tags": dict(_tag(tag) for tag in tags),
        "priority": priority,
    }
    workflow = _workflow(target)
    if text is None and needs_input(workflow):
        raise InputValidationError(
            f"{target} takes an input, and got none: give it as --input JSON"
        )
    run_async(_run(where, workflow, options, wait, timeout, as_json))


async def _run(
    where: Database,
    workflow: Workflow[Any, Any] | str,
    options: dict[str, Any],
    wait: bool,
    timeout: timedelta | None,
    json_wanted: bool,
) -> None:
    async with where.connect() as backend:
        ow = client_of(backend)
        handle = await ow.run_workflow(workflow, **options)
        if not wait:
            answer(json_wanted, {"id": handle.id, "created": handle.created}, str(handle.id))
            return
        if json_wanted:
            await _wait_for_json(handle, timeout)
            return
        click.echo(f"run {handle.id}", err=True)
        try:
            await handle.result(timeout)
        except ResultTimeout:
            await _say_why(ow, handle.id)
            raise
        print_json((await handle.run()).output)


async def _wait_for_json(handle: RunHandle[Any], timeout: timedelta | None) -> None:
    """Print the run, however it has ended, and as it is where the time is over."""
    try:
        await handle.result(timeout)
    except (ResultTimeout, WorkflowFailed, WorkflowCanceled):
        print_json(await handle.run())
        raise
    print_json(await handle.run())


async def _say_why(ow: OpenWorkflow, run_id: UUID) -> None:
    """Why it has not ended, if that can be known; the time that was asked for is over already."""
    with contextlib.suppress(BackendError, TimeoutError):
        async with asyncio.timeout(WHY_SECONDS):
            say(f"it is not done: {(await ow.explain(run_id)).sentence}", err=True)


def _workflow(target: str) -> Workflow[Any, Any] | str:
    if ":" not in target and not target.endswith(".py"):
        _check_no_module(target)
        return target
    found = load_workflows(target)
    if len(found) > 1:
        names = ", ".join(w.fn.__name__ for w in found)
        raise ConfigurationError(f"{target} holds several workflows, say which: {names}")
    return found[0]


def _check_no_module(target: str) -> None:
    """Refuse `shop.workflows`, of which no workflow's name was given; it would wait forever."""
    if "." not in target:
        return
    if not is_module(target):
        _check_no_function(*target.rpartition("."))
        return
    found = [workflow.fn.__name__ for workflow in load_workflows(target)]
    raise ConfigurationError(
        f"{target} is a module; say which of its workflows: "
        + " or ".join(f"{target}:{name}" for name in found)
    )


def _check_no_function(module: str, dot: str, function: str) -> None:
    """Refuse `shop.workflows.order`, unless a workflow has that name."""
    found = []
    if is_module(module):
        with contextlib.suppress(ConfigurationError):  # it holds none
            found = load_workflows(module)
    if function in [w.fn.__name__ for w in found] and module + dot + function not in [
        w.name for w in found
    ]:
        raise ConfigurationError(f"a workflow of a module is written {module}:{function}")


def _tag(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign:
        raise click.UsageError(f"--tag is NAME=VALUE, such as customer=acme, not {text!r}")
    return name, value
