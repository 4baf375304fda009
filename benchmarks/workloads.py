"""What is measured: workflows whose steps cost nothing, so that only the engine is timed."""

from __future__ import annotations

from enum import StrEnum


class Workload(StrEnum):
    """The names of issue reports and tables; W3 and W4 have no worker under load."""

    ONE_STEP = "W1"
    TEN_STEPS = "W2"

    @property
    def steps(self) -> int:
        """Steps of one run."""
        return 1 if self is Workload.ONE_STEP else 10

    @property
    def workflow_name(self) -> str:
        """The name its runs are enqueued under."""
        return "one-step" if self is Workload.ONE_STEP else "ten-steps"


async def trivial(number: int) -> int:
    """A step that does nothing but return."""
    return number
