"""How workflows are tested: each test has a real engine, and months pass at once.

pip install pytest pytest-asyncio 'openworkflow-fleet[dev]'
pytest -o asyncio_mode=auto examples/test_subscription.py
"""

from datetime import timedelta

import pytest
from subscription import CardDeclined, Trial, subscription

from openworkflow import SignalTimeout
from openworkflow.testing import Environment, FakeStep

ADA = Trial("ada", 9)


async def test_the_trial_is_free(ow_env: Environment) -> None:
    run = await ow_env.start(subscription, ADA)
    await ow_env.skip("13d")
    assert ow_env.calls("charge") == []
    await ow_env.skip("1d")
    assert len(ow_env.calls("charge")) == 1
    assert run.status == "pending"


async def test_a_year_is_charged_month_by_month(ow_env: Environment) -> None:
    run = await ow_env.start(subscription, ADA)
    await ow_env.skip(timedelta(days=14 + 11 * 30 + 1))
    await run.signal("cancel")
    assert await run.result() == "ended after 12 months: canceled"
    assert len(ow_env.calls("charge")) == 12


async def test_a_bank_that_is_down_is_asked_again(ow_env: Environment) -> None:
    ow_env.fail("charge", ConnectionError("bank is down"), times=3)
    ow_env.fail("charge:1", CardDeclined())
    run = await ow_env.run(subscription, ADA)
    assert run.output == "ended after 1 months: declined"
    assert run.step("charge").attempts == 4
    assert [call.args for call in ow_env.calls("sorry")] == [("ada", "declined")]


async def test_a_crash_after_the_charge_charges_nobody_twice(ow_env: Environment) -> None:
    ow_env.crash_after("charge")
    ow_env.fail("charge:1", CardDeclined())
    run = await ow_env.run(subscription, ADA)
    assert run.output == "ended after 1 months: declined"
    assert [call.step for call in ow_env.calls("charge")] == ["charge", "charge:1"]


async def test_the_payment_provider_can_be_replaced(ow_env: Environment) -> None:
    asked = []

    def provider(trial: Trial) -> str:
        asked.append(trial.price)
        if len(asked) == 3:
            raise CardDeclined
        return "payment"

    ow_env.stub("charge", provider)
    run = await ow_env.run(subscription, ADA)
    assert run.output == "ended after 2 months: declined"
    assert asked == [9, 9, 9]


def test_a_plain_test_waits_by_itself(ow_env: Environment) -> None:
    ow_env.stub("charge", CardDeclined("no"))
    assert ow_env.sync.run(subscription, ADA).output == "ended after 0 months: declined"


async def test_the_function_alone_needs_no_database() -> None:
    step = FakeStep(results={"charge": "payment"}, signals={"cancel": [None]})
    assert await subscription(ADA, step) == "ended after 1 months: canceled"
    assert step.slept == [("trial", timedelta(days=14))]
    with pytest.raises(SignalTimeout):
        await step.wait_for_signal("cancel", timeout="30d")
