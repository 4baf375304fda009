"""The environment of a test: a database of its own, workers, and time that passes at once."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload
from uuid import UUID

from openworkflow.client.client import OpenWorkflow
from openworkflow.client.handle import RunHandle
from openworkflow.core.duration import Duration, parse_duration
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.guesses import AnswersGuesses
from openworkflow.core.registry import collect
from openworkflow.core.shown import shown
from openworkflow.core.workflow import Workflow
from openworkflow.engine.request import RunOptions, TopicSending
from openworkflow.engine.step import Step, SyncStep
from openworkflow.testing.databases import Database
from openworkflow.testing.opened import NeverEnds, Opened, why_not
from openworkflow.testing.plans import Call, Plan, Plans, StepName, step_name
from openworkflow.testing.promised import Promised, promised
from openworkflow.testing.runs import Run
from openworkflow.testing.timeline import Stuck

if TYPE_CHECKING:
    from openworkflow.testing.blocking import BlockingEnvironment

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741

TIMEOUT = 30.0
"""Seconds of real time that a test waits for its runs; what they sleep costs none of it."""


class Environment(AnswersGuesses):
    """Runs workflows on a real PostgreSQL; made by the fixture `ow_env`, or by `environment()`.

    It starts by itself with the first call that is awaited, on the event loop of that call, and
    ends with its test. `timeout` is how many real seconds it waits for runs.
    """

    def __init__(self, database: Database, *, timeout: float = TIMEOUT, **options: Any) -> None:
        self.url = database.url
        """The test's own database, for code that makes a client by itself."""
        self.timeout = timeout
        self._options, self._plans, self._promised = options, Plans(), Promised()
        self._opened: Opened | None = None
        self._opening: asyncio.Task[Opened] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._blocking: BlockingEnvironment | None = None
        self._runs: list[Run[Any]] = []

    # -- runs ------------------------------------------------------------------------------------

    @overload
    async def run(
        self,
        workflow: Workflow[None, O] | Workflow[Step, O] | Workflow[SyncStep, O],
        input: None = None,
        **options: Unpack[RunOptions],
    ) -> Run[O]: ...

    @overload
    async def run(
        self, workflow: Workflow[I, O], input: I, **options: Unpack[RunOptions]
    ) -> Run[O]: ...

    @overload
    async def run(
        self, workflow: str, input: Any = None, **options: Unpack[RunOptions]
    ) -> Run[Any]: ...

    @promised("env")
    async def run(
        self, workflow: Any, input: Any = None, **options: Unpack[RunOptions]
    ) -> Run[Any]:
        """Run a workflow to its end; what it sleeps, and waits to try again, takes no time.

        The options are those of OpenWorkflow.run_workflow. Raises WorkflowFailed and
        WorkflowCanceled; NeverEnds if nothing that could end it is left to happen.
        """
        run = await self.start(workflow, input, **options)
        await run.result()
        return run

    @overload
    async def start(
        self,
        workflow: Workflow[None, O] | Workflow[Step, O] | Workflow[SyncStep, O],
        input: None = None,
        **options: Unpack[RunOptions],
    ) -> Run[O]: ...

    @overload
    async def start(
        self, workflow: Workflow[I, O], input: I, **options: Unpack[RunOptions]
    ) -> Run[O]: ...

    @overload
    async def start(
        self, workflow: str, input: Any = None, **options: Unpack[RunOptions]
    ) -> Run[Any]: ...

    @promised("env")
    async def start(
        self, workflow: Any, input: Any = None, **options: Unpack[RunOptions]
    ) -> Run[Any]:
        """Start a run and go on; it moves by itself, and its time does not: see `skip`."""
        opened = await self._open()
        if isinstance(workflow, Workflow):
            await opened.crew.serve([workflow])
        handle = await opened.ow.run_workflow(workflow, input, **options)
        return self._track(handle, workflow if isinstance(workflow, str) else workflow.name)

    async def find(self, run: UUID | RunHandle[O]) -> Run[O]:
        """A run that something else has started: the code under test, a schedule, a parent."""
        opened = await self._open()
        handle: RunHandle[Any] = run if isinstance(run, RunHandle) else opened.ow.handle(run)
        row = await opened.ow.get_workflow_run(handle.id)
        found = self._track(handle, row.workflow_name)
        return await found.refresh()

    async def runs(self, workflow: Workflow[Any, O] | str | None = None) -> list[Run[O]]:
        """All runs of this test, or those of a workflow, the oldest first."""
        opened = await self._open()
        name = workflow.name if isinstance(workflow, Workflow) else workflow
        found, cursor = [], None
        while True:
            page = await opened.ow.list_runs(limit=100, cursor=cursor)
            found += [run for run in page.runs if name in (None, run.workflow_name)]
            if (cursor := page.next_cursor) is None:
                break
        codec = workflow if isinstance(workflow, Workflow) else None
        return [await self.find(opened.ow.handle(run.id, codec)) for run in reversed(found)]

    @promised("env")
    async def serve(self, *workflows: Workflow[Any, Any] | ModuleType) -> None:
        """Execute runs of these, or of all workflows of a module, whoever starts them.

        `run`, `start` and a parent do that of theirs by themselves. Needed for what is started by
        its name or by code under test, and for schedules, which are stored by this.
        """
        opened = await self._open()
        for each in workflows:
            await opened.crew.serve(collect(each) if isinstance(each, ModuleType) else [each])

    @promised("env")
    async def signal(self, to: Any, /, *message: Any, **options: Unpack[TopicSending]) -> UUID:
        """`signal(run, "name", value)`, or `signal("topic", value)`; see OpenWorkflow.signal."""
        opened = await self._open()
        target: Any = to.handle if isinstance(to, Run) else to
        sent: UUID = await opened.ow.signal(target, *message, **options)
        return sent

    async def client(self) -> OpenWorkflow:
        """A client of the test's database, for everything else."""
        return (await self._open()).ow

    # -- time ------------------------------------------------------------------------------------

    async def now(self) -> datetime:
        """The time of the test's database, which is that of its runs."""
        return await (await self._open()).timeline.now()

    @promised("env")
    async def skip(self, duration: Duration) -> datetime:
        """Let time pass, and all happen that happens in it, in its order; returns the new time.

        What is executed ends first, and so does what falls due on the way. Raises NeverEnds where
        that takes longer than `timeout` of real time.
        """
        by = parse_duration(duration)
        return await self._skip(lambda now: now + by)

    @promised("env")
    async def skip_to(self, when: datetime) -> datetime:
        """See `skip`. Raises ConfigurationError for a time without a zone, or in the past."""
        if getattr(when, "tzinfo", None) is None:
            raise ConfigurationError(f"{shown(when)} is no datetime with a time zone; give one")
        return await self._skip(lambda _: when)

    @promised("env")
    async def settle(self) -> None:
        """Wait until nothing is executed and nothing is due; no time is skipped."""
        opened = await self._open()
        try:
            await opened.timeline.settle(self.timeout)
        except Stuck as stuck:
            raise NeverEnds(f"{stuck}; does a step wait for something in real time?") from None
        await self._refresh()

    # -- what happens to steps -------------------------------------------------------------------

    def fail(
        self, step: StepName, error: BaseException | type[BaseException], *, times: int = 1
    ) -> None:
        """Let the next calls of a step raise this, in the place of what its function does."""
        if not isinstance(_made(error), Exception):
            raise ConfigurationError(f"a step fails with an Exception, not with {shown(error)}")
        self._plans.add(Plan("fail", step_name(step), _times(times), error=_made(error)))

    def stub(self, step: StepName, value_or_function: Any = None) -> None:
        """Let all calls of a step return this, or what a function returns for their arguments.

        As the real result it is stored and read by the annotation of the step's own function.
        """
        self._plans.add(Plan("stub", step_name(step), None, stand_in=value_or_function))

    def crash_after(self, step: StepName, *, times: int = 1) -> None:
        """Let the worker die once the success of the step is stored, before the workflow goes on.

        Its claim is lost, and another worker takes the run over: what is recorded is not called
        again.
        """
        self._plans.add(Plan("crash_after", step_name(step), _times(times)))

    def crash_in(self, step: StepName, *, times: int = 1) -> None:
        """Let the worker die once the step's function has returned, before that is stored.

        Another worker takes the run over, and calls the function again: at least once is the
        promise for effects.
        """
        self._plans.add(Plan("crash_in", step_name(step), _times(times)))

    def calls(self, step: StepName) -> list[Call]:
        """The calls of a step in this test, failed ones and stubs too."""
        return self._plans.of(step)

    @property
    def all_calls(self) -> list[Call]:
        """The calls of all steps, in their order."""
        return list(self._plans.calls)

    def check(self) -> None:
        """Raise AssertionError for what was planned and met no call, and calls not awaited.

        The fixture does it once the test has passed.
        """
        if unmet := self._promised.forgotten() or self._plans.unmet():
            raise AssertionError(unmet)

    # -- tests that are not async ----------------------------------------------------------------

    @property
    def sync(self) -> "BlockingEnvironment":
        """This environment for a plain `def` test: the same methods, which wait."""
        from openworkflow.testing.blocking import BlockingEnvironment

        if self._blocking is None:
            if self._loop is not None or asyncio._get_running_loop() is not None:
                raise ConfigurationError(
                    "env.sync is for plain tests; in async code await env.run(...) itself"
                )
            self._blocking = BlockingEnvironment(self)
        return self._blocking

    # -- its life --------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop the workers and disconnect."""
        self._closed = True
        opening, self._opening = self._opening, None
        if opening is not None:
            await asyncio.wait({opening})
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.close()

    def end(self) -> None:
        """End it where no event loop runs; what an async test used was closed within that."""
        blocking, self._blocking = self._blocking, None
        if blocking is not None:
            blocking.close()
        self._closed = True

    @property
    def is_clean(self) -> bool:
        """Whether nothing of it is left going on."""
        return self._opened is None and self._opening is None

    async def _open(self) -> "Opened":
        loop = asyncio.get_running_loop()
        if self._closed:
            raise ConfigurationError(
                "the environment has ended with its test; what a fixture does after the test needs "
                "one of the fixture's own: async with environment() as env"
            )
        if self._loop not in (None, loop):
            raise ConfigurationError(
                "the environment belongs to another event loop; use it from one loop only, in a "
                "plain `def` test by env.sync, and for a module or session make one in a fixture "
                "of that scope: async with environment() as env"
            )
        if self._opened is None:
            self._loop = loop
            if self._opening is None:
                self._opening = loop.create_task(Opened.open(self.url, self._plans, self._options))
            self._opened = await asyncio.shield(self._opening)
            self._opening = None
        return self._opened

    # -- waiting ---------------------------------------------------------------------------------

    async def _until_end(self, run: Run[Any]) -> None:
        opened = await self._open()
        try:
            await opened.timeline.until_ended(run.id, self.timeout)
        except Stuck as stuck:
            raise NeverEnds(await why_not(opened, run, stuck)) from None
        await run.refresh()

    async def _skip(self, until: Callable[[datetime], datetime]) -> datetime:
        opened = await self._open()
        try:
            now = await opened.timeline.skip(until, self.timeout)
        except Stuck as stuck:
            raise NeverEnds(f"{stuck}; does a step wait for something in real time?") from None
        await self._refresh()
        return now

    async def _refresh(self) -> None:
        for run in self._runs:
            if not run.status.finished:
                await run.refresh()

    def _track(self, handle: RunHandle[O], workflow: str) -> Run[O]:
        run = Run(self, handle, workflow)
        self._runs.append(run)
        return run


def _made(error: BaseException | type[BaseException]) -> BaseException:
    return error() if isinstance(error, type) else error


def _times(times: int) -> int:
    if type(times) is not int or times < 1:
        raise ConfigurationError(f"times is a whole number from 1, not {shown(times)}")
    return times
