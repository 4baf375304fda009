"""A run as its starter sees it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack
from uuid import UUID

from openworkflow.backend.turns import Turn
from openworkflow.core.duration import Duration
from openworkflow.core.errors import WorkflowCanceled, WorkflowFailed
from openworkflow.core.explanation import Explanation
from openworkflow.core.failure import Failure
from openworkflow.core.guesses import AnswersGuesses
from openworkflow.core.progress import NOTHING_TOLD, RunEvent, RunProgress
from openworkflow.core.serialization import Codec
from openworkflow.core.step_attempt import StepAttempt
from openworkflow.core.workflow_run import RunStatus, WorkflowRun
from openworkflow.engine.request import Sending

if TYPE_CHECKING:
    from openworkflow.client.client import OpenWorkflow

O = TypeVar("O")  # noqa: E741


@dataclass(frozen=True, slots=True)
class RunDetails:
    """A run and its step attempts in the order they began."""

    run: WorkflowRun
    steps: list[StepAttempt]
    progress: RunProgress = NOTHING_TOLD
    turns: list[Turn] = field(default_factory=list)
    """Steps of the run that wait for a rate, the next first, if it is parked."""


class RunHandle(AnswersGuesses, Generic[O]):
    """A run that was started; `created` is False if its idempotency key had started it before."""

    def __init__(
        self, ow: "OpenWorkflow", run_id: UUID, codec: Codec[O], *, created: bool = False
    ) -> None:
        self.id, self.created = run_id, created
        self._ow, self._codec = ow, codec

    def __repr__(self) -> str:
        return f"<run {self.id}>"

    async def run(self) -> WorkflowRun:
        """The row as it is now. Raises RunNotFound."""
        return await self._ow.get_workflow_run(self.id)

    async def status(self) -> RunStatus:
        """Where the run stands. Raises RunNotFound."""
        return (await self.run()).status

    async def explain(self) -> Explanation:
        """Why the run is not done. Raises RunNotFound."""
        return await self._ow.explain(self.id)

    async def progress(self) -> RunProgress:
        """What the run says of itself: the status that it set last. Raises RunNotFound."""
        return await self._ow.progress(self.id)

    def events(self, topic: str | None = None, *, from_offset: int = 0) -> AsyncIterator[RunEvent]:
        """What the run emits, in order, until it ends; see OpenWorkflow.events."""
        return self._ow.events(self.id, topic, from_offset=from_offset)

    async def cancel(self, *, force: bool = False) -> None:
        """See OpenWorkflow.cancel."""
        await self._ow.cancel(self.id, force=force)

    async def signal(self, name: str, value: Any = None, /, **options: Unpack[Sending]) -> UUID:
        """Send the run a signal; see OpenWorkflow.signal."""
        return await self._ow.signal(self.id, name, value, **options)

    async def result(self, timeout: Duration | None = None) -> O:
        """Wait for the run to end, and return what its function returned.

        Raises WorkflowFailed, WorkflowCanceled, RunNotFound, and ResultTimeout after `timeout`
        (seconds, timedelta or text such as "30s"); the run goes on then. PayloadUnreadable, if
        this client has not the codec, or the key, that the result was encoded with.
        """
        run = await self._ow.wait(self.id, timeout)
        if run.status is RunStatus.CANCELED:
            raise WorkflowCanceled(run.id)
        if run.status is RunStatus.FAILED:
            raise WorkflowFailed(run.id, Failure.from_object(run.error))
        output = await self._ow._payloads.open_value(run.output, "result")
        return self._codec.validate_stored(output)
