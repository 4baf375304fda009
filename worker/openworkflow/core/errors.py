"""Everything OpenWorkflow raises: one tree under `OpenWorkflowError`, and how runs are interrupted.

An error's message is one clear line that ends with what to do about it, where there is something.
`Suspended` is no error: it derives from BaseException, so that a workflow's `except Exception`
cannot swallow it.
"""

from enum import Enum
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from openworkflow.core.shown import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openworkflow.core.failure import Failure


class OpenWorkflowError(Exception):
    """The root: catches whatever this package raises."""

    def __reduce__(self) -> Any:
        # Most of the tree takes more than a message, which pickle and copy do not know.
        return _restore, (type(self), self.args), self.__dict__


class ConfigurationError(OpenWorkflowError):
    """A value given to this package is wrong: a mistake in the calling code or its environment."""


class Fault(Enum):
    """Whose fault it is that the database did not do what was asked, and so what to do next."""

    VALUE = "of the row, which can never be stored: whoever wants it stored hears of it"
    MOMENT = "of nobody: another statement was in the way, so it is sent again at once"
    SIZE = "of too much in one statement: it is sent again in parts"
    SERVER = "of the server or the way to it: it is sent again, after a pause, as it is"
    TABLE = "of the tables, perhaps for some rows only: those are sent again apart from the others"
    OURS = "a defect of this program: it is reported, and the run handed back"


class BackendError(OpenWorkflowError):
    """The database cannot do what was asked: connection, permission, schema."""

    fault = Fault.TABLE
    """What is not known to be the fault of a value is not taken for it."""
    in_doubt = False
    """Whether it may have taken effect all the same: the answer did not arrive."""

    def of(self, fault: Fault, *, in_doubt: bool = False) -> Self:
        """This error, with whose fault it is."""
        self.fault, self.in_doubt = fault, in_doubt
        return self


class ConnectionLost(BackendError):
    """The database does not answer for now; the same request may succeed later."""

    fault = Fault.SERVER


class SerializationError(OpenWorkflowError):
    """A value has no JSON form, or a stored one does not fit the annotation any more."""


class InputValidationError(SerializationError):
    """An input does not fit the workflow's annotation; nothing was stored."""

    def __init__(self, message: str, path: str = "input") -> None:
        super().__init__(message)
        self.path = path
        """The first field that does not fit, such as `input.items.0.price`."""


class PayloadTooLarge(SerializationError):
    """A value's JSON text is larger than the limit; nothing was stored."""

    def __init__(self, what: str, size: int, limit: int, *, fixed: bool = False) -> None:
        or_raise = "" if fixed else ", or raise the limit (OPENWORKFLOW_PAYLOAD_LIMIT_BYTES)"
        super().__init__(
            f"{what} is {size:,} bytes of JSON and the limit is {limit:,}; keep the data elsewhere "
            f"and pass a reference to it{or_raise}"
        )
        self.what, self.size, self.limit = what, size, limit
        """Both in bytes."""


class CodecError(OpenWorkflowError):
    """A codec could not encode or decode a value; a run that meets it is handed back."""


class PayloadUnreadable(CodecError):
    """A stored value is encoded, and this process cannot decode it: a key or a codec is missing."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what} cannot be read: {why}")
        self.what, self.why = what, why


class _OfRun:
    """Has the id of the run that an error is about.

    It is kept as text, because what is recorded of an error is those attributes that JSON has.
    """

    @property
    def run_id(self) -> UUID:
        """The id of the run. Raises AttributeError where nobody knows it any more."""
        try:
            return UUID(self.__dict__["run_id"])
        except (KeyError, ValueError):
            raise AttributeError("the id of the run is not known") from None

    @run_id.setter
    def run_id(self, run_id: UUID | str) -> None:
        self.__dict__["run_id"] = str(run_id)


class RunNotFound(_OfRun, OpenWorkflowError):
    """The namespace has no run of that id."""

    def __init__(self, run_id: UUID | str) -> None:
        super().__init__(f"there is no workflow run {run_id} in this namespace")
        self.run_id = run_id


class InvalidRunState(_OfRun, OpenWorkflowError):
    """The run's status forbids what was asked of it."""

    def __init__(self, run_id: UUID | str, status: str, action: str = "changed") -> None:
        super().__init__(f"workflow run {run_id} is {status!s} and cannot be {action}")
        self.run_id = run_id
        self.status = str(status)


class RunExists(_OfRun, OpenWorkflowError):
    """Another run has the key of this one, and was to be left alone; nothing was stored."""

    def __init__(self, run_id: UUID | str, key: str) -> None:
        super().__init__(
            f"workflow run {run_id} has the key {shown(key)} and has not ended; wait for it, or "
            "let the call return, replace or cancel it: Unique(key, on_conflict=...)"
        )
        self.run_id = run_id
        self.key = key


class ScheduleNotFound(OpenWorkflowError):
    """The namespace has no schedule of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"there is no schedule {shown(name)} in this namespace; look at `openworkflow "
            "schedules list`"
        )
        self.name = name


class InvalidBuildState(OpenWorkflowError):
    """What was asked of a build would leave runs that nobody takes."""


class WorkflowFailed(_OfRun, OpenWorkflowError):
    """The awaited run failed; `__cause__` is the original error where its type is known here."""

    failure: "Failure"

    def __init__(self, run_id: UUID | str, failure: "Failure") -> None:
        super().__init__(f"workflow run {run_id} failed: {failure.summary}")
        self.run_id = run_id
        self.failure = failure
        self.__cause__ = failure.rebuild()


class WorkflowCanceled(_OfRun, OpenWorkflowError):
    """The awaited run was canceled."""

    def __init__(self, run_id: UUID | str) -> None:
        super().__init__(f"workflow run {run_id} was canceled")
        self.run_id = run_id


class ChildFailed(WorkflowFailed):
    """A child came to no result; `failure` and `__cause__` are its own error.

    `status` is failed or canceled, or "gone" where somebody has deleted the run.
    """

    def __init__(self, step_name: str, run_id: UUID | str, status: str, failure: "Failure") -> None:
        what = {"failed": f"failed: {failure.summary}", "canceled": "was canceled"}
        OpenWorkflowError.__init__(
            self, f"child {step_name!r}, run {run_id}, {what.get(status, 'is not there any more')}"
        )
        self.run_id = run_id
        self.step_name, self.status, self.failure = step_name, status, failure
        self.__cause__ = failure.rebuild()


class ChildTimeout(_OfRun, OpenWorkflowError, TimeoutError):
    """A child did not end within the time that its parent waits for it."""

    def __init__(self, step_name: str, run_id: UUID | str, *, goes_on: bool = False) -> None:
        then = "it goes on" if goes_on else "it is canceled"
        super().__init__(f"child {step_name!r}, run {run_id}, did not end in time; {then}")
        self.run_id = run_id
        self.step_name = step_name


class MapFailed(OpenWorkflowError):
    """More items of a map failed than it tolerates; `__cause__` is the error of the first.

    `failed` are the first of their places, up to a hundred.
    """

    def __init__(
        self,
        step_name: str,
        failed: "Sequence[int]",
        in_all: int,
        items: int,
        first: BaseException | None = None,
    ) -> None:
        why = "" if first is None else f": {type(first).__name__}: {first}"
        super().__init__(
            f"map {step_name!r}: {in_all} of {items} items failed, more than it tolerates; the "
            f"first is item {failed[0] if failed else '?'}{why}"
        )
        self.__cause__ = first
        self.step_name, self.failed, self.items = step_name, list(failed[:100]), items


class ResultTimeout(_OfRun, OpenWorkflowError, TimeoutError):
    """The run did not finish while the caller waited; it goes on."""

    def __init__(
        self,
        run_id: UUID | str,
        seconds: float,
        unclaimed: str | None = None,
        unknown: str | None = None,
    ) -> None:
        """`unclaimed` is the run's workflow, where no worker has begun it; `unknown` says why the
        run could not be looked at in the end.
        """
        hint = "it goes on" if unknown is None else f"how it stands is not known: {unknown}"
        if unclaimed is not None:
            hint = (
                f"no worker that serves {unclaimed!r} has claimed it so far; "
                f"`openworkflow runs explain {run_id}` says why"
            )
        super().__init__(f"workflow run {run_id} did not finish within {seconds:g} s; {hint}")
        self.run_id = run_id
        self.seconds = seconds


class StepFailed(OpenWorkflowError):
    """A step has no attempt left, and its own error's type is not known in this process."""

    failure: "Failure"

    def __init__(self, step_name: str, attempts: int, failure: "Failure") -> None:
        tries = f"{attempts} attempt" + ("" if attempts == 1 else "s")
        super().__init__(f"step {step_name!r} failed after {tries}: {failure.summary}")
        self.step_name, self.attempts, self.failure = step_name, attempts, failure


class StepTimeout(OpenWorkflowError, TimeoutError):
    """An attempt of a step took longer than the step's timeout; it counts as a failed attempt."""


class StepAborted(OpenWorkflowError, RuntimeError):
    """An attempt of a step ended by what ends a program: sys.exit, KeyboardInterrupt, a panic.

    It counts as a failed attempt, whose record has what the function raised.
    """


class SignalTimeout(OpenWorkflowError, TimeoutError):
    """No signal came within the time that the workflow waits for it."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"no signal {name!r} came in time; wait for longer, or give a default=, which is then "
            "what the wait answers"
        )
        self.name = name


class NonDeterminism(OpenWorkflowError):
    """A replay asked for other steps than those recorded: the workflow's code changed."""


class Stalled(OpenWorkflowError):
    """A workflow function waits for something that nothing it has asked for will end."""


class TooManySteps(OpenWorkflowError):
    """A run has recorded more step attempts than one run may."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the run has recorded {limit:,} step attempts, the limit of one run; begin afresh "
            "before that with step.continue_as_new(input), do more in each step, or raise the "
            "limit (OPENWORKFLOW_MAX_STEP_ATTEMPTS)"
        )
        self.limit = limit


class TooManyEvents(OpenWorkflowError):
    """A run has emitted more events than one run may, or faster than they can be stored."""


class DeadlineExceeded(OpenWorkflowError):
    """The run was not over at its deadline."""


class PoisonPill(OpenWorkflowError):
    """The run killed its workers too often and is not given to another one."""


class NonRetryableError(OpenWorkflowError):
    """For user code to raise: the step (or run) fails at once, whatever its retry policy."""


class UndoFailed(OpenWorkflowError):
    """A run was canceled, and not all that it had done could be undone: its message says what."""


class Suspended(BaseException):
    """Unwinds a workflow function that is to continue later, perhaps in another worker."""


def _restore(cls: type[OpenWorkflowError], args: tuple[Any, ...]) -> OpenWorkflowError:
    error = cls.__new__(cls, *args)
    error.args = args
    return error
