"""A condition, as Kubernetes' API conventions have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Truth = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, before it is known when it last changed."""

    type: str
    status: Truth
    reason: str
    message: str = ""
