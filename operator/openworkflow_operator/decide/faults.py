"""What went wrong with the objects of a fleet: each by itself, so that the rest goes on. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from openworkflow_operator.api import kinds
from openworkflow_operator.decide.pods import Trouble

#: The API server gave no answer, or one that may be another the next time.
NOT_APPLIED: Final = "NotApplied"
#: A policy or another controller changes the object each time that it is made as desired.
CONTESTED: Final = "Contested"
#: The object is deleted, and somebody's finalizers hold it: it can be made anew once they are gone.
BEING_DELETED: Final = "BeingDeleted"


@dataclass(frozen=True, slots=True)
class Fault:
    """One object that could not be made, changed or deleted as desired."""

    kind: str
    name: str
    reason: str
    """A Trouble, where the API server refused; else NOT_APPLIED, CONTESTED or BEING_DELETED."""
    words: str = ""
    """What it said."""

    @property
    def is_refusal(self) -> bool:
        """Whether somebody has to act: trying again does not help by itself."""
        return self.reason not in (NOT_APPLIED, CONTESTED, BEING_DELETED)

    @property
    def hits_pods(self) -> bool:
        """Whether there can be no pods, or none as desired."""
        return self.kind in (kinds.DEPLOYMENT.name, kinds.SERVICE_ACCOUNT.name)

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def worst_of(faults: tuple[Fault, ...]) -> str | None:
    """The reason to report: a name that is taken first, since no retry gets past it."""
    reasons = [fault.reason for fault in sorted(faults, key=lambda each: not each.is_refusal)]
    if Trouble.NAME_TAKEN in reasons:
        return Trouble.NAME_TAKEN
    return next(iter(reasons), None)
