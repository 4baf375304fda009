"""The testing kit: failures, crashes and stand-ins that a test plans for steps."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import timedelta

import pytest

from openworkflow import (
    ConfigurationError,
    NonRetryableError,
    PoisonPill,
    Rate,
    SerializationError,
    Step,
    SyncStep,
    WorkflowFailed,
    workflow,
)
from openworkflow.testing import Environment


class World:
    """What steps do to it, and how often."""

    def __init__(self) -> None:
        self.charged: list[int] = []
        self.shipped: list[int] = []
        self.refunded: list[str] = []

    async def charge(self, number: int) -> str:
        self.charged.append(number)
        return f"payment-{number}"

    def pay(self, number: int) -> str:
        self.charged.append(number)
        return f"payment-{number}"

    def ship(self, number: int) -> str:
        self.shipped.append(number)
        return f"parcel-{number}"

    def refund(self, payment: str) -> None:
        self.refunded.append(payment)


world = World()


@pytest.fixture(autouse=True)
def new_world() -> None:
    world.__init__()  # type: ignore[misc]


@workflow
async def order(number: int, step: Step) -> str:
    payment = await step.run("charge", world.charge, number)
    return payment + await step.run("ship", world.ship, number)


@workflow
def plain(number: int, step: SyncStep) -> str:
    payment = step.run("charge", world.pay, number)
    return payment + step.run("ship", world.ship, number)


@pytest.mark.parametrize("name", ["charge", "ship"])
@pytest.mark.parametrize("flow", [order, plain], ids=["async", "plain"])
async def test_what_is_stored_when_a_worker_dies_is_not_called_again(
    ow_env: Environment, name: str, flow: object
) -> None:
    ow_env.crash_after(name)
    run = await ow_env.run(flow, 1)  # type: ignore[call-overload]
    assert run.output == "payment-1parcel-1"
    assert (world.charged, world.shipped) == ([1], [1])
    assert (await run.handle.run()).claim_no == 2


@pytest.mark.parametrize("name", ["charge", "ship"])
@pytest.mark.parametrize("flow", [order, plain], ids=["async", "plain"])
async def test_what_was_not_stored_when_a_worker_died_is_called_again(
    ow_env: Environment, name: str, flow: object
) -> None:
    ow_env.crash_in(name, times=2)
    run = await ow_env.run(flow, 1)  # type: ignore[call-overload]
    assert run.output == "payment-1parcel-1"
    assert len(ow_env.calls(name)) == 3
    assert len(world.charged) + len(world.shipped) == 4
    assert (await run.handle.run()).claim_no == 3


async def test_a_failure_waits_for_the_call_of_a_step_at_a_rate(ow_env: Environment) -> None:
    """The step comes to its gate before it has its turn, and again by another claim."""

    @workflow
    async def paying(number: int, step: Step) -> str:
        await step.run("first", world.charge, number, rate="vendor")
        return await step.run("second", world.charge, number, rate="vendor")

    ow = await ow_env.client()
    await ow.limits.set("vendor", rate=Rate(1, per="1m"))
    ow_env.fail("second", ConnectionError(), times=1)
    run = await ow_env.run(paying, 7)

    assert run.step("second").attempts == 2
    assert [(call.step, call.attempt) for call in ow_env.all_calls] == [
        ("first", 1),
        ("second", 1),
        ("second", 2),
    ]


async def test_a_run_that_kills_five_workers_is_a_poison_pill(ow_env: Environment) -> None:
    ow_env.crash_in("charge", times=5)
    with pytest.raises(WorkflowFailed) as failed:
        await ow_env.run(order, 1)
    assert isinstance(failed.value.__cause__, PoisonPill)
    assert len(world.charged) == 5


async def test_a_crash_costs_other_runs_nothing(ow_env: Environment) -> None:
    ow_env.crash_in("charge")
    runs = await asyncio.gather(*(ow_env.run(order, number) for number in range(8)))
    assert [run.output for run in runs] == [f"payment-{n}parcel-{n}" for n in range(8)]
    assert len(world.charged) == 9


async def test_children_survive_a_crash_of_either(ow_env: Environment) -> None:
    @workflow
    async def parent(step: Step) -> list[str]:
        await step.run("before", world.charge, 0)
        return [
            await step.run_workflow("one", order, 1),
            *await step.map("more", order, [2, 3]),
        ]

    ow_env.crash_after("before")
    ow_env.crash_after("ship", times=2)
    run = await ow_env.run(parent)
    assert run.output == ["payment-1parcel-1", "payment-2parcel-2", "payment-3parcel-3"]
    assert sorted(world.shipped) == [1, 2, 3]


async def test_an_undo_is_finished_by_another_worker(ow_env: Environment) -> None:
    @workflow
    async def saga(step: Step) -> None:
        await step.run("charge", world.charge, 1, undo=world.refund)
        raise RuntimeError("changed my mind")

    ow_env.crash_after("charge")
    ow_env.crash_after("undo:charge")
    run = await (await ow_env.start(saga)).end()
    assert run.status == "failed"
    assert world.refunded == ["payment-1"]


@dataclass(frozen=True)
class Receipt:
    number: int


async def receipt(number: int) -> Receipt:
    raise AssertionError("the real one is not for tests")


@workflow
async def typed(number: int, step: Step) -> int:
    first = await step.run("receipt", receipt, number)
    second = await step.run("receipt", receipt, number + 1)
    return first.number * 10 + second.number


async def test_a_stub_is_read_by_the_annotation_of_the_function(ow_env: Environment) -> None:
    ow_env.stub("receipt", Receipt)
    assert (await ow_env.run(typed, 1)).output == 12
    ow_env.stub("receipt", Receipt(4))
    assert (await ow_env.run(typed, 1)).output == 44
    assert [call.step for call in ow_env.calls("receipt")] == ["receipt", "receipt:1"] * 2
    ow_env.stub("receipt", {"numbr": 4})
    with pytest.raises(WorkflowFailed) as failed:
        await ow_env.run(typed, 1)
    assert isinstance(failed.value.__cause__, SerializationError)


async def test_a_stub_may_be_async_and_may_fail(ow_env: Environment) -> None:
    async def slowly(number: int) -> str:
        await asyncio.sleep(0)
        return f"slow-{number}"

    def refuse(number: int) -> str:
        raise ValueError(f"no parcel for {number}")

    ow_env.stub("charge", slowly)
    ow_env.stub("ship", refuse)
    run = await (await ow_env.start(order, 2)).end()
    assert run.step("charge").output == "slow-2"
    assert run.step("ship").attempts == 10
    assert run.error is not None
    assert "no parcel for 2" in run.error.message
    assert (world.charged, world.shipped) == ([], [])


async def test_one_call_of_a_repeated_step_can_be_meant(ow_env: Environment) -> None:
    @workflow
    async def repeats(step: Step) -> list[str]:
        return [await step.run("charge", world.charge, number) for number in range(3)]

    ow_env.stub("charge:1", "stub")
    assert (await ow_env.run(repeats)).output == ["payment-0", "stub", "payment-2"]


async def test_the_items_of_a_map_are_steps_of_its_name(ow_env: Environment) -> None:
    @workflow
    async def maps(step: Step) -> list[str]:
        return await step.map("charges", world.charge, [1, 2, 3])

    ow_env.fail("charges[1]", ConnectionError(), times=2)
    ow_env.stub("charges[2]", "stub")
    run = await ow_env.run(maps)
    assert run.output == ["payment-1", "payment-2", "stub"]
    assert run.step("charges[1]").attempts == 3
    assert len(ow_env.calls("charges")) == 5


async def test_a_map_of_many_in_one_step_cannot_be_stubbed_and_says_so(
    ow_env: Environment,
) -> None:
    @workflow
    def maps(step: SyncStep) -> list[str]:
        return step.map("parcels", world.ship, [1, 2, 3])

    ow_env.stub("parcels", "stub")
    with pytest.raises(WorkflowFailed, match="replace the function of the map instead"):
        await ow_env.run(maps)


async def test_what_was_planned_and_met_no_call_fails_the_test(ow_env: Environment) -> None:
    await ow_env.run(order, 1)
    ow_env.fail("chrage", ValueError())
    with pytest.raises(AssertionError, match=r"'chrage'.* met no step; did you mean 'charge'\?"):
        ow_env.check()
    ow_env._plans._plans.clear()
    ow_env.fail("charge", ValueError(), times=3)
    await ow_env.run(order, 1)
    ow_env.fail("charge", ValueError(), times=2)
    with pytest.raises(AssertionError, match="met no call 2 more times"):
        ow_env.check()
    ow_env._plans._plans.clear()
    for crash in (ow_env.crash_after, ow_env.crash_in):
        ow_env.fail("charge", NonRetryableError())
        crash("charge")
        with contextlib.suppress(WorkflowFailed):
            await ow_env.run(order, 1)
        with pytest.raises(AssertionError, match=r"met no call that returned .* none that raises"):
            ow_env.check()
        ow_env._plans._plans.clear()
    ow_env.stub("shipp", "stub")
    with pytest.raises(AssertionError, match="did you mean 'ship'"):
        ow_env.check()
    ow_env._plans._plans.clear()
    ow_env.stub("something-else", "for other tests of this fixture")


async def test_what_cannot_be_planned_is_refused_at_once(ow_env: Environment) -> None:
    with pytest.raises(ConfigurationError, match="a workflow is no step"):
        ow_env.stub(order, 1)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="a step is given by its name"):
        ow_env.calls(world.charge)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="times is a whole number from 1"):
        ow_env.crash_in("charge", times=0)
    with pytest.raises(ConfigurationError, match="fails with an Exception"):
        ow_env.fail("charge", KeyboardInterrupt)
    with pytest.raises(ConfigurationError, match="time does not pass backwards"):
        await ow_env.skip_to(await ow_env.now() - timedelta(days=1))
    with pytest.raises(ConfigurationError, match=r"env\.sync is for plain tests"):
        _ = ow_env.sync


async def test_what_was_not_awaited_fails_the_test(ow_env: Environment) -> None:
    """It did nothing, and the test passed."""
    ow_env.run(order, 1)  # type: ignore[unused-coroutine]
    run = await ow_env.start(order, 2)
    run.end()  # type: ignore[unused-coroutine]
    with pytest.raises(AssertionError, match=r"env.run\(...\), run.end\(...\) was never awaited"):
        ow_env.check()
    await asyncio.gather(run.end(), ow_env.skip("1d"))
    ow_env.check()


async def test_calls_of_a_step_that_there_is_not_tell_that_where_they_are_shown(
    ow_env: Environment,
) -> None:
    assert ow_env.calls("charge") == []
    await ow_env.run(order, 1)

    with pytest.raises(AssertionError, match=r"no step is called so; did you mean 'charge'\?"):
        assert len(ow_env.calls("chrage")) == 1, ow_env.calls("chrage")
    assert "[<call of charge(" in repr(ow_env.calls("charge"))
    assert ow_env.calls("chrage") == []
