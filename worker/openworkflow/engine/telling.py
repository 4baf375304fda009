"""What a run tells while it goes on: its status, its events and its tags.

A `Teller` is that of one execution, made by the first who tells something. It sends one batch at a
time, so that events become visible in their order and without a gap; what comes meanwhile gathers
for the next, of statuses only the last.

Nothing is told that a replay could take back: a batch leaves once everything is durable that was
recorded before it. It holds up no step, but the end of the claim waits for it. What the workflow
function tells is known by which of its calls it is: a replay makes the same calls in the same
order, and skips those that earlier claims have told. What a step's function tells is repeated with
the step; it is durable before the step's result.
"""

import asyncio
import json
import logging
from contextvars import Context
from typing import TYPE_CHECKING, Any, NamedTuple

from openworkflow.backend.records import EventWrite, ProgressWrite
from openworkflow.core.errors import (
    BackendError,
    ConfigurationError,
    Fault,
    SerializationError,
    TooManyEvents,
)
from openworkflow.core.failure import Failure
from openworkflow.core.progress import MOST_TOPICS, Told
from openworkflow.core.tags import MOST_TAGS
from openworkflow.engine import sealing
from openworkflow.engine.journal import Written
from openworkflow.engine.outcome import Failed, Lost, Outcome, Released

if TYPE_CHECKING:
    from openworkflow.engine.execution import Execution

logger = logging.getLogger(__name__)

STATUS, TAGS, EVENTS = "status", "tags", "event:"
"""What calls are counted by: statuses, tags, and events of each topic."""
RETRIED = "retried"
"""Beside these counts: the claim that had ended when somebody retried the run."""
MOST_IN_A_BATCH, MOST_CHARACTERS = 1000, 1_048_576
"""What one run tells in one statement."""
MOST_WAITING = 10_000
"""What a run has told and the database has not taken yet. One that tells more, and does not wait
for anything, costs itself and not the memory of its worker."""
_NOTHING = Told(0, 0, 0, {}, False)


class Telling(NamedTuple):
    """Something to tell."""

    channel: str
    text: str | None
    nth: int | None = None
    """Which call of the workflow function it is; None for what a step's function tells."""
    next_by: int | None = None
    """The claim that recorded the event which was to be handed out next; None if none was left."""
    step_name: str | None = None
    attempt: int | None = None
    after: Written | None = None
    """The last of what was recorded before it and was not durable then."""


class Teller:
    """Sends what one execution tells; it lives on the worker's own loop."""

    def __init__(self, execution: "Execution") -> None:
        self.error: Exception | None = None
        """Why nothing more is told."""
        self.lost = False
        """The claim does not hold, so nothing more is told."""
        self.told = 0
        """How much this claim has told that is durable, of its events and of what is counted."""
        self._execution = execution
        assert execution.task is not None
        self._loop = execution.task.get_loop()
        self._waiting: list[Telling] = []
        self._put = self._settled = 0
        self._of_calls: dict[Any, int] = {}
        """How far everything is to be stored before the result of this attempt is."""
        self._sender: asyncio.Task[None] | None = None
        self._moved: asyncio.Future[None] | None = None
        self._calls: dict[str, int] = {}
        """Calls of this execution's function, by channel."""
        self.tagged: dict[str, str] = {}
        """Tags that the function has given its run by now, in this execution."""
        self._known = _NOTHING if execution.claim.claim_no <= 1 else None
        """What earlier claims have told; None until it was read."""
        self._counts: dict[str, int] = {}
        self._next = self._first = 0
        self._forget_before: int | None = None

    # -- what is told ----------------------------------------------------------------------------

    def tell(self, channel: str, text: str | None) -> None:
        """Take in what the workflow function tells. Raises Suspended if that is too much."""
        execution = self._execution
        execution.check_stopped()
        nth = self._calls.get(channel, 0)
        try:
            if nth == 0 and len(self._calls) > MOST_TOPICS:
                raise TooManyEvents(f"the run emits to more than {MOST_TOPICS:,} topics")
            pending = execution.recorder.pending
            after = next(reversed(pending)) if pending else None
            self._take(Telling(channel, text, nth, execution.history.next_by, after=after))
        except TooManyEvents as error:
            execution.fail(error)
            execution.check_stopped()
        self._calls[channel] = nth + 1

    def tag(self, text: str) -> None:
        """Take in tags. Raises ConfigurationError for too many, and as `tell` does."""
        tagged = self.tagged | json.loads(text)
        if len(tagged) > MOST_TAGS:
            raise ConfigurationError(f"a run tags itself with at most {MOST_TAGS} names")
        self.tagged = tagged
        self.tell(TAGS, text)

    def tell_of_step(self, channel: str, text: str | None, call: Any) -> None:
        """Take in what a step's function tells. Raises ConfigurationError once it is over."""
        execution = self._execution
        if execution.stopped is not None or call not in execution.recorder.calls:
            raise ConfigurationError("this attempt of the step is over, and tells nothing more")
        self._take(Telling(channel, text, step_name=call.key, attempt=call.attempt))
        self._of_calls[call] = self._put

    def _take(self, telling: Telling) -> None:
        if self.lost or self.error is not None:
            return
        if len(self._waiting) >= MOST_WAITING:
            raise TooManyEvents(
                f"the run has told {MOST_WAITING:,} things that are not stored yet; have it await "
                "a step or a sleep now and then, or tell more at once"
            )
        self._waiting.append(telling)
        self._put += 1
        if self._sender is None:
            # In a context of its own: that of the workflow, or the step, has no part in it.
            self._sender = self._loop.create_task(
                self._send_all(), name="openworkflow teller", context=Context()
            )

    # -- for the execution -----------------------------------------------------------------------

    async def stored(self, call: Any = None) -> None:
        """Wait until everything told so far is durable, or by this attempt of a step.

        Or until nothing more is told.
        """
        goal = self._put if call is None else self._of_calls.pop(call, 0)
        while self._settled < goal and self._sender is not None:
            if self._moved is None or self._moved.done():
                self._moved = self._loop.create_future()
            await asyncio.wait({self._moved})

    async def rest(self) -> None:
        """Wait until what was told is durable: the end of the claim comes after it."""
        if self._execution.stopped is None or isinstance(self._execution.stopped, Lost):
            self.close()
        else:
            await self.stored()

    def end(self, outcome: Outcome) -> Outcome:
        """How the execution ends, also where the database did not take what was told."""
        self._execution.teller = None  # it leads back to here
        if self.lost:
            return Lost()
        if self.error is None or isinstance(outcome, Lost | Released):
            return outcome
        if isinstance(self.error, TooManyEvents | SerializationError):
            return Failed(Failure.from_exception(self.error))
        return self._execution.defect(self.error)  # no fault of what the run has told

    def close(self) -> None:
        """The execution is over."""
        if self._sender is not None:
            self._sender.cancel()

    # -- sending ---------------------------------------------------------------------------------

    async def _send_all(self) -> None:
        try:
            while self._waiting and not self.lost and self.error is None:
                await self._send()
                self._tell_waiters()
        except Exception as error:
            self._fail(error)
        finally:
            self._sender = None
            if self.lost or self.error is not None:
                self._waiting.clear()
            self._tell_waiters()

    async def _send(self) -> None:
        execution = self._execution
        if self._known is None:
            told = await execution.services.library.told(execution.claim.id)
            self._begin_after(told)
        batch = self._batch()
        if not await self._is_due(batch):
            self.lost = True
            return
        try:
            rows = self._rows(batch)
        except TooManyEvents as error:
            self._stop(error)
            return
        if execution.services.payloads is not None:
            rows = await sealing.of_told(execution.services.payloads, rows)
        if rows and not await execution.services.journal.write_together(rows):
            self.lost = True
            execution.recorder.lost()
            return
        if rows:
            self.told = self._next + sum(self._counts.values())
        self._settled += len(batch)

    async def _is_due(self, batch: list[Telling]) -> bool:
        """Wait until all that was recorded before these is durable.

        False if it will not be, by a lost claim or a refusal: then they have not happened.
        """
        pending = self._execution.recorder.pending
        last = next((each.after for each in reversed(batch) if each.after in pending), None)
        for written in [*pending] if last is not None else ():
            await written.over()
            if written.exception() is not None or not written.result():
                return False
            if written is last:
                break
        return not isinstance(self._execution.stopped, Lost)

    def _begin_after(self, told: Told | None) -> None:
        """Go on from what earlier claims have told."""
        known = self._known = told or _NOTHING
        self._next, self._first = known.events, known.events_from
        if known.claim_no < self._execution.claim.history_from:
            # It has continued as new since, and none of its calls are those that were counted.
            self._known = known._replace(counts={}, retried=False)
            self._first, self._forget_before = known.events, known.events_from
        elif not known.retried:
            self._counts = dict(known.counts)

    def _batch(self) -> list[Telling]:
        left = MOST_CHARACTERS
        for size, telling in enumerate(self._waiting[:MOST_IN_A_BATCH]):
            left -= len(telling.text or "")
            if left < 0 and size:
                break
        else:
            size = MOST_IN_A_BATCH
        batch, self._waiting = self._waiting[:size], self._waiting[size:]
        return batch

    def _rows(self, batch: list[Telling]) -> list[Any]:
        """What is new of these, as rows. Raises TooManyEvents."""
        claim, limit = self._execution.claim, self._execution.services.limits.max_events
        status: Telling | None = None
        tags: dict[str, str] = {}
        rows: list[Any] = []
        new = [telling for telling in batch if self._is_new(telling)]
        for telling in new:
            if telling.channel == STATUS:
                status = telling
            elif telling.channel == TAGS:
                tags |= json.loads(telling.text or "{}")
            else:
                if self._next - self._first >= limit:
                    raise TooManyEvents(
                        f"the run has emitted {limit:,} events, the most that one run may; emit "
                        "less often, or begin afresh before that with step.continue_as_new(input)"
                    )
                topic = telling.channel.removeprefix(EVENTS)
                place = telling.text, telling.step_name, telling.attempt
                rows.append(EventWrite(claim.id, claim.claim_no, self._next, topic, *place))
                self._next += 1
        if new:
            rows.append(
                ProgressWrite(
                    claim.id,
                    claim.claim_no,
                    self._next,
                    self._first,
                    json.dumps(self._counts),
                    status is not None,
                    None if status is None else status.text,
                    json.dumps(tags) if tags else None,
                    self._forget_before,
                )
            )
            self._forget_before = None
        return rows

    def _is_new(self, telling: Telling) -> bool:
        """Whether no earlier claim has told it.

        After a retry by hand the function may take another course from where the replay of what was
        before that ends: what it tells from there on is new, also if it was told before.
        """
        channel, nth = telling.channel, telling.nth
        if nth is None:
            return True
        assert self._known is not None
        self._counts[channel] = max(nth + 1, self._counts.get(channel, 0))
        if nth >= self._known.counts.get(channel, 0):
            return True
        if not self._known.retried:
            return False
        before = self._known.counts.get(RETRIED)  # None, if an older client has retried it
        return telling.next_by is None or (before is not None and telling.next_by > before)

    def _fail(self, error: Exception) -> None:
        if isinstance(error, BackendError) and error.fault is Fault.VALUE:
            refused = SerializationError(f"what the run has told cannot be stored: {error}")
            refused.__cause__ = error
            self._stop(refused)
        else:
            self.error = error
            self._execution.interrupt(self._execution.defect(error))

    def _stop(self, error: Exception) -> None:
        self.error = error
        self._execution.fail(error)

    def _tell_waiters(self) -> None:
        if self._moved is not None and not self._moved.done():
            self._moved.set_result(None)
