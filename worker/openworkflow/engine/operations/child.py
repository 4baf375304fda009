"""`step.run_workflow`: another run, as a step of this one.

A child comes to be with the row of the step that starts it, and has its id: no lost answer and no
replay starts two. Its end wakes the run that waits for it: see migration 0012. What it came to is
copied into the row of the wait, since a replay needs what the run has seen.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from openworkflow.backend.records import Disowned, Write
from openworkflow.core.duration import Duration, parse_duration
from openworkflow.core.errors import (
    ChildFailed,
    ChildTimeout,
    SerializationError,
)
from openworkflow.core.failure import Failure
from openworkflow.core.ids import child_id, depth_of
from openworkflow.core.recorded import Awaited, ChildState, RecordedStep
from openworkflow.core.retry import RetryPolicy, check_policy
from openworkflow.core.serialization import Codec
from openworkflow.core.shown import shown
from openworkflow.core.step_attempt import StepKind, StepStatus
from openworkflow.core.workflow_run import RunStatus
from openworkflow.engine import precedence, sealing
from openworkflow.engine.child_request import ChildRequest
from openworkflow.engine.history import replayed, step_error
from openworkflow.engine.operations.operation import Operation, earlier
from openworkflow.engine.step_call import StepCall, marked

FOREIGN_AGAIN = timedelta(seconds=30)
"""Between two looks at a run whose end does not wake this one: that of whom it was forked from."""
_FINISHED = frozenset(status.value for status in RunStatus if status.finished)


class ChildWait(Operation):
    """What the waits for one child have in common: until when, and what it came to."""

    __slots__ = ("_awaited", "_begun", "_codec", "_timeout")

    kind = StepKind.CHILD

    def __init__(
        self, execution: Any, name: str, codec: Codec[Any], timeout: Duration | None
    ) -> None:
        super().__init__(execution, name)
        self._codec = codec
        self._timeout = None if timeout is None else parse_duration(timeout)
        self._begun: StepCall | None = None
        self._awaited: Awaited | None = None
        """The child whose end is the step's."""

    def recall(self, row: RecordedStep) -> tuple[Any, BaseException | None]:
        """See Operation.recall."""
        try:
            return replayed(self.key, row, self._codec), None
        except Exception as error:
            return None, error

    def found(self) -> datetime | None:
        """See Operation.found."""
        state = None if self._awaited is None else self.execution.mailbox().state(self._awaited)
        return state and state.ended_at

    def take_up(self) -> None:
        """See Operation.take_up."""
        self._begun = self.open_wait()

    def _until(self) -> datetime | None:
        return None if self._timeout is None else self.execution.now() + self._timeout

    def _adopted(self) -> tuple[StepCall, datetime | None] | None:
        """The wait that an earlier claim began, if it goes on, and until when."""
        row = None if self.recorded is None else self.recorded.sleeping
        step = self._begun = self.open_wait()
        return None if step is None or row is None else (step, row.resume_at)

    def _step(self, attempt: int, row: UUID | None = None) -> StepCall:
        step = StepCall(self.key, attempt, self.context, row=row)
        step.kind = self.kind
        return step

    async def _ended(
        self, child: UUID, until: datetime | None, *, known: bool, subscribe: bool = False
    ) -> ChildState | None:
        """How the child has ended; None if it has not when the time is over.

        Unless `known`, it is looked at before it is waited for.
        """
        execution = self.execution
        awaited, self.until = Awaited(child), until
        self._awaited = awaited
        precedence.waits(self)
        inbox = execution.mailbox()
        inbox.open(awaited)
        again: datetime | None = None
        try:
            while True:
                # What came before the time was over counts, however late that is looked at.
                late = until is not None and until <= execution.now()
                if not known or inbox.heard or late:
                    heard = await inbox.look(subscribe=subscribe)
                    again = None if heard else execution.now() + FOREIGN_AGAIN
                    execution.check_stopped()
                state = inbox.state(awaited)
                if state is not None and (state.status is None or state.status in _FINISHED):
                    ended_at = state.ended_at
                    if not late or until is None or ended_at is None or ended_at <= until:
                        await precedence.came(self)
                        return state
                if late and until is not None:
                    if await precedence.over(self, until):
                        return None
                    continue
                if not inbox.heard:
                    ends = earlier(until, again)
                    await execution.agenda.wait(
                        self, ends, lambda wake: inbox.on_news(awaited, wake)
                    )
                    execution.check_stopped()
                known = False
        finally:
            inbox.close(awaited)

    def _error(self, child: UUID, state: ChildState) -> ChildFailed | None:
        """What the child has failed with; None if it has a result."""
        if state.status == RunStatus.SUCCEEDED:
            return None
        return failure_of(self.name, child, state)

    async def _succeed(
        self, step: StepCall, output: str | None
    ) -> tuple[Any, BaseException | None]:
        try:
            value = self._codec.decode(output, f"result of child {self.name!r}")
            output = await sealing.of_wait(self.execution, output, self.key)
        except SerializationError as error:
            return None, self._fail(step, error)
        self.execution.recorder.end_wait(step, output=output)
        return value, None

    def _fail(self, step: StepCall, error: Exception, *more: Write) -> Exception:
        failure = Failure.from_exception(error)
        self.execution.recorder.end_wait(
            step,
            StepStatus.FAILED,
            *more,
            error=failure.to_json(),
            context=marked("final", self.context),
        )
        return step_error(failure, self.key, step.attempt)


class ChildOperation(ChildWait):
    """A run that is started, and waited for; again, as often as `retry` says."""

    __slots__ = ("_request", "_retry")

    def __init__(
        self,
        execution: Any,
        name: str,
        request: ChildRequest,
        retry: RetryPolicy | None,
        timeout: Duration | None,
    ) -> None:
        super().__init__(execution, name, request.codec, timeout)
        self._request, self._retry = request, retry

    @property
    def starts(self) -> Any:
        """See Operation.starts."""
        return self._request.workflow

    def check(self) -> None:
        """See Operation.check."""
        if self._retry is not None:
            check_policy(f"step {shown(self.name)}", self._retry)
        if self.recorded is None:
            self._request.check("step.run_workflow", "retry", "timeout", "parent_close")

    async def perform(self) -> tuple[Any, BaseException | None]:
        """See Operation.perform: children until one succeeds, or none is left."""
        execution, recorded = self.execution, self.recorded
        failures = 0 if recorded is None else recorded.failures
        adopted = self._adopted()
        if adopted is None and recorded is not None and recorded.retry_at is not None:
            await execution.agenda.wait(self, recorded.retry_at)
        while True:
            known = adopted is None
            step, until = adopted or await self._start(failures + 1)
            adopted = None
            seen = execution.mailbox().wake_no
            if known:
                await execution.recorder.durable(step.announced)
                execution.check_stopped()
                # Its end comes after all that was seen before it was there.
                known = execution.mailbox().wake_no == seen
            state = await self._ended(step.id, until, known=known)
            done, retry_at = await self._settle(step, state, until)
            if retry_at is None:
                return done
            failures, self._awaited, self.until = step.attempt, None, None
            precedence.goes_on(self)
            await execution.agenda.wait(self, retry_at)

    def withdraw(self) -> None:
        """See Operation.withdraw: the child is canceled with the branch that waits for it."""
        if self._begun is not None:
            more = [self._disowned(self._begun)] if self._request.cancels else []
            self.execution.recorder.cancel(self._begun, *more)

    async def _start(self, attempt: int) -> tuple[StepCall, datetime | None]:
        execution = self.execution
        await self._request.limited()
        await self._request.seal()
        await execution.gate(self)
        step = self._step(attempt, child_id(depth_of(execution.claim.id) + 1))
        until = self._until()
        self._begun = step
        execution.waits(self.kind, self.key, until)
        execution.recorder.begin_wait(step, until, self._request.row(step.id, 0))
        return step, until

    async def _settle(
        self, step: StepCall, state: ChildState | None, until: datetime | None
    ) -> tuple[tuple[Any, BaseException | None], datetime | None]:
        """Record what the child came to: the step's answer, or else when to start another."""
        execution, attempt = self.execution, step.attempt
        late = until is not None and until <= execution.now()
        more: list[Write] = []
        error: Exception | None
        if state is None or (late and state.status == RunStatus.CANCELED):
            error = ChildTimeout(self.name, step.id)
            more = [self._disowned(step)]
        else:
            error = self._error(step.id, state)
            if error is None:
                return await self._succeed(step, state.output), None
        policy = self._retry
        told = error.__cause__ if isinstance(error.__cause__, Exception) else error
        if (
            policy is None
            or (state is not None and state.status != RunStatus.FAILED)
            or not policy.retries(told)
            or policy.exhausted(attempt)
        ):
            return (None, self._fail(step, error, *more)), None
        retry_at = execution.now() + policy.delay(attempt)
        if execution.is_past_deadline(retry_at):
            return (None, self._fail(step, error, *more)), None
        text = Failure.from_exception(error).to_json()
        execution.recorder.retry_wait(step, text, retry_at, *more)
        execution.waits("retry", self.key, retry_at)
        return (None, None), retry_at

    def _disowned(self, step: StepCall) -> Disowned:
        claim = self.execution.claim
        return Disowned(step.id, claim.id, claim.claim_no)


def failure_of(name: str, child: UUID, state: ChildState) -> ChildFailed:
    """What the step of this name fails with, whose child has no result."""
    if state.status == RunStatus.FAILED:
        failure = Failure.from_json(state.error or "{}")
    elif state.status == RunStatus.CANCELED:
        told = f"workflow run {child} was canceled"
        failure = Failure("openworkflow.core.errors:WorkflowCanceled", told)
    else:
        told = f"there is no workflow run {child} in this namespace"
        failure = Failure("openworkflow.core.errors:RunNotFound", told)
    return ChildFailed(name, child, state.status or "gone", failure)


def short_of(error: ChildFailed) -> Failure:
    """Without the tracebacks, of which a thousand would be too much."""
    failure = Failure.from_exception(error)
    cause = failure.cause
    bare = None if cause is None else Failure(cause.type, cause.message, args=cause.args)
    return replace(failure, traceback="", cause=bare)
