"""Values of the wrong kind are refused where they are given, and in our words: they reach neither
the driver, which would name an argument of our statement, nor code that trips over them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from openworkflow import ConfigurationError, OpenWorkflow, Rate, RunFilter, SyncStep, workflow
from openworkflow.testing import Environment
from openworkflow.worker.options import WorkerOptions

ODD: tuple[Any, ...] = (float("nan"), 10**400, "a\0b", "\ud800", b"x", object(), [], {}, 1j)
NOW = datetime.now(UTC)

CALLS: dict[str, Callable[[OpenWorkflow, Any], Awaitable[Any]]] = {
    "limit of a page": lambda ow, odd: ow.list_runs(limit=odd),
    "limit of a page with a filter": lambda ow, odd: ow.list_runs(where="paused:no", limit=odd),
    "filter": lambda ow, odd: ow.list_runs(odd),
    "limit to pause": lambda ow, odd: ow.limits.pause(odd, "1s"),
    "rate": lambda ow, odd: ow.limits.set("some", None, odd),
    "schedule to look at": lambda ow, odd: ow.schedules.get(odd),
    "schedule to pause": lambda ow, odd: ow.schedules.pause(odd),
    "schedule to resume": lambda ow, odd: ow.schedules.resume(odd),
    "schedule to trigger": lambda ow, odd: ow.schedules.trigger(odd),
    "schedule to delete": lambda ow, odd: ow.schedules.delete(odd),
    "reason": lambda ow, odd: ow.schedules.pause("some", odd),
    "start": lambda ow, odd: ow.schedules.backfill("some", odd, NOW),
    "end": lambda ow, odd: ow.schedules.backfill("some", NOW - timedelta(days=1), odd),
}


@pytest.mark.parametrize("what", CALLS)
async def test_a_call_refuses_values_of_another_kind(ow: OpenWorkflow, what: str) -> None:
    for odd in ODD:
        with pytest.raises(ConfigurationError):
            await CALLS[what](ow, odd)


@pytest.mark.parametrize("field", RunFilter.__dataclass_fields__)
def test_a_filter_refuses_values_of_another_kind(field: str) -> None:
    for odd in ODD:
        with pytest.raises(ConfigurationError, match=field):
            RunFilter(**{field: odd})


def test_a_filter_refuses_a_status_that_there_is_not() -> None:
    with pytest.raises(ConfigurationError, match="status"):
        RunFilter(status="faild")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "option", ["lease", "drain", "rest", "concurrency", "payload_limit", "max_crashes"]
)
def test_a_worker_refuses_values_of_another_kind(option: str) -> None:
    for odd in (*ODD, None, "5", 1.5, True):
        options: Any = {option: odd}
        with pytest.raises(ConfigurationError, match=option):
            WorkerOptions(**options)


async def test_a_rate_is_no_slower_than_its_table_can_hold(ow: OpenWorkflow) -> None:
    with pytest.raises(ConfigurationError, match="rate"):
        await ow.limits.set("some", None, Rate(1, "20000d"))


async def test_a_plain_function_that_returns_a_coroutine_is_no_workflow(
    ow_env: Environment,
) -> None:
    """A lambda around an async function is one: nobody would await what it returns."""

    async def hidden(step: SyncStep) -> None: ...

    made = workflow(name="lambda")(lambda step: hidden(step))
    run = await ow_env.start(made)
    await run.end()

    assert run.error is not None
    assert "make it an async def" in run.error.message
