"""Commands as other programs call them, answered with ours."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from openworkflow.cli.main import _ELSEWHERE, cli


@pytest.mark.parametrize(
    ("word", "command"),
    [("list", "runs list"), ("retry", "runs retry"), ("start", "run"), ("flower", "dashboard")],
)
def test_what_was_meant_is_named(word: str, command: str) -> None:
    result = CliRunner().invoke(cli, [word])

    assert result.exit_code == 2
    assert f"No such command '{word}': it is `openworkflow {command}`." in result.output


@pytest.mark.parametrize("word", _ELSEWHERE)
def test_no_word_hides_a_command_or_leads_to_none(word: str) -> None:
    found: click.Command = cli
    for name in _ELSEWHERE[word].split():
        assert isinstance(found, click.Group)
        found = found.commands[name]

    assert word not in cli.commands
