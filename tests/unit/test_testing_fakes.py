"""FakeStep: a workflow function called without an engine."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from openworkflow import (
    ChildFailed,
    ConfigurationError,
    MapFailed,
    SignalTimeout,
    Step,
    SyncStep,
    current_step,
    step,
    workflow,
)
from openworkflow.testing import ContinuedAsNew, FakeStep, FakeSyncStep


async def charge(number: int) -> str:
    return f"payment-{number}"


def ship(number: int) -> str:
    return f"parcel-{number}"


@step
def pack(number: int) -> str:
    return f"packed-{number}"


@step(name="who")
async def who() -> tuple[str, str, int]:
    me = current_step()
    me.emit("who", me.name)
    me.set_status(me.key.startswith(str(me.run_id)))
    return me.name, await charge(1), me.attempt


@workflow
async def order(number: int, step: Step) -> str:
    payment = await step.run("charge", charge, number, retry=None, timeout="1s")
    await step.sleep("a-month", "30d")
    return f"{payment}, {await step.run('ship', ship, number)}, {await pack(number)}"


@workflow
def plain(number: int, step: SyncStep) -> str:
    payment = step.run("charge", charge, number)
    step.sleep("a-month", "30d")
    return f"{payment}, {step.run('ship', ship, number)}, {pack(number)}"


@pytest.mark.parametrize(
    ("fake", "real"), [(FakeStep, Step), (FakeSyncStep, SyncStep)], ids=["async", "plain"]
)
def test_a_fake_has_all_that_a_step_has(fake: type, real: type) -> None:
    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    given = set(vars(fake()))
    assert public(real) <= public(fake) | given
    for name in public(real) & public(fake):
        if callable(getattr(real, name)):
            assert inspect.iscoroutinefunction(getattr(fake, name)) == (
                fake is FakeStep and name not in ("emit", "set_status", "tag")
            )


async def test_functions_are_called_and_sleeps_are_not_slept() -> None:
    fake = FakeStep()
    assert await order(7, fake) == "payment-7, parcel-7, packed-7"
    assert [call.step for call in fake.all_calls] == ["charge", "ship", "pack"]
    assert fake.calls("ship")[0].args == (7,)
    assert fake.calls(pack)[0].args == (7,)
    assert fake.slept == [("a-month", timedelta(days=30))]


def test_a_plain_workflow_takes_the_plain_fake() -> None:
    fake = FakeSyncStep(results={"ship": "mine"})
    assert plain(7, fake) == "payment-7, mine, packed-7"
    with pytest.raises(ConfigurationError, match="use FakeSyncStep"):
        plain(7, FakeStep())
    with pytest.raises(ConfigurationError, match="use FakeStep"):
        order(7, FakeSyncStep())


async def test_results_are_values_functions_and_errors() -> None:
    fake = FakeStep(results={"charge": lambda n: n * 2, "ship": "x", "pack": ValueError("no")})
    with pytest.raises(ValueError, match="no"):
        await order(3, fake)
    assert await order(3, FakeStep(results={"charge": 6, "pack": None})) == "6, parcel-3, None"


async def test_a_workflow_without_step_calls_its_steps() -> None:
    @workflow
    async def bare(step: Step) -> Any:
        return await who()

    fake = FakeStep()
    assert await bare(fake) == ("who", "payment-1", 1)
    assert (fake.emitted, fake.status) == ([("who", "who")], True)
    with pytest.raises(ConfigurationError, match="current_step"):
        await who()


async def test_signals_are_taken_in_turn_and_then_time_is_over() -> None:
    fake = FakeStep(signals={"go": [1, 2], "stop": True})
    assert [await fake.wait_for_signal("go", type=int) for _ in range(2)] == [1, 2]
    assert await fake.wait_for_signal("stop", timeout="1d") is True
    assert await fake.wait_for_signal("go", default="none") == "none"
    with pytest.raises(SignalTimeout):
        await fake.wait_for_signal("go", timeout="1d")
    with pytest.raises(AssertionError, match=r"signals=\{'go': ...\}"):
        await fake.wait_for_signal("go")


async def test_children_are_called_and_fail_as_children_do() -> None:
    @workflow
    async def family(step: Step) -> list[Any]:
        handle = await step.start_workflow("second", plain, 2)
        await handle.signal("hello", 1)
        return [await step.run_workflow("first", order, 1), await handle.result()]

    fake = FakeStep(results={"ship": "p"})
    assert await family(fake) == ["payment-1, p, packed-1", "payment-2, p, packed-2"]
    assert [call.step for call in fake.calls("charge")] == ["charge", "charge:1"]
    assert fake.sent[0][1:] == ("hello", 1)
    with pytest.raises(ChildFailed, match="ValueError: broken"):
        await family(FakeStep(results={"ship": ValueError("broken")}))
    assert await family(FakeStep(results={"first": 1, "second": 2})) == [1, 2]
    with pytest.raises(AssertionError, match=r"results=\{'far': ...\}"):
        await fake.run_workflow("far", "by-name")


async def test_a_map_goes_over_functions_and_workflows() -> None:
    fake = FakeStep(results={"ship": "p", "some[1]": ValueError("one")})
    assert await fake.map("all", charge, [1, 2]) == ["payment-1", "payment-2"]
    assert (await fake.map("orders", order, [1]))[0].startswith("payment-1, p")
    tolerant = await fake.map("some", charge, [1, 2], tolerate_failures=1)
    assert tolerant[0] == "payment-1"
    assert isinstance(tolerant[1], ValueError)
    with pytest.raises(MapFailed):
        await FakeStep(results={"some[1]": ValueError("one")}).map("some", charge, [1, 2])
    assert FakeSyncStep().map("all", ship, [1], key=lambda n: f"k{n}") == ["parcel-1"]


async def test_what_a_workflow_tells_is_kept() -> None:
    fake = FakeStep(patched=False, attempt=2, scheduled_for=datetime(2026, 1, 1, tzinfo=UTC))
    fake.tag(customer="ada")
    fake.emit("progress", 1)
    fake.set_status("half")
    assert (fake.tags, fake.emitted, fake.status) == (
        {"customer": "ada"},
        [("progress", 1)],
        "half",
    )
    assert not await fake.patched("new")
    assert (fake.attempt, fake.key) == (2, str(fake.run_id))
    with pytest.raises(ContinuedAsNew) as again:
        await fake.continue_as_new(5)
    assert again.value.input == 5


async def test_a_call_without_a_fake_is_the_plain_function() -> None:
    @workflow
    async def double(number: int) -> int:
        return 2 * number

    assert await double(4) == 8


async def test_a_result_for_a_step_that_is_nearly_called_so_is_a_mistake() -> None:
    with pytest.raises(AssertionError, match="'chrage', did you mean 'charge'"):
        await order(1, FakeStep(results={"chrage": "paid"}))
    with pytest.raises(AssertionError, match="'chrage', did you mean 'charge'"):
        plain(1, FakeSyncStep(results={"chrage": "paid"}))
    # One that is not called at all may be there for another path, as one that has another number.
    fake = FakeStep(results={"refund": "paid", "ship-2": "parcel"})
    assert await order(1, fake) == "payment-1, parcel-1, packed-1"


async def test_a_result_that_was_not_asked_for_is_told_with_the_error_it_led_to() -> None:
    def refund() -> None:
        raise ConnectionError("a test has no vendor")

    @workflow
    async def asks(step: Step) -> None:
        await step.run("refund", refund)

    with pytest.raises(ConnectionError) as caught:
        await asks(FakeStep(results={"refnd": "done"}))

    assert ["results= has what no step is called: 'refnd', did you mean 'refund'?"] == (
        caught.value.__notes__
    )


async def test_calls_of_a_name_that_no_step_has_say_so() -> None:
    fake = FakeStep()
    await order(1, fake)

    assert [] == fake.calls("chrage")
    assert "no step is called so; did you mean 'charge'?" in repr(fake.calls("chrage"))
    assert "came to these: charge, a-month, ship, pack" in repr(fake.calls("x"))
    assert "call of charge(1)" in repr(fake.calls("charge"))
