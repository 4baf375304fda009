"""What is kept in order in the database of a resource beside reconciliations, while it acts."""

from __future__ import annotations

from openworkflow_operator.api.spec import Key, WorkflowNamespace
from openworkflow_operator.database.dsn import Dsn
from openworkflow_operator.database.retention import Pruner, Retention
from openworkflow_operator.database.schedules import Declared, ScheduleKeeper
from openworkflow_operator.decide.observation import Pruning
from openworkflow_operator.decide.schedules import Kept, concerns, is_announced

Place = tuple[Dsn, str, str]
"""How to connect, the schema and the namespace id."""


class Upkeep:
    """Informs those who delete runs and who store schedules."""

    def __init__(self, pruner: Pruner, schedules: ScheduleKeeper) -> None:
        self._pruner, self._schedules = pruner, schedules

    def attend(
        self, resource: WorkflowNamespace, place: Place | None, spared_build: str | None
    ) -> None:
        """Do for the resource what it asks for; nothing without a place, or while it is paused."""
        if place is None or resource.paused:
            self.forget(resource.key)
            return
        self._retain(resource, place, spared_build)
        self._schedule(resource, place)

    def forget(self, key: Key) -> None:
        """Do nothing more for it."""
        self._pruner.forget(key)
        self._schedules.forget(key)

    def pruned(self, key: Key) -> Pruning | None:
        """How the last walk through its runs ended."""
        return self._pruner.last(key)

    def scheduled(self, key: Key) -> Kept | None:
        """How it went to store its schedules."""
        return self._schedules.last(key)

    def _retain(self, resource: WorkflowNamespace, place: Place, spared_build: str | None) -> None:
        if not resource.retention_seconds:
            self._pruner.forget(resource.key)
            return
        kept = Retention(*place, resource.retention_seconds, spared_build)
        self._pruner.keep(resource.key, kept)

    def _schedule(self, resource: WorkflowNamespace, place: Place) -> None:
        if not concerns(resource):
            self._schedules.forget(resource.key)
        elif is_announced(resource):
            # Not before the status says so: an operator after this one would not know of them.
            self._schedules.keep(resource.key, Declared(*place, tuple(resource.schedules)))
