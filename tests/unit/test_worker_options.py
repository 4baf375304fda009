"""What a worker is told when it is made, and what it asks the database for in consequence."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from openworkflow import Step, workflow
from openworkflow.backend.records import claim_key
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.registry import Registry
from openworkflow.worker.options import WorkerOptions


@workflow
async def plain() -> None: ...


@workflow(version="2", deadline="90s", build_policy="pinned")
async def urgent(step: Step) -> None: ...


SERVED = Registry([plain, urgent])
PLAIN, URGENT = claim_key("plain", ""), claim_key("urgent", "2")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("concurrency", 0),
        ("max_crashes", 0),
        ("max_step_attempts", -1),
        ("payload_limit", 2**30),
        ("lease", timedelta(milliseconds=999)),
        ("drain", timedelta(days=2)),
        ("rest", timedelta(seconds=-1)),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} .*must be between|{option} must be"):
        WorkerOptions(**{option: value})


def test_a_claim_names_the_workflows_and_the_deadlines_that_they_give_their_runs() -> None:
    request = WorkerOptions().claim_request(SERVED)

    assert ([PLAIN, URGENT], {URGENT: 90.0}) == (request.keys, request.deadlines)
    assert (None, [], 2) == (request.build_id, request.pinned_keys, request.trusted_crashes)


@pytest.mark.parametrize(("policy", "pinned"), [("moving", [URGENT]), ("pinned", [PLAIN, URGENT])])
def test_a_workflows_own_policy_wins_over_the_workers(policy: Any, pinned: list[str]) -> None:
    options = WorkerOptions(build_id="v1", build_policy=policy)

    assert pinned == options.claim_request(SERVED).pinned_keys


def test_a_batch_is_a_quarter_of_many_slots_and_half_of_few() -> None:
    assert [1, 1, 20, 25] == [WorkerOptions(concurrency=n).batch for n in (1, 2, 40, 100)]
