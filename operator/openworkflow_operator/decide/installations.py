"""Two installations that watch the same resources: the older acts. Pure.

Each marks what it keeps with the namespace and the age of its Lease. One that finds the mark of an
older one stands back for as long as somebody goes on writing it: clocks are not compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from openworkflow_operator.api.spec import Key, WorkflowNamespace

#: A status that is kept is written every five minutes.
ABANDONED_SECONDS: Final = 420.0


@dataclass(frozen=True, slots=True)
class Installation:
    """One installation of the operator, however many replicas it has."""

    id: str
    """The Kubernetes namespace of its Lease."""
    since: str
    """RFC 3339, as the API server wrote it: these sort by time."""

    @property
    def mark(self) -> dict[str, str]:
        """What it puts into the status of what it keeps."""
        return {"id": self.id, "since": self.since}


class Elders:
    """Which resources an older installation keeps, as far as their status shows."""

    def __init__(self, own: Installation | None) -> None:
        self._own = own
        self._seen: dict[Key, tuple[Mapping[str, Any], float]] = {}

    def keep(self, resource: WorkflowNamespace, now: float) -> bool:
        """Whether one does; `now` is a monotonic clock in seconds."""
        key, mark = resource.key, resource.status.get("operator")
        seen = self._seen.pop(key, None)
        if self._own is None or not isinstance(mark, Mapping) or mark.get("id") == self._own.id:
            return False
        rank = (str(mark.get("since", "")), str(mark.get("id", "")))
        if rank > (self._own.since, self._own.id):
            return False
        if seen is None or seen[0] != resource.status:
            seen = (resource.status, now)
        # Also of one that is taken over: the first status may fail to be written.
        self._seen[key] = seen
        return now - seen[1] < ABANDONED_SECONDS

    def forget(self, key: Key) -> None:
        """The resource is gone."""
        self._seen.pop(key, None)
