"""What a history says of undoing: which steps have an undo, and how far it has come. Pure.

That a run is to be undone is a row of its own, the decision, which says how the run ends after. The
undo of a step is a row as well. Neither is an event: they never reach the workflow's function.
"""

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from openworkflow.core.recorded import RecordedStep
from openworkflow.core.shown import shown
from openworkflow.core.step_attempt import StepStatus
from openworkflow.engine.recorded import Recorded, context_of

UNDO = "undo"
"""The key of the decision, and in a step's context that it has an undo."""
UNKNOWN = "unknown"
"""In the context of a failed attempt of such a step: it may have taken effect all the same."""
OVER = "over"
"""In the context of a decision: a retry has ended it; the steps that were undone by it."""


def undo_key(key: str) -> str:
    """What the rows are called that undo a step."""
    return f"{UNDO}:{key}"


@dataclass(frozen=True, slots=True)
class Owed:
    """A step that is to be undone."""

    key: str
    settled: RecordedStep | None
    """Success of the step; None where it was cut short, so that nobody knows what it did."""


class Undone:
    """The rows of one run that are about undoing."""

    __slots__ = ("decision", "marked", "performed", "rounds")

    def __init__(self) -> None:
        self.decision: dict[str, Any] | None = None
        """How the run is to end, once its steps are undone: see outcome.decided."""
        self.marked: dict[str, int] = {}
        """The steps that were begun with an undo; of each the last attempt of unknown effect."""
        self.performed: dict[str, Recorded] = {}
        """What was undone, by the keys of those rows."""
        self.rounds: Counter[str] = Counter()
        """How often each step was undone before a retry had it done again."""

    def mark(self, row: RecordedStep, context: dict[str, Any]) -> None:
        """Take in a row of a step that has an undo."""
        attempt = 0
        if row.status == StepStatus.RUNNING or row.interrupted or row.canceled:
            attempt = row.attempt
        elif UNKNOWN in context:
            attempt = row.attempt + 1
        self.marked[row.step_name] = max(attempt, self.marked.get(row.step_name, 0))

    def add(self, row: RecordedStep) -> None:
        """Take in a row of the kind `undo`. Raises ValueError for one that cannot be read."""
        if OVER in (context := context_of(row)):
            self.rounds.update(map(str, context[OVER] or ()))
        elif row.step_name != UNDO:
            self.performed.setdefault(row.step_name, Recorded(row.kind)).add(row)
        else:
            decision = json.loads(row.output or "")
            if not isinstance(decision, dict) or "end" not in decision:
                raise ValueError(f"it says {shown(row.output)} of how the run is to end")
            self.decision = decision

    def owed(self, recorded: dict[str, Recorded]) -> list[Owed]:
        """What is to be undone, in that order: the reverse of that in which the steps ended.

        First what was cut short, since it had not ended. What raised has told that there is nothing
        to undo, unless nobody waited to hear it.
        """
        known: list[tuple[int, Owed]] = []
        unknown: list[Owed] = []
        for key, attempt in self.marked.items():
            found = recorded.get(key)
            if found is None:
                continue
            if (row := found.settled) is not None and row.status == StepStatus.SUCCEEDED:
                known.append((row.completion_no or 0, Owed(key, row)))
            elif UNKNOWN in context_of(row) if row is not None else attempt > found.failures:
                unknown.append(Owed(key, None))
        known.sort(key=lambda each: each[0], reverse=True)
        return [*reversed(unknown), *(each for _, each in known)]

    def is_undone(self, key: str) -> bool:
        """Whether the undo of a step has succeeded."""
        found = self.performed.get(undo_key(key))
        settled = None if found is None else found.settled
        return settled is not None and settled.status == StepStatus.SUCCEEDED
