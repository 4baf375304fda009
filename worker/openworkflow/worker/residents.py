"""Runs that are parked, and whose executions stay in the memory of this worker.

Such a run is a row like any other that is parked: it has no claim, no lease and no slot, and any
worker may take it. Where this worker does, and nothing has happened to the run in between, its
execution goes on where it stands. Else it is dropped, and the run is replayed.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from datetime import datetime
from time import perf_counter
from typing import Any, cast
from uuid import UUID

from openworkflow.backend.records import ClaimedRun
from openworkflow.engine.execution import Execution
from openworkflow.engine.outcome import Lost, Parked, Released
from openworkflow.worker.claimer import Arrival, Claim
from openworkflow.worker.ends import AGAIN_SECONDS, Ends
from openworkflow.worker.reports import Reports
from openworkflow.worker.slots import Slot

logger = logging.getLogger(__name__)


class Residents:
    """Executions of parked runs, at most `most`; the one parked first is dropped for another.

    `executions` are those of claims; `forget` is called when a claim is given up, `spawn` has
    something done in a task.
    """

    def __init__(
        self,
        most: int,
        executions: dict[Claim, Execution],
        ends: Ends,
        reports: Reports,
        forget: Callable[[Arrival], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._most, self._executions = most, executions
        self._ends, self._reports = ends, reports
        self._forget, self._spawn = forget, spawn
        self.kept: dict[UUID, tuple[Execution, datetime]] = {}
        """Executions that stay, and until when their runs are parked."""
        self.leaving: set[asyncio.Task[Any]] = set()
        """Tasks of executions that were dropped, and are not over."""

    def __len__(self) -> int:
        return len(self.kept)

    def park(self, execution: Execution, until: datetime | None) -> bool:
        """Park a run whose execution stays; False if it may not. See Services.park."""
        if not self._most or until is None or not _may_stay(execution):
            return False
        execution.agenda.go_away()
        _slot(execution).close()  # the flush that carries the end may claim for it
        self._spawn(self._park(execution, until))
        return True

    def resume(self, arrival: Arrival) -> bool:
        """Have the execution of a run go on that was just claimed; False if there is none."""
        run = arrival.run
        if (kept := self.kept.pop(run.id, None)) is None:
            return False
        execution, until = kept
        if not _goes_on(execution.claim, run, until):
            self._drop(execution)
            return False
        execution.claim = run = run._replace(input=execution.claim.input)
        execution.recorder.continue_as(run)
        execution.slot, execution.started = arrival.slot, perf_counter()
        self._executions[arrival.claim] = execution
        execution.services.metrics.resumed(run.workflow_name)
        if execution.context is not None:
            execution.context.run(self._reports.begin, run)
        execution.agenda.come_back(run.claimed_at)
        return True

    def clear(self) -> None:
        """Drop them all, and keep none from now on."""
        self._most = 0
        self.forget()

    def forget(self) -> None:
        """Drop them all."""
        while self.kept:
            self._drop(self.kept.popitem()[1][0])

    async def _park(self, execution: Execution, until: datetime) -> None:
        run, parked = execution.claim, Parked(until, execution.wake_no)
        try:
            outcome = await self._ends.record(run, parked, execution.recorder)
        except Exception:  # nothing could be written: its own task tries again, and gives it up
            execution.interrupt(Released(AGAIN_SECONDS))
            return
        if execution.stopped is not None:
            return  # it was stopped meanwhile, and its own task tells what comes of that
        if isinstance(outcome, Lost):
            execution.interrupt(outcome)  # its own task ends the rows that came too late
            return
        arrival = Arrival(run, _slot(execution))
        del self._executions[arrival.claim]
        self._reports.end(run, outcome, perf_counter() - execution.started)
        self._forget(arrival)
        if (older := self.kept.pop(run.id, None)) is not None:
            self._drop(older[0])
        if type(outcome) is not Parked:  # the database refused a result, so the run has ended
            self._drop(execution)
            return
        self.kept[run.id] = execution, until
        while len(self.kept) > self._most:
            self._drop(self.kept.pop(next(iter(self.kept)))[0])

    def _drop(self, execution: Execution) -> None:
        """End it here. Nothing is written: the run is parked, or somebody else's."""
        if (task := execution.task) is not None:

            def is_over(task: asyncio.Task[Any]) -> None:
                self.leaving.discard(task)
                execution.task = None  # whose context leads back to the execution

            self.leaving.add(task)
            task.add_done_callback(is_over)
        execution.interrupt(Lost())


def newest(arrival: Arrival, execution: Execution) -> Arrival:
    """The claim that an execution has by now, which began with that of `arrival`."""
    run = execution.claim
    return arrival if run is arrival.run else Arrival(run, _slot(execution))


def _slot(execution: Execution) -> Slot:
    return cast(Slot, execution.slot)  # the one that its arrival had


def _may_stay(execution: Execution) -> bool:
    """Whether nothing but the time moves a run, and nothing but its claim ends with this one.

    A deadline would go off, an inbox be read and a teller send without a claim; a function in a
    thread keeps the thread.
    """
    claim, workflow = execution.claim, execution.workflow
    return (
        workflow.is_async
        and not workflow.limits
        and claim.deadline_at is None
        and claim.occurrence is None
        and execution.inbox is None
        and execution.teller is None
        and not execution.owed
        and not execution.history.is_undoing
    )


def _goes_on(parked: ClaimedRun, run: ClaimedRun, until: datetime) -> bool:
    """Whether nothing has happened to a run between its park and this claim.

    Nobody else has claimed it, since the next claim is ours. Whatever else is done to a run (a
    wake, a cancellation with an undo, a retry by hand after one without) makes it due at another
    time than its park did. Another server may have lost this claim and the park, and have a claim
    of the same number that somebody else was given.
    """
    return (
        run.claim_no == parked.claim_no + 1
        and run.due_at == until
        and not run.recovered
        and run.server_started_at == parked.server_started_at
        and (run.wake_no, run.attempts, run.crashes, run.history_from, run.deadline_at)
        == (parked.wake_no, parked.attempts, 0, parked.history_from, None)
    )
