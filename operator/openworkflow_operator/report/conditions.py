"""A condition, as Kubernetes' API conventions have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Truth = Literal["True", "False", "Unknown"]

#: Reasons that are no reason to worry.
GOOD_NEWS: Final = frozenset(
    {
        "Applied",
        "Current",
        "Following",
        "NotPaused",
        "Pruning",
        "Ramping",
        "Reachable",
        "Ready",
        "ScaledToZero",
        "Starting",
        "Stored",
        "Verifying",
        "WithinLimits",
        "WorkersReady",
        "WorkersStarted",
        "WorkersStarting",
    }
)


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, before it is known when it last changed."""

    type: str
    status: Truth
    reason: str
    message: str = ""
