"""Runs that the database does not let be claimed, so that they keep no others from it. Pure.

A claim takes many runs by one statement. If somebody's trigger or constraint refuses one of them,
none is claimed, and the next claim would find the same. So after a refusal runs are claimed one by
one; the one that is refused alone is left alone for a while, longer each time.
"""

from collections.abc import Callable
from uuid import UUID

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
MOST_FRUITLESS = 8
"""After so many refusals in a row the next poll goes on: it may be the whole table."""


class Spared:
    """Which runs to leave alone, and how many to claim at once. `now` counts seconds."""

    def __init__(self, batch: int, now: Callable[[], float]) -> None:
        self._batch, self._now = batch, now
        self._one_by_one = self._fruitless = 0
        self._until: dict[UUID, float] = {}
        self._pause: dict[UUID, float] = {}

    @property
    def limit(self) -> int:
        """The most runs that the next claim may ask for."""
        return 1 if self._one_by_one else self._batch

    def ids(self) -> tuple[UUID, ...]:
        """The runs that the next claim passes over."""
        if not self._until:
            return ()
        now = self._now()
        return tuple(run_id for run_id, until in self._until.items() if until > now)

    def refused(self, run_id: UUID | None) -> bool:
        """A claim was refused, of this run if it was of one alone; whether to go on at once."""
        self._fruitless += 1
        self._one_by_one = self._batch
        if run_id is not None:
            pause = self._pause.get(run_id, FIRST_PAUSE_SECONDS)
            self._until[run_id] = self._now() + pause
            self._pause[run_id] = min(2 * pause, LONGEST_PAUSE_SECONDS)
        return self._fruitless % MOST_FRUITLESS > 0

    def taken(self, *, full: bool) -> None:
        """A claim was not refused; `full` if there may be more."""
        self._fruitless = 0
        self._one_by_one = max(0, self._one_by_one - 1) if full else 0
        for run_id in self._until.keys() - set(self.ids()):  # they were not in the way of it
            del self._until[run_id], self._pause[run_id]
