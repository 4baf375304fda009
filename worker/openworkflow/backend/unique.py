"""Starts a run that has a key for itself, or does something to the one that has it.

In one transaction, which holds the key from the first statement on: of two calls the second sees
what the first has come to.
"""

from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

from openworkflow.backend.connection import Connection
from openworkflow.backend.creation import Creation
from openworkflow.backend.namespace import Namespace
from openworkflow.backend.records import CreatedRun, NewRun
from openworkflow.backend.rows import as_member
from openworkflow.core.errors import RunExists
from openworkflow.core.ids import uuid7
from openworkflow.core.unique import UniqueRule
from openworkflow.core.workflow_run import RunStatus


class UniqueStart:
    """Starts of one namespace that have keys."""

    def __init__(self, queries: Mapping[str, str], namespace: Namespace) -> None:
        self._sql, self._namespace = queries, namespace

    async def start(self, connection: Connection, run: NewRun, rule: UniqueRule) -> CreatedRun:
        """Within a transaction of `connection`; `run` has its id. Raises RunExists."""
        place = self._namespace.id, run.workflow_name, rule.key
        (held,) = await connection.fetch(self._sql["hold_key"], *place, run.id)
        if held["run_id"] == run.id:
            # It is ours, unless an earlier try of this call has come so far.
            there = await self._status(connection, run.id)
            if there is not None:
                return CreatedRun(run.id, True, there)
            return await self._create(connection, run, rule)
        there_id: UUID = held["run_id"]
        status = await self._status(connection, there_id)
        if status is not None and not status.finished:
            match rule.on_conflict:
                case "return":
                    return CreatedRun(there_id, False, status)
                case "reject":
                    raise RunExists(there_id, rule.key)
                case "replace":
                    if await self._replace(connection, there_id, run, rule, place):
                        return CreatedRun(there_id, False, status)
                case "cancel":
                    await self._cancel(connection, there_id)
        await connection.fetch(self._sql["take_key"], *place, run.id)
        return await self._create(connection, run, rule)

    async def _replace(
        self,
        connection: Connection,
        there: UUID,
        run: NewRun,
        rule: UniqueRule,
        place: tuple[str, str, str],
    ) -> bool:
        """False if it has begun."""
        rows = await connection.fetch(
            self._sql["replace_input"],
            *(*place, there, run.input, run.limits, rule.delay, rule.max_wait),
        )
        return bool(rows)

    async def _create(self, connection: Connection, run: NewRun, rule: UniqueRule) -> CreatedRun:
        if rule.delay is not None:
            delay = rule.delay if rule.max_wait is None else min(rule.delay, rule.max_wait)
            run = run._replace(delay=delay, available_at=None)
        creation = Creation(self._sql, self._namespace.id, timedelta(0))
        (created,) = await creation.create(connection, [run], None)
        return created

    async def _cancel(self, connection: Connection, run_id: UUID) -> None:
        which = self._namespace.id, run_id
        await connection.fetch(self._sql["lock_key_run"], *which)
        channels = self._namespace.work_channel, self._namespace.done_channel
        await connection.fetch(self._sql["cancel_key_run"], *which, *channels, False, uuid7())

    async def _status(self, connection: Connection, run_id: UUID) -> RunStatus | None:
        rows = await connection.fetch(self._sql["find_key_run"], self._namespace.id, run_id)
        return as_member(RunStatus, rows[0]["status"]) if rows else None
