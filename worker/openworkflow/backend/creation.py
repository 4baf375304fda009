"""Creates workflow runs: many in one statement, at most one for each idempotency key."""

import itertools
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from openworkflow.backend.connection import Connection
from openworkflow.backend.records import CreatedRun, NewRun
from openworkflow.core.errors import BackendError
from openworkflow.core.ids import uuid7
from openworkflow.core.workflow_run import RunStatus

CHUNK = 5000
"""Runs per statement: bounds the memory a statement takes on both sides."""
_TRIES = 5


class Creation:
    """Creates runs of one namespace over whatever connection it is handed."""

    def __init__(self, queries: Mapping[str, str], namespace_id: str, period: timedelta) -> None:
        self._sql, self._namespace_id, self._period = queries, namespace_id, period

    async def create(
        self, connection: Connection, runs: Sequence[NewRun], channel: str | None
    ) -> list[CreatedRun]:
        """Create `runs` and tell the workers on `channel`, if one is given.

        All or none, unless the connection is in a transaction that the caller then commits.
        """
        ids = [run.id or uuid7() for run in runs]
        keyed = [run for run in runs if run.idempotency_key is not None]
        kinds = {kind_of(run) for run in runs}
        if not keyed and len(kinds) == 1 and len(runs) <= CHUNK:
            if len(await self._insert(connection, ids, runs, channel)) < len(runs):
                raise _dropped()
            return [CreatedRun(run_id, True, RunStatus.PENDING) for run_id in ids]
        # In the order of their keys, so that two batches cannot each wait for a key of the other.
        ordered = sorted(zip(ids, runs, strict=True), key=lambda new: _order(new[1]))
        done: dict[UUID, CreatedRun] = {}
        async with connection.transaction():
            if keyed:
                await connection.execute(
                    self._sql["release_idempotency_keys"],
                    self._namespace_id,
                    *_keys(sorted(keyed, key=_order)),
                    self._period,
                )
            for _, of_a_kind in itertools.groupby(ordered, lambda new: kind_of(new[1])):
                alike = list(of_a_kind)
                for start in range(0, len(alike), CHUNK):
                    done |= await self._create_chunk(
                        connection, alike[start : start + CHUNK], channel
                    )
        return [done[run_id] for run_id in ids]

    async def _create_chunk(
        self, connection: Connection, new: list[tuple[UUID, NewRun]], channel: str | None
    ) -> dict[UUID, CreatedRun]:
        """Insert, and look up the keys that were taken; a key freed in between is tried again."""
        done: dict[UUID, CreatedRun] = {}
        for _ in range(_TRIES):
            left = [(run_id, run) for run_id, run in new if run_id not in done]
            created = await self._insert(
                connection, [run_id for run_id, _ in left], [run for _, run in left], channel
            )
            done.update((i, CreatedRun(i, True, RunStatus.PENDING)) for i in created)
            taken = [(run_id, run) for run_id, run in left if run_id not in created]
            if taken:
                found = await self._find(connection, [run for _, run in taken])
                done.update((i, found[_key(run)]) for i, run in taken if _key(run) in found)
            if len(done) == len(new):
                return done
            if any(run.idempotency_key is None for _, run in taken):
                raise _dropped()
        raise BackendError(
            "an idempotency key was taken and freed again and again; try later, and look for a "
            "trigger of workflow_runs that returns NULL"
        )

    async def _insert(
        self,
        connection: Connection,
        ids: Sequence[UUID],
        runs: Sequence[NewRun],
        channel: str | None,
    ) -> set[UUID]:
        """Runs of one kind; returns those that were created."""
        limits, contexts = [run.limits for run in runs], [run.context for run in runs]
        more = (limits, contexts) if any(limits) or any(contexts) else ()
        rows = await connection.fetch(
            self._sql["create_detailed_runs"] if more else self._sql["create_workflow_runs"],
            self._namespace_id,
            *kind_of(runs[0])[:-2],
            ids,
            [run.input for run in runs],
            [run.idempotency_key for run in runs],
            channel,
            runs[0].tags,
            runs[0].priority,
            *more,
        )
        return {row["id"] for row in rows}

    async def _find(
        self, connection: Connection, runs: Sequence[NewRun]
    ) -> dict[tuple[Any, Any], CreatedRun]:
        rows = await connection.fetch(
            self._sql["find_idempotent_runs"], self._namespace_id, *_keys(runs)
        )
        return {
            (row["workflow_name"], row["idempotency_key"]): CreatedRun(
                row["id"], False, RunStatus(row["status"])
            )
            for row in rows
        }


def _dropped() -> BackendError:
    return BackendError(
        "PostgreSQL took a run and did not store it: a trigger or a rule of workflow_runs drops "
        "rows; have it RETURN NEW (`openworkflow doctor` names it)"
    )


def _keys(runs: Sequence[NewRun]) -> tuple[list[str], list[str | None]]:
    return [run.workflow_name for run in runs], [run.idempotency_key for run in runs]


def _key(run: NewRun) -> tuple[str, str | None]:
    return run.workflow_name, run.idempotency_key


def _order(run: NewRun) -> tuple[str, str]:
    return run.workflow_name, run.idempotency_key or ""


def kind_of(run: NewRun) -> tuple[Any, ...]:
    """What the runs of one statement have in common."""
    return (
        run.workflow_name,
        run.version,
        run.config,
        run.available_at,
        run.delay,
        run.deadline_at,
        run.deadline,
        run.tags,
        run.priority,
    )
