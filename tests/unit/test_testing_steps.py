"""The order in which a test is told the steps of a run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from openworkflow.core.ids import uuid7
from openworkflow.core.step_attempt import StepAttempt, StepKind, StepStatus
from openworkflow.testing.runs import steps_of

COMMITTED = datetime(2026, 1, 1, tzinfo=UTC)


def recorded(name: str, kind: StepKind, microseconds: int) -> StepAttempt:
    """The row of what took so long, as one commit made them all."""
    return StepAttempt(
        id=uuid7(),
        workflow_run_id=uuid7(),
        step_name=name,
        kind=kind,
        status=StepStatus.SUCCEEDED,
        config=None,
        context=None,
        output=None,
        error=None,
        created_at=COMMITTED - timedelta(microseconds=microseconds),
        completed_at=COMMITTED,
    )


def test_steps_come_in_the_order_in_which_they_began() -> None:
    """Whatever their durations say of two that one commit recorded."""
    ask = recorded("ask", StepKind.RUN, 20)
    approval = recorded("approval", StepKind.SIGNAL, 50)

    assert [step.name for step in steps_of([approval, ask])] == ["ask", "approval"]
