"""A run as a test sees it: waited for without waiting, with its steps as one reads them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack
from uuid import UUID

from openworkflow.client.handle import RunDetails, RunHandle
from openworkflow.core.errors import WorkflowFailed
from openworkflow.core.failure import Failure
from openworkflow.core.ids import tick_of
from openworkflow.core.shown import shown
from openworkflow.core.step_attempt import StepAttempt, StepKind, StepStatus
from openworkflow.core.workflow_run import RunStatus
from openworkflow.engine.request import Sending
from openworkflow.engine.undone import UNDO
from openworkflow.testing.plans import StepName, nearest, step_name
from openworkflow.testing.promised import promised

if TYPE_CHECKING:
    from openworkflow.testing.environment import Environment

O = TypeVar("O")  # noqa: E741


class NoSuchStep(AssertionError, LookupError):
    """A run has come to no step of this name; the message has the names of its steps."""


@dataclass(frozen=True, slots=True)
class RunStep:
    """A step of a run, all of its attempts together."""

    name: str
    """Key of the step: the name, with an ordinal (`name:1`) where the name came before."""
    kind: StepKind
    status: StepStatus
    """Status of the last attempt."""
    attempts: int
    output: Any
    """Output, as JSON has it."""
    error: Failure | None
    """Error of the last attempt, if it failed."""

    def __repr__(self) -> str:
        tries = f" in {self.attempts} attempts" if self.attempts > 1 else ""
        what = "" if self.kind is StepKind.RUN else f" ({self.kind})"
        came = f": {self.error.summary:.100}" if self.error else f": {shown(self.output, 100)}"
        return f"<step {self.name!r}{what} {self.status}{tries}{'' if came == ': None' else came}>"


class Run(Generic[O]):
    """A run that a test has started.

    `status`, `output`, `error` and `steps` are as of the last wait for it, or of the environment's
    last `skip` or `settle`.
    """

    def __init__(self, env: "Environment", handle: RunHandle[O], workflow: str) -> None:
        self.handle, self.workflow = handle, workflow
        self._env, self._promised = env, env._promised
        self._seen: RunDetails | None = None

    def __repr__(self) -> str:
        return f"<run of {self.workflow!r}, {self.status}: {self.steps!r}>"

    @property
    def id(self) -> UUID:
        """The id of the run."""
        return self.handle.id

    @property
    def status(self) -> RunStatus:
        """Where it stands."""
        return RunStatus.PENDING if self._seen is None else self._seen.run.status

    @property
    def output(self) -> O:
        """What its function returned. Raises WorkflowFailed, or AssertionError if it goes on."""
        if self.error is not None:
            raise self.failure()
        if self._seen is None or not self.status.finished:
            raise AssertionError(
                f"the run has no output: {shown(self, 300)}; await run.end() first"
            )
        return self.handle._codec.validate_stored(self._seen.run.output)

    @property
    def error(self) -> Failure | None:
        """Why it failed: type, message, traceback; None unless it has failed."""
        if self._seen is None or self.status is not RunStatus.FAILED:
            return None
        return Failure.from_object(self._seen.run.error)

    @property
    def steps(self) -> list[RunStep]:
        """Steps of the run, in the order in which they began."""
        return [] if self._seen is None else steps_of(self._seen.steps)

    def step(self, name: StepName) -> RunStep:
        """One of its steps. Raises NoSuchStep, with the name that was meant."""
        wanted, steps = step_name(name), self.steps
        for step in steps:
            if step.name == wanted:
                return step
        near = nearest(wanted, [step.name for step in steps])
        hint = f"did you mean {near!r}? " if near else ""
        raise NoSuchStep(f"the run has no step {wanted!r}; {hint}it is {shown(self, 1000)}")

    @promised("run")
    async def end(self) -> "Run[O]":
        """Wait until it has ended, however; the time that it waits for passes at once.

        Raises NeverEnds if nothing that could end it is left to happen.
        """
        await self._env._until_end(self)
        return self

    @promised("run")
    async def result(self) -> O:
        """Wait as `end` does, and return what its function returned.

        Raises WorkflowFailed, WorkflowCanceled and NeverEnds.
        """
        await self.end()
        try:
            return await self.handle.result()
        except WorkflowFailed as error:
            error.add_note(f"{self!r}")
            raise

    @promised("run")
    async def signal(self, name: str, value: Any = None, /, **options: Unpack[Sending]) -> UUID:
        """Send it a signal; see OpenWorkflow.signal."""
        return await self.handle.signal(name, value, **options)

    @promised("run")
    async def cancel(self, *, force: bool = False) -> None:
        """Cancel it; see OpenWorkflow.cancel."""
        await self.handle.cancel(force=force)

    async def refresh(self) -> "Run[O]":
        """Look how it stands, without waiting."""
        self._seen = await self.handle._ow.get_run(self.id)
        return self

    def failure(self) -> WorkflowFailed:
        """The error that whoever waits for its result gets."""
        assert self.error is not None
        return WorkflowFailed(self.id, self.error)


def steps_of(attempts: Sequence[StepAttempt]) -> list[RunStep]:
    """The steps that these attempts belong to."""
    found: dict[str, list[StepAttempt]] = {}
    # What is recorded by one commit has one time there, less what it took: not who began first.
    for each in sorted(attempts, key=lambda attempt: tick_of(attempt.id)):
        is_decision = each.kind is StepKind.UNDO and not each.step_name.startswith(f"{UNDO}:")
        if each.claim_no >= 0 and not is_decision:
            found.setdefault(each.step_name, []).append(each)
    return [_step(name, tries) for name, tries in found.items()]


def _step(name: str, attempts: Sequence[StepAttempt]) -> RunStep:
    last = attempts[-1]
    return RunStep(
        name,
        last.kind,
        last.status,
        max(each.attempt for each in attempts),
        last.output,
        None if last.error is None else Failure.from_object(last.error),
    )
