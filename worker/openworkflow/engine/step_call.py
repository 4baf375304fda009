"""One attempt of a step, while it goes on."""

from datetime import datetime
from time import perf_counter
from uuid import UUID

from openworkflow.backend.records import StepWrite
from openworkflow.core.ids import uuid7
from openworkflow.core.recorded import ClaimedRun, RecordedStep
from openworkflow.core.step_attempt import StepKind, StepStatus
from openworkflow.engine.journal import Written


class StepCall:
    """An attempt in progress; `announced` once its `running` row was sent, `seconds` at its end."""

    __slots__ = ("announced", "attempt", "context", "id", "key", "kind", "seconds", "started")

    def __init__(
        self, key: str, attempt: int, context: str | None = None, *, row: UUID | None = None
    ) -> None:
        self.id = row or uuid7()
        self.key, self.attempt, self.context = key, attempt, context
        self.kind = StepKind.RUN
        self.started = perf_counter()
        self.seconds = 0.0
        self.announced: Written | None = None


def waiting(
    kind: StepKind, key: str, context: str | None, row: RecordedStep | None = None
) -> StepCall:
    """A wait that begins, or that of this row, which goes on."""
    is_open = row is not None and row.status == StepStatus.RUNNING
    call = StepCall(key, 1, context, row=row.id if row is not None and is_open else None)
    call.kind = kind
    return call


def marked(mark: str, context: str | None) -> str:
    """The JSON of a row's context with a mark that it counts as something else than a failure."""
    return f'{{"{mark}": true}}' if context is None else f'{context[:-1]}, "{mark}": true}}'


def row_of(
    claim: ClaimedRun,
    call: StepCall,
    status: StepStatus,
    *,
    update: bool = False,
    output: str | None = None,
    error: str | None = None,
    context: str | None = None,
    resume_at: datetime | None = None,
    completion_no: int | None = None,
) -> StepWrite:
    """What the database is told of an attempt that takes more than a StepSuccess."""
    return StepWrite(
        id=call.id,
        run_id=claim.id,
        claim_no=claim.claim_no,
        step_name=call.key,
        kind=call.kind,
        status=status,
        attempt=call.attempt,
        output=output,
        error=error,
        context=context or call.context,
        duration=perf_counter() - call.started,
        resume_at=resume_at,
        update=update,
        completion_no=completion_no,
    )
