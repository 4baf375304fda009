"""Recorded runs from a database or from files: what `replay-check` replays and `export` writes."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from openworkflow.backend.backend import BackendPostgres
from openworkflow.backend.records import ClaimedRun, RecordedStep, RunFilter
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.printable import printable_json
from openworkflow.core.recorded import Occurrence
from openworkflow.core.shown import shown
from openworkflow.core.workflow_run import RunStatus, WorkflowRun
from openworkflow.engine.replay import RecordedRun

FORMAT = "openworkflow-history/2"
"""The format of a line of a file; 2 came with the order of completion, and with contexts."""
READABLE = frozenset({FORMAT, "openworkflow-history/1"})
UNFINISHED = (RunStatus.PENDING, RunStatus.RUNNING)
_PAGE = 200


async def recorded(
    backend: BackendPostgres,
    *,
    workflow: str | None,
    statuses: Sequence[RunStatus],
    limit: int,
) -> AsyncIterator[RecordedRun]:
    """The newest runs of each status with their histories, `limit` of each at most; reads only."""
    session = await backend.open_session(connections=1)
    try:
        for status in statuses:
            left, cursor = limit, None
            while left > 0:
                wanted = RunFilter(status=status, workflow_name=workflow)
                page = await backend.list_workflow_runs(wanted, min(left, _PAGE), cursor)
                histories = await session.load_histories([run.id for run in page.runs])
                for run in page.runs:
                    yield _of_run(run, histories[run.id])
                left, cursor = left - len(page.runs), page.next_cursor
                if cursor is None:
                    break
    finally:
        await session.close()


def line_of(recorded: RecordedRun) -> str:
    """The run as a line of JSON. It holds inputs and results as they were stored."""
    run = recorded.run
    return printable_json(
        {
            "format": FORMAT,
            "id": str(run.id),
            "workflow": run.workflow_name,
            "version": run.version,
            "status": recorded.status,
            "build_id": recorded.build_id,
            "input": run.input,
            "attempts": run.attempts,
            "schedule": None if run.occurrence is None else _scheduled(run.occurrence),
            "error_type": recorded.error_type,
            "steps": [_step_fields(step) for step in recorded.steps],
        }
    )


_NO_HISTORY = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What other JSON than a history makes of reading it."""


def read(path: Path) -> Iterator[RecordedRun]:
    """The runs of a file. Raises ConfigurationError, with the line, for one that is none."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield _of_line(json.loads(line))
            except _NO_HISTORY as error:
                raise ConfigurationError(
                    f"{path}, line {number}: this is no history as `openworkflow runs export` "
                    f"writes it ({type(error).__name__}: {error})"
                ) from None


def _of_run(run: WorkflowRun, steps: Sequence[RecordedStep]) -> RecordedRun:
    text = None if run.input is None else json.dumps(run.input, ensure_ascii=False)
    error_type = run.error.get("type") if isinstance(run.error, dict) else None
    occurrence = None
    if run.schedule_name is not None and run.scheduled_for is not None:
        occurrence = Occurrence(run.schedule_name, run.scheduled_for)
    claimed = _claimed(
        run.id, run.workflow_name, run.version, text, occurrence, attempts=run.attempts
    )
    return RecordedRun(claimed, run.status, steps, error_type, run.build_id)


def _of_line(fields: dict[str, Any]) -> RecordedRun:
    if fields["format"] not in READABLE:
        raise ValueError(
            f"the format is {shown(fields['format'])}, this program reads up to {FORMAT!r}"
        )
    scheduled = fields.get("schedule")  # older files have none, and no attempts
    claimed = _claimed(
        *(UUID(fields["id"]), fields["workflow"], fields["version"], fields["input"]),
        None
        if scheduled is None
        else Occurrence(scheduled["name"], datetime.fromisoformat(scheduled["for"])),
        attempts=int(fields.get("attempts", 0)),
    )
    steps = [_step_of(each) for each in fields["steps"]]
    status = RunStatus(fields["status"])
    return RecordedRun(claimed, status, steps, fields["error_type"], fields["build_id"])


def _scheduled(occurrence: Occurrence) -> dict[str, str]:
    return {
        "name": occurrence.schedule_name,
        "for": occurrence.scheduled_for.isoformat(),
    }


def _claimed(
    run_id: UUID,
    workflow: str,
    version: str | None,
    text: str | None,
    occurrence: Occurrence | None,
    *,
    attempts: int,
) -> ClaimedRun:
    """The run as if it were claimed now, without its deadline, which must not end a replay."""
    now = datetime.now(UTC)
    return ClaimedRun(
        id=run_id,
        workflow_name=workflow,
        version=version,
        input=text,
        claim_no=1,
        attempts=attempts,
        crashes=0,
        deadline_at=None,
        due_at=now,
        claimed_at=now,
        recovered=False,
        has_history=True,
        occurrence=occurrence,
    )


def _step_fields(step: RecordedStep) -> dict[str, Any]:
    resume_at = None if step.resume_at is None else step.resume_at.isoformat()
    return step._asdict() | {"id": str(step.id), "resume_at": resume_at}


def _step_of(fields: dict[str, Any]) -> RecordedStep:
    resume_at = fields["resume_at"]
    return RecordedStep(
        **{"context": None}  # format 1 has none, nor what has a default
        | fields
        | {
            "id": UUID(fields["id"]),
            "resume_at": None if resume_at is None else datetime.fromisoformat(resume_at),
        }
    )
