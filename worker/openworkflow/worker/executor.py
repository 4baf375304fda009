"""The runs in progress of one worker: each from its claim to its recorded end.

Nothing that one run does or contains leaves that run. What cannot be read (a history written by a
newer version), or what the engine itself fails on, is handed back, due again in a while.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

from openworkflow.backend.records import ClaimedRun, RecordedStep
from openworkflow.core.envelope import MARK, is_marked
from openworkflow.core.registry import Registry
from openworkflow.engine.calls import is_cancelled
from openworkflow.engine.execution import Execution
from openworkflow.engine.history import History
from openworkflow.engine.journal import Written
from openworkflow.engine.outcome import Lost, Outcome, Released
from openworkflow.engine.services import Services
from openworkflow.worker.claimer import Arrival, Claim, Claimer
from openworkflow.worker.ends import AGAIN_SECONDS, Adopt, Ends, Unrecorded, poisoned, unreadable
from openworkflow.worker.histories import Histories
from openworkflow.worker.limited import limits_to_take
from openworkflow.worker.occurrences import Occurrences
from openworkflow.worker.poller import Poller
from openworkflow.worker.reports import Reports
from openworkflow.worker.residents import Residents, newest
from openworkflow.worker.turns import Turns, canceled
from openworkflow.worker.unless import unless
from openworkflow_contract.recurrence import may_be_occurrence

logger = logging.getLogger(__name__)

ANNOUNCE_SECONDS = 0.5
"""A step function still running after this long gets its `running` row."""
HAND_BACK_SECONDS = 5.0
"""What is left of a drain for writing that the runs were handed back."""


class Executor:
    """Executes what the `claimer` brings; runs that wait for nothing share a task.

    `doubt` has the runs handed back that the claimer does not hold, apart from the journal.
    """

    execution_of: type[Execution] = Execution

    def __init__(
        self,
        registry: Registry,
        histories: Histories,
        claimer: Claimer,
        poller: Poller,
        services: Services,
        *,
        namespace_id: str,
        max_crashes: int,
        doubt: Callable[[], None],
        occurrences: Occurrences | None = None,
        adopt: Adopt | None = None,
        most_resident: int = 0,
    ) -> None:
        self._registry, self._histories = registry, histories
        self._claimer, self._metrics = claimer, services.metrics
        self._reports = Reports(services.metrics, poller, namespace_id, services.observer)
        self._ends, self._doubt = Ends(services.journal, adopt), doubt
        self._occurrences, self._max_crashes = occurrences, max_crashes
        self.executions: dict[Claim, Execution] = {}
        self._loading: dict[Claim, Arrival] = {}
        mine = self.executions, self._ends, self._reports, self._forget, self._spawn
        self.residents = Residents(most_resident, *mine)
        self._services = replace(services, park=self.residents.park)
        self._claims: dict[UUID, Claim] = {}
        """The newest claim of each run that is in progress here."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns, self._draining = Turns(), asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self.executions) + len(self._loading)

    def executes(self, run_id: UUID) -> bool:
        """Whether a claim of this run is in progress here."""
        return run_id in self._claims

    async def run(self) -> None:
        """Execute what arrives, until canceled."""
        while True:
            self._start(await self._claimer.arrivals())
            self._services.journal.kick()

    def announce(self) -> None:
        """Make steps visible that have been running for a while."""
        young = time.perf_counter() - ANNOUNCE_SECONDS
        for execution in self.executions.values():  # the oldest first
            if execution.started > young:
                break
            execution.recorder.announce(ANNOUNCE_SECONDS)
        for claim in self._claimer.suspects():
            if (suspect := self.executions.get(claim)) is not None and suspect.recorder.progress:
                self._claimer.trust(claim)

    async def drain(self, seconds: float) -> bool:
        """Let running steps end within the grace period, then hand back what is left.

        Returns whether all runs are gone. What others wait for to hear of them is told by then.
        """
        self._draining.set()
        self.residents.clear()
        if len(self):
            logger.info("draining: %d runs in progress", len(self))
        for execution in list(self.executions.values()):
            execution.drain()
        await self._claimer.emptied(seconds)
        self.interrupt_all(Released())
        last = self._loop.time() + HAND_BACK_SECONDS
        gone = await self._claimer.emptied(HAND_BACK_SECONDS)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=max(0.0, last - self._loop.time()))
        return gone

    async def leave(self, seconds: float) -> int:
        """Cancel what is left, which records nothing more.

        Returns how many do not let themselves be canceled within `seconds`; they are left alone.
        """
        self._turns.disperse()
        self.residents.clear()
        executing = [execution.task for execution in self.executions.values()]
        tasks = {*self._tasks, *self.residents.leaving, *filter(None, executing)}
        return await canceled(tasks, seconds)

    def interrupt_all(self, outcome: Outcome) -> None:
        """Stop all executions where they are."""
        for execution in list(self.executions.values()):
            execution.interrupt(outcome)

    def lose(self, claims: Iterable[Claim]) -> None:
        """Stop what is claimed by others, or canceled: the heartbeat found it, or a new claim."""
        for claim in claims:
            if (execution := self.executions.get(claim)) and not execution.agenda.away:
                execution.interrupt(Lost())  # else its park is on its way, which tells more
            elif (arrival := self._loading.pop(claim, None)) is not None:
                self._forget(arrival)
                self._report(arrival.run, Lost(), 0.0)

    # -- from the claim to the execution -----------------------------------------------------

    def _start(self, arrivals: Sequence[Arrival]) -> None:
        known, scheduled, kept = list[Arrival](), list[Arrival](), self.residents.kept
        claims, metrics, occurrences = self._claims, self._metrics, self._occurrences
        for arrival in arrivals:
            run = arrival.run
            waited = (run.claimed_at - run.due_at).total_seconds()
            metrics.schedule_to_start(run.workflow_name, max(0.0, waited))
            if run.crashes:
                metrics.crashed(run.workflow_name)
            # A claim of the same run that is still in progress here is lost: this one is newer.
            if (older := claims.get(run.id)) is not None:
                self.lose([older])
            claims[run.id] = arrival.claim
            if kept and self.residents.resume(arrival):
                continue
            if occurrences is not None and may_be_occurrence(run.id):
                scheduled.append(arrival)
            elif run.has_history or (run.input or "")[: len(MARK)] == MARK:
                known.append(arrival)
            else:
                self._begin(arrival, ())
                continue
            self._loading[arrival.claim] = arrival
        if known:
            self._spawn(self._start_known(known))
        if scheduled and occurrences is not None:
            self._spawn(self._start_scheduled(scheduled, occurrences))

    async def _start_scheduled(self, arrivals: Sequence[Arrival], occurrences: Occurrences) -> None:
        """Runs of schedules begin if their schedules let them."""
        decided = await unless(self._draining, occurrences.begin([each.run for each in arrivals]))
        for arrival in arrivals:
            if arrival.claim not in self._loading:
                continue  # lost meanwhile
            answer = decided and decided.get(arrival.run.id)
            if isinstance(answer, ClaimedRun):
                arrival.run = answer
                if answer.has_history or is_marked(answer.input):
                    self._spawn(self._start_known([arrival]))
                    continue
            del self._loading[arrival.claim]
            if isinstance(answer, ClaimedRun):
                self._begin(arrival, ())
            elif isinstance(answer, Exception):
                self._refuse(arrival, answer)
            elif decided is None:
                self._spawn(self._hand_back(arrival, 0.0))
            else:  # its claim is gone already
                self._forget(arrival)
                self._report(arrival.run, Released(), 0.0)

    async def _start_known(self, arrivals: Sequence[Arrival]) -> None:
        """Runs that were claimed before may have steps to replay; or have an encoded input."""
        runs = [arrival.run for arrival in arrivals]
        loaded = await unless(self._draining, self._histories.opened(runs)) or {}
        for arrival in arrivals:
            if self._loading.pop(arrival.claim, None) is None:
                continue  # lost meanwhile
            found = loaded.get(arrival.run.id)
            if found is None:
                self._spawn(self._hand_back(arrival, 0.0))
            elif isinstance(found, Exception):
                self._refuse(arrival, found)
            else:
                arrival.run, steps = found
                self._begin(arrival, steps)

    def _begin(self, arrival: Arrival, steps: Iterable[RecordedStep]) -> None:
        """Execute it; while draining, only to hand it back."""
        run = arrival.run
        try:
            workflow = self._registry.get(run.workflow_name, run.version)
            context = copy_context()
            history, services = History(steps), self._services
            execution = self.execution_of(run, workflow, history, services, arrival.slot, context)
        except Exception as error:
            self._refuse(arrival, error)
            return
        if not run.names_limits and (limits := limits_to_take(execution)) is not None:
            self._spawn(self._hand_back(arrival, 0.0, limits))
            return
        self.executions[arrival.claim] = execution
        if self._draining.is_set():
            execution.drain()
        self._turns.add(execution, self._execute(arrival, execution), context)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- the life of one run -----------------------------------------------------------------

    async def _execute(self, arrival: Arrival, execution: Execution) -> None:
        run = arrival.run
        self._reports.begin(run)
        if run.crashes >= self._max_crashes:
            execution.interrupt(poisoned(run))
        try:
            try:
                outcome = await execution.run()
            except BaseException as error:  # it may cost this run, not its neighbours
                if is_cancelled(error):  # the worker is torn down
                    raise
                logger.exception("internal error while executing a run; it is handed back")
                outcome = Released(AGAIN_SECONDS)
            if execution.agenda.stayed:
                arrival = newest(arrival, execution)
                if arrival.claim not in self.executions:  # it was parked, and is dropped
                    return
            arrival.slot.close()  # the flush that carries the end may claim for it
            sent = self._ends.send(arrival.run, outcome, execution.recorder)
        except BaseException as error:  # the worker is torn down, or a mistake of ours
            arrival = newest(arrival, execution)
            if isinstance(error, Exception):
                self._give_up(arrival)
            self._end(arrival)
            raise
        if sent is not None:
            sent.told = partial(self._sent, arrival, outcome)
        else:
            await self._record(arrival, outcome)

    def _sent(self, arrival: Arrival, outcome: Outcome, sent: Written) -> None:
        """The end was sent with the last step, and is durable now, or has come to nothing."""
        if sent.exception() is not None or not sent.result():
            self._spawn(self._record(arrival, outcome, sent))
            return
        try:
            seconds = time.perf_counter() - self.executions[arrival.claim].started
            self._report(arrival.run, outcome, seconds)
        except Exception:  # a mistake of ours costs no other run of the flush
            self._give_up(arrival)
        finally:
            self._end(arrival)

    async def _record(
        self, arrival: Arrival, outcome: Outcome, sent: Written | None = None
    ) -> None:
        """Write the end, or find out what comes of the one that was sent."""
        run, execution = arrival.run, self.executions[arrival.claim]
        if sent is not None:
            self._reports.begin(run)  # in a task of its own
        try:
            outcome = await self._ends.record(run, outcome, execution.recorder, sent)
            recorder = execution.recorder
            if isinstance(outcome, Lost) and (recorder.open or recorder.pending):
                self._spawn(recorder.leave())
            self._report(run, outcome, time.perf_counter() - execution.started)
        except Exception:  # nothing could be written about it, or a mistake of ours: end it anyway
            self._give_up(arrival)
        finally:
            self._end(arrival)

    def _end(self, arrival: Arrival) -> None:
        """The run is over here; or its execution alone, which has no claim where it is parked."""
        if (execution := self.executions.pop(arrival.claim, None)) is not None:
            execution.task = None  # whose context leads back to the execution
            self._forget(arrival)

    def _refuse(self, arrival: Arrival, error: Exception) -> None:
        """Hand back, for a while, a run that this worker cannot read."""
        unreadable(arrival.run, error)
        self._spawn(self._hand_back(arrival, AGAIN_SECONDS))

    async def _hand_back(self, arrival: Arrival, delay: float, limits: str | None = None) -> None:
        """Give up a claim that was never executed; with `limits` the run waits for them now."""
        run = arrival.run
        self._reports.begin(run)
        try:
            arrival.slot.close()
            self._report(run, await self._ends.hand_back(run, delay, limits), 0.0)
        except Unrecorded:
            self._give_up(arrival)
        finally:
            self._forget(arrival)

    def _give_up(self, arrival: Arrival) -> None:
        """The last resort: hand back what is not held; no worker takes its own expired leases."""
        logger.exception("nothing could be recorded of a run")
        self._claimer.forget(arrival.claim)
        self._doubt()

    def _forget(self, arrival: Arrival) -> None:
        if not arrival.slot.closed:
            arrival.slot.close()
        if self._claims.get(arrival.run.id) == arrival.claim:
            del self._claims[arrival.run.id]
        self._claimer.forget(arrival.claim)
        if self._services.observer is not None:
            self._services.observer.run_is_gone(arrival.claim)

    def _report(self, run: ClaimedRun, outcome: Outcome, seconds: float) -> None:
        self._reports.end(run, outcome, seconds)
        if run.occurrence is not None and self._occurrences is not None:
            self._spawn(self._occurrences.after(run.occurrence, outcome))
