"""What the written classes of the blocking client stand on."""

from typing import Any, Generic, Self, TypeVar

from openworkflow.client.blocking.line import Line
from openworkflow.client.client import OpenWorkflow
from openworkflow.client.handle import RunHandle
from openworkflow.core.guesses import AnswersGuesses

O = TypeVar("O")  # noqa: E741


class SyncPart:
    """Has the way to the async client."""

    def __init__(self, line: Line) -> None:
        self._line = line


class SyncBase(AnswersGuesses, SyncPart):
    """The client as a whole; `stop` it, or use it as `with OpenWorkflow.sync(url) as ow`.

    Of one process and its forked children, each of which opens connections of its own; of any
    number of threads.
    """

    def __repr__(self) -> str:
        return "<OpenWorkflow.sync>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Disconnect; a client that is not stopped is at the end of the program."""
        self._line.stop()


class SyncHandleBase(AnswersGuesses, Generic[O]):
    """A run that was started; `created` is False if its idempotency key had started it before."""

    def __init__(self, line: Line, handle: RunHandle[O]) -> None:
        self.id, self.created = handle.id, handle.created
        self._line, self._codec = line, handle._codec

    def __repr__(self) -> str:
        return f"<run {self.id}>"

    def _of(self, ow: OpenWorkflow) -> RunHandle[O]:
        """Handle of this run in the client of this process."""
        return RunHandle(ow, self.id, self._codec, created=self.created)


def given(run: Any) -> Any:
    """A run as the async client takes it."""
    return run.id if isinstance(run, SyncHandleBase) else run
