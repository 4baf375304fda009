"""What people see of runs and steps is what is stored, whatever it looks like."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from openworkflow.cli import render
from openworkflow.client import RunDetails
from openworkflow.core.errors import PoisonPill
from openworkflow.core.failure import Failure
from openworkflow.core.step_attempt import StepAttempt, StepKind, StepStatus
from openworkflow.core.workflow_run import RunStatus, WorkflowRun

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ID = UUID(int=1)
ODD = ("no [/etc/passwd]", "[red]stop[/red]", "[/]", "[link=x", ":warning: a\\[b]")
"""Text that a terminal library takes for colors, links or pictures."""

RUN = WorkflowRun(
    id=ID,
    namespace_id="default",
    workflow_name="ship",
    version=None,
    status=RunStatus.SUCCEEDED,
    worker_id=None,
    config={},
    context=None,
    input=None,
    output=None,
    error=None,
    available_at=NOW,
    deadline_at=None,
    created_at=NOW,
    completed_at=NOW,
    started_at=NOW,
)
STEP = StepAttempt(
    id=ID,
    workflow_run_id=ID,
    step_name="charge",
    kind=StepKind.RUN,
    status=StepStatus.FAILED,
    config={},
    context=None,
    output=None,
    error=None,
    created_at=NOW,
    completed_at=NOW,
)


def shown(found: RunDetails, capsys: pytest.CaptureFixture[str]) -> str:
    for part in render.details(found):
        render.console().print(part)
    render.console().print(render.runs_table([found.run]))
    return capsys.readouterr().out


@pytest.mark.parametrize("text", ODD)
def test_text_of_runs_and_steps_is_shown_as_it_is(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = {"type": "builtins:ValueError", "message": text}
    run = replace(RUN, workflow_name=f"w {text}", worker_id=f"on {text}", error=error)
    step = replace(STEP, step_name=f"s {text}", error=error)

    out = shown(RunDetails(run, [step]), capsys)

    for each in (f"w {text}", f"on {text}", f"s {text}", f"ValueError: {text}"):
        assert each in out


def test_the_place_of_an_error_is_shown_for_a_run_that_failed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(KeyError) as raised:
        dict[str, int]()["missing"]
    error = json.loads(Failure.from_exception(raised.value).to_json())
    run = replace(RUN, status=RunStatus.FAILED, error=error)

    assert f'{__file__}", line ' in shown(RunDetails(run, []), capsys)
    ended = replace(run, status=RunStatus.SUCCEEDED, error=None)
    assert __file__ not in shown(RunDetails(ended, []), capsys)


def test_of_a_step_that_failed_the_run_the_line_of_its_function_is_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The run's own traceback ends at the call of the step: what raised was not to be seen."""
    error = {"type": "builtins:ValueError", "message": "no luck", "steps": ["charge"]}
    run = replace(RUN, status=RunStatus.FAILED, error={**error, "traceback": "in the workflow"})
    raised = {**error, "traceback": "in charge, line 7"}
    steps = [
        replace(STEP, error={**error, "traceback": "first try"}),
        replace(STEP, attempt=2, error=raised),
        replace(STEP, attempt=1, error={**error, "traceback": "left behind"}, claim_no=-1),
        replace(STEP, step_name="other", error={**error, "traceback": "was caught"}),
    ]

    out = shown(RunDetails(run, steps), capsys)

    assert out.index("in the workflow") < out.index("step 'charge', attempt 2: in charge, line 7")
    for unwanted in ("first try", "left behind", "was caught"):
        assert unwanted not in out


@pytest.mark.parametrize("steps", [None, "charge", 7, [], [["charge"]], [{}], ["nobody"]])
def test_an_error_that_others_wrote_is_shown_whatever_it_says_of_steps(
    steps: object, capsys: pytest.CaptureFixture[str]
) -> None:
    run = replace(RUN, status=RunStatus.FAILED, error={"message": "odd", "steps": steps})

    assert "odd" in shown(RunDetails(run, [STEP]), capsys)


def test_a_paused_run_is_due_when_it_is_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    never = datetime(9999, 12, 30, tzinfo=UTC)
    run = replace(RUN, status=RunStatus.PENDING, available_at=never, completed_at=None, paused=True)

    assert "when it is resumed" in shown(RunDetails(replace(run, due_at=NOW), []), capsys)
    assert "when it is woken" in shown(RunDetails(replace(run, paused=False), []), capsys)


def test_a_run_that_failed_by_an_error_of_ours_leads_to_what_is_said_about_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours = json.loads(Failure.from_exception(PoisonPill("5 workers died")).to_json())
    theirs = {"type": "builtins:ValueError", "message": "no luck"}

    assert "docs/errors.md#poisonpill" in shown(RunDetails(replace(RUN, error=ours), []), capsys)
    assert "errors.md" not in shown(RunDetails(replace(RUN, error=theirs), []), capsys)


def test_what_the_workflow_has_cancelled_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    """A timer that was not needed any more stood there as failed."""
    canceled = replace(STEP, context={"canceled": True})
    discarded = replace(canceled, claim_no=-1)

    for step, said in ((STEP, "failed"), (canceled, "canceled"), (discarded, "discarded")):
        assert f" {said} " in shown(RunDetails(RUN, [step]), capsys)
