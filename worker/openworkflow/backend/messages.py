"""Signals: sends them, and reads what was sent to the runs that wait for some."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg

from openworkflow.backend.callers import Callers
from openworkflow.backend.connection import Connection
from openworkflow.backend.records import Delivery, Outgoing, Waiting
from openworkflow.backend.requests import Requests
from openworkflow.backend.url import Dsn
from openworkflow.core.errors import InvalidRunState, RunNotFound
from openworkflow.core.recorded import Message
from openworkflow.core.workflow_run import RunStatus

MOST_AT_ONCE = 100
"""Messages of one name that are read at once."""

_OVER = {status.value for status in RunStatus if status.finished}

Fetch = Callable[[str, Sequence[Any]], Awaitable[list[asyncpg.Record]]]


class Messages:
    """Sends the signals of a namespace."""

    def __init__(
        self, requests: Requests, dsn: Dsn, queries: Mapping[str, str], namespace_id: str
    ) -> None:
        self._requests, self._callers = requests, Callers(requests, dsn, queries)
        self._sql, self._namespace_id = queries, namespace_id

    async def send(self, message: Outgoing, connection: Connection | None = None) -> UUID:
        """Send one; returns its id, or that of the message that had its idempotency key before.

        With a `connection` of the caller's it is sent if and only if that commits. Raises
        RunNotFound, InvalidRunState for a run that has ended, and BackendError.
        """
        if connection is not None:
            # A refusal rolls back to here, and not the caller's whole transaction.
            async with self._callers.lent(connection) as lent, lent.transaction():
                return await self._send(lent, message)
        # Safe to repeat: a message that was stored is found by its id.
        return await self._requests.repeat(lambda: self._send_apart(message), safe=True)

    async def _send_apart(self, message: Outgoing) -> UUID:
        async with self._requests.borrow() as connection:
            return await self._send(connection, message)

    async def _send(self, connection: Connection, message: Outgoing) -> UUID:
        what = message.name, message.payload, message.idempotency_key
        where = message.id, self._namespace_id
        if message.run_id is None:
            sql = self._sql["send_topic_signal"]
            return _id(await connection.fetch(sql, *what, message.keep_for, *where))
        try:
            sql = self._sql["send_signal"]
            return _id(await connection.fetch(sql, message.run_id, *what, *where))
        except asyncpg.PostgresError as error:
            if (refusal := _refusal(message.run_id, error)) is None:
                raise
            raise refusal from error


def _refusal(run_id: UUID, error: asyncpg.PostgresError) -> RunNotFound | InvalidRunState | None:
    """What openworkflow_signal says of the run, if it was that which raised.

    By the code itself: the driver's class for 55000 is also that of a lock_timeout, and a trigger
    of somebody's may raise either.
    """
    if error.sqlstate == "P0002" and str(run_id) in str(error):
        return RunNotFound(run_id)
    if error.sqlstate == "55000" and error.detail in _OVER:
        return InvalidRunState(run_id, error.detail, "signaled")
    return None


async def read_inboxes(
    fetch: Fetch, queries: Mapping[str, str], waiting: Sequence[Waiting]
) -> dict[UUID, Delivery]:
    """What these runs find in their inboxes; a run that is gone is left out."""
    rows = await fetch(
        queries["read_inboxes"],
        (
            *_columns((run.run_id, name) for run in waiting for name in run.names),
            [message for run in waiting for message in run.had],
            *_columns((run.run_id, message) for run in waiting for message in run.had_of_topics),
            MOST_AT_ONCE,
        ),
    )
    found: dict[UUID, Delivery] = {}
    for row in rows:
        delivery = found.setdefault(row["run_id"], Delivery(row["wake_no"], []))
        if row["id"] is not None:
            delivery.messages.append(
                Message(row["id"], row["name"], row["payload"], row["of_topic"], row["sent_at"])
            )
    return found


async def subscribe(
    fetch: Fetch,
    queries: Mapping[str, str],
    place: tuple[str, str],
    pairs: Iterable[tuple[UUID, str]],
) -> set[str]:
    """Have the next message of a topic wake the run that it is paired with.

    `place` is the namespace and the schema. Answers the topics that something is being sent to at
    this moment, to which nobody was subscribed: read the inbox, and try again.
    """
    rows = await fetch(queries["subscribe"], (*_columns(pairs), *place))
    return {row["topic"] for row in rows}


async def read_wakes(
    fetch: Fetch, queries: Mapping[str, str], run_ids: Sequence[UUID]
) -> dict[UUID, int]:
    """How often these runs were woken."""
    rows = await fetch(queries["read_wakes"], (run_ids,))
    return {row["id"]: row["wake_no"] for row in rows}


def _columns(pairs: Iterable[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    rows = list(pairs)
    return [first for first, _ in rows], [second for _, second in rows]


def _id(rows: list[asyncpg.Record]) -> UUID:
    sent: UUID = rows[0]["id"]
    return sent
