"""The step attempts that one claim of a run records: how they begin, end, or are cut short."""

from collections.abc import Callable, Iterable
from datetime import datetime
from time import perf_counter
from typing import Any
from uuid import UUID

from openworkflow.backend.records import ClaimedRun, Completion, RunEnd, StepSuccess, StepWrite
from openworkflow.core.errors import BackendError, SerializationError
from openworkflow.core.failure import Failure
from openworkflow.core.ids import uuid7
from openworkflow.core.step_attempt import StepKind, StepStatus
from openworkflow.engine.journal import Journal, Written


class StepCall:
    """An attempt in progress; `announced` once its `running` row was sent, `seconds` at its end."""

    __slots__ = ("announced", "attempt", "id", "key", "seconds", "started")

    def __init__(self, key: str, attempt: int, row: UUID | None = None) -> None:
        self.id = row or uuid7()
        self.key, self.attempt = key, attempt
        self.started = perf_counter()
        self.seconds = 0.0
        self.announced: Written | None = None


class Recorder:
    """Writes the rows of one claim's steps; `lost` is called when the claim turns out to be lost.

    A short step is one insert, at its end. A longer one is announced by a `running` row, which its
    end updates.
    """

    __slots__ = ("_calls", "_claim", "_journal", "_lost", "_pending", "progress")

    def __init__(self, claim: ClaimedRun, journal: Journal, lost: Callable[[], None]) -> None:
        self._claim, self._journal, self._lost = claim, journal, lost
        self._calls: dict[StepCall, None] = {}
        self._pending: dict[Written, str] = {}
        self.progress = False
        """Whether anything was recorded."""

    def detach(self) -> None:
        """See Branches.detach."""
        self._lost = _nobody

    @property
    def idle(self) -> bool:
        """Whether no step function is running."""
        return not self._calls

    def begin(self, call: StepCall) -> None:
        """A step function starts."""
        self._calls[call] = None

    def abandon(self, call: StepCall) -> None:
        """A step function is over, recorded or not."""
        self._calls.pop(call, None)

    def announce(self, older_than: float) -> None:
        """Send a `running` row for each step function that runs for more than so many seconds."""
        now = perf_counter()
        for call in self._calls:
            if call.announced is None and now - call.started > older_than:
                call.announced = self._journal.write(self._write(call, StepStatus.RUNNING))

    def succeeded(self, call: StepCall, output: str | None) -> None:
        """Record a success; `durable` then waits for it."""
        del self._calls[call]  # from here on nobody else writes to its row
        call.seconds = perf_counter() - call.started
        claim = self._claim
        row = StepSuccess(call.id, claim.id, claim.claim_no, call.key, output, call.seconds)
        self._send(row, call.key)

    async def ended(self, call: StepCall, status: StepStatus, **columns: Any) -> None:
        """Record any end of an attempt, durably."""
        self._calls.pop(call, None)
        call.seconds = perf_counter() - call.started
        update = call.announced is not None
        if call.announced is not None:
            await call.announced
        self._send(self._write(call, status, update=update, **columns), call.key)
        await self.durable()

    @property
    def settled(self) -> bool:
        """Whether everything recorded is known to be durable."""
        return not self._pending

    async def end(self, end: Completion | RunEnd) -> bool:
        """Record the run's end after, or together with, its last step; False if it was lost.

        Raises BackendError if the database refuses it, and otherwise as `durable` does.
        """
        if len(self._pending) == 1 and self._journal.newest in self._pending:
            return await self._journal.write_with_newest(end)
        await self.durable()
        return await self._journal.write(end)

    async def durable(self) -> None:
        """Wait for everything recorded so far; a step starts, and a run is parked, after that.

        Raises SerializationError for a result that the database refuses to store.
        """
        for written in tuple(self._pending):
            try:
                held = await written
            except BackendError as error:
                key = self._pending.pop(written, "")
                raise SerializationError(f"result of step {key!r}: {error}") from error
            self._pending.pop(written, None)
            if held:
                self.progress = True
            else:
                self._lost()

    async def begin_sleep(self, call: StepCall, resume_at: datetime) -> None:
        """Record, durably, that the run sleeps until `resume_at`."""
        write = self._write(call, StepStatus.RUNNING, kind=StepKind.SLEEP, resume_at=resume_at)
        self._send(write, call.key)
        await self.durable()

    def end_sleep(self, call: StepCall) -> None:
        """Record that a sleep has ended.

        Nobody waits for it: the row already says when, which is all a replay needs.
        """
        self._send(
            self._write(call, StepStatus.SUCCEEDED, kind=StepKind.SLEEP, update=True), call.key
        )

    def close(self, rows: Iterable[UUID], why: str) -> None:
        """End the rows of attempts that were cut short; they do not count as failures."""
        for row in rows:
            failure = Failure(type="Interrupted", message=f"the attempt was cut short: {why}")
            self._journal.write(
                self._write(
                    StepCall("", 1, row),
                    StepStatus.FAILED,
                    update=True,
                    error=failure.to_json(),
                    context='{"interrupted": true}',
                )
            )

    def close_announced(self, why: str) -> None:
        """The same for what this execution announced and will not end."""
        self.close([call.id for call in self._calls if call.announced is not None], why)

    def _send(self, row: StepSuccess | StepWrite, key: str) -> None:
        self._pending[self._journal.write(row)] = key

    def _write(
        self,
        call: StepCall,
        status: StepStatus,
        *,
        kind: StepKind = StepKind.RUN,
        update: bool = False,
        output: str | None = None,
        error: str | None = None,
        context: str | None = None,
        resume_at: datetime | None = None,
    ) -> StepWrite:
        return StepWrite(
            id=call.id,
            run_id=self._claim.id,
            claim_no=self._claim.claim_no,
            step_name=call.key,
            kind=kind,
            status=status,
            attempt=call.attempt,
            output=output,
            error=error,
            context=context,
            duration=perf_counter() - call.started,
            resume_at=resume_at,
            update=update,
        )


def _nobody() -> None:
    """The run is over."""
