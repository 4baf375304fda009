"""One attempt of a step, while it goes on."""

from time import perf_counter
from uuid import UUID

from openworkflow.core.ids import uuid7
from openworkflow.core.recorded import RecordedStep
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
