"""What earlier executions of a run recorded, and in which order it reaches the function. Pure.

The ends of steps are the run's events. They are numbered in the order in which they reached the
function, and a replay hands them out in that order, each once the function waits for it. Nothing
new begins before all of them have been handed out.

A claim may be lost while its writes are under way, and they may become durable in any order, even
after the next claim has read the history and gone on without them. So the number of a row proves
nothing by itself: a claim records again, as events of its own, what it hands out beyond a number
that it misses. A row of an older claim that no newer one has recorded again was seen by none: it
comes last.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from openworkflow.core.errors import NonDeterminism
from openworkflow.core.failure import Failure
from openworkflow.core.recorded import UNREADABLE, RecordedStep
from openworkflow.core.serialization import Codec
from openworkflow.core.step_attempt import StepKind, StepStatus
from openworkflow.engine.keys import PATCHED, Keys, tells_call
from openworkflow.engine.recorded import Recorded, context_of, messages_of, retaken
from openworkflow.engine.undone import UNDO, Undone

FROM_STEP = "__openworkflow_step__"
"""Marks an error raised by a step whose retries are spent: the run's own policy skips those."""

_NO_ORDER: deque[tuple[int, str]] = deque(maxlen=0)
_NO_KEYS: dict[str, int] = {}
_NO_ROWS: list[RecordedStep] = []
_NO_SET: set[str] = set()
_NO_MESSAGES: dict[UUID, bool] = {}
_NOUNS: dict[str, str] = {
    StepKind.SLEEP: "sleep",
    StepKind.SIGNAL: "wait for a signal",
    StepKind.CHILD: "child",
    StepKind.CHILD_START: "start of a child",
    StepKind.MAP: "map",
}
_KINDS = frozenset(kind.value for kind in StepKind)
_STATUSES = frozenset(status.value for status in StepStatus)


_NOTHING: dict[str, Recorded] = {}


class History:
    """The recorded steps of one run, and the events of which this execution hands out the next."""

    __slots__ = (
        "_loose",
        "_required",
        "_strict",
        "attempts",
        "completions",
        "has_branches",
        "keys",
        "late",
        "messages",
        "overtook",
        "recorded",
        "undo",
        "unreadable",
    )

    def __init__(self, attempts: Iterable[RecordedStep] = ()) -> None:
        self.recorded: dict[str, Recorded] = _NOTHING
        """What is recorded, by key."""
        self.attempts = 0
        """Attempts recorded so far, failed ones included."""
        self.completions = 0
        """The number up to which every event is known."""
        self.overtook: list[RecordedStep] = _NO_ROWS
        """Events beyond a missing number, in their order: to be recorded again, before they count.

        The claim that misses some writes says so by that: its numbers begin with the first missing.
        """
        self.late: set[str]
        """What is handed out in another place than its number says: recorded again, there."""
        self.unreadable: str | None = None
        """Why this program cannot read the history: a newer one wrote it."""
        self.has_branches = False
        """Whether some of it was asked for by branches, or threads, of the function."""
        self.messages = _NO_MESSAGES
        """The signals that were taken, and whether each was sent to a topic."""
        self.undo: Undone | None = None
        """Undone of a run that has begun steps with an undo."""
        rows = attempts if isinstance(attempts, tuple) else tuple(attempts)
        if not rows:  # what most runs begin with: nothing is ever put into these
            self._strict, self._loose = _NO_ORDER, _NO_KEYS
            self._required = self.late = _NO_SET
            self.keys = Keys()
            return
        self.recorded = {}
        self._strict, self._loose, self._required, self.late = deque(), {}, set(), set()
        try:
            told = self._read(rows)
        except (ValueError, RecursionError) as error:
            # A context that other programs wrote: what it says is not known, and so not ignored.
            self.unreadable, told = f"what a row says of its call cannot be read: {error}", {}
        self.has_branches = bool(told)
        self.keys = Keys(self.recorded, legacy=bool(self._required))
        for key, context in told.items():
            self.keys.own(key, context)

    def request(self, key: str, kind: StepKind) -> Recorded | None:
        """What is recorded under `key`, which the function now asks for.

        Raises NonDeterminism when the record is of another kind.
        """
        recorded = self.recorded.get(key)
        if recorded is not None and recorded.kind != kind:
            raise NonDeterminism(
                f"step {key!r} was recorded as a {_noun(recorded.kind)}, but the code now asks for "
                f"a {_noun(kind)} of that name; give the new step another name, and bring it by "
                "step.patched, as a new version, or with pinned builds"
            )
        return recorded

    def is_recorded(self, key: str) -> bool:
        """Whether a row of this key was recorded."""
        return key in self.recorded

    @property
    def is_undoing(self) -> bool:
        """Whether the run is over, but for what is to be undone before its end."""
        return self.undo is not None and self.undo.decision is not None

    @property
    def pending(self) -> bool:
        """Whether the run had gone further than its function has come so far."""
        return bool(self._strict or self._loose)

    @property
    def unfinished(self) -> bool:
        """Whether events are left that must reach the function before anything new begins."""
        return bool(self._strict or self._required)

    @property
    def next_by(self) -> int | None:
        """The claim that recorded the first of those events; None if none is left, 0 if unknown."""
        if self._required or not self._strict:
            return 0 if self._required else None
        return self._settled(self._strict[0][1]).claim_no

    def next_event(self) -> RecordedStep | None:
        """The next event, if the function has asked for its step."""
        head = self._strict[0] if self._strict else None
        # Whoever recorded the head asked for it after something that is not known to be before it.
        is_asked = head is not None and head[1] in self.keys
        for key, after in self._loose.items():
            if key in self.keys and (head is None or not is_asked or after < head[0]):
                return self.take(key)
        if head is not None and is_asked:
            self._strict.popleft()
            return self._settled(head[1])
        return None

    def take_next(self, key: str) -> RecordedStep | None:
        """The next event, if it is the end of this step for certain; else nothing happens."""
        if self._loose or not self._strict or self._strict[0][1] != key:
            return None
        self._strict.popleft()
        return self._settled(key)

    def take(self, key: str) -> RecordedStep:
        """The event of `key`, out of turn: a thread cannot be made to wait for its turn."""
        if key in self._loose:
            del self._loose[key]
            self._required.discard(key)
        else:
            self._strict = deque(each for each in self._strict if each[1] != key)
        return self._settled(key)

    def unasked(self) -> str | None:
        """The first recorded step that has to be asked for, and was not."""
        required = (key for key in self._loose if key in self._required)
        in_order = itertools.chain(required, (key for _, key in self._strict))
        return next((key for key in in_order if key not in self.keys), None)

    def mismatch(self, waiting_for: Iterable[str], ended: str = "returned") -> NonDeterminism:
        """The error for a replay that cannot reach what was recorded; it names both steps.

        The function waits for the ends of these steps; if there are none, it has `ended`.
        """
        first = next(iter(waiting_for), None)
        got = ended if first is None else f"asks for step {first!r}"
        return NonDeterminism(
            f"the history of this run has step {self.unasked()!r} next, but the code {got}: the "
            "workflow function changed, or depends on something other than its input and its "
            "steps; bring such a change by step.patched, as a new version, or with pinned builds, "
            "so that old runs keep the old code"
        )

    def leftovers(self) -> tuple[list[UUID], list[UUID]]:
        """Rows still `running` whose end nobody has recorded: of calls, and of waits."""
        undone = {} if self.undo is None else self.undo.performed
        each = (*self.recorded.values(), *undone.values())
        calls = [row for recorded in each for row in recorded.unfinished]
        sleeping = [recorded.sleeping for recorded in each if recorded.sleeping is not None]
        return calls, [row.id for row in sleeping if row.status == StepStatus.RUNNING]

    def _settled(self, key: str) -> RecordedStep:
        settled = self.recorded[key].settled
        assert settled is not None
        return settled

    # -- reading -------------------------------------------------------------------------------

    def _read(self, rows: Sequence[RecordedStep]) -> dict[str, dict[str, Any]]:
        """Take in the rows; returns what they say of the calls that they record."""
        told: dict[str, dict[str, Any]] = {}
        reopened = [row for row in rows if row.reopened]
        since = {row.step_name: _reopened_at(row) for row in reopened}
        if any(row.kind == StepKind.SIGNAL for row in rows):
            rows = retaken(rows)
            self.messages = messages_of(rows)
        for row in rows:
            if row.kind not in _KINDS or row.status not in _STATUSES:
                self.unreadable = _unknown(row)
                return {}
            if row.kind == StepKind.UNDO:
                self._undone().add(row)
                continue
            recorded = self.recorded.setdefault(row.step_name, Recorded(row.kind))
            if context := context_of(row):
                recorded.fingerprint = context.get("call", recorded.fingerprint)
                if "branch" in context:
                    if not tells_call(context):
                        self.unreadable = _unknown(row)
                        return {}
                    told[row.step_name] = context
            if row.claim_no > since.get(row.step_name, -1):
                recorded.add(row)
                if UNDO in context:
                    self._undone().mark(row, context)
        numbers = {row.completion_no for row in rows if row.kind != StepKind.UNDO}
        while self.completions + 1 in numbers:
            self.completions += 1
        self._order(reopened)
        self.attempts = sum(
            max(1, each.failures + len(each.unfinished) + (each.settled is not None))
            for each in self.recorded.values()
        )
        return told

    def _undone(self) -> Undone:
        self.undo = self.undo or Undone()
        return self.undo

    def _order(self, reopened: Sequence[RecordedStep]) -> None:
        """Sort the settled steps into events that come in order, and those that come when asked.

        Without a number, from a version that did not count, a step is handed out once it is asked
        for, and has to be asked for. What came after a failure that was reopened by hand is handed
        out if it is asked for at all. So is what no newer claim has seen, after all that they have:
        they went on without.
        """
        numbered: list[tuple[int, int, str]] = []
        for key, each in self.recorded.items():
            if (row := each.settled) is None or key.startswith(PATCHED):
                continue
            if row.completion_no is None:
                self._loose[key] = 0
                self._required.add(key)
            else:
                numbered.append((row.completion_no, row.claim_no, key))
        numbered.sort()
        newest = _newest_claims(numbered)
        last = numbered[-1][0] if numbered else 0
        for number, claim_no, key in numbered:
            if newest[number] > claim_no:
                self._loose[key] = last
                self.late.add(key)
            elif any(
                number > (row.completion_no or 0) and claim_no <= _reopened_at(row)
                for row in reopened
            ):
                self._loose[key] = number
                if number > self.completions:
                    self.late.add(key)
            else:
                self._strict.append((number, key))
        self.overtook = [self._settled(key) for no, key in self._strict if no > self.completions]


def _newest_claims(numbered: Iterable[tuple[int, int, str]]) -> dict[int, int]:
    """The newest claim that had recorded by each event."""
    newest: dict[int, int] = {}
    latest = 0
    for number, claim_no, _ in numbered:
        newest[number] = latest = max(latest, claim_no)
    return newest


def _reopened_at(row: RecordedStep) -> int:
    """The claim that had ended when somebody retried the run."""
    claim_no = context_of(row).get("reopened_at")
    return claim_no if type(claim_no) is int else row.claim_no


def _unknown(row: RecordedStep) -> str:
    if row.kind == UNREADABLE:
        return f"its rows cannot be decoded: {row.error}"
    return (
        f"step {row.step_name!r} is recorded as kind {row.kind!r}, status {row.status!r}, "
        f"context {row.context or '{}':.200}, which this program does not know; "
        "upgrade openworkflow-fleet"
    )


def _noun(kind: str) -> str:
    return _NOUNS.get(kind, "step")


def replayed(key: str, settled: RecordedStep, codec: Codec[Any]) -> Any:
    """What the step returned; raises what it raised, in its own type where that is known."""
    if settled.status == StepStatus.SUCCEEDED:
        return codec.decode(settled.output)
    raise step_error(Failure.from_json(settled.error or "{}"), key, settled.attempt)


def step_error(failure: Failure, key: str, attempts: int) -> Exception:
    """The error to raise in the workflow for a step whose retries are spent."""
    error = failure.reraisable(key, attempts)
    setattr(error, FROM_STEP, key)
    return error
