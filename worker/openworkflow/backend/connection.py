"""Connections to PostgreSQL: how they are made, and one clear error for each way they fail.

A `Link` is a connection that comes back by itself; workers use those. Behind a pooler (PgBouncer
and its kin) no session state survives between transactions, so there every statement gets a
transaction, settings are local to it, and nothing is prepared under a name.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import asyncpg
from asyncpg.pgproto.pgproto import UUID

from openworkflow.backend.failures import (
    DRIVER_ERRORS,
    ConnectionLost,
    UnreadableAnswer,
    as_backend_error,
    one_line,
)
from openworkflow.backend.hosts import dial
from openworkflow.backend.url import Dsn
from openworkflow.core import ids
from openworkflow.core.errors import BackendError, Fault

logger = logging.getLogger(__name__)

ids.make = UUID

Connection = Any
"""An asyncpg connection, or a pool's proxy of one."""

WORKER_SETTINGS = {
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_bitmapscan": "off",
}
"""Every statement of a worker walks an index. Without these the planner, which knows nothing of
tables that were never analysed, scans and hashes them: a tenth of the throughput."""

STATEMENT_TIMEOUT = 60.0
"""Seconds until a statement of a worker is given up with its connection: a network may fall silent
without closing anything."""

CLOSE_SECONDS = 5.0
"""How long a pool has to be closed: who hears nothing would wait for it for ever."""

ATTEMPTS = 3
"""How often a statement is sent where another one was in the way."""
_LEAVES_CONNECTION = {Fault.VALUE, Fault.MOMENT, Fault.SIZE, Fault.TABLE}
"""After these the connection is as good as before, unless the server ended it."""

_SET_LOCAL = "; ".join(
    f"set local {name} = {value}" for name, value in WORKER_SETTINGS.items() if "plan" not in name
)


async def connect(
    dsn: Dsn,
    *,
    application_name: str,
    settings: Mapping[str, str] | None = None,
    pooled: bool = False,
) -> Connection:
    """Open a connection; raises BackendError (ConnectionLost where trying again may help)."""
    try:
        return await dial(dsn, **_arguments(dsn, application_name, settings, pooled))
    except Exception as error:
        raise as_backend_error(error, dsn) from error


async def close_pool(pool: Any) -> None:
    """Close its connections; those that have not after CLOSE_SECONDS are dropped."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):  # on which the pool drops what it has
            await pool.close()


async def open_pool(dsn: Dsn, *, application_name: str, pooled: bool) -> Any:
    """The pool for everything that is not a worker's own traffic; it connects on demand."""
    try:
        return await asyncpg.create_pool(
            min_size=0,
            max_size=dsn.pool_size,
            reset=_leave_as_is,
            connect=partial(dial, dsn),
            **_arguments(dsn, application_name, None, pooled),
        )
    except Exception as error:
        raise as_backend_error(error, dsn) from error


async def probe(dsn: Dsn, *, application_name: str) -> tuple[Connection, bool]:
    """A first connection, and whether there is a pooler in between.

    A pooler refuses a worker's settings, or shows by its process id that it is not the server.
    The connection is good for transactions in either case.
    """
    try:
        connection = await connect(
            dsn, application_name=application_name, settings=WORKER_SETTINGS, pooled=True
        )
    except BackendError as error:
        if "startup parameter" not in str(error.__cause__):
            raise
        return await connect(dsn, application_name=application_name, pooled=True), True
    try:
        async with connection.transaction():
            pid = await connection.fetchval("select pg_backend_pid()")
    except Exception as error:
        connection.terminate()
        raise as_backend_error(error, dsn) from error
    return connection, pid != connection.get_server_pid()


class Link:
    """One connection with a worker's settings that is opened again when it is needed."""

    __slots__ = ("_application_name", "_connection", "_dsn", "_pooled")

    def __init__(self, dsn: Dsn, *, application_name: str, pooled: bool) -> None:
        self._dsn, self._application_name, self._pooled = dsn, application_name, pooled
        self._connection: Connection | None = None

    async def open(self) -> None:
        """Connect, unless connected; raises BackendError."""
        if self._connection is not None and not self._connection.is_closed():
            return
        self._connection = await connect(
            self._dsn,
            application_name=self._application_name,
            settings=None if self._pooled else WORKER_SETTINGS,
            pooled=self._pooled,
        )

    async def fetch(self, sql: str, arguments: Sequence[Any]) -> list[asyncpg.Record]:
        """Run one statement as one transaction.

        Raises ConnectionLost, in doubt where it may have taken effect, if nothing can be done
        before the database answers; BackendError, of another fault, where PostgreSQL refused it.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._reopen()
                return await self._send(sql, arguments)
            except DRIVER_ERRORS as error:
                failure = self._failure(as_backend_error(error, self._dsn))
                if failure.fault is Fault.MOMENT and attempt < ATTEMPTS:
                    continue
                raise failure from error
            except (ValueError, OverflowError) as error:
                self.drop()
                raise UnreadableAnswer(
                    f"PostgreSQL at {self._dsn} answered with a value that Python cannot hold: "
                    f"{one_line(error)}"
                ).of(Fault.SERVER, in_doubt=True) from error
            except BaseException:
                self.drop()
                raise
        raise AssertionError

    def drop(self) -> None:
        """Close without a word to the server; the next statement connects again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def close(self) -> None:
        """Disconnect."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            with contextlib.suppress(*DRIVER_ERRORS):
                await connection.close(timeout=5)

    async def _reopen(self) -> None:
        """Whatever keeps a connection that once was good from coming back may pass."""
        try:
            await self.open()
        except ConnectionLost:
            raise
        except BackendError as error:
            raise ConnectionLost(str(error)) from error

    def _failure(self, failure: BackendError) -> BackendError:
        """What a statement's failure means for the connection."""
        if failure.fault in _LEAVES_CONNECTION and not self._is_closed():
            return failure
        self.drop()
        if failure.fault in (Fault.SIZE, Fault.OURS):
            return failure
        return ConnectionLost(str(failure)).of(Fault.SERVER, in_doubt=True)

    async def _send(self, sql: str, arguments: Sequence[Any]) -> list[asyncpg.Record]:
        connection = self._connection
        assert connection is not None
        if not self._pooled:
            rows: list[asyncpg.Record] = await connection.fetch(
                sql, *arguments, timeout=STATEMENT_TIMEOUT
            )
            return rows
        await connection.execute(f"begin; {_SET_LOCAL}", timeout=STATEMENT_TIMEOUT)
        try:
            rows = await connection.fetch(sql, *arguments, timeout=STATEMENT_TIMEOUT)
        except asyncpg.PostgresError:
            if not connection.is_closed():
                await connection.execute("rollback", timeout=STATEMENT_TIMEOUT)
            raise
        await connection.execute("commit", timeout=STATEMENT_TIMEOUT)
        return rows

    def _is_closed(self) -> bool:
        return self._connection is None or bool(self._connection.is_closed())


def _arguments(
    dsn: Dsn, application_name: str, settings: Mapping[str, str] | None, pooled: bool
) -> dict[str, Any]:
    startup = {"application_name": dsn.application_name or application_name, **(settings or {})}
    if dsn.options is not None:
        startup["options"] = dsn.options
    arguments = dsn.arguments() | {"server_settings": startup}
    if pooled:
        arguments["statement_cache_size"] = 0
    return arguments


async def _leave_as_is(connection: Connection) -> None:
    """Nothing to reset: what borrows from the pool leaves no state. Saves a round trip."""
