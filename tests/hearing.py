"""What a listener hears of new work, counted."""

from __future__ import annotations

from uuid import UUID

from openworkflow.backend.backend import BackendPostgres, NewRun
from openworkflow.backend.notifications import Listener
from tests.helpers import eventually


class Heard:
    """Counts what a listener hears."""

    def __init__(self, listener: Listener) -> None:
        self.work = 0
        self.canceled: list[UUID] = []
        self.finished: list[UUID] = []
        self.missed = 0
        listener.on_work(self._on_work)
        listener.on_canceled(self.canceled.append)

    def _on_work(self) -> None:
        self.work += 1

    def on_missed(self) -> None:
        self.missed += 1


async def wake_ups_so_far(backend: BackendPostgres, heard: Heard) -> int:
    """How many wake-ups came before one that is sent now."""
    before = heard.work
    await backend.create_workflow_runs([NewRun("sentinel")])
    await eventually(lambda: heard.work > before)
    return before
