"""What a workflow function is handed: `step.run`, `step.sleep`, `step.sleep_until`.

Also what makes a function decorated with `@step` durable while a workflow runs.
"""

from collections.abc import Coroutine
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn, TypedDict, TypeVar, Unpack, overload
from uuid import UUID

from openworkflow.core.duration import Duration
from openworkflow.core.errors import Suspended
from openworkflow.core.guesses import AnswersGuesses
from openworkflow.core.shown import shown
from openworkflow.core.workflow import DurableFunction
from openworkflow.engine.asked import Asked
from openworkflow.engine.current import run_key
from openworkflow.engine.family import Family, SyncFamily
from openworkflow.engine.keys import PATCHED
from openworkflow.engine.operations.operation import Operation
from openworkflow.engine.operations.pause import pause_operation
from openworkflow.engine.operations.signal import MISSING, SignalOperation, send_operation
from openworkflow.engine.operations.sleep import sleep_for, sleep_until
from openworkflow.engine.operations.undo import durable_call
from openworkflow.engine.running import AsyncRuns, ThreadRuns
from openworkflow.engine.tells import AsyncTells, ThreadTells

if TYPE_CHECKING:
    from openworkflow.engine.execution import Execution
    from openworkflow.engine.program import AsyncProgram
    from openworkflow.engine.thread_program import ThreadProgram

T = TypeVar("T")
D = TypeVar("D")


class Sending(TypedDict, total=False):
    """Options of Step.signal; see OpenWorkflow.signal."""

    idempotency_key: str | None
    keep_for: Duration | None


class _RunIdentity(AnswersGuesses):
    """Which run a workflow function is handed steps for."""

    __slots__ = ("_execution",)

    _execution: "Execution"

    def __repr__(self) -> str:
        claim = self._execution.claim
        return f"<{type(self).__name__} of run {claim.id} of {claim.workflow_name!r}>"

    @property
    def run_id(self) -> UUID:
        """The id of this run."""
        return self._execution.claim.id

    @property
    def attempt(self) -> int:
        """Which attempt of the run this is, from 1, where its policy repeats it."""
        return self._execution.claim.attempts + 1

    @property
    def key(self) -> str:
        """An idempotency key of this run; for effects of a step see `current_step`."""
        return run_key(self._execution.claim)

    @property
    def scheduled_for(self) -> datetime | None:
        """The instant of the schedule that started this run, in UTC; None if none did."""
        occurrence = self._execution.claim.occurrence
        return None if occurrence is None else occurrence.scheduled_for


class Step(_RunIdentity, AsyncRuns, AsyncTells, Family):
    """The durable operations of one run.

    Each is recorded before the workflow proceeds past it, and is not repeated by a replay. Await
    nothing but steps, and asyncio's ways to combine them, in a workflow function: what comes from
    outside in any other way is refused.
    """

    __slots__ = ("_program",)

    def __init__(self, execution: "Execution", program: "AsyncProgram") -> None:
        self._execution, self._program = execution, program

    def sleep(self, name: str, duration: Duration) -> Coroutine[Any, Any, None]:
        """Wait for `duration` (seconds, timedelta or text such as "24h"); costs no worker."""
        return self._called(sleep_for(self._execution, name, duration))

    def sleep_until(self, name: str, when: datetime) -> Coroutine[Any, Any, None]:
        """Wait until `when`, which must carry a time zone; in the past it is no wait."""
        return self._called(sleep_until(self._execution, name, when))

    @overload
    def wait_for_signal(
        self, name: str, *, timeout: Duration | None = None, type: type[T]
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def wait_for_signal(
        self, name: str, *, timeout: Duration | None = None, type: type[T], default: D
    ) -> Coroutine[Any, Any, T | D]: ...

    @overload
    def wait_for_signal(
        self,
        name: str,
        *,
        timeout: Duration | None = None,
        type: Any = Any,
        default: Any = MISSING,
    ) -> Coroutine[Any, Any, Any]: ...

    def wait_for_signal(
        self,
        name: str,
        *,
        timeout: Duration | None = None,
        type: Any = Any,
        default: Any = MISSING,
    ) -> Coroutine[Any, Any, Any]:
        """Take the next signal that is sent to this run, or to a topic, under this name.

        In the order of sending, each once, and however early it came. Its value is read as `type`;
        one that does not fit is taken all the same, and fails the wait with SerializationError.
        After `timeout` (seconds, timedelta or text such as "7d"; by default never) SignalTimeout is
        raised, or `default` returned where one is given. Costs no worker.
        """
        return self._called(SignalOperation(self._execution, name, timeout, type, default))

    def signal(
        self, to: Any, /, *message: Any, **options: Unpack[Sending]
    ) -> Coroutine[Any, Any, UUID]:
        """Send `signal(run_id, "name", value)` to a run, or `signal("topic", value)` to a topic.

        A step, called "signal:" and the name: it sends one message however often it is tried.
        Raises RunNotFound, or InvalidRunState for a run that has ended; returns the message's id.
        """
        return self._called(send_operation(self._execution, to, message, {**options}))

    def pause_limit(self, name: str, until: datetime | Duration) -> Coroutine[Any, Any, None]:
        """Let no step at this rate be called until then, or for so long, in any run.

        A step, called "pause:" and the name. Runs of a limit do not begin either.
        """
        return self._called(pause_operation(self._execution, name, until))

    def continue_as_new(self, input: Any = None) -> Coroutine[Any, Any, NoReturn]:
        """Begin the run afresh with this input, under the same id and without its history.

        For workflows that go on forever: what a replay has to read stays small. Whoever waits for
        the run goes on waiting. Raises ConfigurationError while other steps are unfinished, and
        InputValidationError.
        """
        return Asked(self._execution.agenda, "continue_as_new", self._begin_afresh(input))

    def patched(self, name: str) -> Coroutine[Any, Any, bool]:
        """Whether this run takes the path that came with the patch `name`.

        True for runs that had not come to this point when the code was deployed; it is recorded.
        False, for good, for runs that had gone past it.
        """
        said = name if type(name) is str else shown(name)
        return Asked(self._execution.agenda, f"{PATCHED}{said}", self._takes_path(name))

    async def _begin_afresh(self, input: Any) -> NoReturn:
        self._program.check_asking("continue_as_new")
        self._execution.continue_as_new(input)

    async def _takes_path(self, name: str) -> bool:
        self._program.check_asking(f"patched:{shown(name)}")
        return self._execution.patched(name)

    def _call(self, fn: DurableFunction[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        """Run a function decorated with `@step`; what its plain call inside a workflow does."""
        return self._called(durable_call(self._execution, fn, args, kwargs))

    def _called(self, operation: Operation) -> Coroutine[Any, Any, Any]:
        """The coroutine of an operation; it is asked for once that is awaited."""
        self._execution.agenda.unawaited[operation] = coroutine = self._program.ask(operation)
        return coroutine


class SyncStep(_RunIdentity, ThreadRuns, ThreadTells, SyncFamily):
    """The durable operations of a run whose workflow is a plain `def`, which runs in a thread."""

    __slots__ = ("_program",)

    def __init__(self, execution: "Execution", program: "ThreadProgram") -> None:
        self._execution, self._program = execution, program

    def sleep(self, name: str, duration: Duration) -> None:
        """See Step.sleep."""
        self._program.ask(sleep_for(self._execution, name, duration))

    def sleep_until(self, name: str, when: datetime) -> None:
        """See Step.sleep_until."""
        self._program.ask(sleep_until(self._execution, name, when))

    @overload
    def wait_for_signal(
        self, name: str, *, timeout: Duration | None = None, type: type[T]
    ) -> T: ...

    @overload
    def wait_for_signal(
        self, name: str, *, timeout: Duration | None = None, type: type[T], default: D
    ) -> T | D: ...

    @overload
    def wait_for_signal(
        self,
        name: str,
        *,
        timeout: Duration | None = None,
        type: Any = Any,
        default: Any = MISSING,
    ) -> Any: ...

    def wait_for_signal(
        self,
        name: str,
        *,
        timeout: Duration | None = None,
        type: Any = Any,
        default: Any = MISSING,
    ) -> Any:
        """See Step.wait_for_signal."""
        return self._program.ask(SignalOperation(self._execution, name, timeout, type, default))

    def signal(self, to: Any, /, *message: Any, **options: Unpack[Sending]) -> UUID:
        """See Step.signal."""
        sent: UUID = self._program.ask(send_operation(self._execution, to, message, {**options}))
        return sent

    def pause_limit(self, name: str, until: datetime | Duration) -> None:
        """See Step.pause_limit."""
        self._program.ask(pause_operation(self._execution, name, until))

    def continue_as_new(self, input: Any = None) -> NoReturn:
        """See Step.continue_as_new."""
        self._program.answer(lambda: self._execution.continue_as_new(input))
        raise Suspended

    def patched(self, name: str) -> bool:
        """See Step.patched."""
        return bool(self._program.answer(lambda: self._execution.patched(name)))

    def _call(self, fn: DurableFunction[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        """See Step._call."""
        return self._program.ask(durable_call(self._execution, fn, args, kwargs))
