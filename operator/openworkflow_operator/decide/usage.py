"""How full the pods of a fleet were, and what `worker.resources` should rather say. Pure.

Means are over about the last two hours of samples, peaks since the template changed: a limit has
to hold the largest load, a request the usual one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

#: Samples that the means remember, one a minute.
MOST_SAMPLES: Final = 120
#: Advice from fewer would be about a start, or a lull.
FEWEST_SAMPLES: Final = 30
#: Room above what was seen.
CPU_ROOM: Final = 1.2
MEMORY_ROOM: Final = 1.25
_MEBIBYTE: Final = 2**20
#: No machine has as much.
_MOST_CORES: Final = 2**20
_MOST_MEMORY: Final = 2**60


@dataclass(frozen=True, slots=True)
class PodUsage:
    """What one pod uses at a moment."""

    cpu: float
    """In cores."""
    memory: int
    """In bytes."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What was seen of the pods of one template."""

    template: str
    samples: int = 0
    slots: float = 0.0
    """The part of the slots that held a run, on average."""
    cpu: float = 0.0
    cpu_peak: float = 0.0
    """In cores a pod."""
    memory_peak: int = 0
    """In bytes a pod."""

    @property
    def is_possible(self) -> bool:
        """Whether it may have been seen of real pods."""
        used = (self.cpu, self.cpu_peak, self.memory_peak)
        limits = (_MOST_CORES, _MOST_CORES, _MOST_MEMORY)
        return (
            0 < self.samples <= MOST_SAMPLES
            and 0 <= self.slots <= 1
            and all(0 <= value <= most for value, most in zip(used, limits, strict=True))
        )

    def seen(self, slots: float, pods: Sequence[PodUsage]) -> Self:
        """With one more sample, of at least one pod."""
        count = min(self.samples + 1, MOST_SAMPLES)
        cpu = sum(pod.cpu for pod in pods) / len(pods)
        return type(self)(
            self.template,
            count,
            self.slots + (min(1.0, slots) - self.slots) / count,
            self.cpu + (cpu - self.cpu) / count,
            max(self.cpu_peak, *(pod.cpu for pod in pods)),
            max(self.memory_peak, *(pod.memory for pod in pods)),
        )

    def as_status(self) -> dict[str, Any]:
        """What the resource's status says of it."""
        told: dict[str, Any] = {
            "template": self.template,
            "samples": self.samples,
            "slotsPercent": round(100 * self.slots),
            "cpu": _cores(self.cpu),
            "cpuPeak": _cores(self.cpu_peak),
            "memoryPeak": _mebibytes(self.memory_peak),
        }
        if self.samples >= FEWEST_SAMPLES:
            told["recommended"] = self.recommended()
        return told

    def recommended(self) -> dict[str, dict[str, str]]:
        """A `worker.resources` that fits. No limit of CPU: it would only make runs slower."""
        memory = _mebibytes(math.ceil(self.memory_peak * MEMORY_ROOM), of=16)
        cpu = max(0.01, self.cpu * CPU_ROOM)
        return {"requests": {"cpu": _cores(cpu), "memory": memory}, "limits": {"memory": memory}}


def remembered(status: Mapping[str, Any], template: str) -> Usage:
    """What the status says, where it is about the same template: a new operator goes on from it.

    Not from what no operator wrote: anybody who may edit the status may write any number.
    """
    told = status.get("usage") or {}
    if told.get("template") != template:
        return Usage(template)
    try:
        found = Usage(
            template,
            int(told["samples"]),
            int(told["slotsPercent"]) / 100,
            int(str(told["cpu"]).removesuffix("m")) / 1000,
            int(str(told["cpuPeak"]).removesuffix("m")) / 1000,
            int(str(told["memoryPeak"]).removesuffix("Mi")) * _MEBIBYTE,
        )
    except (KeyError, ValueError):
        return Usage(template)
    return found if found.is_possible else Usage(template)


def _cores(cores: float) -> str:
    return f"{math.ceil(round(1000 * cores, 3))}m"


def _mebibytes(size: int, of: int = 1) -> str:
    return f"{math.ceil(size / _MEBIBYTE / of) * of}Mi"
