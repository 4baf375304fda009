"""What the command line answers to a command that there is not, and of what it warns."""

from __future__ import annotations

import click
import pytest
from click.shell_completion import ShellComplete

from openworkflow.cli import guessed
from openworkflow.cli.main import cli
from openworkflow.cli.options import database


def test_each_guess_is_answered_by_a_command_that_there_is() -> None:
    context = click.Context(cli)
    for name, meant in guessed._MEANT.items():
        command: click.Command | None = cli
        for part in meant.split():
            assert isinstance(command, click.Group)
            command = command.get_command(context, part)
        assert command is not None, meant
        assert cli.get_command(context, name) is None, name


def test_a_word_of_other_programs_that_is_ours_too_is_answered_by_both() -> None:
    meant = guessed.meant(cli, click.Context(cli), "trigger")
    assert meant == ["run", "schedules trigger"]


@pytest.mark.parametrize("name", ["list", "start", "nothing"])
def test_a_shell_that_completes_a_command_that_there_is_not_is_offered_nothing(name: str) -> None:
    complete = ShellComplete(cli, {}, "openworkflow", "_OPENWORKFLOW_COMPLETE")
    complete.get_completions([name], "")  # what it offers is for click to say


@pytest.mark.parametrize(("password", "warned"), [("", False), (":", False), (":hush", True)])
def test_no_password_is_none_to_warn_of(
    capsys: pytest.CaptureFixture[str], password: str, warned: bool
) -> None:
    database(f"postgresql://ann{password}@localhost/shop", None, None)
    assert ("password of --url" in capsys.readouterr().err) == warned
