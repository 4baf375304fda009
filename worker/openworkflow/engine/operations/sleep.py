"""`step.sleep`, `step.sleep_until`, and the timers of asyncio: waits until a recorded time."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from openworkflow.core.duration import Duration, parse_duration
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.recorded import RecordedStep
from openworkflow.core.shown import shown
from openworkflow.core.step_attempt import StepKind, StepStatus
from openworkflow.engine import precedence
from openworkflow.engine.handles import Timer
from openworkflow.engine.loop import WorkflowLoop
from openworkflow.engine.operations.operation import Operation
from openworkflow.engine.step_call import StepCall, waiting

TIMER_NAME = "asyncio-timer"
"""The name of what `asyncio.sleep`, `asyncio.timeout` and their kin wait for."""


class SleepOperation(Operation):
    """A sleep that ends at the time that `ends` gives when it begins."""

    __slots__ = ("_begun", "_ends")

    kind = StepKind.SLEEP

    def __init__(self, execution: Any, name: str, ends: Callable[[], datetime]) -> None:
        super().__init__(execution, name)
        self._ends = ends
        self._begun: StepCall | None = None

    def recall(self, row: RecordedStep) -> tuple[Any, BaseException | None]:
        """See Operation.recall."""
        return None, None

    async def perform(self) -> tuple[Any, BaseException | None]:
        """See Operation.perform; once the time is recorded it holds, whoever waits for it."""
        execution = self.execution
        recorded = self.recorded
        row = None if recorded is None else recorded.take_sleeping()
        if row is not None and row.status == StepStatus.RUNNING:
            step = waiting(StepKind.SLEEP, self.key, self.context, row)
            resume_at = row.resume_at or execution.now()
            execution.recorder.adopt(step)
        else:
            await execution.gate(self)
            step = waiting(StepKind.SLEEP, self.key, self.context)
            resume_at = self._ends() if row is None or row.resume_at is None else row.resume_at
            written = execution.recorder.begin_wait(step, resume_at)
            execution.waits(self.kind, self.key, resume_at)
            self._begun = step
            await execution.recorder.durable(written)
        self._begun = step
        execution.check_stopped()
        self.until = resume_at
        precedence.waits(self)
        await execution.agenda.wait(self, resume_at)
        execution.check_stopped()
        await precedence.over(self, resume_at)
        execution.recorder.end_wait(step)
        return None, None

    def take_up(self) -> None:
        """See Operation.take_up."""
        self._begun = self.open_wait()

    def withdraw(self) -> None:
        """See Operation.withdraw."""
        if self._begun is not None:
            self.execution.recorder.cancel(self._begun)


class TimerOperation(SleepOperation):
    """A timer that asyncio code asked its loop for; nobody awaits it, it calls back."""

    __slots__ = ("_loop", "_timer")

    def __init__(
        self, execution: Any, loop: WorkflowLoop, timer: Timer, ends: Callable[[], datetime]
    ) -> None:
        super().__init__(execution, TIMER_NAME, ends)
        self._loop, self._timer = loop, timer

    def deliver(self, value: Any, error: BaseException | None = None) -> None:
        """See Operation.deliver."""
        self._loop.fire(self._timer)


def sleep_for(execution: Any, name: str, duration: Duration) -> SleepOperation:
    """A sleep of this length, from when it begins. Raises ConfigurationError."""
    delay = parse_duration(duration)
    return SleepOperation(execution, name, lambda: execution.now() + delay)


def sleep_until(execution: Any, name: str, when: datetime) -> SleepOperation:
    """A sleep until this moment. Raises ConfigurationError without a time zone."""
    if getattr(when, "tzinfo", None) is None:
        raise ConfigurationError(
            f"step.sleep_until({shown(name)}): the time must be a datetime with a time zone, "
            f"for example datetime(..., tzinfo=UTC), not {shown(when)}"
        )
    until = when.astimezone(UTC)
    operation = SleepOperation(execution, name, lambda: until)
    operation.until = until  # it may be over: then it was before what came since
    return operation
