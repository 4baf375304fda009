"""The rows of one step of a run, put together; and which signals a history has taken. Pure."""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from openworkflow.core.recorded import RecordedStep
from openworkflow.core.step_attempt import StepKind, StepStatus

WAITS = frozenset(
    {StepKind.SLEEP.value, StepKind.SIGNAL.value, StepKind.CHILD.value, StepKind.MAP.value}
)
"""Kinds whose row, once it is there, is taken over by the next claim, and not begun again."""


@dataclass(slots=True)
class Recorded:
    """Everything recorded under one key."""

    kind: str
    settled: RecordedStep | None = None
    """The attempt that decides a replay: a success, or the failure that spent the last retry."""
    failures: int = 0
    """Failed attempts so far; those cut short by a crash or a drain are not counted."""
    retry_at: datetime | None = None
    sleeping: RecordedStep | None = None
    """The row of a sleep, or of a wait, that has not been seen to end."""
    unfinished: list[UUID] = field(default_factory=list)
    """Rows left `running` by an execution that did not live to end them."""
    fingerprint: str | None = None
    """The function and its arguments, where the name came again."""

    def take_unfinished(self) -> list[UUID]:
        """The rows left running, for whoever ends them now."""
        rows, self.unfinished = self.unfinished, []
        return rows

    def take_sleeping(self) -> RecordedStep | None:
        """The row of a sleep or wait that goes on, for whoever ends it now."""
        row, self.sleeping = self.sleeping, None
        return row

    def add(self, attempt: RecordedStep) -> None:
        """Take in one row, in any order."""
        if attempt.status == StepStatus.SUCCEEDED or attempt.final:
            if self.settled is None or self.settled.claim_no <= attempt.claim_no:
                self.settled = attempt
        elif attempt.canceled:
            return
        elif attempt.kind in WAITS and not _is_failed_child(attempt):
            if self.sleeping is None or self.sleeping.status != StepStatus.RUNNING:
                self.sleeping = attempt
            elif attempt.status == StepStatus.RUNNING:
                self.unfinished.append(attempt.id)  # of a claim that was lost as it began
        elif attempt.status == StepStatus.RUNNING:
            self.unfinished.append(attempt.id)
        elif not attempt.interrupted and attempt.attempt > self.failures:
            self.failures, self.retry_at = attempt.attempt, attempt.resume_at


def _is_failed_child(attempt: RecordedStep) -> bool:
    """One that is to be started again; a wait that was cut short by a crash goes on."""
    failed = attempt.kind == StepKind.CHILD and attempt.status == StepStatus.FAILED
    return failed and not attempt.interrupted


def messages_of(rows: Iterable[RecordedStep]) -> dict[UUID, bool]:
    """The signals that these rows have taken, and whether each was sent to a topic.

    Also those of a wait that was reopened by hand: it waits for another.
    """
    taken: dict[UUID, bool] = {}
    for row in rows:
        if row.kind == StepKind.SIGNAL and (message := _message(row)) is not None:
            taken[message] = "topic" in context_of(row)
    return taken


def retaken(rows: Sequence[RecordedStep]) -> list[RecordedStep]:
    """The rows without those whose signal a newer claim has taken, for another step.

    The row of a claim that was lost may become durable after the next claim has read the history;
    that took the signal again, and went on from there.
    """
    newest: dict[UUID, int] = {}
    for row in rows:
        if row.kind == StepKind.SIGNAL and (message := _message(row)) is not None:
            newest[message] = max(row.claim_no, newest.get(message, row.claim_no))
    return [
        row
        for row in rows
        if row.kind != StepKind.SIGNAL
        or (message := _message(row)) is None
        or row.claim_no == newest[message]
    ]


def _message(row: RecordedStep) -> UUID | None:
    with suppress(ValueError):
        return UUID(str(context_of(row)["message"])) if "message" in context_of(row) else None
    return None


def context_of(row: RecordedStep) -> dict[str, Any]:
    """What a row says beside its columns; other programs may have put anything there."""
    if row.context is None:
        return {}
    told = json.loads(row.context)
    return told if isinstance(told, dict) else {}
