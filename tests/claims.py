"""Claimed runs, and a claimer to take them, without a database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from openworkflow.backend.records import ClaimedRun, ClaimRequest
from openworkflow.core.ids import uuid7
from openworkflow.engine.guard import LeaseGuard
from openworkflow.telemetry.metrics import Metrics
from openworkflow.worker.claimer import Claimer

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def claimed_run(**columns: Any) -> ClaimedRun:
    """A run that was claimed for the first time, but for what `columns` say."""
    values: dict[str, Any] = {
        "id": uuid7(),
        "workflow_name": "bill",
        "version": None,
        "input": None,
        "claim_no": 1,
        "attempts": 0,
        "crashes": 0,
        "deadline_at": None,
        "due_at": NOW,
        "claimed_at": NOW,
        "recovered": False,
        "has_history": False,
    }
    return ClaimedRun(**values | columns)


class Desk:
    """A hungry claimer, and what keeps it from claiming."""

    def __init__(self, slots: int = 10, batch: int = 5, trusted_crashes: int = 2) -> None:
        self.obstacle: str | None = None
        self.now = 1000.0
        self.guard = LeaseGuard(30.0, lambda: self.now)
        self.metrics = Metrics("default")
        self.claimer = Claimer(
            ClaimRequest(batch, ["bill"], trusted_crashes=trusted_crashes),
            slots,
            self.guard,
            self.metrics,
            obstacle=lambda: self.obstacle,
        )
        self.claimer.wake()

    def take(self) -> ClaimRequest:
        """A claim, which there must be."""
        request = self.claimer.take()
        assert request is not None
        return request

    def bring(self, *runs: ClaimedRun) -> None:
        """A claim that brings these runs."""
        self.claimer.settled(self.take(), list(runs))
