"""What a test plans for steps: which call meets which plan."""

from __future__ import annotations

from uuid import uuid4

import pytest

from openworkflow.testing.plans import Call, Plan, Plans, matches


@pytest.mark.parametrize(
    ("planned", "step", "meets"),
    [
        ("charge", "charge", True),
        ("charge", "charge:1", True),
        ("charge:1", "charge:1", True),
        ("charge:1", "charge", False),
        ("charge:1", "charge:12", False),
        ("charge", "charge-card", False),
        ("charge", "undo:charge", False),
        ("undo:charge", "undo:charge:1", True),
        ("items", "items[0]", True),
        ("items[0]", "items[0]", True),
        ("items[0]", "items[01]", False),
        ("item", "items[0]", False),
    ],
)
def test_a_name_means_its_repetitions_and_items(planned: str, step: str, meets: bool) -> None:
    assert matches(planned, step) is meets


def test_plans_are_met_in_their_order_and_used_up() -> None:
    plans = Plans()
    first, second = ValueError("first"), ValueError("second")
    plans.add(Plan("fail", "charge", 2, error=first))
    plans.add(Plan("fail", "charge", 1, error=second))
    met = [plans.take("charge", "fail") for _ in range(4)]
    assert [plan and plan.error for plan in met] == [first, first, second, None]
    assert plans.unmet() is None


def test_the_newest_stub_counts_for_all_calls() -> None:
    plans = Plans()
    plans.add(Plan("stub", "charge", stand_in=1))
    plans.add(Plan("stub", "charge", stand_in=2))
    met = [plans.take("charge", "stub") for _ in range(3)]
    assert [plan and plan.stand_in for plan in met] == [2, 2, 2]


def test_a_call_reads_as_a_call() -> None:
    call = Call("charge", (7,), {"currency": "EUR"}, uuid4(), 2)
    assert repr(call) == "<call of charge(7, currency='EUR'), attempt 2>"
