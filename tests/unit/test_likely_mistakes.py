"""Mistakes of the first hour are answered with what was meant."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner

from openworkflow import (
    ConfigurationError,
    Cron,
    Debounce,
    InputValidationError,
    Limit,
    Rate,
    RetryPolicy,
    Unique,
    step,
    workflow,
)
from openworkflow.cli.main import cli
from openworkflow.client.schedules import ScheduleClient
from openworkflow.codecs.payloads import Payloads
from openworkflow.engine.forking import _check
from openworkflow.engine.history import History
from openworkflow.engine.keys import Branch, Keys
from openworkflow.engine.outgoing import outgoing
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


def test_a_workflow_in_the_place_of_its_name_is_told() -> None:
    swapped: Any = takes_an_order
    with pytest.raises(ConfigurationError, match=r'step\.run_workflow\("name", workflow, input\)'):
        Keys().request(swapped, Branch())


def test_no_function_is_both_a_workflow_and_a_step() -> None:
    async def charge(order: int) -> None: ...

    with pytest.raises(ConfigurationError, match="is a step already, and no function is both"):
        workflow(step(charge))
    with pytest.raises(ConfigurationError, match=r"take @step off it.*step\.run_workflow"):
        step(workflow(charge))


def test_a_class_is_no_step() -> None:
    class Charge: ...

    with pytest.raises(ConfigurationError, match="a step must be a function, not <class"):
        step(Charge)


def test_a_rate_that_is_text_is_shown_whole() -> None:
    text: Any = "10/s"
    with pytest.raises(ConfigurationError, match=r"limits are a list of them.*not '10/s'"):
        workflow(rate=text)(takes_an_order.fn)


async def test_the_input_of_a_schedule_is_asked_for_where_it_belongs() -> None:
    schedules = ScheduleClient.__new__(ScheduleClient)
    schedules._payloads = Payloads((), "default", 1000)
    for cron in ("0 3 * * *", Cron("0 3 * * *")):
        with pytest.raises(
            InputValidationError, match=r"its schedule has none: Cron\(\.\.\., input="
        ):
            await schedules._wish("nightly", takes_an_order, cron, None)
    wish = await schedules._wish("nightly", takes_one_or_none, "0 3 * * *", None)
    assert wish.input is None


def test_a_run_that_has_recorded_nothing_is_not_forked_from_a_step() -> None:
    with pytest.raises(ConfigurationError, match=r"no step 'x'.*no result of a step so far"):
        _check("x", History(()))


def test_a_signal_whose_name_comes_before_its_run_is_told() -> None:
    run_id = UUID("01a2202f-1821-786a-8d1c-96541ef8d394")
    with pytest.raises(ConfigurationError, match=r"signal\(run_id, 'approve', value\)"):
        outgoing("approve", (run_id,), limit=1000)


@pytest.mark.parametrize("option", ["--url", "--namespace", "--schema"])
def test_an_option_of_an_empty_variable_is_no_default(
    option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@localhost:1/none")
    done = CliRunner().invoke(cli, ["runs", "cancel", "--where", "status:pending", option, ""])
    assert done.exit_code == 1
    assert f"{option} is empty: give it a value, or leave it out" in str(done.exception)


MODULE = """
from openworkflow import Step, workflow

@workflow
async def ship(input: int) -> None: ...

@workflow(name="likely_shop.pack")
async def pack(step: Step) -> None: ...
"""


def test_an_input_for_the_command_line_is_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "likely_shop.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@localhost:1/none")

    done = CliRunner().invoke(cli, ["run", "ship", "5"])
    assert "extra argument (5); the input is an option: --input" in done.output

    for arguments, words in (
        (["likely_shop:ship"], "takes an input, and got none: give it as --input JSON"),
        (["likely_shop.ship"], "a workflow of a module is written likely_shop:ship"),
        (["likely_shop.pack"], "refused the connection"),  # the workflow's own name
    ):
        done = CliRunner().invoke(cli, ["run", *arguments])
        assert words in str(done.exception)


def test_a_result_that_is_no_json_is_asked_for_in_its_form() -> None:
    run_id = "01a2202f-1821-786a-8d1c-96541ef8d394"
    done = CliRunner().invoke(cli, ["runs", "fork", run_id, "--result", "bank=ok"])
    assert """--result 'bank={"id": 1}'""" in done.output


@pytest.mark.parametrize(
    ("make", "meant"),
    [
        (lambda: RetryPolicy(max_retries=3), "RetryPolicy() has no option 'max_retries'; did"),  # type: ignore[call-arg]
        (lambda: RetryPolicy(max_atempts=3), "did you mean 'max_attempts'?"),  # type: ignore[call-arg]
        (lambda: RetryPolicy(backoff_coefficient=2), "did you mean 'factor'?"),  # type: ignore[call-arg]
        (lambda: Cron("@daily", timezone="UTC"), "did you mean 'tz'?"),  # type: ignore[call-arg]
        (lambda: Limit(max=3), "did you mean 'slots'?"),  # type: ignore[call-arg]
        (lambda: Rate(limit=3), "did you mean 'count'?"),  # type: ignore[call-arg]
        (lambda: Unique("k", policy="reject"), "did you mean 'on_conflict'?"),  # type: ignore[call-arg]
        (lambda: Debounce("k", period="1m"), "did you mean 'delay'?"),  # type: ignore[call-arg]
        (lambda: Limit(3, colour="red"), "there are slots, key, name"),  # type: ignore[call-arg]
        (lambda: workflow(max_retries=3), "workflow() has no option 'max_retries'; did"),  # type: ignore[call-overload]
        (lambda: workflow(cron="@daily"), "did you mean 'schedule'?"),  # type: ignore[call-overload]
        (lambda: workflow(timeout="1h"), "did you mean 'deadline'?"),  # type: ignore[call-overload]
        (lambda: step(max_retries=3), "did you mean 'retry'?"),  # type: ignore[call-overload]
        (lambda: step(start_to_close_timeout="1m"), "did you mean 'timeout'?"),  # type: ignore[call-overload]
        (lambda: step(rate_limit="10/m"), "did you mean 'rate'?"),  # type: ignore[call-overload]
    ],
)
def test_a_keyword_of_another_program_is_answered_with_ours(
    make: Callable[[], object], meant: str
) -> None:
    with pytest.raises(TypeError) as raised:
        make()
    assert meant in str(raised.value)


def test_a_policy_is_what_it_was_for_whoever_looks_into_it() -> None:
    made = RetryPolicy(3, initial="1s")
    assert (made.max_attempts, replace(made, factor=3).factor) == (3, 3)
    assert list(inspect.signature(RetryPolicy).parameters)[:2] == ["max_attempts", "initial"]
    assert pickle.loads(pickle.dumps(made)) == made
