"""Runs, steps and schedules as a client shows them: with plain values, as far as it can read them.

What it cannot read stays in its envelope: one value keeps nobody from looking at the others.
"""

import json
from collections.abc import Sequence
from dataclasses import replace

from openworkflow.backend.backend import NewRun, Page
from openworkflow.codecs.payloads import Payloads
from openworkflow.core.envelope import envelope_of, read_envelope
from openworkflow.core.progress import RunEvent, RunProgress
from openworkflow.core.schedule import NewSchedule, Schedule
from openworkflow.core.step_attempt import StepAttempt
from openworkflow.core.workflow_run import WorkflowRun


async def sealed_runs(payloads: Payloads, runs: Sequence[NewRun]) -> Sequence[NewRun]:
    """Runs that are to be started. Raises PayloadTooLarge and CodecError."""
    if not payloads.seals:
        return runs
    return [
        run._replace(input=await payloads.seal(run.input, "input", run.workflow_name))
        for run in runs
    ]


async def sealed_schedule(payloads: Payloads, wish: NewSchedule) -> NewSchedule:
    """A schedule that is to be stored. Raises PayloadTooLarge and CodecError."""
    return replace(wish, input=await payloads.seal(wish.input, "input", wish.workflow_name))


async def plain_run(payloads: Payloads, run: WorkflowRun) -> WorkflowRun:
    """A run."""
    given = await payloads.readable(run.input, "input", run.workflow_name)
    output = await payloads.readable(run.output, "result")
    if given is run.input and output is run.output:
        return run
    return replace(run, input=given, output=output)


async def plain_page(payloads: Payloads, page: Page) -> Page:
    """A page of runs."""
    return Page([await plain_run(payloads, run) for run in page.runs], page.next_cursor)


async def plain_steps(payloads: Payloads, steps: Sequence[StepAttempt]) -> list[StepAttempt]:
    """Step attempts."""
    found = []
    for step in steps:
        output = await payloads.readable(step.output, "step", step.step_name)
        found.append(step if output is step.output else replace(step, output=output))
    return found


async def plain_progress(payloads: Payloads, told: RunProgress) -> RunProgress:
    """What a run says of itself."""
    status = await payloads.readable(told.status, "status")
    return told if status is told.status else replace(told, status=status)


async def plain_event(payloads: Payloads, event: RunEvent) -> RunEvent:
    """An event."""
    value = await payloads.readable(event.value, "event", event.topic)
    return event if value is event.value else replace(event, value=value)


async def opened_event(payloads: Payloads, event: RunEvent) -> RunEvent:
    """An event, for a program that follows them. Raises PayloadUnreadable."""
    if (envelope := envelope_of(event.value)) is None:
        return event
    text = await payloads.open(envelope.text(), "event", event.topic)
    return replace(event, value=None if text is None else json.loads(text))


async def plain_schedule(payloads: Payloads, schedule: Schedule) -> Schedule:
    """A schedule, whose input is JSON text."""
    if schedule.input is None or read_envelope(schedule.input) is None:
        return schedule
    stored = json.loads(schedule.input)
    plain = await payloads.readable(stored, "input", schedule.workflow_name)
    return schedule if plain is stored else replace(schedule, input=json.dumps(plain))
