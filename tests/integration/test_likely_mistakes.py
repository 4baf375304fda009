"""Mistakes that newcomers make with workflows: what is answered says what to write instead."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from openworkflow import RetryPolicy, Step, workflow

if TYPE_CHECKING:
    from openworkflow.testing import Environment


@dataclass
class Order:
    number: int


class Declined(Exception):
    def __init__(self, amount: Decimal, order: Order) -> None:
        super().__init__(f"declined: {amount}")
        self.amount, self.order = amount, order


@workflow
async def child(number: int, step: Step) -> int:
    return number


async def add(left: int, right: int) -> int:
    return left + right


async def pages() -> AsyncIterator[int]:
    yield 1


async def _child_as_a_step(step: Step) -> None:
    await step.run("child", child, 1)


async def _half_a_call_for_each_item(step: Step) -> None:
    anything: Any = step
    await anything.map("add", add, [1, 2], right=3)


async def _item_that_is_two_arguments(step: Step) -> None:
    anything: Any = step
    await anything.map("add", add, [(1, 2), (3, 4)])


async def _generator_as_a_step(step: Step) -> None:
    await step.run("pages", pages)


async def _more_than_an_event_holds(step: Step) -> None:
    step.emit("text", "x" * 70_000)


async def _text_for_each_letter(step: Step) -> None:
    anything: Any = step
    await anything.map("add", add, "ab")


async def _rate_as_text(step: Step) -> None:
    await step.run("add", add, 1, 2, rate="10/m")


async def _option_of_temporal(step: Step) -> None:
    anything: Any = step
    await anything.run("add", add, 1, 2, schedule_to_close_timeout="1m")


async def _arguments_as_a_list(step: Step) -> None:
    anything: Any = step
    await anything.run("add", add, args=[1, 2])


async def _activity(step: Step) -> None:
    anything: Any = step
    await anything.execute_activity(add, 1)


async def _sleep_without_a_name(step: Step) -> None:
    anything: Any = step
    await anything.sleep(60)


async def _status_of_a_step_that_was_not_awaited(step: Step) -> None:
    step.set_status(step.run("add", add, 1, 2))


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (_child_as_a_step, "run it as a child, step.run_workflow(name, workflow, input)"),
        (_half_a_call_for_each_item, "functools.partial(function, right=...)"),
        (_item_that_is_two_arguments, "the first is item 0: TypeError: add() missing 1 required"),
        (_generator_as_a_step, "return a list of its values"),
        (_more_than_an_event_holds, "keep the data elsewhere and pass a reference to it"),
        (_text_for_each_letter, "items is a list of them, not 'ab'"),
        (_rate_as_text, "a Rate with a name and without a key, such as Rate(20, per='1m'"),
        (_option_of_temporal, "did you mean 'timeout', the option of step.run?"),
        (_arguments_as_a_list, "the arguments follow the function: step.run(name, function, 1"),
        (_activity, "no attribute 'execute_activity': it is run(\"name\", function, argument)"),
        (_sleep_without_a_name, "missing 1 required positional argument: 'duration'; write step."),
        (_status_of_a_step_that_was_not_awaited, "a call that was not awaited; write `await`"),
    ],
)
async def test_what_cannot_be_a_step_says_what_can(
    ow_env: Environment, function: Any, said: str
) -> None:
    run = await ow_env.start(workflow(name="w")(function))
    await run.end()

    assert run.error is not None
    assert said in run.error.message
    assert "OPENWORKFLOW_PAYLOAD_LIMIT_BYTES" not in run.error.message


async def test_a_client_that_a_workflow_function_calls_is_told_to_be_a_step(
    ow_env: Environment,
) -> None:
    """It was told to connect in each event loop, which a workflow function must not do."""
    ow = await ow_env.client()

    @workflow
    async def parent(step: Step) -> None:
        await ow.run_workflow(child, 1)

    run = await ow_env.start(parent)
    await run.end()

    assert run.error is not None
    assert "step.run_workflow and step.start_workflow start other runs" in run.error.message


async def test_an_input_that_does_not_fit_is_called_the_input(ow_env: Environment) -> None:
    """Started by name, it was "a stored value", and its annotation had changed, perhaps."""

    @workflow
    async def ship(order: Order, step: Step) -> None: ...

    ow = await ow_env.client()
    started = await ow.run_workflow("ship", {"number": "one"})
    await ow_env.serve(ship)
    run: Any = await ow_env.find(started.id)
    await run.end()

    assert run.error is not None
    assert "the input of the run does not fit" in run.error.message
    assert "start one with another input" in run.error.message


async def test_a_sleep_whose_run_ended_meanwhile_blames_no_worker(ow_env: Environment) -> None:
    async def free(_: int) -> None: ...

    @workflow
    async def nap(step: Step) -> None:
        await step.run("seat", add, 1, 2, undo=free)
        await step.sleep("nap", "10d")

    run = await ow_env.start(nap)
    await ow_env.settle()
    await run.cancel()
    await run.end()

    error = run.step("nap").error
    assert error is not None
    assert "the attempt was cut short: the run ended" == error.message


async def test_an_error_of_a_step_that_was_not_awaited_names_it(ow_env: Environment) -> None:
    @workflow
    async def compares(step: Step) -> bool:
        anything: Any = step
        return bool(anything.run("total", add, 1, 2) > 0)

    run = await ow_env.start(compares)
    await run.end()

    assert run.error is not None
    assert "'total' never ran: write `await` before the call" in run.error.traceback


async def test_an_error_keeps_its_amount_through_a_replay(ow_env: Environment) -> None:
    async def charge(order: Order) -> None:
        raise Declined(Decimal("9.90"), order)

    @workflow
    async def pay(order: Order, step: Step) -> list[str]:
        try:
            await step.run("charge", charge, order, retry=RetryPolicy(max_attempts=1))
        except Declined as error:
            told = [f"{error.amount} {error.order.number}"]
            await step.sleep("a-day", "1d")
            await step.run("tell", add, 1, 2)
            return told
        raise AssertionError

    ow_env.crash_after("tell")
    assert (await ow_env.run(pay, Order(7))).output == ["9.90 7"]
    assert len(ow_env.calls("charge")) == 1
