"""See client/handle.py; `python -m tools.sync_client` wrote this from it."""

from collections.abc import Iterator
from typing import Any, TypeVar, Unpack
from uuid import UUID

from openworkflow.client.blocking.base import SyncHandleBase
from openworkflow.core.duration import Duration
from openworkflow.core.explanation import Explanation
from openworkflow.core.progress import RunEvent, RunProgress
from openworkflow.core.workflow_run import RunStatus, WorkflowRun
from openworkflow.engine.request import Sending

O = TypeVar("O")  # noqa: E741


class SyncRunHandle(SyncHandleBase[O]):
    """A run that was started; `created` is False if its idempotency key had started it before."""

    def run(self) -> WorkflowRun:
        """The row as it is now. Raises RunNotFound."""
        return self._line.call(lambda ow: self._of(ow).run())

    def status(self) -> RunStatus:
        """Where the run stands. Raises RunNotFound."""
        return self._line.call(lambda ow: self._of(ow).status())

    def explain(self) -> Explanation:
        """Why the run is not done. Raises RunNotFound."""
        return self._line.call(lambda ow: self._of(ow).explain())

    def progress(self) -> RunProgress:
        """What the run says of itself: the status that it set last. Raises RunNotFound."""
        return self._line.call(lambda ow: self._of(ow).progress())

    def events(self, topic: str | None = None, *, from_offset: int = 0) -> Iterator[RunEvent]:
        """What the run emits, in order, until it ends; see OpenWorkflow.events."""
        return self._line.each(lambda ow: self._of(ow).events(topic, from_offset=from_offset))

    def cancel(self, *, force: bool = False) -> None:
        """See OpenWorkflow.cancel."""
        return self._line.call(lambda ow: self._of(ow).cancel(force=force))

    def signal(self, name: str, value: Any = None, /, **options: Unpack[Sending]) -> UUID:
        """Send the run a signal; see OpenWorkflow.signal."""
        return self._line.call(lambda ow: self._of(ow).signal(name, value, **options), options)

    def result(self, timeout: Duration | None = None) -> O:
        """Wait for the run to end, and return what its function returned.

        Raises WorkflowFailed, WorkflowCanceled, RunNotFound, and ResultTimeout after `timeout`
        (seconds, timedelta or text such as "30s"); the run goes on then. PayloadUnreadable, if
        this client has not the codec, or the key, that the result was encoded with.
        """
        return self._line.call(lambda ow: self._of(ow).result(timeout))
