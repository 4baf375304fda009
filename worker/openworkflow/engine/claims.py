"""Which runs flushes ask for, as the flusher sees it; a worker's `Claimer` decides."""

from typing import Protocol
from uuid import UUID

from openworkflow.backend.records import ClaimedRun, ClaimRequest


class Claims(Protocol):
    """Decides when a flush asks for runs, and takes those it got."""

    def take(self) -> ClaimRequest | None:
        """What the flush about to leave should claim, if anything."""

    def settled(self, request: ClaimRequest, claimed: list[ClaimedRun], set_aside: int = 0) -> None:
        """Runs claimed for `request`; none if the flush failed. Others were due and set aside."""

    def refused(self, run_id: UUID | None) -> None:
        """The claim about to be settled was refused, because of this run if that is known."""

    def held(self) -> list[UUID]:
        """The ids of all runs this worker knows that it holds."""
