"""The command line and its error boundary.

With `--json` an error is one JSON object on standard error: docs/scripts.md.

Exit codes: 0 done; 1 an error, told in one line; 2 wrong usage; 3 `doctor` found problems, or the
run that was waited for failed or was canceled; 4 it has not ended in the time given.
"""

import sys
from typing import NoReturn

import click

from openworkflow.cli import guessed
from openworkflow.cli.answers import error_as_json
from openworkflow.cli.builds import builds
from openworkflow.cli.completion import completion
from openworkflow.cli.dashboard import dashboard
from openworkflow.cli.dev import dev
from openworkflow.cli.doctor import doctor
from openworkflow.cli.init import init
from openworkflow.cli.limits import limits
from openworkflow.cli.mcp import mcp
from openworkflow.cli.migrate import migrate
from openworkflow.cli.pauses import pause, pauses, resume
from openworkflow.cli.prune import prune
from openworkflow.cli.render import say
from openworkflow.cli.replay_check import replay_check
from openworkflow.cli.run import run
from openworkflow.cli.runs import runs
from openworkflow.cli.schedules import schedules
from openworkflow.cli.signal import signal
from openworkflow.cli.worker import worker
from openworkflow.core.errors import (
    ConfigurationError,
    OpenWorkflowError,
    ResultTimeout,
    WorkflowCanceled,
    WorkflowFailed,
)
from openworkflow.core.failure import Failure
from openworkflow.telemetry.logs import mask

ERROR, RUN_FAILED, TIMED_OUT = 1, 3, 4
_OF_COMMANDS = ("--url", "--namespace", "--schema", "--json", "-n")


class Commands(click.Group):
    """Says where an option of the commands belongs, and which command was meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See click."""
        unknown = self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing
        if unknown and (meant := guessed.meant(self, ctx, args[0])):
            written = ", or ".join(f"`openworkflow {each}`" for each in meant)
            raise click.UsageError(f"there is no command {args[0]!r}: it is {written}", ctx)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name in _OF_COMMANDS:
                raise click.UsageError(
                    f"{error.option_name} belongs to a command: give it after that, as in "
                    f"`openworkflow runs list {error.option_name} ...`"
                ) from None
            raise


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="openworkflow-fleet", prog_name="openworkflow")
def cli() -> None:
    """Durable workflows on PostgreSQL.

    The database is DATABASE_URL, or --url. Exit codes: 0 done, 1 error, 2 usage, 3 a problem was
    found or the awaited run failed, 4 it has not ended in the time given.
    """


for _command in (
    builds,
    completion,
    dashboard,
    dev,
    doctor,
    init,
    limits,
    mcp,
    migrate,
    pause,
    pauses,
    prune,
    replay_check,
    resume,
    run,
    runs,
    schedules,
    signal,
    worker,
):
    cli.add_command(_command)


def main() -> None:
    """Run the command line; a user's mistake is one line on stderr, without a traceback."""
    as_json = "--json" in sys.argv  # also where the options could not be read
    try:
        sys.exit(cli(standalone_mode=not as_json))
    except OpenWorkflowError as error:
        _refuse(error, as_json)
    except click.ClickException as error:  # with --json only: else click has shown it
        error_as_json(type(error).__name__, error.format_message(), None, error.exit_code)
        sys.exit(error.exit_code)
    except click.Abort:
        error_as_json("Abort", "nothing was done: the question was not answered by yes", None, 1)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # `... | head` has seen enough
        sys.exit(0)


def _refuse(error: OpenWorkflowError, as_json: bool) -> NoReturn:
    """Say what was wrong, and exit."""
    message, page, code = mask(str(error)), _page(error), _exit_code(error)
    if as_json:
        error_as_json(type(error).__name__, message, page, code)
    else:
        say(f"error: {message}" + ("" if page is None else f" ({page})"), err=True)
    sys.exit(code)


def _page(error: OpenWorkflowError) -> str | None:
    """The page that says more than the message; a mistake in the call has none."""
    if isinstance(error, ConfigurationError):
        return None
    page = error.failure.page if isinstance(error, WorkflowFailed) else None
    return page or Failure.from_exception(error).page


def _exit_code(error: OpenWorkflowError) -> int:
    if isinstance(error, ResultTimeout):
        return TIMED_OUT
    return RUN_FAILED if isinstance(error, WorkflowFailed | WorkflowCanceled) else ERROR
