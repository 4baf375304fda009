"""One execution of one claimed run: replay what is recorded, run what is not, say how it ended.

The function and its branches run as ordinary asyncio code. The execution interrupts them (by
cancelling the task, which user code cannot mistake for a failure of its own) when nothing is left
to do but wait, or when the claim is gone; whatever they do afterwards is not recorded.
"""

import asyncio
import logging
from asyncio import CancelledError
from collections.abc import Callable
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any

from openworkflow.backend.backend import ClaimedRun
from openworkflow.core.duration import Duration, parse_duration
from openworkflow.core.errors import (
    ConfigurationError,
    DeadlineExceeded,
    NonDeterminism,
    OpenWorkflowError,
    SerializationError,
    Suspended,
)
from openworkflow.core.failure import Failure
from openworkflow.core.retry import DEFAULT_STEP_RETRY, RetryPolicy
from openworkflow.core.step_attempt import StepKind, StepStatus
from openworkflow.core.workflow import Workflow, current_run
from openworkflow.engine import calls
from openworkflow.engine.branches import Branches
from openworkflow.engine.history import FROM_STEP, History, Recorded, replayed, step_error
from openworkflow.engine.outcome import (
    Completed,
    Failed,
    Lost,
    Outcome,
    Parked,
    Released,
    Rescheduled,
    after_error,
)
from openworkflow.engine.patches import Patches
from openworkflow.engine.recorder import Recorder, StepCall
from openworkflow.engine.services import Services
from openworkflow.engine.step import Step, SyncStep

logger = logging.getLogger(__name__)


class Execution:
    """Runs the function of one claimed run; make one per claim."""

    __slots__ = (
        "_branches",
        "_history",
        "_journal",
        "_services",
        "_stop",
        "_sync",
        "_task",
        "_workflow",
        "claim",
        "draining",
        "patches",
        "recorder",
        "started",
    )

    def __init__(
        self, run: ClaimedRun, workflow: Workflow[Any, Any], history: History, services: Services
    ) -> None:
        self.claim, self._workflow, self._history = run, workflow, history
        self._services, self._journal = services, services.journal
        self._branches = Branches(
            history, services.journal.clock, park=self._park, mismatch=self._mismatch
        )
        self._task: asyncio.Task[Any] | None = None
        self._sync: SyncStep | None = None
        self._stop: Outcome | None = None
        self.recorder = Recorder(run, services.journal, self._lose)
        self.patches: Patches | None = None
        self.draining = False
        self.started = perf_counter()

    async def run(self) -> Outcome:
        """Execute to an outcome; whatever user code raises becomes one."""
        if self._stop:
            return self._stop
        self._task = asyncio.current_task()
        deadline = self._watch_deadline()
        try:
            output = await self._call_workflow()
        except (Exception, BaseExceptionGroup, Suspended, SystemExit, CancelledError) as error:
            if self._stop is None and calls.is_cancelled(error):
                raise
            return self._stopped() or self._raised(error)
        else:
            return self._stopped() or self._returned(output)
        finally:
            if deadline is not None:
                deadline.cancel()
            self._detach()

    def interrupt(self, outcome: Outcome) -> None:
        """Stop the function where it is; the run ends with `outcome`, unless it already has one."""
        if self._stop is not None:
            return
        self._stop = outcome
        if not isinstance(outcome, Lost):
            self.recorder.close_announced("the run was interrupted")
        # From inside the function the caller raises Suspended instead: a task that cancels itself
        # would be cancelled at its next await, which may be the one that records the outcome.
        if self._task is not None and asyncio.current_task() is not self._task:
            self._task.cancel()

    def drain(self) -> None:
        """Let running steps end and be recorded, then hand the run back."""
        self.draining = True
        if self.recorder.idle:
            self.interrupt(Released())

    async def run_step(
        self,
        name: str,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        retry: RetryPolicy | None,
        timeout: Duration | None,
    ) -> Any:
        """See Step.run."""
        calls.check_request(name, retry, own_threads=self._sync is not None)
        if self._stop is not None:
            await calls.turn_away()
        key = self._history.key(name)
        recorded = self._request(key, StepKind.RUN)
        about = calls.callee(fn)
        if recorded is not None and recorded.settled is not None:
            return replayed(key, recorded.settled, about.codec)
        await self._branches.reach(key)
        failures = 0
        if recorded is not None:
            failures = recorded.failures
            self.recorder.close(recorded.unfinished, "its worker died")
            await self._branches.wait_until(recorded.retry_at)
        while True:
            if not self.recorder.settled:
                await self.recorder.durable()
            step = StepCall(key, failures + 1)
            self._enter(step)
            try:
                threads = self._services.step_threads
                value = await calls.call(fn, args, kwargs, about.is_async, threads, timeout, key)
                return await self._record_success(step, value, about.codec)
            except Exception as error:
                retry_at = await self._record_failure(step, error, retry or DEFAULT_STEP_RETRY)
            finally:
                self._leave(step)
            failures += 1
            await self._branches.wait_until(retry_at)

    async def patched(self, name: str) -> bool:
        """See Step.patched."""
        self._check_stopped()
        if self.patches is None:
            self.patches = Patches(self._history, self.recorder)
        return self.patches.ask(name)

    async def sleep(self, name: str, duration: Duration) -> None:
        """See Step.sleep."""
        delay = parse_duration(duration)
        await self._sleep(name, lambda: self._journal.clock.now() + delay)

    async def sleep_until(self, name: str, when: datetime) -> None:
        """See Step.sleep_until."""
        if when.tzinfo is None:
            raise ConfigurationError(
                f"step.sleep_until({name!r}): the time must carry a time zone, "
                "for example datetime(..., tzinfo=UTC)"
            )
        await self._sleep(name, lambda: when.astimezone(UTC))

    async def _sleep(self, name: str, ends: Callable[[], datetime]) -> None:
        if self._stop is not None:
            await calls.turn_away()
        key = self._history.key(name)
        recorded = self._request(key, StepKind.SLEEP)
        if recorded is not None and recorded.settled is not None:
            return
        if recorded is not None and (sleeping := recorded.sleeping) is not None:
            step, resume_at = StepCall(key, 1, sleeping.id), sleeping.resume_at
        else:
            await self._branches.reach(key)
            await self.recorder.durable()
            self._check_stopped()
            step, resume_at = StepCall(key, 1), ends()
            await self.recorder.begin_sleep(step, resume_at)
        self._check_stopped()
        await self._branches.wait_until(resume_at)
        self._check_stopped()
        self.recorder.end_sleep(step)

    # -- the function ------------------------------------------------------------------------

    async def _call_workflow(self) -> Any:
        workflow = self._workflow
        arguments: tuple[Any, ...] = ()
        if workflow.takes_input:
            arguments = (workflow.input_codec.decode(self.claim.input),)
        if workflow.is_async:
            step = Step(self)
            current_run.set(step)
            return await workflow.invoke(arguments, step)
        loop = asyncio.get_running_loop()
        self._sync = sync = SyncStep(self, loop)
        context = copy_context()
        context.run(current_run.set, sync)
        threads, work = self._services.workflow_threads, (workflow.invoke, arguments, sync)
        return await loop.run_in_executor(threads, context.run, calls.in_thread, *work)

    def _detach(self) -> None:
        if self._sync is not None:
            self._sync.interrupt()
        self._task = None
        self._branches.detach()
        self.recorder.detach()

    def _stopped(self) -> Outcome | None:
        """The outcome of an interruption, whose cancellation ends here."""
        if self._stop is not None:
            while self._task is not None and self._task.cancelling():
                self._task.uncancel()
        return self._stop

    def _returned(self, value: Any) -> Outcome:
        if self._history.unrequested:
            return Failed(Failure.from_exception(self._history.mismatch([])))
        workflow, limit = self._workflow, self._services.payload_limit
        try:
            return Completed(
                workflow.output_codec.encode(value, "result of workflow", limit, name=workflow.name)
            )
        except OpenWorkflowError as error:
            return Failed(Failure.from_exception(error))

    def _raised(self, error: BaseException) -> Outcome:
        of_a_step = hasattr(error, FROM_STEP)
        outcome = after_error(error, self._workflow.retry, self.claim.attempts + 1, of_a_step)
        if isinstance(outcome, Rescheduled):
            again = self._journal.clock.now() + timedelta(seconds=outcome.delay)
            return Failed(outcome.failure) if self._past_deadline(again) else outcome
        return outcome

    def _watch_deadline(self) -> asyncio.TimerHandle | None:
        deadline = self.claim.deadline_at
        if deadline is None:
            return None
        error = DeadlineExceeded(f"the run did not end by its deadline, {deadline.isoformat()}")
        remaining = (deadline - self._journal.clock.now()).total_seconds()
        return asyncio.get_running_loop().call_later(
            max(0.0, remaining), self.interrupt, Failed(Failure.from_exception(error))
        )

    def _past_deadline(self, when: datetime) -> bool:
        return self.claim.deadline_at is not None and when >= self.claim.deadline_at

    def _lose(self) -> None:
        self.interrupt(Lost())

    def _park(self, resume_at: datetime) -> None:
        self.interrupt(Parked(resume_at))

    def _mismatch(self, asked: list[str]) -> None:
        self.interrupt(Failed(Failure.from_exception(self._history.mismatch(asked))))

    # -- steps -------------------------------------------------------------------------------

    def _request(self, key: str, kind: StepKind) -> Recorded | None:
        try:
            recorded = self._history.request(key, kind)
        except NonDeterminism as error:
            self.interrupt(Failed(Failure.from_exception(error)))
            raise Suspended from None
        if recorded is not None:
            self._branches.requested()
        return recorded

    def _enter(self, step: StepCall) -> None:
        if self.draining:
            self.drain()
        self._check_stopped()
        self._branches.enter()
        self.recorder.begin(step)

    def _leave(self, step: StepCall) -> None:
        self._branches.leave()
        self.recorder.abandon(step)

    async def _record_success(self, step: StepCall, value: Any, codec: Any) -> Any:
        self._check_stopped()
        output = codec.encode(value, "result of step", self._services.payload_limit, name=step.key)
        replayed = calls.as_replayed(codec, value, output)
        if step.announced is None and step.attempt == 1:
            self.recorder.succeeded(step, output)
        else:
            await self.recorder.ended(step, StepStatus.SUCCEEDED, output=output)
            self._check_stopped()
        self._services.metrics.step_finished(
            self._workflow.name, StepStatus.SUCCEEDED, step.seconds
        )
        return replayed

    async def _record_failure(
        self, step: StepCall, error: Exception, policy: RetryPolicy
    ) -> datetime:
        """Record a failed attempt. Returns when to retry, or raises the step's error.

        What we cannot store is not retried: the step's effect has happened.
        """
        self._check_stopped()
        failure = Failure.from_exception(error)
        retry_at = self._journal.clock.now() + policy.delay(step.attempt)
        final = (
            isinstance(error, SerializationError | ConfigurationError)
            or not policy.retries(error)
            or policy.exhausted(step.attempt)
            or self._past_deadline(retry_at)
        )
        await self.recorder.ended(
            step,
            StepStatus.FAILED,
            error=failure.to_json(),
            context='{"final": true}' if final else None,
            resume_at=None if final else retry_at,
        )
        self._check_stopped()
        self._services.metrics.step_finished(self._workflow.name, StepStatus.FAILED, step.seconds)
        if final:
            raise step_error(failure, step.key, step.attempt)
        logger.info("step %s failed, attempt %d: %s", step.key, step.attempt, failure.message)
        return retry_at

    def _check_stopped(self) -> None:
        if self._stop is not None:
            raise Suspended
