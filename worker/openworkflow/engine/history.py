"""What earlier executions of a run recorded, by step key. Pure.

A key is the step's name; the same name again in one run gets an ordinal (`name:1`, `name:2`) in
call order, as in the TypeScript SDK.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from openworkflow.backend.backend import RecordedStep
from openworkflow.core.errors import ConfigurationError, NonDeterminism
from openworkflow.core.failure import Failure
from openworkflow.core.serialization import Codec
from openworkflow.core.step_attempt import StepKind, StepStatus

NAME_LIMIT = 200
"""Characters of a step's name."""
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
PATCHED = "patched:"
"""Begins the key of a row that says that a run takes a patch's new path; no step is called so."""
FROM_STEP = "__openworkflow_step__"
"""Marks an error raised by a step whose retries are spent: the run's own policy skips those."""


@dataclass(slots=True)
class Recorded:
    """Everything recorded under one key."""

    kind: StepKind
    settled: RecordedStep | None = None
    """The attempt that decides a replay: a success, or the failure that spent the last retry."""
    failures: int = 0
    """Failed attempts so far; those cut short by a crash or a drain are not counted."""
    retry_at: datetime | None = None
    sleeping: RecordedStep | None = None
    """The row of a sleep that has not been seen to end."""
    unfinished: list[UUID] = field(default_factory=list)
    """Rows left `running` by an execution that did not live to end them."""

    def add(self, attempt: RecordedStep) -> None:
        """Take in one row; rows come in the order they were created."""
        if attempt.status is StepStatus.SUCCEEDED:
            self.settled = attempt
        elif attempt.kind is StepKind.SLEEP:
            self.sleeping = attempt
        elif attempt.status is StepStatus.RUNNING:
            self.unfinished.append(attempt.id)
        elif attempt.final:
            self.settled = attempt
        elif not attempt.interrupted:
            self.failures += 1
            self.retry_at = attempt.resume_at
        if attempt.reopened:
            self.settled, self.failures, self.retry_at = None, 0, None


class History:
    """The recorded steps of one run, and which of them this execution has asked for."""

    __slots__ = ("_ordinals", "_recorded", "_requested", "unrequested")

    def __init__(self, attempts: Iterable[RecordedStep] = ()) -> None:
        self._recorded: dict[str, Recorded] = {}
        self._requested: set[str] = set()
        self._ordinals: dict[str, int] = {}
        for attempt in attempts:
            self._recorded.setdefault(attempt.step_name, Recorded(attempt.kind)).add(attempt)
        self.unrequested: dict[str, None] = dict.fromkeys(
            key for key in self._recorded if not key.startswith(PATCHED)
        )
        """Recorded keys the function has not asked for yet, in recorded order.

        A patch that the code no longer asks about is none: what it guarded is all there is now.
        """

    def key(self, name: str) -> str:
        """The key of the next step called `name`. Raises ConfigurationError for an unfit name."""
        if type(name) is not str or not 0 < len(name) <= NAME_LIMIT or _UNSTORABLE.search(name):
            raise ConfigurationError(
                f"a step's name must be text of 1 to {NAME_LIMIT} characters without NUL, "
                f"not {name!r:.80}"
            )
        if name.startswith(PATCHED):
            raise ConfigurationError(
                f"a step's name may not begin with {PATCHED!r}, as {name!r:.80}"
            )
        key = name
        while key in self._requested:
            self._ordinals[name] = ordinal = self._ordinals.get(name, 0) + 1
            key = f"{name}:{ordinal}"
        self._requested.add(key)
        return key

    def is_recorded(self, key: str) -> bool:
        """Whether a row of this key was recorded."""
        return key in self._recorded

    def request(self, key: str, kind: StepKind) -> Recorded | None:
        """What is recorded under `key`, which the function now asks for.

        Raises NonDeterminism when the record is of another kind.
        """
        if not self._recorded:
            return None
        recorded = self._recorded.get(key)
        if recorded is None:
            return None
        self.unrequested.pop(key, None)
        if recorded.kind is not kind:
            raise NonDeterminism(
                f"step {key!r} was recorded as a {_noun(recorded.kind)}, but the code now asks for "
                f"a {_noun(kind)} of that name; give the new step another name, or deploy the "
                "change as a new version of the workflow"
            )
        return recorded

    def mismatch(self, asked: Sequence[str]) -> NonDeterminism:
        """The error for a replay that cannot reach what was recorded; it names both steps."""
        expected = next(iter(self.unrequested))
        got = f"asks for step {asked[0]!r}" if asked else "returned"
        return NonDeterminism(
            f"the history of this run has step {expected!r} next, but the code {got}: the workflow "
            "function changed, or depends on something other than its input and its steps; deploy "
            "such a change as a new version of the workflow, so that old runs keep the old code"
        )


def _noun(kind: StepKind) -> str:
    return "sleep" if kind is StepKind.SLEEP else "step"


def replayed(key: str, settled: RecordedStep, codec: Codec[Any]) -> Any:
    """What the step returned; raises what it raised, in its own type where that is known."""
    if settled.status is StepStatus.SUCCEEDED:
        return codec.decode(settled.output)
    raise step_error(Failure.from_json(settled.error or "{}"), key, settled.attempt)


def step_error(failure: Failure, key: str, attempts: int) -> Exception:
    """The error to raise in the workflow for a step whose retries are spent."""
    error = failure.reraisable(key, attempts)
    setattr(error, FROM_STEP, key)
    return error
