"""What one claim of a run has written: whether it is durable, and the end that comes after it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import UUID

from openworkflow.backend.records import (
    ChildEnd,
    Completion,
    Continuation,
    RunEnd,
    StepSuccess,
    StepWrite,
)
from openworkflow.core.errors import BackendError, Fault, SerializationError
from openworkflow.core.ids import depth_of
from openworkflow.core.recorded import ClaimedRun
from openworkflow.core.step_attempt import StepStatus
from openworkflow.engine.journal import Journal, Written
from openworkflow.engine.step_call import StepCall

MOST_WITNESSES = 200
"""What was committed before is there if the last ones are: half of these are more than two
statements that are under way at once have of one run."""


class Durability:
    """Waits for the writes of one claim; `lost` is called when the claim turns out to be lost.

    It has all that a recorder keeps, so that a run, each of which makes one, is not charged for two
    that make a part of it.
    """

    __slots__ = (
        "_claim",
        "_journal",
        "_to_close",
        "attempts",
        "calls",
        "completions",
        "lost",
        "open",
        "owes",
        "pending",
        "progress",
        "recorded",
    )

    def __init__(
        self,
        claim: ClaimedRun,
        journal: Journal,
        lost: Callable[[], None],
        completions: int = 0,
        attempts: int = 0,
    ) -> None:
        self._claim, self._journal = claim, journal
        self.lost = lost
        """Called when the claim does not hold; something idle once the run is over here."""
        self.open: dict[StepCall, None] = {}
        """Attempts and sleeps whose rows say that they are running."""
        self.pending: dict[Written, str] = {}
        """What was written and is not known to be durable, with the keys of the steps.

        It leaves in the order of writing: what was before one that is gone is durable too.
        """
        self._to_close = 0
        self.progress = False
        """Whether anything was recorded."""
        self.recorded: list[UUID] = []
        """Rows that are over and durable, the latest of this claim. They are looked for on a server
        that takes over, which may lack the last commits."""
        self.calls: dict[StepCall, None] = {}
        """Attempts whose functions have not ended."""
        self.completions = completions
        """The number of the latest event."""
        self.attempts = attempts
        """Step attempts of the run so far, those of earlier claims included."""
        self.owes = False
        """Whether steps have begun that are to be undone if the run fails."""

    def continue_as(self, claim: ClaimedRun) -> None:
        """Write for another claim of the run from now on; everything so far is durable."""
        self._claim, self.progress = claim, False
        self.recorded.clear()

    def end(self, end: Completion | RunEnd | Continuation) -> Coroutine[Any, Any, bool]:
        """Record the run's end after, or together with, its last step; False if it was lost.

        Raises BackendError if the database refuses it, and otherwise as `durable` does.
        """
        written = self.end_with_step(end)
        return self._end_apart(end) if written is None else self.settled(written)

    def end_with_step(self, end: Completion | RunEnd | Continuation) -> Written | None:
        """Have the run's end travel with its last step, to be `settled`; None if it cannot."""
        if len(self.pending) == 1 and not self._to_close and type(end) is not Continuation:
            (written,) = self.pending
            if self._journal.append(written, end):
                if depth_of(end.run_id) and _is_over(end):
                    self._journal.append(written, ChildEnd(end.run_id))
                return written
        return None

    async def _end_apart(self, end: Completion | RunEnd | Continuation) -> bool:
        await self.durable()
        while self._to_close:  # what is to be written after something comes with the next turn
            await asyncio.sleep(0)
            await self.durable()
        if depth_of(end.run_id) and _is_over(end):
            # The end of a child wakes its parent, which the journal has to know.
            return await self._journal.write_together([end, ChildEnd(end.run_id)])
        return await self._journal.write(end)

    def durable(self, last: Written | None = None) -> Coroutine[Any, Any, bool]:
        """Wait until everything recorded so far is durable, or everything up to `last`.

        A step starts, and a run is parked or ended, after that. Answers whether the claim held.
        Raises SerializationError for a result that the database can never store, and BackendError
        for what is no fault of the result.
        """
        if last is not None and last in self.pending and len(self.pending) == 1:
            return self.settled(last)
        return self._durable(last)

    async def _durable(self, last: Written | None) -> bool:
        pending, all_held = self.pending, True
        while pending if last is None else last in pending:
            first = next(iter(pending))
            if first is last:
                return await self.settled(first) and all_held
            if last is None or last.done():
                all_held = await self.settled(first) and all_held
            else:  # what was written before it comes back before it, nearly always
                await last.over()
        return all_held

    async def settled(self, first: Written) -> bool:
        """See `durable`, of a single entry."""
        try:
            held = await first
        except BackendError as error:
            if (key := self.pending.pop(first, None)) is None:
                return True  # somebody else has told
            self._still_open(first, refused=True)
            if error.fault is not Fault.VALUE:
                raise  # not the run's fault, so it does not fail
            raise SerializationError(f"result of step {key!r}: {error}") from error
        self.pending.pop(first, None)
        if held:
            self.progress = True
            row = first.rows[0]
            if type(row) is StepSuccess and len(self.recorded) < MOST_WITNESSES:
                self.recorded.append(row.id)  # as in nearly every case, without a call
            else:
                self._keep(first)
        else:
            self._still_open(first, refused=False)
            self.lost()
        return held

    def witnesses(self) -> tuple[list[UUID], list[UUID]]:
        """The rows of step attempts that are durable: those that are over, and those that go on."""
        begun = [each.id for each in self.open if each.announced and _is_durable(each.announced)]
        on_the_way: set[UUID] = set()
        for written in self.pending:
            if _is_durable(written):
                self._keep(written)
                continue
            for row in written.rows:
                if type(row) is StepWrite and not row.update:
                    on_the_way.add(row.id)
                elif type(row) is StepWrite and row.id not in on_the_way:
                    begun.append(row.id)  # its end finds nothing else
        return list(dict.fromkeys(self.recorded)), begun

    def _keep(self, written: Written) -> None:
        for row in written.rows:
            if type(row) is StepSuccess or (
                type(row) is StepWrite and row.status != StepStatus.RUNNING
            ):
                self.recorded.append(row.id)
        if len(self.recorded) > MOST_WITNESSES:
            del self.recorded[: -MOST_WITNESSES // 2]

    def _still_open(self, written: Written, *, refused: bool) -> None:
        """Ends were not taken, so their rows run. That one was cut short is not refused twice."""
        for row in written.rows:
            if isinstance(row, StepWrite) and row.update:
                if refused and row.completion_no is None and row.resume_at is None:
                    continue
                self.open[StepCall(row.step_name, row.attempt, row=row.id)] = None


def _is_durable(written: Written) -> bool:
    return written.done() and written.exception() is None and written.result()


def _is_over(end: Completion | RunEnd | Continuation) -> bool:
    """Whether nothing comes after it; a run that is parked, or begins afresh, goes on."""
    return type(end) is Completion or (type(end) is RunEnd and end.status.finished)
