"""What all operations of a run have in common: asked for, performed or replayed, delivered.

The workflow function asks, and waits for `future`. If history has the end of the operation, that is
delivered when its turn comes. Otherwise `perform` runs on the worker's own loop, records what
happened, and settles the operation; the execution then delivers that.
"""

import asyncio
from collections.abc import Generator
from contextvars import Context
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from openworkflow.core.recorded import RecordedStep
from openworkflow.core.shown import shown
from openworkflow.core.step_attempt import StepKind, StepStatus
from openworkflow.engine.journal import Written
from openworkflow.engine.recorded import Recorded
from openworkflow.engine.step_call import StepCall

if TYPE_CHECKING:
    from openworkflow.engine.execution import Execution

_FIRST, _LAST = (each.replace(tzinfo=UTC) for each in (datetime.min, datetime.max))
FOR_OTHERS = frozenset({StepKind.SIGNAL, StepKind.CHILD, StepKind.MAP})
"""Steps that wait for what others do."""


class Reply(Protocol):
    """A future that the asking code waits for: of its loop, or of another thread."""

    def done(self) -> bool:
        """Whether it has a result, or was cancelled."""

    def set_result(self, result: Any, /) -> None:
        """Resolve it."""

    def set_exception(self, exception: Any, /) -> None:
        """Resolve it with an error."""


class Operation:
    """One operation of a run; its subclasses are the kinds of steps."""

    __slots__ = (
        "after",
        "answer",
        "context",
        "environment",
        "execution",
        "future",
        "key",
        "name",
        "path",
        "recorded",
        "task",
        "until",
    )

    kind: ClassVar[StepKind]

    def __init__(self, execution: "Execution", name: str) -> None:
        self.execution, self.name = execution, name
        self.key = name
        """What its rows are called; the execution gives it once the function asks."""
        self.path = ""
        """The branch that asked."""
        self.context: str | None = None
        """JSON text that tells its rows from those of other calls of the name."""
        self.environment: Context | None = None
        """The context variables of the branch that asked; None for those of the execution."""
        self.recorded: Recorded | None = None
        self.future: Reply
        self.answer: Any
        """What it came to, where the function awaits it without a future."""
        self.after: Written | None = None
        """The last of what has to be durable before it begins."""
        self.task: asyncio.Task[None] | None = None
        """Where it is performed, unless the execution's own task does it."""
        self.until: datetime | None = None
        """When its time is over, as far as that is known; None for what has none."""

    def __repr__(self) -> str:
        """What asyncio says of it where a task was begun behind the loop's back."""
        return f"<step {shown(self.name)} in a task with eager_start, which a workflow cannot have>"

    @property
    def starts(self) -> Any:
        """The workflow that it starts, or the name of one; None if it starts none."""
        return None

    def check(self) -> None:
        """Refuse what cannot work, when it is asked for. Raises ConfigurationError or more."""

    def tells(self) -> dict[str, Any]:
        """What its rows say beside their columns."""
        return self.execution.history.keys.context(self.key)

    async def perform(self) -> tuple[Any, BaseException | None]:
        """Do it and record it; returns its value, or its error, which is the next event."""
        raise NotImplementedError

    def recall(self, row: RecordedStep) -> tuple[Any, BaseException | None]:
        """What was recorded: a value, or an error."""
        raise NotImplementedError

    def __await__(self) -> Generator["Operation", Any, Any]:
        """Hand it to whoever steps the function; the `answer` is here when that goes on."""
        return iter((self,))  # type: ignore[return-value]  # a generator costs four times as much

    def deliver(self, value: Any, error: BaseException | None = None) -> None:
        """Let the function go on; one that was cancelled meanwhile does not wait any more."""
        if self.future.done():
            return
        if error is None:
            self.future.set_result(value)
        else:
            self.future.set_exception(error)

    def found(self) -> datetime | None:
        """When others did what it waits for, as far as that was read."""

    def came(self) -> datetime | None:
        """When it was that it waits for, as far as that is known; None for what was not."""
        until = self.until
        over = until is not None and until <= self.execution.now()
        return earlier(until if over else None, self.found())

    def comes(self) -> datetime | None:
        """When it will have come, as far as that is known, or came."""
        return earlier(self.until, self.found())

    def take_up(self) -> None:
        """Take over what an earlier claim has begun: it is withdrawn before it is performed."""

    def open_wait(self) -> StepCall | None:
        """The row of the wait that an earlier claim has begun, if it goes on: it is this one's."""
        row = None if self.recorded is None else self.recorded.take_sleeping()
        if row is None or row.status != StepStatus.RUNNING:
            return None
        step = StepCall(self.key, row.attempt, self.context, row=row.id)
        step.kind = self.kind
        self.execution.recorder.adopt(step)
        return step

    def withdraw(self) -> None:
        """The workflow has cancelled it: nobody waits for it any more."""


def sleeps_until(operation: Operation) -> datetime:
    """When a sleep ends that an earlier claim has begun; after all of those for anything else.

    What others have done is read meanwhile: it may have been before.
    """
    if operation.kind in FOR_OTHERS:
        return _FIRST
    recorded = operation.recorded
    if operation.kind is not StepKind.SLEEP or recorded is None or recorded.sleeping is None:
        return _LAST
    return recorded.sleeping.resume_at or _LAST


def earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    """The first of two moments, of which there may be none."""
    if one is None or other is None:
        return one or other
    return min(one, other)
