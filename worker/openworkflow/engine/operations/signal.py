"""`step.wait_for_signal`: takes the next signal of a name. And `step.signal`, which sends one.

What a wait has taken is what its row says: the row names the message, and the claim fences it like
any other. A message that no row names is still to be taken, by the next execution too.
"""

import json
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from openworkflow.core.duration import Duration, parse_duration
from openworkflow.core.errors import (
    BackendError,
    ConfigurationError,
    Fault,
    InvalidRunState,
    RunNotFound,
    SerializationError,
    SignalTimeout,
)
from openworkflow.core.failure import Failure
from openworkflow.core.recorded import Message, RecordedStep
from openworkflow.core.retry import RetryPolicy
from openworkflow.core.serialization import codec_for
from openworkflow.core.step_attempt import StepKind, StepStatus
from openworkflow.engine import precedence, sealing
from openworkflow.engine.current import current_operation, current_step
from openworkflow.engine.history import replayed, step_error
from openworkflow.engine.operations.call import CallOperation
from openworkflow.engine.operations.operation import Operation, earlier
from openworkflow.engine.outgoing import outgoing
from openworkflow.engine.recorded import context_of
from openworkflow.engine.step_call import StepCall, marked, waiting

MISSING: Any = object()
"""No default."""
TIMED_OUT = "timed_out"
"""Marks the row of a wait that ended without a signal."""
AGAIN = timedelta(seconds=1)
"""Until a topic is looked at again that somebody was sending to."""
SENT = UUID("5f6d9a3e-54a5-4b1c-9d0e-0d6b5f0c7e21")
"""The namespace of the ids of messages that steps send: the same step sends the same message."""
_RETRY = RetryPolicy(
    max_attempts=0,
    non_retryable=(RunNotFound, InvalidRunState, ConfigurationError, SerializationError),
)
"""What is left is the database's fault, for which no run fails, however long it lasts."""


class SignalOperation(Operation):
    """A wait for the next signal of its name, until `timeout` is over."""

    __slots__ = ("_begun", "_codec", "_default", "_timeout", "message")

    kind = StepKind.SIGNAL

    def __init__(
        self, execution: Any, name: str, timeout: Duration | None, type_: Any, default: Any
    ) -> None:
        super().__init__(execution, name)
        self._timeout = None if timeout is None else parse_duration(timeout)
        self._codec, self._default = codec_for(type_), default
        self._begun: StepCall | None = None
        self.message: Message | None = None
        """What it has in hand, or takes, which is not recorded yet."""

    def recall(self, row: RecordedStep) -> tuple[Any, BaseException | None]:
        """See Operation.recall."""
        if self._default is not MISSING and context_of(row).get(TIMED_OUT):
            return self._default, None
        if row.status == StepStatus.SUCCEEDED and context_of(row).get(TIMED_OUT):
            return None, self._error(SignalTimeout(self.name))  # the code had a default once
        try:
            return replayed(self.key, row, self._codec), None
        except Exception as error:
            return None, error

    async def perform(self) -> tuple[Any, BaseException | None]:
        """See Operation.perform."""
        inbox = self.execution.mailbox()
        inbox.open(self.name)
        try:
            return await self._wait(inbox)
        except BaseException:  # cancelled by the workflow: others may take it
            inbox.give_back(self.name, self)
            raise
        finally:
            inbox.take(self.name, self)
            inbox.close(self.name)

    def found(self) -> datetime | None:
        """See Operation.found."""
        message = self.message or self.execution.mailbox().first(self.name)
        return message and message.sent_at

    def may_take(self, message: Message) -> bool:
        """See Holder.may_take."""
        until, sent_at = self.until, message.sent_at
        return until is None or sent_at is None or sent_at <= until

    def take_up(self) -> None:
        """See Operation.take_up."""
        self._begun = self.open_wait()

    def withdraw(self) -> None:
        """See Operation.withdraw; others may take what it has in hand, before anything moves on."""
        if self._begun is not None:
            self.execution.recorder.cancel(self._begun)
        if self.execution.inbox is not None:
            self.execution.inbox.leave(self.name, self)

    async def _wait(self, inbox: Any) -> tuple[Any, BaseException | None]:
        execution, recorder = self.execution, self.execution.recorder
        inbox.hand(self.name, self)  # before whoever asks for one while this is held up
        row = None if self.recorded is None else self.recorded.take_sleeping()
        step = waiting(self.kind, self.key, self.context, row)
        if row is not None and row.status == StepStatus.RUNNING:
            recorder.adopt(step)
            self._begun = step
        else:
            await execution.gate(self)
        until = self.until = self._until() if row is None else row.resume_at
        precedence.waits(self)
        while True:
            # What came before the time was over counts, however late that is looked at.
            late = until is not None and until <= execution.now()
            message = inbox.hand(self.name, self)
            if message is None:
                await inbox.look()
                execution.check_stopped()
                message = inbox.hand(self.name, self)
            if message is not None:
                if not late or self.may_take(message):
                    return await self._take(step, inbox)
                inbox.give_back(self.name, self)
            if late and until is not None:
                if await precedence.over(self, until):
                    return self._time_out(step)
                continue
            if self._begun is None:
                self._begun = step
                execution.waits(self.kind, self.key, until)
                await recorder.durable(recorder.begin_wait(step, until))
                execution.check_stopped()
            await self._until_news(inbox, until)

    async def _until_news(self, inbox: Any, until: datetime | None) -> None:
        """Wait until there may be a signal, or the time is over."""
        execution = self.execution
        if not await inbox.look(subscribe=True):
            until = earlier(until, execution.now() + AGAIN)
        execution.check_stopped()
        if not inbox.heard and self.message is None and inbox.first(self.name) is None:
            await execution.agenda.wait(self, until, lambda wake: inbox.on_news(self.name, wake))
            execution.check_stopped()

    def _until(self) -> datetime | None:
        return None if self._timeout is None else self.execution.now() + self._timeout

    async def _take(self, step: StepCall, inbox: Any) -> tuple[Any, BaseException | None]:
        """Take what it has in hand for good: one that does not fit is not offered again."""
        await precedence.came(self)
        inbox.take(self.name, self)
        message = self.message
        assert message is not None  # what changes hands is changed for another
        told = json.loads(self.context or "{}") | {"message": str(message.id)}
        if message.of_topic:
            told["topic"] = message.name
        context = json.dumps(told)
        try:
            value = self._codec.decode(message.payload, f"signal {self.name!r}")
        except SerializationError as error:
            return None, self._fail(step, error, context)
        output = await sealing.of_wait(self.execution, message.payload, self.key)
        self.execution.recorder.end_wait(step, output=output, context=context)
        return value, None

    def _time_out(self, step: StepCall) -> tuple[Any, BaseException | None]:
        context = marked(TIMED_OUT, self.context)
        if self._default is MISSING:
            return None, self._fail(step, SignalTimeout(self.name), context)
        self.execution.recorder.end_wait(step, context=context)
        return self._default, None

    def _fail(self, step: StepCall, error: Exception, context: str) -> Exception:
        failure = Failure.from_exception(error)
        self.execution.recorder.end_wait(
            step, StepStatus.FAILED, error=failure.to_json(), context=marked("final", context)
        )
        return step_error(failure, self.key, 1)

    def _error(self, error: Exception) -> Exception:
        return step_error(Failure.from_exception(error), self.key, 1)


def send_operation(
    execution: Any, to: Any, message: tuple[Any, ...], options: dict[str, Any]
) -> CallOperation:
    """A step that sends a signal, once however often it is tried; see OpenWorkflow.signal."""
    if not isinstance(to, str):
        to = getattr(to, "id", to)
    name = to if isinstance(to, str) else message[0] if message else ""
    return CallOperation(
        execution, f"signal:{name!s:.190}", _send, (to, *message), options, _RETRY, None
    )


async def _send(to: Any, *message: Any, **options: Any) -> UUID:
    services = current_operation().execution.services
    message_id = uuid5(SENT, current_step().key)
    limit = services.payload_limit
    made = outgoing(to, message, **options, limit=limit, message_id=message_id)
    if services.payloads is not None:
        made = await sealing.of_signal(services.payloads, made)
    try:
        sent: UUID = await services.send(made)
    except BackendError as error:
        if error.fault is not Fault.VALUE:
            raise
        raise SerializationError(f"signal {made.name!r}: {error}") from error
    return sent
