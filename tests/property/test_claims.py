"""A model of claim, heartbeat, record, park, finish, crash and cancel, held against PostgreSQL.

Hypothesis makes up histories in which three workers share runs, die, and come back late with writes
of claims they no longer have. The model is a dict; the database must agree after every step.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from openworkflow import BackendPostgres, RunStatus
from openworkflow.backend.backend import NewRun
from openworkflow.backend.records import RunEnd, StepWrite, Wake
from openworkflow.core.errors import InvalidRunState
from openworkflow.core.ids import uuid7
from openworkflow.core.step_attempt import StepKind, StepStatus
from tests.flushes import flush, wanted

WORKERS = ["a/1", "b/1", "c/1"]
LEASE = timedelta(seconds=60)


@dataclass
class Run:
    """What must be true of one row."""

    status: RunStatus = RunStatus.PENDING
    claim_no: int = 0
    holder: str | None = None
    steps: set[UUID] = field(default_factory=set)
    expired: bool = False
    due: bool = True
    wake_no: int = 0


@dataclass(frozen=True)
class Claim:
    """What a worker believes to hold; it may be wrong."""

    worker: str
    run: UUID
    claim_no: int
    wake_no: int


class Claims(RuleBasedStateMachine):
    """The machine; `url` is set by the test."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.runs: dict[UUID, Run] = {}
        self.claims: list[Claim] = []

    def do(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    @initialize()
    def connect(self) -> None:
        self.do(self._connect())

    async def _connect(self) -> None:
        self.backend = await BackendPostgres.connect(self.url, namespace_id=str(uuid7()))
        self.session = await self.backend.open_session(connections=1)
        self.heartbeat = await self.backend.open_heartbeat()
        self.sql = await asyncpg.connect(self.url)

    def teardown(self) -> None:
        if hasattr(self, "sql"):
            self.do(self._disconnect())
        self.loop.close()

    async def _disconnect(self) -> None:
        await self.session.close()
        await self.heartbeat.close()
        await self.sql.close()
        await self.backend.stop()

    def flush(self, worker: str, **parts: Any) -> Any:
        return self.do(flush(self.session, worker=worker, lease=LEASE, **parts))

    def holds(self, claim: Claim) -> bool:
        run = self.runs[claim.run]
        return run.claim_no == claim.claim_no and run.holder is not None

    @rule(count=st.integers(1, 3))
    def enqueue(self, count: int) -> None:
        created = self.do(
            self.backend.create_workflow_runs([NewRun("w", None, None) for _ in range(count)])
        )
        self.runs.update({run.id: Run() for run in created})

    @rule(worker=st.sampled_from(WORKERS), limit=st.integers(1, 3))
    def claim(self, worker: str, limit: int) -> None:
        available = {
            key
            for key, run in self.runs.items()
            if (run.status is RunStatus.PENDING and run.due)
            or (run.status is RunStatus.RUNNING and run.expired and run.holder != worker)
        }
        claimed = self.flush(worker, claim=wanted(limit, "w")).claimed
        assert min(limit, len(available)) == len(claimed)
        for got in claimed:
            run = self.runs[got.id]
            assert got.id in available
            run.status, run.holder, run.expired = RunStatus.RUNNING, worker, False
            run.claim_no += 1
            assert (run.claim_no, run.wake_no) == (got.claim_no, got.wake_no)
            self.claims.append(Claim(worker, got.id, got.claim_no, got.wake_no))

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def record_a_step(self, data: st.DataObject) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        write = StepWrite(
            id=uuid7(),
            run_id=claim.run,
            claim_no=claim.claim_no,
            step_name=f"s{len(self.runs[claim.run].steps)}",
            kind=StepKind.RUN,
            status=StepStatus.SUCCEEDED,
            attempt=1,
            output="1",
            error=None,
            context=None,
            duration=0.0,
            resume_at=None,
            update=False,
        )
        for _ in range(2):  # a lost answer makes the worker send it again
            lost = self.flush(claim.worker, steps=[write]).lost
            assert self.holds(claim) == (write.id not in lost)
        if self.holds(claim):
            self.runs[claim.run].steps.add(write.id)

    @precondition(lambda self: self.claims)
    @rule(
        data=st.data(),
        status=st.sampled_from([RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.PENDING]),
        delay=st.sampled_from([0.0, 3600.0]),
        forever=st.booleans(),
    )
    def end(self, data: st.DataObject, status: RunStatus, delay: float, forever: bool) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        parked = status is RunStatus.PENDING
        end = RunEnd(
            run_id=claim.run,
            claim_no=claim.claim_no,
            status=status,
            output=None,
            error=None,
            available_at=None,
            delay=delay if parked else None,
            attempts=None,
            progress=True,
            wake_no=claim.wake_no if parked else None,
            forever=parked and forever,
        )
        lost = self.flush(claim.worker, ends=[end]).lost
        assert self.holds(claim) == (claim.run not in lost)
        if self.holds(claim):
            run = self.runs[claim.run]
            run.status, run.holder, run.expired = status, None, False
            run.due = not parked or (delay == 0.0 and not forever) or run.wake_no > claim.wake_no

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), worker=st.sampled_from([None, *WORKERS]))
    def wake(self, data: st.DataObject, worker: str | None) -> None:
        key = data.draw(st.sampled_from(list(self.runs)))
        run = self.runs[key]
        if worker is None:
            unfinished = not run.status.finished
            assert unfinished == self.do(self.backend.wake_workflow_run(key))
        else:
            self.flush(worker, wakes=[Wake(key)])
        if not run.status.finished:
            run.wake_no += 1
            run.due = True

    @precondition(lambda self: self.claims)
    @rule(worker=st.sampled_from(WORKERS))
    def beat(self, worker: str) -> None:
        mine = [c for c in self.claims if c.worker == worker]
        held = self.do(self.heartbeat.beat(worker, LEASE, [(c.run, c.claim_no) for c in mine]))
        assert {(c.run, c.claim_no) for c in mine if self.holds(c)} == set(held)
        for claim in mine:
            if self.holds(claim):
                self.runs[claim.run].expired = False

    @precondition(lambda self: any(r.holder for r in self.runs.values()))
    @rule(data=st.data())
    def lease_expires(self, data: st.DataObject) -> None:
        held = [key for key, run in self.runs.items() if run.holder]
        key = data.draw(st.sampled_from(held))
        self.do(
            self.sql.execute(
                "UPDATE workflow_runs SET available_at = now() - interval '1 s' WHERE id = $1", key
            )
        )
        self.runs[key].expired = True

    @precondition(lambda self: any(not r.due for r in self.runs.values()))
    @rule()
    def time_passes(self) -> None:
        parked = [k for k, r in self.runs.items() if r.status is RunStatus.PENDING and not r.due]
        self.do(
            self.sql.execute(
                "UPDATE workflow_runs SET available_at = now() WHERE id = ANY($1)", parked
            )
        )
        for key in parked:
            self.runs[key].due = True

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(list(self.runs)))
        run = self.runs[key]
        if run.status in (RunStatus.SUCCEEDED, RunStatus.FAILED):
            with pytest.raises(InvalidRunState):
                self.do(self.backend.cancel_workflow_run(key))
        else:
            self.do(self.backend.cancel_workflow_run(key))
            run.status, run.holder, run.expired = RunStatus.CANCELED, None, False

    @invariant()
    def the_database_agrees(self) -> None:
        if not self.runs:
            return
        rows = self.do(
            self.sql.fetch(
                "SELECT r.id, r.status, r.claim_no, r.worker_id, r.wake_no, "
                "array_remove(array_agg(s.id), NULL) AS steps FROM workflow_runs r "
                "LEFT JOIN step_attempts s ON s.workflow_run_id = r.id "
                "WHERE r.id = ANY($1) GROUP BY r.id",
                list(self.runs),
            )
        )
        assert len(self.runs) == len(rows)
        for row in rows:
            run = self.runs[row["id"]]
            assert (run.status, run.claim_no, run.holder, run.wake_no) == (
                row["status"],
                row["claim_no"],
                row["worker_id"],
                row["wake_no"],
            )
            assert run.steps == set(row["steps"])


def test_claims_behave_as_the_model_says(database_url: str) -> None:
    """No write of a lost claim is kept, no claim is given twice, no run is ever out of reach."""

    class OnThisDatabase(Claims):
        url = database_url

    run_state_machine_as_test(
        OnThisDatabase,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
