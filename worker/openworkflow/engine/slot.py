"""The place that a run takes in its worker, as an execution sees it."""

from typing import Protocol


class Slot(Protocol):
    """Given up while the run rests in memory, and taken again before it goes on."""

    @property
    def may_rest(self) -> bool:
        """Whether there is room for one more run that rests."""

    @property
    def occupies(self) -> bool:
        """Whether the run has its place."""

    def release(self) -> None:
        """Give the place up."""

    async def acquire(self) -> None:
        """Wait for a place."""


class _NoSlot:
    """For runs that nobody counts; they do not rest."""

    may_rest = False
    occupies = True

    def release(self) -> None:
        """See Slot."""

    async def acquire(self) -> None:
        """See Slot."""


NO_SLOT: Slot = _NoSlot()
