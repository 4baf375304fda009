"""A worker on whose calls a test can act: it fails, replaces and counts them, and crashes.

Everything else is the worker of production. It is asked at two places where that one waits anyway:
before an attempt of a step begins (`Execution.gate`), and once a step is stored
(`Recorder.settled`).
"""

import asyncio
import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from openworkflow.backend.records import StepSuccess, StepWrite
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.recorded import ClaimedRun
from openworkflow.core.shown import shown
from openworkflow.core.step_attempt import StepStatus
from openworkflow.core.workflow import Workflow
from openworkflow.engine.execution import Execution
from openworkflow.engine.journal import Written
from openworkflow.engine.mapping import is_part
from openworkflow.engine.operations.call import CallOperation
from openworkflow.engine.operations.operation import Operation
from openworkflow.engine.recorder import Recorder
from openworkflow.testing.plans import Call, Plan, Plans, play
from openworkflow.worker.executor import Executor
from openworkflow.worker.parts import Parts
from openworkflow.worker.worker import Worker


class Stage(Protocol):
    """What the executions of a test's workers ask."""

    plans: Plans

    def meet(self, workflow: Workflow[Any, Any]) -> None:
        """A run starts runs of this workflow."""

    async def crash(self, run: ClaimedRun) -> None:
        """Let the claim of this run be lost, to another worker."""


class StagedRecorder(Recorder):
    """Loses its claim once a step is stored after which the worker is to crash."""

    __slots__ = ("execution",)

    execution: "StagedExecution"

    def end_with_step(self, end: Any) -> Written | None:
        """See Durability.end_with_step: a crash comes between the last step and the end."""
        if any(self._is_last(written) for written in self.pending):
            return None
        return super().end_with_step(end)

    async def settled(self, first: Written) -> bool:
        """See Durability.settled."""
        held = await super().settled(first)
        if held and self.execution.lost is None and self._is_last(first):
            self.execution.stage.plans.take(self._name(first), "crash_after")
            self.execution.crash()
        if held and self.execution.lost is not None:
            await asyncio.shield(self.execution.lost)
            return False
        return held

    def _is_last(self, written: Written) -> bool:
        name = self._name(written)
        return bool(name) and self.execution.stage.plans.expects(name, "crash_after")

    def _name(self, written: Written) -> str:
        """The step whose success the entry carries."""
        for row in written.rows:
            ends = isinstance(row, StepWrite) and row.status is StepStatus.SUCCEEDED
            if isinstance(row, StepSuccess) or (isinstance(row, StepWrite) and ends):
                return row.step_name
        return ""


class StagedExecution(Execution):
    """Hands the calls of steps to the plans of a test."""

    __slots__ = ("lost",)

    stage: ClassVar[Stage]

    def __init__(self, run: ClaimedRun, *arguments: Any) -> None:
        super().__init__(run, *arguments)
        self.lost: asyncio.Future[None] | None = None
        """The crash of this execution's worker."""
        history, services = self.history, self.services
        self.recorder = recorder = StagedRecorder(
            run, services.journal, self._lose, history.completions, history.attempts
        )
        recorder.execution = self

    @property
    def is_clear(self) -> bool:
        """See Execution.is_clear: never, so that each call comes to the gate."""
        return False

    async def gate(self, operation: Operation) -> None:
        """See Execution.gate."""
        self.stage.plans.seen.setdefault(operation.key)
        if isinstance(starts := operation.starts, Workflow):
            self.stage.meet(starts)
        await super().gate(operation)
        if isinstance(operation, CallOperation):
            attempt = operation.recorded.failures + 1 if operation.recorded else 1
            if isinstance(operation.fn, StagedCall):
                attempt = operation.fn.attempt + operation.fn.called
            StagedCall(self, operation, attempt)

    def crash(self) -> None:
        """The worker is gone for this run: nothing of it is recorded from here on."""
        self.lost = asyncio.ensure_future(self.stage.crash(self.claim))
        self._lose()


class StagedCall:
    """One attempt of a step, in the place of its function.

    A plan is used up by the call: one that has to wait for its turn may never be made.
    """

    def __init__(self, execution: StagedExecution, operation: CallOperation, attempt: int) -> None:
        before = operation.fn
        self.attempt, self.called = attempt, False
        self._fn: Callable[..., Any] = before._fn if isinstance(before, StagedCall) else before
        self._is_async: bool = (
            before._is_async if isinstance(before, StagedCall) else operation.about.is_async
        )
        self._execution, self._step = execution, operation.key
        plans, key = execution.stage.plans, operation.key
        self._is_planned = plans.expects(key, "fail") or plans.expects(key, "stub")
        self._is_part = is_part(operation)
        operation.fn = self
        operation.about = dataclasses.replace(
            operation.about, is_async=self._is_planned or self._is_async
        )

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._fn)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Called as the function would be: on the loop of the worker, or in a thread."""
        self.called, plans = True, self._execution.stage.plans
        plans.calls.append(Call(self._step, args, kwargs, self._execution.claim.id, self.attempt))
        plan = None
        if self._is_planned:
            plan = plans.take(self._step, "fail") or plans.take(self._step, "stub")
        if plan is not None and self._is_part:
            raise ConfigurationError(
                f"step {shown(self._step)} is a part of a map, with several items in it; replace "
                "the function of the map instead (monkeypatch.setattr)"
            )
        if plan is not None:
            return self._planned(plan, args, kwargs)
        if self._is_async:
            return self._real(args, kwargs)
        if self._is_planned:  # and another run met the plan first
            return self._real_in_thread(args, kwargs)
        value = self._fn(*args, **kwargs)
        return self._after(value) if self._expects_crash() else value

    async def _planned(self, plan: Plan, args: Any, kwargs: Any) -> Any:
        if plan.error is not None:
            raise plan.error.with_traceback(None)  # else that of the call before is told too
        answer = play(plan.stand_in, args, kwargs)
        return await self._after(answer)

    async def _real(self, args: Any, kwargs: Any) -> Any:
        return await self._after(self._fn(*args, **kwargs))

    async def _real_in_thread(self, args: Any, kwargs: Any) -> Any:
        return await self._after(await asyncio.to_thread(self._fn, *args, **kwargs))

    async def _after(self, answer: Any) -> Any:
        value = await answer if inspect.isawaitable(answer) else answer
        if self._execution.stage.plans.take(self._step, "crash_in"):
            self._execution.crash()
        return value

    def _expects_crash(self) -> bool:
        return self._execution.stage.plans.expects(self._step, "crash_in")


class StagedExecutor(Executor):
    """Says when it has nothing more to do."""

    @property
    def idle(self) -> bool:
        """Whether no run is executed, and nothing is done about one that has ended."""
        return not (len(self) or self._tasks)


class StagedParts(Parts):
    """The parts of a worker on a stage."""

    executor: StagedExecutor


class StagedWorker(Worker):
    """A worker whose executions a stage can act on."""

    def __init__(self, stage: Stage, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.parts_of = _parts_of(stage)
        self.workflows = frozenset(self._registry)

    async def start(self) -> None:
        """See Worker.start; the schedules of its workflows are stored by then."""
        await super().start()
        if self._declared:
            schedules = self._backend.schedules
            await schedules.declare(self._declared, self._registry.keys(), None)
            await schedules.occurrences.mend()

    @property
    def idle(self) -> bool:
        """Whether it executes nothing."""
        parts = self._parts
        return not isinstance(parts, StagedParts) or parts.executor.idle

    def look(self) -> None:
        """Claim what is due now."""
        if self._parts is not None:
            self._parts.poller.wake()


def _parts_of(on: Stage) -> type[Parts]:
    class BoundExecution(StagedExecution):
        __slots__ = ()
        stage = on

    class BoundExecutor(StagedExecutor):
        execution_of = BoundExecution

    class BoundParts(StagedParts):
        executor_of = BoundExecutor

    return BoundParts
