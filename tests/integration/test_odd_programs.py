"""Odd but legal programs on real workers, all of them at once, interrupted at any write.

Their runs are claimed together, so those that wait for nothing share a task. The ledger of calls is
in this process, outside of the database: a step that was recorded must not be called again, no run
may be lost, and none may see anything of another.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from openworkflow import BackendPostgres, OpenWorkflow, Step, Worker, workflow
from openworkflow.backend.backend import WorkerSession
from openworkflow.backend.records import NewRun
from openworkflow.core.errors import InvalidRunState
from openworkflow.worker.residents import Residents
from tests import odd_asyncio, odd_programs
from tests.helpers import StartWorker, eventually
from tests.odd_programs import World, workflows

assert odd_asyncio.__doc__  # its programs are among those of odd_programs

HOWS = ("stored", "lost", "drain", "stolen", "silent", "cut")
LONG_ENOUGH = 0.4
"""Sleeps of this length are not over by the time at which the run is parked."""
POINTS = int(os.environ.get("ODD_POINTS", "3"))
"""How many places are tried for each way to interrupt; the suite tries a few."""


class Interrupter:
    """Does something to a worker at the flush number `at` that carries rows."""

    def __init__(self, sql: asyncpg.Connection[Any], turn: asyncio.Lock) -> None:
        self.turn = turn
        self.sql, self.at, self.how, self.flushed = sql, 0, "", 0
        self.dead = False
        self.happened = asyncio.Event()
        self._flush = WorkerSession.flush

    async def flush(self, session: WorkerSession, flush: Any) -> Any:
        """Stands for WorkerSession.flush."""
        if self.dead:
            await asyncio.Event().wait()
        if not flush.rows or self.happened.is_set():
            return await self._flush(session, flush)
        self.flushed += 1
        if self.flushed != self.at:
            return await self._flush(session, flush)
        self.happened.set()
        if self.how == "stored":
            await self._flush(session, flush)
        if self.how in ("stored", "lost"):
            self.dead = True
            await asyncio.Event().wait()
        if self.how == "stolen":
            async with self.turn:
                await self.sql.execute(
                    "update workflow_runs set status = 'pending', worker_id = null,"
                    " available_at = now() where status = 'running'"
                )
        if self.how == "cut":
            cutting = asyncio.create_task(self.cut())
            try:
                return await self._flush(session, flush)
            finally:
                await cutting
        if self.how == "silent":  # longer than the lease
            await asyncio.sleep(1.5)
        return await self._flush(session, flush)

    async def cut(self) -> None:
        """End all connections but this one."""
        async with self.turn:
            await self.sql.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )


class Trial:
    """All programs, executed until they have results."""

    def __init__(
        self,
        backend: BackendPostgres,
        sql: asyncpg.Connection[Any],
        rest: float,
        resident: int = 0,
    ) -> None:
        self.resident = resident
        self.backend, self.sql, self.world = backend, sql, World()
        self.ow = OpenWorkflow(backend)
        self.rest = timedelta(seconds=rest)
        self.turn = asyncio.Lock()
        self.interrupter = Interrupter(sql, self.turn)
        self.workers: list[Worker] = []
        self.recorded: set[tuple[str, str]] = set()
        self.counts: Counter[tuple[str, str]] = Counter()

    async def start(self, lease: float = 30) -> Worker:
        worker = self.ow.new_worker(
            workflows=workflows(self.world),
            concurrency=100,
            rest=self.rest,
            resident=self.resident,
            drain=timedelta(0),
            lease=timedelta(seconds=lease),
            max_crashes=50,
        )
        await worker.start()
        self.workers.append(worker)
        return worker

    async def enqueue(self) -> list[Any]:
        """All at once, so that one claim takes them; their signals are there."""
        names = [each.name for each in workflows(self.world)]
        made = await self.backend.create_workflow_runs(
            [NewRun(name, input="3" if "counts" in name else None) for name in names]
        )
        for name, run in zip(names, made, strict=True):
            if "signal" not in name:
                continue
            for number, signal in enumerate(("one", "two"), 1):
                with contextlib.suppress(InvalidRunState):  # it needs one of them, and has it
                    await self.ow.signal(run.id, signal, number)
        return made

    async def results(self, made: list[Any]) -> dict[str, Any]:
        async def all_ended() -> bool:
            async with self.turn:
                return not await self.sql.fetchval(
                    "select count(*) from workflow_runs where completed_at is null"
                )

        try:
            await eventually(all_ended, 100)
        except AssertionError:
            rows = await self.asked(
                "select workflow_name, status, claim_no, crashes, worker_id from workflow_runs"
                " where completed_at is null"
            )
            raise AssertionError([dict(row) for row in rows]) from None
        rows = await self.asked("select workflow_name, status, output from workflow_runs")
        found = {row["workflow_name"]: (row["status"], row["output"]) for row in rows}
        assert len(found) == len(made)
        return found

    async def asked(self, query: str) -> list[Any]:
        """What the one connection answers, once nobody else asks."""
        async with self.turn:
            return await self.sql.fetch(query)

    async def remember(self) -> None:
        """What is recorded now must not be called any more."""
        rows = await self.asked(
            "select workflow_name, step_name from step_attempts"
            " join workflow_runs run on run.id = workflow_run_id"
            " where step_attempts.status = 'succeeded' and step_attempts.kind = 'run'"
            " and workflow_name not like '%counts%'"
        )
        self.recorded = {(row["workflow_name"], row["step_name"]) for row in rows}
        self.counts = Counter(self.world.calls)

    def called_again(self) -> list[Any]:
        return [key for key in self.recorded if self.world.calls[key] != self.counts[key]]

    async def die(self, worker: Worker) -> None:
        """As a process does: nothing is written any more, nothing is handed back."""
        main = worker._main
        assert main is not None
        main.cancel()
        await asyncio.wait({main}, timeout=60)
        assert main.done()
        await self.remember()
        async with self.turn:
            await self.sql.execute(
                "update workflow_runs set available_at = now() - interval '1 s'"
                " where status = 'running'"
            )
        self.interrupter.dead = False

    async def interrupted(self, at: int, how: str) -> dict[str, Any]:
        interrupter = self.interrupter
        interrupter.at, interrupter.how = at, how
        worker = await self.start(lease=1 if how == "silent" else 30)
        if how == "silent":
            await self.start(lease=1)
        made = await self.enqueue()
        ended = asyncio.create_task(self.results(made))
        happened = asyncio.create_task(interrupter.happened.wait())
        await asyncio.wait({ended, happened}, return_when=asyncio.FIRST_COMPLETED)
        happened.cancel()
        if interrupter.happened.is_set():
            if how in ("stored", "lost"):
                await self.die(worker)
                await self.start()
            elif how == "drain":
                await asyncio.wait_for(worker.stop(), 60)
                await self.remember()
                await self.start()
        try:
            found = await ended
        finally:
            for each in self.workers[::-1]:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait_for(each.stop(), 60)
        assert [] == self.called_again()
        assert [] == self.world.leaks
        return found


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    """Flushes go by way of the trial's interrupter; no run may be a mistake of ours."""

    def patch(trial: Trial) -> Trial:
        async def flush(session: WorkerSession, batch: Any) -> Any:
            return await trial.interrupter.flush(session, batch)

        async def release(session: WorkerSession, *args: Any, **options: Any) -> Any:
            if trial.interrupter.dead:
                return []
            return await real(session, *args, **options)

        real = WorkerSession.release_unknown
        monkeypatch.setattr(WorkerSession, "flush", flush)
        monkeypatch.setattr(WorkerSession, "release_unknown", release)
        return trial

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*was never awaited")
        yield patch
    for each in caplog.records:
        assert "internal error" not in each.getMessage(), each
        assert "nothing could be recorded" not in each.getMessage(), each


async def emptied(sql: asyncpg.Connection[Any]) -> None:
    await sql.execute(
        "truncate workflow_runs, step_attempts, workflow_messages, workflow_subscriptions"
    )


@pytest.mark.parametrize("resident", [0, 1000], ids=["replayed", "resident"])
@pytest.mark.parametrize("how", HOWS)
async def test_odd_programs_come_to_their_results_whatever_happens(
    backend: BackendPostgres,
    sql: asyncpg.Connection[Any],
    patched: Any,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    resident: int,
) -> None:
    """Whether their parked runs are replayed, or go on where they stand."""
    stayed: list[bool] = []
    resume = Residents.resume

    def counted(residents: Residents, arrival: Any) -> bool:
        stayed.append(resume(residents, arrival))
        return stayed[-1]

    monkeypatch.setattr(Residents, "resume", counted)
    for module in (odd_programs, odd_asyncio) if resident else ():
        monkeypatch.setattr(module, "SOON", LONG_ENOUGH)
    plain = patched(Trial(backend, sql, 0))
    expected = await plain.interrupted(0, "")
    assert {name for name, (status, _) in expected.items() if status != "succeeded"} == {
        name for name in expected if name.startswith("uncaught")
    }
    most = plain.interrupter.flushed
    step = max(1, most // POINTS)
    for at in range(1, most + 1, step):
        await emptied(sql)
        trial = Trial(backend, sql, 0 if at % 2 or resident else 2, resident)
        trial.interrupter._flush = plain.interrupter._flush
        patched_trial = trial
        plain.interrupter = trial.interrupter
        found = await patched_trial.interrupted(at, how)
        wrong = {
            name: (value, found[name]) for name, value in expected.items() if value != found[name]
        }
        assert wrong == {}, (how, at, most)
    assert any(stayed) is bool(resident)
    if POINTS > 3:
        print(f"{how}: {len(expected)} programs, {most} points")


async def test_runs_of_one_quick_step_share_tasks(
    backend: BackendPostgres, start_worker: StartWorker
) -> None:
    """As long as nothing of a run that is over holds its task."""
    names: list[str] = []

    async def told() -> None:
        task = asyncio.current_task()
        assert task is not None
        names.append(task.get_name())

    @workflow
    async def brief(step: Step) -> None:
        await step.run("told", told)

    await backend.create_workflow_runs([NewRun("brief")] * 40)
    worker = await start_worker(brief, concurrency=100)
    await eventually(lambda: len(names) == 40 and worker.slots_used == 0)

    assert len(set(names)) <= 4, names
