"""`openworkflow mcp`: let an assistant look at runs, and, if it may, do something about them."""

import getpass
from typing import Any

import click

from openworkflow.cli.options import Database, database, database_options, run_async
from openworkflow.client import OpenWorkflow
from openworkflow.core.extras import extra_missing
from openworkflow.settings import Settings
from openworkflow.telemetry import logs

HIDDEN = "(hidden)"
_VALUES = ("input", "output", "result", "status")


@click.command()
@click.option("--allow-actions", is_flag=True, help="Let it retry, cancel, pause, resume, signal.")
@click.option("--by", help="Who acts, for the audit log. [default: mcp: and your login name]")
@click.option("--hide-values", is_flag=True, help="Show no input, output, result or status.")
@database_options
def mcp(
    allow_actions: bool,
    by: str | None,
    hide_values: bool,
    url: str | None,
    namespace: str | None,
    schema: str | None,
) -> None:
    """Serve the Model Context Protocol on stdin and stdout.

    An assistant, such as a coding agent, starts it by itself. It looks at the runs of one
    namespace, and changes nothing without --allow-actions.
    """
    try:
        import openworkflow.mcp  # noqa: F401
    except ImportError as error:
        raise extra_missing("openworkflow mcp", "mcp", error) from None
    where, redact = database(url, namespace, schema), _hidden if hide_values else None
    run_async(_serve(where, allow_actions=allow_actions, by=by or _caller(), redact=redact))


async def _serve(where: Database, **options: Any) -> None:
    from openworkflow.mcp import mcp_server

    async with where.connect(migrate=False, application_name="openworkflow-mcp") as backend:
        server = mcp_server(OpenWorkflow(backend), **options)
        settings = Settings.from_env()
        # After the server, which would log in a format of its own; to stderr: stdout is its line.
        logs.configure(settings.log_format, settings.log_level)
        await server.run_stdio_async()


def _caller() -> str:
    try:
        return f"mcp:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user has no name
        return "mcp"


def _hidden(what: str, given: Any) -> Any:
    return HIDDEN if what in _VALUES else given
