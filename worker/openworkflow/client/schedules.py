"""`ow.schedules`: schedules that are made, looked at, paused and triggered by hand."""

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from openworkflow.backend.schedules import Schedules
from openworkflow.client.handle import RunHandle
from openworkflow.client.plain import plain_schedule, sealed_schedule
from openworkflow.client.subject import REASON_LIMIT
from openworkflow.codecs.payloads import Payloads
from openworkflow.core.cron import Cron
from openworkflow.core.errors import ConfigurationError, InputValidationError
from openworkflow.core.names import storable_text
from openworkflow.core.schedule import NewSchedule, Schedule, Source, schedule_name
from openworkflow.core.shown import shown
from openworkflow.core.workflow import Workflow
from openworkflow.engine.request import Request, needs_input


class ScheduleClient:
    """The schedules of a namespace; `OpenWorkflow.schedules` is one.

    Methods that take the name of a schedule raise ScheduleNotFound.
    """

    def __init__(
        self,
        schedules: Schedules,
        payloads: Payloads,
        handle: Callable[[UUID], RunHandle[Any]],
    ) -> None:
        self._schedules, self._payloads, self._handle = schedules, payloads, handle

    async def create(
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
        wish = await self._wish(name, workflow, cron, version)
        reason = "created paused" if paused else None
        return await self._plain(await self._schedules.create(wish, pause_reason=reason))

    async def update(
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
        wish = await self._wish(name, workflow, cron, version)
        return await self._plain(await self._schedules.update(wish))

    async def list(self) -> list[Schedule]:
        """All schedules by name."""
        return [await self._plain(each) for each in await self._schedules.find()]

    async def get(self, name: str) -> Schedule:
        """One schedule."""
        return await self._plain(await self._schedules.get(schedule_name(name)))

    async def pause(self, name: str, reason: str | None = None) -> Schedule:
        """Have no occurrence begin until it is resumed, deploys or not; begun ones go on."""
        if reason is not None:
            storable_text("reason", reason, REASON_LIMIT)
        return await self._plain(await self._schedules.pause(schedule_name(name), reason))

    async def resume(self, name: str) -> Schedule:
        """Go on with the next instant from now on."""
        return await self._plain(await self._schedules.resume(schedule_name(name)))

    async def trigger(self, name: str) -> RunHandle[Any]:
        """Have an occurrence begin now, whatever else runs, paused or not."""
        return self._handle(await self._schedules.trigger(schedule_name(name)))

    async def backfill(self, name: str, start: datetime, end: datetime) -> int:
        """Run the occurrences from `start` on and before `end` that have not run; says how many.

        One after the other, unless they may overlap. Raises ConfigurationError for an `end` that is
        still to come, and for more than 10,000.
        """
        for at in (start, end):
            if not isinstance(at, datetime):
                raise ConfigurationError(
                    f"a backfill is from a datetime to another, not {shown(at)}"
                )
        return len(await self._schedules.backfill(schedule_name(name), start, end))

    async def delete(self, name: str) -> None:
        """Forget a schedule, and cancel its runs that have not begun.

        One that code declares comes back with the next look of a worker: take it out there.
        """
        await self._schedules.delete(schedule_name(name))

    async def _plain(self, schedule: Schedule) -> Schedule:
        return await plain_schedule(self._payloads, schedule)

    async def _wish(
        self,
        name: str,
        workflow: Workflow[Any, Any] | str,
        cron: Cron | str,
        version: str | None,
    ) -> NewSchedule:
        wanted = Cron(cron) if isinstance(cron, str) else cron
        if not isinstance(wanted, Cron):
            raise ConfigurationError(f'not a Cron: {shown(cron)}; give Cron("0 9 * * 1-5")')
        if wanted.input is None and needs_input(workflow):
            raise InputValidationError(
                f"{shown(workflow)} takes an input, and its schedule has none: Cron(..., input=...)"
            )
        request = Request(workflow, {"version": version}, self._payloads.plain_limit)
        (run,) = request.runs([wanted.input], [None])
        about = run.workflow_name, run.version
        wish = NewSchedule.of(wanted, Source.API, about, run.input, name)
        return await sealed_schedule(self._payloads, wish)
