"""See client/schedules.py; `python -m tools.sync_client` wrote this from it."""

from datetime import datetime
from typing import Any

from openworkflow.client.blocking.base import SyncPart
from openworkflow.client.blocking.handle import SyncRunHandle
from openworkflow.core.cron import Cron
from openworkflow.core.schedule import Schedule
from openworkflow.core.workflow import Workflow


class SyncScheduleClient(SyncPart):
    """The schedules of a namespace; `OpenWorkflow.schedules` is one.

    Methods that take the name of a schedule raise ScheduleNotFound.
    """

    def create(
        self,
        name: str,
        workflow: Workflow[Any, Any] | str,
        cron: Cron | str,
        *,
        version: str | None = None,
        paused: bool = False,
    ) -> Schedule:
        """Start a workflow again and again; a workflow whose code is elsewhere is given by name.

        Raises ConfigurationError for a name that is taken, and for what could never run.
        """
        return self._line.call(
            lambda ow: ow.schedules.create(name, workflow, cron, version=version, paused=paused)
        )

    def update(
        self,
        name: str,
        workflow: Workflow[Any, Any] | str,
        cron: Cron | str,
        *,
        version: str | None = None,
    ) -> Schedule:
        """Make a schedule another one; what is left out is as by default. It stays paused or not.

        Raises ConfigurationError for one that code declares.
        """
        return self._line.call(
            lambda ow: ow.schedules.update(name, workflow, cron, version=version)
        )

    def list(self) -> list[Schedule]:
        """All schedules by name."""
        return self._line.call(lambda ow: ow.schedules.list())

    def get(self, name: str) -> Schedule:
        """One schedule."""
        return self._line.call(lambda ow: ow.schedules.get(name))

    def pause(self, name: str, reason: str | None = None) -> Schedule:
        """Have no occurrence begin until it is resumed, deploys or not; begun ones go on."""
        return self._line.call(lambda ow: ow.schedules.pause(name, reason))

    def resume(self, name: str) -> Schedule:
        """Go on with the next instant from now on."""
        return self._line.call(lambda ow: ow.schedules.resume(name))

    def trigger(self, name: str) -> SyncRunHandle[Any]:
        """Have an occurrence begin now, whatever else runs, paused or not."""
        return SyncRunHandle(self._line, self._line.call(lambda ow: ow.schedules.trigger(name)))

    def backfill(self, name: str, start: datetime, end: datetime) -> int:
        """Run the occurrences from `start` on and before `end` that have not run; says how many.

        One after the other, unless they may overlap. Raises ConfigurationError for an `end` that is
        still to come, and for more than 10,000.
        """
        return self._line.call(lambda ow: ow.schedules.backfill(name, start, end))

    def delete(self, name: str) -> None:
        """Forget a schedule, and cancel its runs that have not begun.

        One that code declares comes back with the next look of a worker: take it out there.
        """
        return self._line.call(lambda ow: ow.schedules.delete(name))
