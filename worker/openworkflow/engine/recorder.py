"""The step attempts that one claim of a run records: how they begin, end, or are cut short."""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from time import perf_counter
from typing import Any
from uuid import UUID

from openworkflow.backend.records import Leftover, Orphaned, StepSuccess, StepWrite, Write
from openworkflow.core.envelope import Opened
from openworkflow.core.errors import BackendError, SerializationError
from openworkflow.core.failure import Failure
from openworkflow.core.recorded import RecordedStep
from openworkflow.core.step_attempt import StepKind, StepStatus
from openworkflow.engine.durability import Durability
from openworkflow.engine.journal import Written
from openworkflow.engine.step_call import StepCall, marked, row_of
from openworkflow.engine.undone import UNDO

logger = logging.getLogger(__name__)

_row: Any = tuple.__new__


class Recorder(Durability):
    """Writes the rows of one claim's steps; `lost` is called when the claim turns out to be lost.

    A short step is one insert, at its end. A longer one is announced by a `running` row, which its
    end updates. The ends that reach the workflow are numbered from `completions` on.
    """

    __slots__ = ()

    # -- calls of functions ----------------------------------------------------------------------

    def begin(self, call: StepCall) -> None:
        """A step function starts."""
        self.calls[call] = None
        self.attempts += 1

    def abandon(self, call: StepCall) -> None:
        """A step function is over, recorded or not."""
        self.calls.pop(call, None)

    def announce(self, older_than: float) -> None:
        """Send a `running` row for each step function that runs for more than so many seconds."""
        now = perf_counter()
        for call in self.calls:
            if call.announced is None and now - call.started > older_than:
                self.announce_call(call)

    def announce_call(self, call: StepCall) -> Written:
        """Send a `running` row for a step function."""
        return self._announce(call, self._write(call, StepStatus.RUNNING))

    def decide(self, decision: str) -> None:
        """Record that the run's steps are to be undone, and how it ends then (JSON text)."""
        call = StepCall(UNDO, 1)
        call.kind = StepKind.UNDO
        self._send(self._write(call, StepStatus.SUCCEEDED, output=decision), call.key)

    def orphan(self) -> None:
        """Record that the run's children are to end, since it is to be undone."""
        self._send(Orphaned(self._claim.id, self._claim.claim_no), UNDO)

    def succeeded(self, call: StepCall, output: str | None) -> None:
        """Record a success; `durable` then waits for it."""
        self.calls.pop(call, None)  # from here on nobody else writes to its row
        call.seconds = perf_counter() - call.started
        self.completions = number = self.completions + 1
        if call.announced is not None or call.attempt != 1:
            self._end(call, StepStatus.SUCCEEDED, output=output, completion_no=number)
            return
        claim = self._claim
        values = call.id, claim.id, claim.claim_no, call.key, output, call.seconds, number
        # A step is recorded so often that the frame of the class's own __new__ would show.
        row = _row(StepSuccess, (*values, call.context))
        self.pending[self._journal.write(row)] = call.key

    def failed(self, call: StepCall, failure: Failure, retry_at: datetime | None) -> Written:
        """Record a failure, to be tried again at `retry_at`, or the end of the step."""
        self.calls.pop(call, None)
        call.seconds = perf_counter() - call.started
        context, number = call.context, None
        if retry_at is None:
            self.completions = number = self.completions + 1
            context = marked("final", context)
        return self._end(
            call,
            StepStatus.FAILED,
            error=failure.to_json(),
            context=context,
            resume_at=retry_at,
            completion_no=number,
        )

    def mark(self, call: StepCall, output: str) -> None:
        """Record something that is no event: it is answered at once, now and in a replay."""
        claim = self._claim
        self._send(
            StepSuccess(
                call.id, claim.id, claim.claim_no, call.key, output, 0.0, None, call.context
            ),
            call.key,
        )

    def record_again(self, rows: Sequence[RecordedStep]) -> None:
        """Give events of earlier claims the next numbers of this one: all of them, or none."""
        first = self.completions + 1
        self.completions += len(rows)
        writes = [self._again(row, number) for number, row in enumerate(rows, first)]
        self.pending[self._journal.write_together(writes)] = rows[0].step_name

    # -- sleeps and other waits ------------------------------------------------------------------

    def begin_wait(
        self, call: StepCall, resume_at: datetime | None, *more: Write, **columns: Any
    ) -> Written:
        """Record that the run waits, until `resume_at` at most; None is forever.

        With `more` rows: all of them are durable, or none.
        """
        self.attempts += 1
        row = self._write(call, StepStatus.RUNNING, resume_at=resume_at, **columns)
        return self._announce(call, row, *more)

    def start(self, children: Sequence[Write], key: str) -> Written:
        """Record that the step of this key has started more children: all of them, or none."""
        return self._send(children[0], key, *children[1:])

    def adopt(self, call: StepCall) -> None:
        """Take over a wait that an earlier claim began."""
        self.open[call] = None

    def end_wait(
        self,
        call: StepCall,
        status: StepStatus = StepStatus.SUCCEEDED,
        *more: Write,
        **columns: Any,
    ) -> None:
        """Record that a wait has ended, also one that was over before its row was written."""
        self.completions = number = self.completions + 1
        self._end_wait(call, status, *more, completion_no=number, **columns)

    def retry_wait(self, call: StepCall, error: str, retry_at: datetime, *more: Write) -> None:
        """Record that what was waited for has failed, and is tried again then."""
        self._end_wait(call, StepStatus.FAILED, *more, error=error, resume_at=retry_at)

    def _end_wait(
        self, call: StepCall, status: StepStatus, *more: Write, **columns: Any
    ) -> Written:
        update = call in self.open
        self.open.pop(call, None)
        self.attempts += not update
        return self._send(self._write(call, status, update=update, **columns), call.key, *more)

    # -- what is cut short -----------------------------------------------------------------------

    def cancel(self, call: StepCall, *more: Write) -> None:
        """End the row of what the workflow itself cancelled, if it has one; `more` goes with it.

        That is not durable before the events that led to it: a replay without them would find
        that something has been cancelled, and nothing that says so.
        """
        self.calls.pop(call, None)
        if call in self.open:
            del self.open[call]
            how = "Canceled", "the workflow cancelled it", "canceled"
            before = [written for written in self.pending if not written.done()]
            self._close_after(call, *how, more=more, before=before)

    def close(self, rows: Iterable[UUID], why: str) -> None:
        """End the rows of attempts that were cut short; they do not count as failures."""
        for row in rows:
            self._interrupt(StepCall("", 1, row=row), why)

    def close_calls(self, why: str) -> None:
        """End the rows of the functions that this execution began and will not see the end of."""
        for call in [call for call in self.calls if call in self.open]:
            del self.open[call]
            self._interrupt(call, why)

    def close_all(self, why: str) -> None:
        """End every row that is open, sleeps too: the run ends."""
        for call in self.open:
            self._interrupt(call, why)
        self.open.clear()

    async def leave(self) -> None:
        """The claim is lost: end the rows that came too late for whoever ended the run."""
        while self.pending or self._to_close:
            with contextlib.suppress(SerializationError):
                await self.durable()
            await asyncio.sleep(0)
        run_id, write = self._claim.id, self._journal.write
        for written in [write(Leftover(call.id, run_id)) for call in self.open]:
            try:
                await written
            except BackendError as error:
                logger.warning("could not end a step attempt of a lost claim: %s", error)

    def _interrupt(self, call: StepCall, why: str) -> None:
        message = f"the attempt was cut short: {why}"
        self._close_after(call, "Interrupted", message, "interrupted")

    def _close_after(
        self, call: StepCall, *how: str, more: Sequence[Write] = (), before: Sequence[Written] = ()
    ) -> None:
        """End a row, once it is there: a statement does not see the rows that it inserts itself.

        And once what was written `before` is durable, or together with it.
        """
        announced = call.announced
        if announced is not None and not announced.done() and announced not in before:
            before = [*before, announced]
        if not before:
            self._close(call, *how, more=more)
            return
        may_join = len(before) == 1 and before[0] is not announced and not more
        if may_join and self._journal.append(before[0], self._closing(call, *how)):
            return
        self._to_close += 1
        left = len(before)

        def close(_: object) -> None:
            nonlocal left
            left -= 1
            if not left:
                self._to_close -= 1
                self._close(call, *how, more=more)

        for written in before:
            written.add_done_callback(close)

    # -- rows ------------------------------------------------------------------------------------

    def _end(self, call: StepCall, status: StepStatus, **columns: Any) -> Written:
        self.open.pop(call, None)
        update = call.announced is not None
        return self._send(self._write(call, status, update=update, **columns), call.key)

    def _close(self, call: StepCall, *how: str, more: Sequence[Write]) -> None:
        """Sent, not waited for, but for the end of the run, which must not overtake it."""
        self._send(self._closing(call, *how), call.key, *more)

    def _closing(self, call: StepCall, type_name: str, message: str, mark: str) -> StepWrite:
        return self._write(
            call,
            StepStatus.FAILED,
            update=True,
            error=Failure(type=type_name, message=message).to_json(),
            context=marked(mark, call.context),
        )

    def _announce(self, call: StepCall, row: StepWrite, *more: Write) -> Written:
        call.announced = written = self._send(row, call.key, *more)
        self.open[call] = None
        return written

    def _send(self, row: Write, key: str, *more: Write) -> Written:
        written = self._journal.write_together([row, *more]) if more else self._journal.write(row)
        self.pending[written] = key
        return written

    def _again(self, row: RecordedStep, number: int) -> StepWrite:
        call = StepCall(row.step_name, row.attempt, row=row.id)
        call.kind = StepKind(row.kind)
        return self._write(
            call,
            StepStatus(row.status),
            update=True,
            output=row.output.stored if isinstance(row.output, Opened) else row.output,
            error=row.error,
            completion_no=number,
        )

    def _write(self, call: StepCall, status: StepStatus, **columns: Any) -> StepWrite:
        return row_of(self._claim, call, status, **columns)
