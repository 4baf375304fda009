"""A worker's traffic in one line each: claim, flush, end, and leases that expire at once."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg

from openworkflow.backend.backend import BackendPostgres, ClaimedRun, ClaimRequest, WorkerSession
from openworkflow.backend.records import (
    Completion,
    Continuation,
    Flush,
    Flushed,
    RunEnd,
    StepSuccess,
    StepWrite,
    Wake,
    Write,
    claim_key,
)
from openworkflow.core.ids import uuid7
from openworkflow.core.step_attempt import StepKind, StepStatus
from openworkflow.core.workflow_run import RunStatus

LEASE = timedelta(seconds=30)
_WORKERS: dict[tuple[UUID, int], str] = {}
"""Who was given which claim."""


async def session_of(backend: BackendPostgres) -> WorkerSession:
    return await backend.open_session()


async def flush(
    session: WorkerSession,
    *,
    steps: list[StepWrite] | None = None,
    ends: list[RunEnd] | None = None,
    claim: ClaimRequest | None = None,
    successes: list[StepSuccess] | None = None,
    completions: list[Completion] | None = None,
    continuations: list[Continuation] | None = None,
    wakes: list[Wake] | None = None,
    worker: str | None = None,
    lease: timedelta = LEASE,
) -> Flushed:
    """By this worker; else by the one that was given the claim of the first row here."""
    rows: dict[type[Write], Any] = {
        StepSuccess: successes,
        StepWrite: steps,
        Completion: completions,
        RunEnd: ends,
        Continuation: continuations,
        Wake: wakes,
    }
    given = {kind: some for kind, some in rows.items() if some}
    all_rows = [row for some in given.values() for row in some]
    claims = [(row.run_id, getattr(row, "claim_no", 0)) for row in all_rows]
    worker = worker or next(filter(None, map(_WORKERS.get, claims)), "host/1")
    flushed = await session.flush(Flush(worker, lease, given, claim))
    _WORKERS.update({(run.id, run.claim_no): worker for run in flushed.claimed})
    return flushed


def wanted(limit: int, *names: str, **options: Any) -> ClaimRequest:
    """A request that trusts nobody and takes everything, unless the options say otherwise."""
    options.setdefault("suspects", limit)
    return ClaimRequest(limit, [claim_key(name, "") for name in names], **options)


async def claim(
    session: WorkerSession, *names: str, limit: int = 100, worker: str = "host/1"
) -> list[ClaimedRun]:
    request = wanted(limit, *names)
    return (await flush(session, claim=request, worker=worker)).claimed


async def claim_one(session: WorkerSession, name: str, worker: str = "host/1") -> ClaimedRun:
    (run,) = await claim(session, name, limit=1, worker=worker)
    return run


def step_of(run: ClaimedRun, name: str, **columns: Any) -> StepWrite:
    values: dict[str, Any] = {
        "id": uuid7(),
        "run_id": run.id,
        "claim_no": run.claim_no,
        "step_name": name,
        "kind": StepKind.RUN,
        "status": StepStatus.SUCCEEDED,
        "attempt": 1,
        "output": "1",
        "error": None,
        "context": None,
        "duration": 0.001,
        "resume_at": None,
        "update": False,
        "completion_no": None,
    }
    return StepWrite(**(values | columns))


def success_of(
    run: ClaimedRun, name: str, output: str | None = "1", completion_no: int = 1
) -> StepSuccess:
    return StepSuccess(uuid7(), run.id, run.claim_no, name, output, 0.001, completion_no)


def completion_of(run: ClaimedRun, output: str | None = None) -> Completion:
    return Completion(run.id, run.claim_no, output)


def end_of(run: ClaimedRun, status: RunStatus = RunStatus.SUCCEEDED, **columns: Any) -> RunEnd:
    values: dict[str, Any] = {
        "output": None,
        "error": None,
        "available_at": None,
        "delay": None,
        "attempts": None,
        "progress": False,
        "wake_no": None,
        "forever": False,
    }
    return RunEnd(run.id, run.claim_no, status, **(values | columns))


async def expire_leases(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "UPDATE workflow_runs SET available_at = now() - interval '1 s' WHERE status = 'running'"
    )
    await connection.close()
