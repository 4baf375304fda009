"""A worker's own traffic: flushes, histories, heartbeats. The hot path of the whole system."""

import asyncio
import itertools
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg

from openworkflow.backend.connection import Link
from openworkflow.backend.queries import numbered
from openworkflow.backend.records import (
    ClaimedRun,
    ClaimRequest,
    Flush,
    Flushed,
    RecordedStep,
    RunEnd,
    StepWrite,
)
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.step_attempt import StepKind, StepStatus

KEY_SEPARATOR = "\x1f"
"""Between name and version where SQL compares both at once; served names do not contain it."""

_STEP_PARAMETERS = tuple(f"step_{name}" for name in StepWrite._fields)
_END_PARAMETERS = (*(f"end_{name}" for name in RunEnd._fields), "done_channel")
_CLAIM_PARAMETERS = ("claim_keys", "claim_limit", "worker_id", "namespace_id", "lease")
_CLAIM_COLUMNS = ClaimedRun._fields[: ClaimedRun._fields.index("due_at")]
_CLAIM_NO = _CLAIM_COLUMNS.index("claim_no")
_KINDS = {kind.value: kind for kind in StepKind}
_STATUSES = {status.value: status for status in StepStatus}


class WorkerSession:
    """A few connections that take turns, each with one statement at a time."""

    def __init__(
        self, links: Iterable[Link], queries: Mapping[str, str], namespace_id: str, channel: str
    ) -> None:
        self._links = list(links)
        self._sql, self._namespace_id, self._channel = queries, namespace_id, channel
        self._statements = flush_statements(queries)
        self._idle: asyncio.Queue[Link] = asyncio.LifoQueue()
        for link in self._links:
            self._idle.put_nowait(link)

    async def flush(self, flush: Flush) -> Flushed:
        """Record, end and claim in one statement and one commit.

        Raises ConnectionLost if it is unknown whether it took effect: sending the same steps and
        ends again is safe, runs it may have claimed are to be released. Raises BackendError if
        PostgreSQL refused it, and then nothing of it took effect.
        """
        arguments: list[Any] = []
        updates = False
        if flush.steps:
            arguments += zip(*flush.steps, strict=True)
            updates = True in arguments[-1]
        if flush.ends:
            arguments += zip(*flush.ends, strict=True)
            arguments.append(self._channel)
        if flush.claim:
            arguments += _keys(flush.claim), flush.claim.limit
            arguments += flush.worker_id, self._namespace_id, flush.lease
        parts = bool(flush.steps), updates, bool(flush.ends), flush.claim is not None
        (row,) = await self._fetch(self._statements[parts], arguments)
        return Flushed(
            row["now"],
            set(row["steps"]) if flush.steps else set(),
            set(row["ends"]) if flush.ends else set(),
            _claimed(row) if flush.claim else [],
        )

    async def load_histories(self, run_ids: Sequence[UUID]) -> dict[UUID, list[RecordedStep]]:
        """What was recorded for each of these runs, in the order it was begun."""
        histories: dict[UUID, list[RecordedStep]] = {run_id: [] for run_id in run_ids}
        for row in await self._fetch(self._sql["load_histories"], (list(run_ids),)):
            histories[row["workflow_run_id"]].append(_recorded(row))
        return {run_id: _current(history) for run_id, history in histories.items()}

    async def close(self) -> None:
        """Disconnect."""
        for link in self._links:
            await link.close()

    async def _fetch(self, sql: str, arguments: Sequence[Any]) -> list[asyncpg.Record]:
        link = await self._idle.get()
        try:
            return await link.fetch(sql, arguments)
        finally:
            self._idle.put_nowait(link)


class HeartbeatSession:
    """A connection for the heartbeat alone; use it in the event loop that opened it."""

    def __init__(self, link: Link, queries: Mapping[str, str]) -> None:
        self._link, self._sql = link, queries

    async def beat(
        self, worker_id: str, lease: timedelta, claims: Sequence[tuple[UUID, int]]
    ) -> set[tuple[UUID, int]]:
        """Extend the leases of these claims; returns those that still stand."""
        ids, numbers = zip(*claims, strict=True) if claims else ((), ())
        rows = await self._link.fetch(self._sql["extend_leases"], (ids, numbers, lease, worker_id))
        return {(row["run_id"], row["claim_no"]) for row in rows}

    async def close(self) -> None:
        """Disconnect."""
        await self._link.close()


def flush_statements(queries: Mapping[str, str]) -> dict[tuple[bool, ...], str]:
    """The statement for each set of parts: steps, ends of running steps, ends of runs, claim."""
    return {
        parts: _flush_statement(queries, *parts)
        for parts in itertools.product((False, True), repeat=4)
        if parts[0] or not parts[1]
    }


def _flush_statement(
    queries: Mapping[str, str], steps: bool, updates: bool, ends: bool, claim: bool
) -> str:
    parts: list[str] = []
    answers: list[str] = []
    parameters: tuple[str, ...] = ()
    if steps:
        parts.append(queries["flush_steps"])
        answers.append("steps")
        parameters += _STEP_PARAMETERS
    if updates:
        parts.append(queries["flush_updates"])
    if ends:
        parts.append(queries["flush_ends"])
        answers.append("ends")
        parameters += _END_PARAMETERS
    if claim:
        parts.append(queries["flush_claim"])
        answers.append("claim")
        parameters += _CLAIM_PARAMETERS
    if not parts:
        return "select now() as now"
    columns = ", ".join(f"{answer}.*" for answer in answers)
    select = f"select now() as now, {columns} from {', '.join(answers)}"  # noqa: S608
    return numbered(f"with {', '.join(parts)} {select}", parameters)


def _keys(claim: ClaimRequest) -> list[str]:
    names = zip(claim.names, claim.versions, strict=True)
    keys = [f"{name}{KEY_SEPARATOR}{version}" for name, version in names]
    if any(key.count(KEY_SEPARATOR) > 1 for key in keys):
        raise ConfigurationError(
            "the name and version of a workflow may not contain the character U+001F"
        )
    return keys


def _claimed(row: asyncpg.Record) -> list[ClaimedRun]:
    """The runs that were claimed, those that waited longest first."""
    if row["id"] is None:
        return []
    now, recovered = row["now"], set(row["expired_ids"])
    due_at = dict(zip(row["expired_ids"], row["expired_at"], strict=True))
    due_at.update(zip(row["due_ids"], row["due_at"], strict=True))
    columns = [row[name] for name in _CLAIM_COLUMNS]
    rows = {values[0]: values for values in zip(*columns, strict=True)}
    return [
        ClaimedRun._make((*values, due, now, run_id in recovered, values[_CLAIM_NO] > 1))
        for run_id, due in due_at.items()
        if (values := rows.get(run_id)) is not None
    ]


def _recorded(row: asyncpg.Record) -> RecordedStep:
    return RecordedStep(
        step_name=row["step_name"],
        kind=_KINDS[row["kind"]],
        status=_STATUSES[row["status"]],
        attempt=row["attempt"],
        claim_no=row["claim_no"],
        output=row["output"],
        error=row["error"],
        final=row["final"],
        interrupted=row["interrupted"],
        reopened=row["reopened"],
        resume_at=row["resume_at"],
        id=row["id"],
    )


def _current(history: list[RecordedStep]) -> list[RecordedStep]:
    """Drop what a claim recorded in the moment it was lost, where the next one settled it again.

    Only the later claim went on from its own result.
    """
    newest: dict[str, int] = {}
    repeated = False
    for step in history:
        if step.final or step.status is StepStatus.SUCCEEDED:
            repeated = repeated or step.step_name in newest
            newest[step.step_name] = max(step.claim_no, newest.get(step.step_name, 0))
    if not repeated:
        return history
    return [
        step
        for step in history
        if not (step.final or step.status is StepStatus.SUCCEEDED)
        or step.claim_no == newest[step.step_name]
    ]
