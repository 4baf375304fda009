"""Nothing that one run does or contains leaves that run. The engine and the database are fakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from uuid import UUID

import pytest

from openworkflow.backend.backend import ConnectionLost
from openworkflow.backend.records import ClaimedRun, RunEnd
from openworkflow.codecs.payloads import Payloads
from openworkflow.core.errors import BackendError, Fault, SerializationError
from openworkflow.core.failure import Failure
from openworkflow.core.registry import Registry
from openworkflow.core.workflow import Workflow
from openworkflow.core.workflow_run import RunStatus
from openworkflow.engine.journal import DatabaseClock, Written
from openworkflow.engine.outcome import Completed, Failed, Outcome, Released
from openworkflow.worker import executor as module
from openworkflow.worker import histories
from openworkflow.worker.ends import AGAIN_SECONDS
from openworkflow.worker.executor import Executor
from openworkflow.worker.histories import Histories
from openworkflow.worker.poller import Poller
from tests.claims import NOW, Desk, claimed_run
from tests.helpers import eventually

Run = Callable[["FakeExecution"], Awaitable[Outcome]]


class Journal:
    """Takes every end but those it is told to refuse."""

    def __init__(self) -> None:
        self.clock = DatabaseClock(NOW)
        self.ends: list[Any] = []
        self.refuses: Callable[[Any], Exception | None] = lambda _: None
        self.lost: set[UUID] = set()
        self.steps: dict[UUID, Written] = {}
        """Runs whose last step has not left yet, and the entry that it is in."""

    def kick(self) -> None:
        """Nothing is sent here."""

    def write(self, row: Any) -> Written:
        written = Written()
        written.told = None
        if (error := self.refuses(row)) is not None:
            written.set_exception(error)
            return written
        self.ends.append(row)
        written.settle(row.run_id not in self.lost)
        return written

    @property
    def of(self) -> dict[UUID, Any]:
        """The last end written for each run."""
        return {end.run_id: end for end in self.ends}


class FakeRecorder:
    progress = owes = False

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.refused: list[SerializationError] = []
        self.announced = 0
        self.open: dict[Any, None] = {}
        self.pending: dict[Any, str] = {}

    def announce(self, seconds: float) -> None:
        self.announced += 1

    def close_all(self, why: str) -> None:
        """There are no rows here."""

    async def durable(self) -> None:
        if self.refused:
            raise self.refused.pop()

    def end_with_step(self, end: Any) -> Written | None:
        return self._journal.steps.get(end.run_id)

    async def settled(self, written: Written) -> bool:
        return await written

    async def end(self, end: Any) -> bool:
        await self.durable()
        return await self._journal.write(end)


class FakeAgenda:
    """That of a run that was never parked."""

    stayed, away = False, None


class FakeExecution:
    """Runs what the test says; an interruption cancels that and decides the outcome."""

    made: ClassVar[list[FakeExecution]] = []
    runs: ClassVar[dict[UUID, Run]] = {}

    def __init__(self, run: ClaimedRun, workflow: Any, history: Any, services: Any, *_: Any):
        self.claim, self.services = run, services
        self.recorder, self.agenda = FakeRecorder(services.journal), FakeAgenda()
        self.started = 0.0
        self.draining = False
        self.stop: Outcome | None = None
        self.task: asyncio.Task[Any] | None = None
        """Set by the executor."""
        self._task: asyncio.Task[Any] | None = None
        self.made.append(self)

    async def run(self) -> Outcome:
        if self.stop is not None:
            return self.stop
        self._task = asyncio.current_task()
        try:
            return await self.runs.get(self.claim.id, _complete)(self)
        except asyncio.CancelledError:
            if (outcome := self._stopped()) is None:
                raise
            return outcome
        finally:
            self._task = None

    def interrupt(self, outcome: Outcome) -> None:
        if self.stop is None:
            self.stop = outcome
            if self._task is not None:
                self._task.cancel()

    def drain(self) -> None:
        self.draining = True
        if self._task is None:
            self.interrupt(Released())

    def _stopped(self) -> Outcome | None:
        if self.stop is not None and self._task is not None:
            self._task.uncancel()
        return self.stop


async def _complete(_: FakeExecution) -> Outcome:
    return Completed('"done"')


async def hang(_: FakeExecution) -> Outcome:
    await asyncio.sleep(60)
    raise AssertionError


class Session:
    """Histories, or what their loading raises."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.unreadable: set[UUID] = set()
        self.asked: list[list[UUID]] = []

    async def load_histories(self, run_ids: Sequence[UUID]) -> dict[UUID, list[Any]]:
        self.asked.append(list(run_ids))
        if self.errors:
            raise self.errors.pop()
        if self.unreadable & set(run_ids):
            raise OverflowError("date value out of range")
        return {run_id: [] for run_id in run_ids}


class Stage:
    """An executor at work, and everything around it."""

    def __init__(self) -> None:
        self.desk, self.journal, self.session = Desk(), Journal(), Session()
        self.released: list[list[UUID]] = []
        services: Any = Services(self.journal, self.desk.metrics)
        backend: Any = None
        session: Any = self.session
        self.executor = Executor(
            Registry([Workflow(bill)]),
            Histories(session, self.desk.metrics, Payloads((), "default", 1000)),
            self.desk.claimer,
            Poller(backend, self.journal.clock, self.desk.claimer, self.journal.kick),
            services,
            namespace_id="default",
            max_crashes=5,
            doubt=self._doubt,
        )

    def bring(self, *runs: ClaimedRun) -> None:
        self.desk.claimer.wake()
        self.desk.bring(*runs)

    async def gone(self) -> bool:
        return await self.desk.claimer.emptied(5)

    def finished(self, outcome: str) -> float | None:
        return self.desk.metrics.registry.get_sample_value(
            "openworkflow_workflow_run_finished_total",
            {"namespace_id": "default", "workflow": "bill", "outcome": outcome},
        )

    def _doubt(self) -> None:
        self.released.append(self.desk.claimer.held())


@dataclass
class Services:
    journal: Journal
    metrics: Any
    observer: None = None
    park: Any = None


async def bill() -> str:
    """A workflow; what is executed is FakeExecution's to say."""
    return "done"


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setattr(Executor, "execution_of", FakeExecution)
    monkeypatch.setattr(histories, "FIRST_RETRY_SECONDS", 0.001)
    monkeypatch.setattr(FakeExecution, "made", [])
    monkeypatch.setattr(FakeExecution, "runs", {})
    made = Stage()
    arrivals = asyncio.ensure_future(made.executor.run())
    yield made
    arrivals.cancel()
    await made.executor.leave(5)


def refuse_all(_: Any) -> Exception:
    return BackendError("refused").of(Fault.VALUE)


async def test_a_run_is_executed_its_end_recorded_and_its_slot_given_back(stage: Stage) -> None:
    run = claimed_run()
    stage.bring(run)

    assert await stage.gone()
    assert '"done"' == stage.journal.of[run.id].output
    assert (0, 1) == (stage.desk.claimer.slots.used, stage.finished("succeeded"))


@pytest.mark.parametrize(
    "raised", [RuntimeError, SystemExit, BaseException, asyncio.CancelledError]
)
async def test_whatever_an_execution_raises_costs_its_run_only(
    stage: Stage, raised: type[BaseException]
) -> None:
    """It is a mistake of this program, not of the run, which is handed back."""
    bad, good = claimed_run(), claimed_run()

    async def panic(_: FakeExecution) -> Outcome:
        raise raised("so")

    FakeExecution.runs[bad.id] = panic
    stage.bring(bad, good)

    assert await stage.gone()
    end = stage.journal.of[bad.id]
    assert (RunStatus.PENDING, AGAIN_SECONDS) == (end.status, end.delay)
    assert '"done"' == stage.journal.of[good.id].output


async def test_an_outcome_that_is_refused_becomes_a_failure_that_says_so(stage: Stage) -> None:
    run = claimed_run()
    stage.journal.refuses = lambda end: (
        None if isinstance(end, RunEnd) else BackendError("no such character").of(Fault.VALUE)
    )
    stage.bring(run)

    assert await stage.gone()
    assert "no such character" in stage.journal.of[run.id].error


async def test_the_steps_that_were_refused_are_the_reason_of_the_failure(stage: Stage) -> None:
    run = claimed_run()

    async def end_with_refused_steps(execution: FakeExecution) -> Outcome:
        execution.recorder.refused = [
            SerializationError(f"result of step {n}") for n in ("three", "two", "one")
        ]
        return Completed(None)

    FakeExecution.runs[run.id] = end_with_refused_steps
    stage.bring(run)

    assert await stage.gone()
    assert RunStatus.FAILED == stage.journal.of[run.id].status
    assert "result of step one" in stage.journal.of[run.id].error


async def test_a_failure_that_is_refused_becomes_one_in_plain_words(stage: Stage) -> None:
    run = claimed_run()

    async def fail(_: FakeExecution) -> Outcome:
        return Failed(Failure("ValueError", "\N{SNOWMAN}"))

    def refuse(end: Any) -> Exception | None:
        return (
            None
            if end.error and "UnrecordedOutcome" in end.error
            else BackendError("encoding").of(Fault.VALUE)
        )

    FakeExecution.runs[run.id] = fail
    stage.journal.refuses = refuse
    stage.bring(run)

    assert await stage.gone()
    end = stage.journal.of[run.id]
    assert (RunStatus.FAILED, True) == (end.status, end.error.isascii())


async def test_a_run_whose_end_cannot_be_recorded_is_handed_back_for_a_while(stage: Stage) -> None:
    run = claimed_run()
    stage.journal.refuses = lambda end: (
        None if end.__class__ is RunEnd and end.status is RunStatus.PENDING else BackendError("no")
    )
    stage.bring(run)

    assert await stage.gone()
    assert AGAIN_SECONDS == stage.journal.of[run.id].delay
    assert 1 == stage.finished("released")


async def test_a_run_of_which_nothing_can_be_written_is_handed_back_apart_from_the_journal(
    stage: Stage,
) -> None:
    bad, good = claimed_run(), claimed_run()
    FakeExecution.runs[good.id] = hang
    stage.journal.refuses = refuse_all
    stage.bring(bad, good)

    await eventually(lambda: stage.released)
    assert [[good.id]] == stage.released
    assert 1 == len(stage.executor)


async def test_a_mistake_of_ours_after_the_execution_hands_the_run_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease would run out, and no worker takes its own."""
    monkeypatch.setattr(stage.executor, "_report", lambda *_: [].pop())
    stage.bring(claimed_run())

    assert await stage.gone()
    await eventually(lambda: stage.released)
    assert 0 == len(stage.executor)


def entry_of(stage: Stage, run: ClaimedRun) -> Written:
    """The entry that will carry the last step of this run, and its end."""
    written = stage.journal.steps[run.id] = Written()
    written.told = None
    return written


async def test_an_end_that_travels_with_a_step_needs_no_task_to_wait_for_it(stage: Stage) -> None:
    runs = [claimed_run() for _ in range(3)]
    entries = [entry_of(stage, run) for run in runs]
    stage.bring(*runs)

    await eventually(lambda: all(entry.told for entry in entries))
    assert [None] * 3 == [execution.task for execution in FakeExecution.made]
    assert (3, None) == (len(stage.executor), stage.finished("succeeded"))
    for entry in entries:
        entry.settle(True)
    assert (0, 3) == (len(stage.executor), stage.finished("succeeded"))
    assert await stage.gone()


async def test_an_end_that_travelled_with_a_step_under_a_lost_claim_is_counted_lost(
    stage: Stage,
) -> None:
    run = claimed_run()
    entry = entry_of(stage, run)
    stage.bring(run)

    await eventually(lambda: entry.told)
    entry.settle(False)
    assert await stage.gone()
    assert (None, 1) == (stage.finished("succeeded"), stage.finished("lost"))


async def test_an_end_that_is_refused_with_its_step_becomes_a_failure(stage: Stage) -> None:
    run = claimed_run()
    entry = entry_of(stage, run)
    stage.bring(run)

    await eventually(lambda: entry.told)
    row: Any = None
    entry.refuse(BackendError("no such character").of(Fault.VALUE), row)
    assert await stage.gone()
    end = stage.journal.of[run.id]
    assert (RunStatus.FAILED, 1) == (end.status, stage.finished("failed"))


async def test_a_mistake_of_ours_about_one_end_does_not_reach_the_flush_that_carried_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor the other runs of that flush; the run may not have ended, for all that is known."""
    monkeypatch.setattr(stage.executor, "_report", lambda *_: [].pop())
    run = claimed_run()
    entry = entry_of(stage, run)
    stage.bring(run)

    await eventually(lambda: entry.told)
    entry.settle(True)
    assert (1, 0) == (len(stage.released), len(stage.executor))


async def test_a_lost_claim_records_nothing_and_is_counted(stage: Stage) -> None:
    run = claimed_run()
    stage.journal.lost.add(run.id)
    stage.bring(run)

    assert await stage.gone()
    assert 1 == stage.finished("lost")


async def test_a_run_that_killed_its_workers_is_convicted_without_an_execution(
    stage: Stage,
) -> None:
    run = claimed_run(crashes=5)
    FakeExecution.runs[run.id] = hang
    stage.bring(run)

    assert await stage.gone()
    assert "PoisonPill" in stage.journal.of[run.id].error


# -- claims ----------------------------------------------------------------------------------


async def test_what_the_heartbeat_found_lost_is_stopped_and_nothing_else(stage: Stage) -> None:
    lost, other = claimed_run(), claimed_run()
    FakeExecution.runs = {lost.id: hang, other.id: hang}
    stage.bring(lost, other)
    await eventually(lambda: len(stage.executor) == 2)

    stage.executor.lose([(lost.id, 1), (other.id, 2)])

    await eventually(lambda: len(stage.executor) == 1)
    assert stage.executor.executes(other.id)
    assert not stage.executor.executes(lost.id)


async def test_a_newer_claim_of_a_run_stops_the_older_one_first(stage: Stage) -> None:
    older = claimed_run()
    newer = older._replace(claim_no=2)
    FakeExecution.runs[older.id] = hang
    stage.bring(older)
    await eventually(lambda: stage.executor.executes(older.id))

    stage.bring(newer)

    await eventually(lambda: stage.finished("lost"))
    assert [(newer.id, 2)] == stage.desk.claimer.claims()
    assert [False, True] == [execution.stop is None for execution in FakeExecution.made]


async def test_two_claims_of_one_run_are_both_reached_by_a_drain(stage: Stage) -> None:
    """The older one does not let itself be stopped at once."""
    older = claimed_run()
    newer = older._replace(claim_no=2)
    release = asyncio.Event()

    async def stubborn(execution: FakeExecution) -> Outcome:
        if execution.claim.claim_no == 1:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue
            return Completed(None)
        return await hang(execution)

    FakeExecution.runs[older.id] = stubborn
    stage.bring(older)
    await eventually(lambda: stage.executor.executes(older.id))
    stage.bring(newer)
    await eventually(lambda: len(stage.executor) == 2)

    drained = asyncio.ensure_future(stage.executor.drain(0))
    await eventually(lambda: stage.finished("released"))
    release.set()

    assert await drained
    assert all(execution.draining for execution in FakeExecution.made)


async def test_a_suspect_that_recorded_something_makes_room_for_the_next(stage: Stage) -> None:
    suspect = claimed_run(crashes=3)
    FakeExecution.runs[suspect.id] = hang
    stage.bring(suspect)
    await eventually(lambda: stage.executor.executes(suspect.id))
    stage.executor.announce()
    assert 1 == len(stage.desk.claimer.suspects())

    FakeExecution.made[0].recorder.progress = True
    stage.executor.announce()

    assert [] == stage.desk.claimer.suspects()


# -- histories -------------------------------------------------------------------------------


async def test_a_run_that_was_claimed_before_is_executed_with_its_history(stage: Stage) -> None:
    run = claimed_run(has_history=True)
    stage.bring(run)

    assert await stage.gone()
    assert [[run.id]] == stage.session.asked
    assert '"done"' == stage.journal.of[run.id].output


async def test_histories_are_asked_for_until_the_database_answers(stage: Stage) -> None:
    run = claimed_run(has_history=True)
    stage.session.errors = [ConnectionLost("gone") for _ in range(3)]
    stage.bring(run)

    assert await stage.gone()
    assert 4 == len(stage.session.asked)


async def test_a_history_that_cannot_be_decoded_costs_only_its_run(stage: Stage) -> None:
    runs = [claimed_run(has_history=True) for _ in range(3)]
    stage.session.unreadable = {runs[1].id}
    stage.bring(*runs)

    assert await stage.gone()
    ends = stage.journal.of
    assert [RunStatus.PENDING, AGAIN_SECONDS] == [ends[runs[1].id].status, ends[runs[1].id].delay]
    assert ['"done"', '"done"'] == [ends[run.id].output for run in (runs[0], runs[2])]


async def test_a_history_that_the_engine_cannot_read_costs_only_its_run(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a newer version wrote a kind of step that this one does not know."""
    runs = [claimed_run(has_history=True), claimed_run()]

    def history(steps: Any) -> Any:
        if isinstance(steps, list):
            raise ValueError("unknown kind of step")
        return steps

    monkeypatch.setattr(module, "History", history)
    stage.bring(*runs)

    assert await stage.gone()
    assert AGAIN_SECONDS == stage.journal.of[runs[0].id].delay
    assert '"done"' == stage.journal.of[runs[1].id].output


async def test_a_run_of_an_unknown_workflow_is_handed_back(stage: Stage) -> None:
    run = claimed_run(workflow_name="unheard-of")
    stage.bring(run)

    assert await stage.gone()
    assert AGAIN_SECONDS == stage.journal.of[run.id].delay


async def test_a_drain_hands_back_runs_whose_histories_cannot_be_loaded(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histories, "FIRST_RETRY_SECONDS", 60)
    run = claimed_run(has_history=True)
    stage.session.errors = [ConnectionLost("gone")]
    stage.bring(run)
    await eventually(lambda: stage.session.asked)

    assert await asyncio.wait_for(stage.executor.drain(30), 25)
    end = stage.journal.of[run.id]
    assert (RunStatus.PENDING, 0.0) == (end.status, end.delay)
    assert [] == FakeExecution.made


async def test_a_claim_that_is_lost_while_its_history_is_loaded_is_not_executed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histories, "FIRST_RETRY_SECONDS", 60)
    run = claimed_run(has_history=True)
    stage.session.errors = [ConnectionLost("gone")]
    stage.bring(run)
    await eventually(lambda: stage.session.asked)
    assert stage.executor.executes(run.id)

    stage.executor.lose([(run.id, 1)])

    assert await stage.gone()
    assert ([], 1) == (FakeExecution.made, stage.finished("lost"))


# -- the end ---------------------------------------------------------------------------------


async def test_a_drain_lets_steps_end_within_the_grace_period(stage: Stage) -> None:
    run = claimed_run()
    end = asyncio.Event()

    async def finish(_: FakeExecution) -> Outcome:
        await end.wait()
        return Completed('"in time"')

    FakeExecution.runs[run.id] = finish
    stage.bring(run)
    await eventually(lambda: stage.executor.executes(run.id))
    drained = asyncio.ensure_future(stage.executor.drain(30))
    await asyncio.sleep(0)
    end.set()

    assert await drained
    assert '"in time"' == stage.journal.of[run.id].output


async def test_runs_that_arrive_during_a_drain_are_handed_back(stage: Stage) -> None:
    request = stage.desk.take()
    drained = asyncio.ensure_future(stage.executor.drain(30))
    await asyncio.sleep(0)
    run = claimed_run()
    FakeExecution.runs[run.id] = hang

    stage.desk.claimer.settled(request, [run])

    assert await asyncio.wait_for(drained, 25)
    assert RunStatus.PENDING == stage.journal.of[run.id].status


async def test_leaving_does_not_wait_for_a_run_that_swallows_every_cancellation(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HAND_BACK_SECONDS", 0.01)
    run = claimed_run()
    end = asyncio.Event()

    async def swallow(_: FakeExecution) -> Outcome:
        while not end.is_set():
            try:
                await end.wait()
            except BaseException:
                continue
        return Completed(None)

    async def run_shielded(execution: FakeExecution) -> Outcome:
        return await swallow(execution)

    monkeypatch.setattr(FakeExecution, "run", run_shielded)
    stage.bring(run)
    await eventually(lambda: stage.executor.executes(run.id))

    assert not await asyncio.wait_for(stage.executor.drain(0), 25)
    assert 1 == await asyncio.wait_for(stage.executor.leave(0.01), 25)
    end.set()
    assert 0 == await stage.executor.leave(5)
