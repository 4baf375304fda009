"""A worker's own traffic: flushes, histories, heartbeats. The hot path of the whole system."""

import asyncio
import operator
from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from openworkflow.backend.connection import Link
from openworkflow.backend.queries import numbered
from openworkflow.backend.records import (
    ClaimedRun,
    Completion,
    Flush,
    Flushed,
    RecordedStep,
    RunEnd,
    StepSuccess,
    StepWrite,
    Write,
)
from openworkflow.core.step_attempt import StepKind, StepStatus

_STEP_PARAMETERS = {
    "flush_step_successes": [f"success_{name}" for name in StepSuccess._fields],
    "flush_step_writes": [f"step_{name}" for name in StepWrite._fields],
}
_END_PARAMETERS = {
    "flush_completions": [f"completion_{name}" for name in Completion._fields],
    "flush_run_ends": [f"end_{name}" for name in RunEnd._fields],
}
_CLAIM_PARAMETERS = (
    "claim_keys",
    "claim_limit",
    "worker_id",
    "namespace_id",
    "lease",
    "build_id",
    "pinned_keys",
)
_CLAIM_COLUMNS = ClaimedRun._fields[: ClaimedRun._fields.index("due_at")]
_CLAIM_NO = _CLAIM_COLUMNS.index("claim_no")
_DUE_AT = operator.attrgetter("due_at")
_KINDS = {kind.value: kind for kind in StepKind}
_STATUSES = {status.value: status for status in StepStatus}


class Parts(NamedTuple):
    """Which parts a flush is joined from."""

    successes: bool
    steps: bool
    updates: bool
    """Some of the steps end a row that was recorded as running."""
    completions: bool
    ends: bool
    claim: bool


class WorkerSession:
    """A few connections that take turns, each with one statement at a time."""

    def __init__(
        self, links: Iterable[Link], queries: Mapping[str, str], namespace_id: str, channel: str
    ) -> None:
        self._links = list(links)
        self._sql, self._namespace_id, self._channel = queries, namespace_id, channel
        self._statements: dict[Parts, str] = {}
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
        if flush.successes or flush.steps:
            _columns(arguments, flush.successes, flush.steps)
            updates = bool(flush.steps) and True in arguments[-1]
            arguments.append(len(flush.successes) + len(flush.steps))
        if flush.completions or flush.ends:
            _columns(arguments, flush.completions, flush.ends)
            arguments += len(flush.completions) + len(flush.ends), self._channel
        if flush.claim:
            arguments += flush.claim.keys, flush.claim.limit
            arguments += flush.worker_id, self._namespace_id, flush.lease
            arguments += flush.claim.build_id, flush.claim.pinned_keys
        parts = Parts(
            bool(flush.successes),
            bool(flush.steps),
            updates,
            bool(flush.completions),
            bool(flush.ends),
            flush.claim is not None,
        )
        (row,) = await self._fetch(self._statement(parts), arguments)
        return Flushed(
            row["now"], _lost(flush, row), _claimed(row) if flush.claim is not None else []
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

    def _statement(self, parts: Parts) -> str:
        statement = self._statements.get(parts)
        if statement is None:
            statement = self._statements[parts] = flush_statement(self._sql, parts)
        return statement

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


def flush_statement(queries: Mapping[str, str], parts: Parts) -> str:
    """The statement that consists of these parts."""
    joined: list[str] = []
    answers: list[str] = []
    parameters: list[str] = []
    if parts.successes or parts.steps:
        rows = _rows(queries, _STEP_PARAMETERS, (parts.successes, parts.steps), parameters)
        joined.append(queries["flush_steps"].replace("{rows}", rows))
        answers.append("steps")
        parameters.append("step_count")
    if parts.updates:
        joined.append(queries["flush_updates"])
    if parts.completions or parts.ends:
        rows = _rows(queries, _END_PARAMETERS, (parts.completions, parts.ends), parameters)
        joined.append(queries["flush_ends"].replace("{rows}", rows))
        answers.append("ends")
        parameters += ["end_count", "done_channel"]
    if parts.claim:
        joined.append(queries["flush_claim"])
        answers.append("claim")
        parameters += _CLAIM_PARAMETERS
    if not joined:
        return "select now() as now"
    columns = ", ".join(f"{answer}.*" for answer in answers)
    select = f"select now() as now, {columns} from {', '.join(answers)}"  # noqa: S608
    return numbered(f"with {', '.join(joined)} {select}", parameters)


def _rows(
    queries: Mapping[str, str],
    sources: Mapping[str, list[str]],
    used: Iterable[bool],
    parameters: list[str],
) -> str:
    """The sources in use, one after the other; adds their parameters."""
    names = [name for name, is_used in zip(sources, used, strict=True) if is_used]
    for name in names:
        parameters += sources[name]
    return " union all ".join(queries[name] for name in names)


def _columns(arguments: list[Any], *kinds: Sequence[Write]) -> None:
    """Rows of each kind as the columns that the statement takes."""
    for rows in kinds:
        if rows:
            arguments += zip(*rows, strict=True)


def _lost(flush: Flush, row: asyncpg.Record) -> Set[UUID]:
    """What the database did not take; it names what it took only if that was not all."""
    lost: set[UUID] = set()
    if (flush.successes or flush.steps) and row["steps"] is not None:
        lost = {step.id for step in flush.successes} | {step.id for step in flush.steps}
        lost.difference_update(row["steps"])
    if (flush.completions or flush.ends) and row["ends"] is not None:
        ended = {end.run_id for end in flush.completions} | {end.run_id for end in flush.ends}
        lost |= ended.difference(row["ends"])
    return lost


def _claimed(row: asyncpg.Record) -> list[ClaimedRun]:
    """The runs that were claimed, those that waited longest first."""
    if row["id"] is None:
        return []
    now, recovered = row["now"], frozenset(row["recovered_ids"])
    due_at = dict(zip(row["taken_ids"], row["taken_at"], strict=True))
    columns = [row[name] for name in _CLAIM_COLUMNS]
    runs = [
        ClaimedRun._make(
            (*values, due_at[values[0]], now, values[0] in recovered, values[_CLAIM_NO] > 1)
        )
        for values in zip(*columns, strict=True)
    ]
    runs.sort(key=_DUE_AT)
    return runs


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
