"""`ow.limits`: limits that are looked at, set, paused and taken back, without a deploy."""

from datetime import datetime

from openworkflow.backend.limits import LimitState, LimitTable
from openworkflow.core.duration import Duration, parse_duration
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.limits import LimitRule, Rate, limit_name, pause_until
from openworkflow.core.shown import shown


class LimitClient:
    """The limits of a namespace; `OpenWorkflow.limits` is one. Methods raise BackendError."""

    def __init__(self, table: LimitTable) -> None:
        self._table = table

    async def list(self) -> list[LimitState]:
        """All limits by name, and what is in use of each."""
        return await self._table.list()

    async def set(self, name: str, slots: int | None = None, rate: Rate | None = None) -> None:
        """Make a limit this, whatever the code says, at once and until `delete`.

        With neither, nothing is limited. Of the rate its count, time and burst matter.
        """
        if rate is not None and not isinstance(rate, Rate):
            raise ConfigurationError(f'a rate is a Rate(20, per="1m"), not {shown(rate)}')
        per = None if rate is None else parse_duration(rate.per).total_seconds()
        count, burst = (None, None) if rate is None else (rate.count, rate.burst)
        rule = LimitRule(name=name, slots=slots, rate=count, rate_seconds=per, burst=burst)
        await self._table.set(rule)

    async def delete(self, name: str) -> bool:
        """Have a limit be as the code says, or be no more; False if there was nothing to undo."""
        return await self._table.delete(limit_name(name))

    async def pause(self, name: str, until: datetime | Duration) -> bool:
        """Let no run of a limit begin until then; the later of two pauses counts.

        False if there is no such limit.
        """
        return await self._table.pause(limit_name(name), *pause_until(until))

    async def resume(self, name: str) -> bool:
        """End a pause of a limit. False if there is no such limit."""
        return await self._table.pause(limit_name(name), None, None)
