"""A run: why it is not done, its timeline, and what went in and came out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

from openworkflow.backend.board import SHOWN, StepRow
from openworkflow.backend.rows import as_json
from openworkflow.client import OpenWorkflow
from openworkflow.core.envelope import described, described_start
from openworkflow.core.failure import Failure
from openworkflow.core.workflow_run import RunStatus
from openworkflow.web.site import Place, Site
from openworkflow.web.timeline import status_told, timeline
from openworkflow.web.words import SHOWN as SHOWN_INPUT
from openworkflow.web.words import short, value

STEPS = 200
CHILDREN = 20
CAUSES = 8


async def load(place: Place, asked: Mapping[str, str]) -> dict[str, Any]:
    """See Load. Raises RunNotFound."""
    run_id, before = UUID(asked["run_id"]), asked.get("before") or None
    run = await place.ow.get_workflow_run(run_id)
    rows, more = await place.backend.board.steps(run_id, STEPS, before)
    steps = [await plain_step(place.ow, row) for row in rows]
    now, shown = await place.backend.now(), place.site.shown
    before_redaction = editable(run.input)  # which may change it in its place
    seen = shown("input", run.input)
    told, explanation = await place.ow.progress(run_id), await place.ow.explain(run_id)
    if explanation.status != run.status:  # it has moved meanwhile, and a page is of one moment
        run = await place.ow.get_workflow_run(run_id)
    is_parent = any(step.kind in ("child", "child-start", "map") for step in steps)
    return {
        "title": f"{short(run.workflow_name, 40)} …{str(run.id)[-4:]} · {place.namespace}",
        "run": run,
        "ended": run.status.finished,
        "is_final": run.status is RunStatus.SUCCEEDED,  # whatever else it is, it may be retried
        "now": now,
        "explanation": explanation,
        "timeline": timeline(steps, now, run.completed_at),
        "status_told": status_told,
        "more": more,
        "before": before,
        "children": await place.backend.board.children(run_id, CHILDREN) if is_parent else [],
        "failures": failures(shown("error", run.error)) if run.error is not None else [],
        "input": seen,
        "output": shown("output", run.output),
        "says": shown("status", told.status),
        "events": told.events,
        "step_shown": shown,
        "child_of": child_of,
        "result_of": partial(result_of, place.site),
        "sentence": str(shown("explanation", explanation.sentence)),
        **changeable(before_redaction, seen),
        "can": actions(run.status, bool(run.pause)),
        "signals": sorted(set(_signals(steps))),
    }


def changeable(text: str, seen: Any) -> dict[str, str]:
    """The text of an input in a form, to be changed; or why it is not there.

    What is hidden of it would go into another run as it is written in its place.
    """
    if described(seen):
        return {"input_text": "", "input_note": "As it is: encoded, but another may be written"}
    if text and editable(seen) != text:
        hidden = "As it is: not all of it may be seen, but another may be written"
        return {"input_text": "", "input_note": hidden}
    long = "As it is: too long to be changed here, but another may be written"
    return {"input_text": text, "input_note": "As it is" if text else long}


def editable(given: Any) -> str:
    """An input as it is put into a form, to be changed; nothing if that is too long to be read."""
    text = json.dumps(given, ensure_ascii=False, indent=2)
    return text if len(text) <= SHOWN_INPUT else ""


def failures(error: Any) -> list[Failure]:
    """An error and its causes."""
    found: list[Failure] = []
    failure: Failure | None = Failure.from_object(error)
    while failure is not None and len(found) < CAUSES:
        found.append(failure)
        failure = failure.cause
    return found


def actions(status: RunStatus, is_paused: bool) -> frozenset[str]:
    """What can be done with a run as it is."""
    if status.finished:
        again = {"retry"} if status in (RunStatus.FAILED, RunStatus.CANCELED) else set()
        return frozenset(again | {"fork"})
    return frozenset({"cancel", "signal", "fork", "resume" if is_paused else "pause"})


def child_of(step: StepRow) -> UUID | str:
    """The run that a step starts or waits for."""
    named = step.context.get("child") if isinstance(step.context, dict) else None
    return named if isinstance(named, str) else step.id


async def plain_step(ow: OpenWorkflow, step: StepRow) -> StepRow:
    """A step whose result is read, or said to be what it is."""
    if step.output is None or (told := described_start(step.output)) is None:
        return step
    if step.output_length == len(step.output):
        found = await ow._payloads.readable(as_json(step.output), "step", step.step_name)
        told = described(found) or json.dumps(found, ensure_ascii=False)
    else:
        told = f"{told}, {step.output_length:,} characters"
    return replace(step, output=told[:SHOWN], output_length=len(told))


def result_of(site: Site, step: StepRow) -> str:
    """What a step returned, as far as it was read."""
    text, left = step.output or "", (step.output_length or 0) - len(step.output or "")
    if site.redact is None:
        return f"{text}\n… {left:,} more characters" if left > 0 else text
    return (
        "(too long to be redacted here)" if left > 0 else value(site.shown("result", as_json(text)))
    )


def _signals(steps: Sequence[StepRow]) -> list[str]:
    """The names of signals that it waits for."""
    return [step.step_name for step in steps if step.kind == "signal" and step.status == "running"]
