"""What the worker's log says of how runs end."""

from __future__ import annotations

import contextvars
from typing import Any
from uuid import UUID

import pytest

from openworkflow.core.failure import Failure
from openworkflow.engine.outcome import Completed, Failed, Outcome, Rescheduled
from openworkflow.telemetry.metrics import Metrics
from openworkflow.worker.reports import Reports


class Claimed:
    """What a report reads of a claimed run."""

    id = UUID(int=7)
    workflow_name = "ship"
    attempts = 1
    claim_no = 1
    was_limited = False


class Poller:
    """Is told when to look next."""

    def resume_in(self, delay: float) -> None: ...


def failure() -> Failure:
    try:
        raise ValueError("no stock")
    except ValueError as error:
        return Failure.from_exception(error)


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (Failed(failure()), f"run {Claimed.id} of workflow 'ship' failed: ValueError: no stock"),
        (
            Rescheduled(failure(), 4.0),
            f"run {Claimed.id} of workflow 'ship' failed, attempt 2, next in 4.0 s: "
            "ValueError: no stock",
        ),
    ],
)
def test_a_run_that_failed_is_named_with_its_traceback_in_any_format(
    outcome: Outcome, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    poller, run = Poller(), Claimed()
    reporting: Any = Reports(Metrics("default"), poller, "default")  # type: ignore[arg-type]

    reporting.end(run, outcome, 0.1)

    (record,) = caplog.records
    assert said == record.getMessage()
    assert 'raise ValueError("no stock")' in caplog.text


def test_the_ends_of_runs_are_told_where_that_is_asked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    poller, run = Poller(), Claimed()
    for level in ("INFO", "DEBUG"):
        caplog.set_level(level, logger="openworkflow.runs")
        reporting: Any = Reports(Metrics("default"), poller, "default")  # type: ignore[arg-type]
        contextvars.copy_context().run(reporting.begin, run)
        reporting.end(run, Completed(None), 0.25)

    assert [
        f"run {Claimed.id} of workflow 'ship' begins",
        f"run {Claimed.id} of workflow 'ship' succeeded after 0.2 s",
    ] == caplog.messages
