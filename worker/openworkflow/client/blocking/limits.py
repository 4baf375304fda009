"""See client/limits.py; `python -m tools.sync_client` wrote this from it."""

from datetime import datetime

from openworkflow.backend.limits import LimitState
from openworkflow.client.blocking.base import SyncPart
from openworkflow.core.duration import Duration
from openworkflow.core.limits import Rate


class SyncLimitClient(SyncPart):
    """The limits of a namespace; `OpenWorkflow.limits` is one. Methods raise BackendError."""

    def list(self) -> list[LimitState]:
        """All limits by name, and what is in use of each."""
        return self._line.call(lambda ow: ow.limits.list())

    def set(self, name: str, slots: int | None = None, rate: Rate | None = None) -> None:
        """Make a limit this, whatever the code says, at once and until `delete`.

        With neither, nothing is limited. Of the rate its count, time and burst matter.
        """
        return self._line.call(lambda ow: ow.limits.set(name, slots, rate))

    def delete(self, name: str) -> bool:
        """Have a limit be as the code says, or be no more; False if there was nothing to undo."""
        return self._line.call(lambda ow: ow.limits.delete(name))

    def pause(self, name: str, until: datetime | Duration) -> bool:
        """Let no run of a limit begin until then; the later of two pauses counts.

        False if there is no such limit.
        """
        return self._line.call(lambda ow: ow.limits.pause(name, until))

    def resume(self, name: str) -> bool:
        """End a pause of a limit. False if there is no such limit."""
        return self._line.call(lambda ow: ow.limits.resume(name))
