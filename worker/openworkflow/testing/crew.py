"""The workers of one environment: they serve what its test starts, and take over in a crash."""

import asyncio
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from openworkflow.backend.backend import BackendPostgres
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.recorded import ClaimedRun
from openworkflow.core.shown import shown
from openworkflow.core.workflow import Workflow
from openworkflow.telemetry.metrics import Metrics
from openworkflow.testing.clock import Clock
from openworkflow.testing.plans import Plans
from openworkflow.testing.staged import StagedWorker

LEASE = timedelta(days=1)
"""A test that is stopped in a debugger loses nothing."""
_LOOK_EVERY = 0.002


class Crew:
    """Workers, each for what came to be known at one time; a second set once one has crashed."""

    def __init__(
        self, backend: BackendPostgres, plans: Plans, connect: Callable[[], Any], **options: Any
    ) -> None:
        self.plans = plans
        self._backend, self._connect, self._options = backend, connect, options
        self._workflows: dict[tuple[str, str], Workflow[Any, Any]] = {}
        self._sets: list[list[StagedWorker]] = [[]]
        self._starting: set[asyncio.Task[Any]] = set()
        self._crashing = asyncio.Lock()

    def serves(self, key: tuple[str, str]) -> bool:
        """Whether runs of this workflow, in this version, are executed here."""
        return key in self._workflows

    @property
    def names(self) -> str:
        """What is served, for people."""
        return ", ".join(sorted({name for name, _ in self._workflows})) or "nothing yet"

    @property
    def idle(self) -> bool:
        """Whether no worker does anything, or is about to start."""
        return not self._starting and all(worker.idle for each in self._sets for worker in each)

    def look(self) -> None:
        """Let the workers claim what is due now."""
        for workers in self._sets:
            for worker in workers:
                worker.look()

    async def serve(self, workflows: Iterable[Workflow[Any, Any]]) -> None:
        """Execute runs of these from now on.

        Raises ConfigurationError for another workflow of a name that is served.
        """
        new = []
        for workflow in workflows:
            if not isinstance(workflow, Workflow):
                raise ConfigurationError(
                    f"not a workflow: {shown(workflow)}; decorate it with @workflow"
                )
            served = self._workflows.setdefault(workflow.key, workflow)
            if served is not workflow:
                raise ConfigurationError(
                    f"another workflow called {workflow.name!r} is served in this test; give one "
                    "another name, or serve the one that is meant before any run is started"
                )
            if all(workflow not in w.workflows for w in self._sets[0]):
                new.append(workflow)
        if new:
            for workers in self._sets:
                await self._start(workers, new)

    def meet(self, workflow: Workflow[Any, Any]) -> None:
        """See Stage.meet; one of that name that the test serves itself takes its place."""
        if not self.serves(workflow.key):
            self._later(self.serve([workflow]))

    async def crash(self, run: ClaimedRun) -> None:
        """See Stage.crash: its lease ends, and a worker of the other set takes it over."""
        async with self._crashing:
            if len(self._sets) == 1:
                self._sets.append([])
                await self._start(self._sets[1], list(self._workflows.values()))
        clock: Clock = await self._connect()
        try:
            await clock.expire(run.id, run.claim_no)
            while await clock.stands(run.id, run.claim_no):
                self.look()
                await asyncio.sleep(_LOOK_EVERY)
        finally:
            await clock.close()

    async def stop(self) -> None:
        """Stop all workers, and what they execute."""
        for task in self._starting:
            task.cancel()
        if self._starting:
            await asyncio.wait(self._starting)
        await asyncio.gather(*(worker.stop() for each in self._sets for worker in each))

    async def _start(
        self, workers: list[StagedWorker], workflows: list[Workflow[Any, Any]]
    ) -> None:
        worker = StagedWorker(
            self,
            self._backend,
            workflows,
            lease=LEASE,
            drain=timedelta(0),
            rest=timedelta(0),
            resident=0,
            metrics=Metrics(self._backend.namespace_id),
            **self._options,
        )
        workers.append(worker)
        await worker.start()

    def _later(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
