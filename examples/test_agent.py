"""What the agent promises: nothing is paid for twice, and nobody is refunded unasked.

pip install pytest pytest-asyncio 'openworkflow-fleet[dev]'
pytest -o asyncio_mode=auto examples/test_agent.py
"""

import pytest
from agent import Decision, support

from openworkflow.testing import Environment

QUESTION = "My lamp came broken."
YES = Decision("ann", granted=True)


async def test_a_refund_that_is_approved_is_made(ow_env: Environment) -> None:
    run = await ow_env.start(support, QUESTION)
    await run.signal("approve-c2", YES)
    assert await run.result() == "About your order: 80 were refunded."
    assert len(ow_env.calls("model")) == 3


@pytest.mark.parametrize("step", ["model", "model:1", "look_up-c1", "refund-c2"])
async def test_a_crash_pays_for_no_call_twice(ow_env: Environment, step: str) -> None:
    ow_env.crash_after(step)
    run = await ow_env.start(support, QUESTION)
    await run.signal("approve-c2", YES)
    assert await run.result() == "About your order: 80 were refunded."
    assert len(ow_env.calls("model")) == 3
    assert len(ow_env.calls("refund-c2")) == 1


async def test_a_model_that_is_overloaded_is_asked_again(ow_env: Environment) -> None:
    ow_env.fail("model", ConnectionError("overloaded"), times=4)
    run = await ow_env.start(support, QUESTION)
    await run.signal("approve-c2", YES)
    assert await run.result() == "About your order: 80 were refunded."
    assert run.step("model").attempts == 5


async def test_a_refusal_is_told_to_the_model(ow_env: Environment) -> None:
    run = await ow_env.start(support, QUESTION)
    await run.signal("approve-c2", Decision("bob", granted=False))
    assert await run.result() == "About your order: refund was refused by bob."
    assert ow_env.calls("refund-c2") == []


async def test_after_a_day_without_an_answer_nothing_is_refunded(ow_env: Environment) -> None:
    run = await ow_env.start(support, QUESTION)
    await ow_env.skip("23h")
    assert run.status == "pending"
    assert await run.result() == "About your order: refund was refused by nobody, for a day."
    assert ow_env.calls("refund-c2") == []
