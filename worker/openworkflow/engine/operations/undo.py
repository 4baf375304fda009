"""`undo=`: a step that can be undone, and the step that undoes it.

Both are recorded as begun before their function is called. So whoever ends the run knows that the
step may have taken effect, and no cancellation comes between an effect and the word that it can be
undone.
"""

import json
from collections.abc import Callable
from datetime import datetime
from types import FunctionType
from typing import Any

from openworkflow.core.callee import Callee, callee, with_own
from openworkflow.core.duration import Duration, parse_duration
from openworkflow.core.errors import SerializationError, StepTimeout, Suspended
from openworkflow.core.limits import Rate
from openworkflow.core.retry import RetryPolicy
from openworkflow.core.serialization import Codec
from openworkflow.core.shown import shown
from openworkflow.core.step_attempt import StepKind
from openworkflow.core.undo import Undo, undo_of
from openworkflow.core.workflow import DurableFunction
from openworkflow.engine.current import stable_key
from openworkflow.engine.operations.call import CallOperation
from openworkflow.engine.outcome import Released
from openworkflow.engine.step_call import StepCall, marked
from openworkflow.engine.undone import UNDO, UNKNOWN, Owed, undo_key

_MARK = json.dumps({UNDO: True})


class UndoableCall(CallOperation):
    """A call of a function that another one undoes, if the run does not end well."""

    __slots__ = ("given_up", "in_flight", "undo")

    announces = True

    def __init__(
        self,
        execution: Any,
        name: str,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        retry: RetryPolicy | None,
        timeout: Duration | None,
        undo: Any,
        rate: str | Rate | None = None,
    ) -> None:
        super().__init__(execution, name, fn, args, kwargs, retry, timeout, rate)
        self.undo = undo
        self.in_flight = self.given_up = False

    def check(self) -> None:
        """See Operation.check."""
        super().check()
        self.undo = undo_of(f"step {shown(self.name)}", self.undo)
        self.context, execution = _MARK, self.execution
        execution.owed = execution.owed or {}
        execution.owed[self.key] = self
        undone = execution.history.undo
        if undone is not None and undone.decision and undone.marked.keys() <= execution.owed.keys():
            execution.interrupt(Released())  # all is known that its replay was for
            raise Suspended

    def tells(self) -> dict[str, Any]:
        """See Operation.tells."""
        return super().tells() | {UNDO: True}

    async def perform(self) -> tuple[Any, BaseException | None]:
        """See Operation.perform."""
        try:
            return await super().perform()
        finally:
            self.in_flight = False

    async def announce(self, step: StepCall) -> None:
        """See CallOperation.announce."""
        self.in_flight = self.execution.recorder.owes = True
        await super().announce(step)

    def withdraw(self) -> None:
        """See Operation.withdraw. What has begun is not cut short: what it did is to be known."""
        if self.in_flight:
            self.given_up, self.task = True, None
        else:
            super().withdraw()

    async def _failed(
        self, step: StepCall, error: Exception
    ) -> tuple[Exception | None, datetime | None]:
        if isinstance(error, StepTimeout | SerializationError):
            step.context = marked(UNKNOWN, step.context)
        answer = await super()._failed(step, error)
        self.in_flight = False
        if self.given_up and answer[0] is None:
            raise Suspended  # nobody waits for another attempt
        return answer


class UndoOperation(CallOperation):
    """Undoes a step."""

    __slots__ = ("undoes",)

    kind = StepKind.UNDO
    announces = True

    def __init__(self, step: UndoableCall, owed: Owed) -> None:
        """Raises SerializationError where the result of the step cannot be read any more."""
        undo: Undo[Any] = step.undo
        fn: Callable[[Any], Any] = undo.fn
        self.undoes = step
        if owed.settled is None and undo.uncertain is not None:
            fn, argument = undo.uncertain, stable_key(step)
        else:
            assert owed.settled is not None
            argument = step.about.codec.decode(owed.settled.output)
        key = undo_key(owed.key)
        super().__init__(step.execution, key, fn, (argument,), {}, undo.retry, undo.timeout)
        self.context = json.dumps({"undoes": owed.key})
        undone = step.execution.history.undo
        self.recorded = None if undone is None else undone.performed.get(key)
        self.seconds = (
            None if undo.timeout is None else parse_duration(undo.timeout).total_seconds()
        )
        self.about = Callee(callee(fn).is_async, _NOTHING)

    async def announce(self, step: StepCall) -> None:
        """See CallOperation.announce."""
        step.kind = StepKind.UNDO
        await super().announce(step)


class _Nothing(Codec[Any]):
    """What an undo returns is not kept, so nothing that it returns can be at fault."""

    def encode(self, *_: Any, **__: Any) -> None:
        return None

    def as_replayed(self, *_: Any) -> None:
        return None


_NOTHING = _Nothing(Any)


def call_operation(
    execution: Any,
    name: str,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    retry: RetryPolicy | None,
    timeout: Duration | None,
    undo: Any,
    rate: str | Rate | None,
) -> CallOperation:
    """What `step.run` asks for; a function decorated with `@step` brings what is not said here."""
    if type(fn) is not FunctionType:
        retry, timeout, undo, rate = with_own(fn, retry, timeout, undo, rate)
    if undo is None:
        return CallOperation(execution, name, fn, args, kwargs, retry, timeout, rate)
    return UndoableCall(execution, name, fn, args, kwargs, retry, timeout, undo, rate)


def durable_call(
    execution: Any, fn: DurableFunction[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> CallOperation:
    """The call of a function that is decorated with `@step`."""
    said = (fn.retry, fn.timeout, fn.undo, fn.rate)
    return call_operation(execution, fn.name, fn.fn, args, kwargs, *said)
