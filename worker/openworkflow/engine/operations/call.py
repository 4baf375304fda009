"""`step.run`: call a function, again if it fails, and record what came of it."""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any, ClassVar

from openworkflow.core.callee import Callee, callee, check_call, fingerprint, with_option_meant
from openworkflow.core.duration import Duration, parse_duration
from openworkflow.core.errors import (
    ConfigurationError,
    NonDeterminism,
    SerializationError,
    Suspended,
)
from openworkflow.core.failure import Failure
from openworkflow.core.limits import Rate, step_rate
from openworkflow.core.recorded import RecordedStep
from openworkflow.core.retry import DEFAULT_STEP_RETRY, RetryPolicy, check_policy
from openworkflow.core.shown import shown
from openworkflow.core.step_attempt import StepKind, StepStatus
from openworkflow.engine import calls, rated, sealing
from openworkflow.engine.history import replayed, step_error
from openworkflow.engine.operations.operation import Operation
from openworkflow.engine.step_call import StepCall
from openworkflow.telemetry.logs import told

logger = logging.getLogger(__name__)

_SUCCEEDED = StepStatus.SUCCEEDED


class CallOperation(Operation):
    """A function, its arguments, and how often it may be tried."""

    __slots__ = ("about", "args", "attempt", "fn", "kwargs", "rate", "retry", "seconds", "timeout")

    kind = StepKind.RUN
    announces: ClassVar[bool] = False
    """Whether it is recorded that an attempt begins, before it does."""
    undo: Any = None
    """See UndoableCall."""
    about: Callee

    def __init__(
        self,
        execution: Any,
        name: str,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        retry: RetryPolicy | None,
        timeout: Duration | None,
        rate: str | Rate | None = None,
    ) -> None:
        # What Operation.__init__ does, without its call: each step of each run makes one of these.
        self.execution, self.name, self.key, self.path = execution, name, name, ""
        self.context = self.environment = self.recorded = self.after = self.task = None
        self.fn, self.args, self.kwargs = fn, args, kwargs
        self.retry, self.timeout, self.rate = retry, timeout, rate
        self.seconds: float | None = None
        self.attempt: StepCall | None = None

    def check(self) -> None:
        """See Operation.check: the function, its options, and the call that was recorded."""
        if self.retry is not None:
            check_policy(f"step {shown(self.name)}", self.retry)
        if self.timeout is not None:
            self.seconds = parse_duration(self.timeout).total_seconds()
        if self.rate is not None:
            step_rate(self.name, self.rate)
        self.about = callee(self.fn)
        if self.about.options:
            self._check_options(self.about.options)
        recorded = self.recorded
        if recorded is not None and recorded.fingerprint is not None:
            self._check_same(recorded.fingerprint)

    def tells(self) -> dict[str, Any]:
        """See Operation.tells; a name that came before says what is called, and with what."""
        told = super().tells()
        if self.execution.history.keys.is_repeated(self.key):
            told["call"] = fingerprint(self.fn, self.args, self.kwargs)
        return told

    def recall(self, row: RecordedStep) -> tuple[Any, BaseException | None]:
        """See Operation.recall."""
        try:
            return replayed(self.key, row, self.about.codec), None
        except Exception as error:
            return None, error

    async def perform(self) -> tuple[Any, BaseException | None]:
        """See Operation.perform: attempts until one succeeds, or none is left."""
        execution, recorder = self.execution, self.execution.recorder
        services, codec = execution.services, self.about.codec
        call = calls.call if self.seconds is None else calls.call_within
        failures = 0 if self.recorded is None else await self._take_up(self.recorded)
        while True:
            if self.after is not None:
                await recorder.durable(self.after)
                self.after = None
            if self.rate is not None or not execution.is_clear:
                await self._gate()
            step = self.attempt = StepCall(self.key, failures + 1, self.context)
            if self.announces:
                await self.announce(step)
            recorder.begin(step)
            try:
                value = await call(self, services.step_threads)
                if execution.stopped is not None:
                    raise Suspended
                output = codec.encode(value, "result of step", services.payload_limit, self.key)
                value = codec.as_replayed(value, output)
                if services.payloads is not None:
                    output = await sealing.of_step(execution, services.payloads, output, self.key)
            except BaseException as raised:
                if (error := calls.as_error(self, raised)) is None:
                    recorder.abandon(step)
                    raise
                last, retry_at = await self._failed(step, error)
                if last is not None:
                    return None, last
            else:
                if services.observer is not None:
                    services.observer.step_ends(step.id, None)
                if step.announced is not None or execution.teller is not None:
                    await execution.announced(step)
                recorder.succeeded(step, output)
                services.metrics.step_finished(execution.workflow.name, _SUCCEEDED, step.seconds)
                return value, None
            failures += 1
            await execution.agenda.wait(self, retry_at)

    def take_up(self) -> None:
        """See Operation.take_up."""
        if self.recorded is not None:
            self.execution.recorder.close(self.recorded.take_unfinished(), "its worker died")

    def withdraw(self) -> None:
        """See Operation.withdraw: its row, if it has one, says that the workflow cancelled it."""
        if self.attempt is not None:
            self.execution.recorder.cancel(self.attempt)

    async def _take_up(self, recorded: Any) -> int:
        """Wait for the next attempt after those of earlier claims; returns how many failed."""
        failures: int = recorded.failures
        self.execution.recorder.close(recorded.take_unfinished(), "its worker died")
        await self.execution.agenda.wait(self, recorded.retry_at or self.execution.now())
        return failures

    async def _gate(self) -> None:
        """Wait until an attempt may begin, at its rate if it has one."""
        if self.rate is not None:
            await rated.take_turn(self, step_rate(self.name, self.rate))
        await self.execution.gate(self)

    async def announce(self, step: StepCall) -> None:
        """Record that an attempt begins, and see that durable."""
        recorder = self.execution.recorder
        await recorder.durable(recorder.announce_call(step))
        self.execution.check_stopped()

    async def _failed(
        self, step: StepCall, error: Exception
    ) -> tuple[Exception | None, datetime | None]:
        """Record a failed attempt: the step's error if it was the last one, else when to retry.

        What we cannot store is not retried: the step's effect has happened. Nor is a call that
        cannot work.
        """
        execution = self.execution
        execution.check_stopped()
        policy = self.retry or DEFAULT_STEP_RETRY
        impossible = isinstance(error, TypeError) and bool(
            check_call(self.fn, self.args, self.kwargs)
        )
        if impossible:
            error = with_option_meant(error)
        failure = Failure.from_exception(error)
        retry_at = execution.now() + policy.delay(step.attempt)
        final = (
            isinstance(error, SerializationError | ConfigurationError)
            or not policy.retries(error)
            or policy.exhausted(step.attempt)
            or execution.is_past_deadline(retry_at)
            or impossible
        )
        await execution.announced(step)
        written = execution.recorder.failed(step, failure, None if final else retry_at)
        execution.report_step(StepStatus.FAILED, step.seconds)
        self._tell(step, failure, policy, None if final else retry_at)
        if final:
            return step_error(failure, self.key, step.attempt), None
        execution.waits("retry", self.key, retry_at)
        await execution.recorder.durable(written)
        execution.check_stopped()
        return None, retry_at

    def _tell(
        self, step: StepCall, failure: Failure, policy: RetryPolicy, retry_at: datetime | None
    ) -> None:
        """Log a failed attempt: its type, when the next begins, and how many there may be.

        With its traceback the first time, and the last: those in between are mostly the same.
        """
        execution = self.execution
        of = f" of {policy.max_attempts}" if policy.max_attempts else ""
        then = "not tried again"
        if retry_at is not None:
            then = f"next in {(retry_at - execution.now()).total_seconds():.1f} s"
        told(
            logger,
            logging.WARNING if retry_at is None else logging.INFO,
            "step %r failed, attempt %d%s, %s: %s (run %s of workflow %r)",
            *(step.key, step.attempt, of, then, failure.summary),
            *(execution.claim.id, execution.workflow.name),
            traceback=failure.traceback if retry_at is None or step.attempt == 1 else "",
        )

    def _check_options(self, options: frozenset[str]) -> None:
        """Refuse an option that the function takes too: whose it is would be a guess."""
        given = {
            "retry": self.retry,
            "timeout": self.timeout,
            "undo": self.undo,
            "rate": self.rate,
        }
        for option in sorted(options):
            if given[option] is not None:
                raise ConfigurationError(
                    f"step {shown(self.name)}: the function takes {option!r} itself; write "
                    f"functools.partial(function, {option}=...) for its own, and for the step's "
                    "put the call into a function that takes none"
                )

    def _check_same(self, recorded: str) -> None:
        if fingerprint(self.fn, self.args, self.kwargs) != recorded:
            raise NonDeterminism(
                f"step {self.key!r} was recorded for another function or other arguments than the "
                "code now asks for; a name that is used again must come in the same order each "
                "time: give each call a name of its own, such as one with an id in it"
            )
