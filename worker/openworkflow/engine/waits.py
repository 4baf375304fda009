"""What the operations of a run wait for. Pure: nobody here looks at a clock.

Whatever a run waits for (a sleep, a retry, later a signal or another run) is a wait with a time, or
with none if only something from outside can end it. When every operation of a run waits, the run
is parked: it costs a row, and comes back at the earliest time, or when something wakes it.
"""

from collections.abc import Hashable, Iterator
from datetime import datetime
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Waits(Generic[K]):
    """The operations of one execution that wait, and until when."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until: dict[K, datetime | None] = {}

    def begin(self, operation: K, until: datetime | None) -> None:
        """From now on `operation` waits until then; None is forever, but for a wake."""
        self._until[operation] = until

    def __iter__(self) -> Iterator[K]:
        return iter(self._until)

    def end(self, operation: K) -> None:
        """End the wait of an operation that goes on, or was given up."""
        self._until.pop(operation, None)

    def __len__(self) -> int:
        return len(self._until)

    @property
    def earliest(self) -> datetime | None:
        """When the first of them is over; None if only a wake can end any."""
        return min((until for until in self._until.values() if until is not None), default=None)
