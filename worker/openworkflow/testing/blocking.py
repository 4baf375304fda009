"""An environment for tests that are plain functions: each call waits."""

from collections.abc import Coroutine
from datetime import datetime
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack, overload
from uuid import UUID

from openworkflow.client.blocking.loop_thread import LoopThread
from openworkflow.client.client import OpenWorkflow
from openworkflow.client.handle import RunHandle
from openworkflow.core.duration import Duration
from openworkflow.core.failure import Failure
from openworkflow.core.workflow import Workflow
from openworkflow.core.workflow_run import RunStatus
from openworkflow.engine.request import RunOptions, Sending, TopicSending
from openworkflow.engine.step import Step, SyncStep
from openworkflow.testing.plans import StepName
from openworkflow.testing.runs import Run, RunStep

if TYPE_CHECKING:
    from openworkflow.testing.environment import Environment

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741
T = TypeVar("T")


class BlockingRun(Generic[O]):
    """See Run."""

    def __init__(self, run: Run[O], thread: LoopThread) -> None:
        self._run, self._thread = run, thread

    def __repr__(self) -> str:
        return repr(self._run)

    @property
    def id(self) -> UUID:
        """See Run.id."""
        return self._run.id

    @property
    def status(self) -> RunStatus:
        """See Run.status."""
        return self._run.status

    @property
    def output(self) -> O:
        """See Run.output."""
        return self._run.output

    @property
    def error(self) -> Failure | None:
        """See Run.error."""
        return self._run.error

    @property
    def steps(self) -> list[RunStep]:
        """See Run.steps."""
        return self._run.steps

    def step(self, name: StepName) -> RunStep:
        """See Run.step."""
        return self._run.step(name)

    def end(self) -> "BlockingRun[O]":
        """See Run.end."""
        self._thread.call(self._run.end())
        return self

    def result(self) -> O:
        """See Run.result."""
        return self._thread.call(self._run.result())

    def signal(self, name: str, value: Any = None, /, **options: Unpack[Sending]) -> UUID:
        """See Run.signal."""
        return self._thread.call(self._run.signal(name, value, **options))

    def cancel(self, *, force: bool = False) -> None:
        """See Run.cancel."""
        self._thread.call(self._run.cancel(force=force))

    def refresh(self) -> "BlockingRun[O]":
        """See Run.refresh."""
        self._thread.call(self._run.refresh())
        return self


class BlockingEnvironment:
    """See Environment; its workers and steps are in a thread with an event loop of its own.

    What does not wait (`fail`, `stub`, `crash_after`, `crash_in`, `calls`) is the environment's.
    """

    def __init__(self, env: "Environment") -> None:
        self._env, self._thread = env, LoopThread("openworkflow test")

    @overload
    def run(
        self,
        workflow: Workflow[None, O] | Workflow[Step, O] | Workflow[SyncStep, O],
        input: None = None,
        **options: Unpack[RunOptions],
    ) -> BlockingRun[O]: ...

    @overload
    def run(
        self, workflow: Workflow[I, O], input: I, **options: Unpack[RunOptions]
    ) -> BlockingRun[O]: ...

    @overload
    def run(
        self, workflow: str, input: Any = None, **options: Unpack[RunOptions]
    ) -> BlockingRun[Any]: ...

    def run(
        self, workflow: Any, input: Any = None, **options: Unpack[RunOptions]
    ) -> BlockingRun[Any]:
        """See Environment.run."""
        return self._of(self._call(self._env.run(workflow, input, **options)))

    @overload
    def start(
        self,
        workflow: Workflow[None, O] | Workflow[Step, O] | Workflow[SyncStep, O],
        input: None = None,
        **options: Unpack[RunOptions],
    ) -> BlockingRun[O]: ...

    @overload
    def start(
        self, workflow: Workflow[I, O], input: I, **options: Unpack[RunOptions]
    ) -> BlockingRun[O]: ...

    @overload
    def start(
        self, workflow: str, input: Any = None, **options: Unpack[RunOptions]
    ) -> BlockingRun[Any]: ...

    def start(
        self, workflow: Any, input: Any = None, **options: Unpack[RunOptions]
    ) -> BlockingRun[Any]:
        """See Environment.start."""
        return self._of(self._call(self._env.start(workflow, input, **options)))

    def find(self, run: UUID | RunHandle[O]) -> BlockingRun[O]:
        """See Environment.find."""
        return self._of(self._call(self._env.find(run)))

    def runs(self, workflow: Workflow[Any, O] | str | None = None) -> list[BlockingRun[O]]:
        """See Environment.runs."""
        return [self._of(run) for run in self._call(self._env.runs(workflow))]

    def serve(self, *workflows: Workflow[Any, Any] | ModuleType) -> None:
        """See Environment.serve."""
        self._call(self._env.serve(*workflows))

    def signal(self, to: Any, /, *message: Any, **options: Unpack[TopicSending]) -> UUID:
        """See Environment.signal."""
        target = to.id if isinstance(to, BlockingRun) else to
        return self._call(self._env.signal(target, *message, **options))

    def client(self) -> OpenWorkflow:
        """See Environment.client; what it does is for `call` to await."""
        return self._call(self._env.client())

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await something on the loop of the environment, such as a call of its client."""
        return self._call(coroutine)

    def now(self) -> datetime:
        """See Environment.now."""
        return self._call(self._env.now())

    def skip(self, duration: Duration) -> datetime:
        """See Environment.skip."""
        return self._call(self._env.skip(duration))

    def skip_to(self, when: datetime) -> datetime:
        """See Environment.skip_to."""
        return self._call(self._env.skip_to(when))

    def settle(self) -> None:
        """See Environment.settle."""
        self._call(self._env.settle())

    def close(self) -> None:
        """Stop the workers, disconnect, and end the thread."""
        try:
            self._call(self._env.close())
        finally:
            self._thread.close()

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._thread.call(coroutine)

    def _of(self, run: Run[O]) -> BlockingRun[O]:
        return BlockingRun(run, self._thread)
