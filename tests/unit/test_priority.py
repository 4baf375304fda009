"""What a priority may be, of a workflow and of a run, and whose a child has."""

from __future__ import annotations

import re
from typing import Any

import pytest

from openworkflow import Rate, workflow
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.limits import StepRate, step_rate
from openworkflow.core.priority import inherited, run_priority


@pytest.mark.parametrize("value", [-10, 10, 1.0, "1", None, True])
def test_a_workflow_has_a_whole_number_from_minus_nine_to_nine(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="a whole number from -9 to 9"):

        @workflow(priority=value)
        async def flow() -> None: ...


def test_a_workflow_that_says_nothing_has_none_and_may_have_either_end() -> None:
    @workflow
    async def plain() -> None: ...

    @workflow(priority=-9)
    async def last() -> None: ...

    assert (0, -9) == (plain.priority, last.priority)


def test_a_run_has_one_from_nought_to_nine_and_none_is_stored_as_nothing() -> None:
    assert [None, None, 1, 9] == [run_priority(each) for each in (None, 0, 1, 9)]


@pytest.mark.parametrize("value", [10, "1", 1.5, True, -10])
def test_a_run_has_no_other_priority(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="a whole number from 0 to 9"):
        run_priority(value)


def test_a_run_that_is_to_wait_is_told_that_a_workflow_can() -> None:
    with pytest.raises(ConfigurationError, match=re.escape("@workflow(priority=-1)")):
        run_priority(-1)


def test_a_child_has_the_higher_of_its_own_and_its_parent_s_workflow_s() -> None:
    assert [None, 2, 2, 3] == [
        inherited(own, parent) for own, parent in ((None, -3), (None, 2), (1, 2), (3, 2))
    ]


def test_a_rate_of_a_step_is_a_name_or_a_named_rate() -> None:
    assert StepRate("api", None) == step_rate("s", "api")
    told = step_rate("s", Rate(20, per="1m", burst=5, name="api"))
    assert told.rule is not None
    assert ("api", 20, 60.0, 5) == (
        *(told.name, told.rule.rate),
        *(told.rule.rate_seconds, told.rule.burst),
    )
    assert told.rule.workflow_name is None


@pytest.mark.parametrize("given", ["", 5, Rate(20), Rate(20, name="api", key=str)])
def test_no_other_rate_of_a_step_is_taken(given: Any) -> None:
    with pytest.raises(ConfigurationError):
        step_rate("s", given)
