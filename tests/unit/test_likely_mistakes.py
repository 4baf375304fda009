"""Mistakes of the first hour are answered with what was meant."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from openworkflow import ConfigurationError, InputValidationError, workflow
from openworkflow.cli.main import cli
from openworkflow.engine.keys import Branch, Keys
from openworkflow.engine.request import Request


@workflow
async def takes_an_order(input: dict[str, Any]) -> None: ...


@workflow
async def takes_one_or_none(input: dict[str, Any] | None) -> None: ...


def test_an_input_that_was_forgotten_is_asked_for() -> None:
    with pytest.raises(InputValidationError, match="'takes-an-order' takes an input, and got none"):
        Request(takes_an_order, {}, 1000).runs([None], [None])
    (run,) = Request(takes_one_or_none, {}, 1000).runs([None], [None])
    assert run.input is None


def test_a_function_in_the_place_of_its_name_is_told() -> None:
    swapped: Any = takes_an_order.fn
    with pytest.raises(ConfigurationError, match=r"name comes first.*step\.run\("):
        Keys().request(swapped, Branch())


@pytest.mark.parametrize("option", ["--url", "--namespace", "--schema"])
def test_an_option_before_its_command_is_sent_to_its_place(option: str) -> None:
    done = CliRunner().invoke(cli, [option, "x", "runs", "list"])
    assert done.exit_code == 2
    assert f"give it after that, as in `openworkflow runs list {option} ...`" in done.output


def test_an_option_that_there_is_not_stays_unknown() -> None:
    done = CliRunner().invoke(cli, ["--urk", "x", "runs", "list"])
    assert "No such option" in done.output
