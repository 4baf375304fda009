"""`step.start_workflow`, and the steps of the handle that it answers with."""

import contextlib
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

from openworkflow.core.duration import Duration
from openworkflow.core.errors import (
    ChildTimeout,
    ConfigurationError,
    InvalidRunState,
    RunNotFound,
    SerializationError,
)
from openworkflow.core.ids import child_id, depth_of
from openworkflow.core.recorded import Awaited, RecordedStep
from openworkflow.core.retry import RetryPolicy
from openworkflow.core.serialization import Codec, codec_for
from openworkflow.core.step_attempt import StepKind, StepStatus
from openworkflow.engine.child_request import ChildRequest
from openworkflow.engine.current import current_operation
from openworkflow.engine.keys import NAME_LIMIT
from openworkflow.engine.operations.call import CallOperation
from openworkflow.engine.operations.child import ChildWait
from openworkflow.engine.operations.operation import Operation
from openworkflow.engine.step_call import StepCall

CHILD = "child"
"""In the context of a wait whose child has not its own id."""


class StartOperation(Operation):
    """A run that is started, and not waited for; its answer is a handle, which `wrap` makes."""

    __slots__ = ("_request", "_wrap")

    kind = StepKind.CHILD_START

    def __init__(
        self,
        execution: Any,
        name: str,
        request: ChildRequest,
        wrap: Callable[[str, UUID, Codec[Any]], Any],
    ) -> None:
        super().__init__(execution, name)
        self._request, self._wrap = request, wrap

    @property
    def starts(self) -> Any:
        """See Operation.starts."""
        return self._request.workflow

    def check(self) -> None:
        """See Operation.check."""
        if self.recorded is None:
            self._request.check("step.start_workflow", "parent_close")

    def recall(self, row: RecordedStep) -> tuple[Any, BaseException | None]:
        """See Operation.recall."""
        try:
            child = UUID(codec_for(str).decode(row.output))
        except (ValueError, SerializationError) as error:
            return None, SerializationError(f"step {self.key!r} names no run: {error}")
        return self._wrap(self.key, child, self._request.codec), None

    async def perform(self) -> tuple[Any, BaseException | None]:
        """See Operation.perform."""
        execution = self.execution
        await self._request.limited()
        await self._request.seal()
        await execution.gate(self)
        child = child_id(depth_of(execution.claim.id) + 1)
        step = StepCall(self.key, 1, self.context, row=child)
        step.kind = self.kind
        row = self._request.row(child, None)
        execution.recorder.end_wait(step, StepStatus.SUCCEEDED, row, output=f'"{child}"')
        return self._wrap(self.key, child, self._request.codec), None


class ResultOperation(ChildWait):
    """A wait for a run that was started before; it goes on when the time is over."""

    __slots__ = ("_child",)

    def __init__(
        self, execution: Any, name: str, child: UUID, codec: Codec[Any], timeout: Duration | None
    ) -> None:
        super().__init__(execution, name, codec, timeout)
        self._child = child

    def tells(self) -> dict[str, Any]:
        """See Operation.tells; the row says which run it waits for."""
        return super().tells() | {CHILD: str(self._child)}

    async def perform(self) -> tuple[Any, BaseException | None]:
        """See Operation.perform; the child may have ended before this was asked for."""
        inbox, awaited = self.execution.mailbox(), Awaited(self._child)
        self._awaited = awaited
        inbox.open(awaited)
        try:
            return await self._wait()
        finally:
            inbox.close(awaited)

    async def _wait(self) -> tuple[Any, BaseException | None]:
        execution = self.execution
        adopted = self._adopted()
        if adopted is None:
            await execution.gate(self)
            self.context = json.dumps(self.tells())
            step, until = self._step(1), self._until()
            self._begun = step
            execution.waits(self.kind, self.key, until)
            await execution.recorder.durable(execution.recorder.begin_wait(step, until))
            execution.check_stopped()
        else:
            step, until = adopted
        state = await self._ended(self._child, until, known=False, subscribe=True)
        if state is None:
            return None, self._fail(step, ChildTimeout(self.name, self._child, goes_on=True))
        if (error := self._error(self._child, state)) is not None:
            return None, self._fail(step, error)
        return await self._succeed(step, state.output)

    def withdraw(self) -> None:
        """See Operation.withdraw."""
        if self._begun is not None:
            self.execution.recorder.cancel(self._begun)


def cancel_operation(execution: Any, name: str, child: UUID) -> CallOperation:
    """A step that cancels a child."""
    # What is left is the database's fault, for which no run fails.
    policy = RetryPolicy(max_attempts=0, non_retryable=(RunNotFound, ConfigurationError))
    name = f"cancel:{name}"[:NAME_LIMIT]
    return CallOperation(execution, name, _cancel, (child,), {}, policy, None)


async def _cancel(child: UUID) -> None:
    with contextlib.suppress(InvalidRunState):  # it has ended
        await current_operation().execution.services.cancel(child)
