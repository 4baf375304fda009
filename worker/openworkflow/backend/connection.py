"""Connections to PostgreSQL: how they are made, and one clear error for each way they fail.

A `Link` is a connection that comes back by itself; workers use those. Behind a pooler (PgBouncer
and its kin) no session state survives between transactions, so there every statement gets a
transaction, settings are local to it, and nothing is prepared under a name.
"""

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import asyncpg
from asyncpg.pgproto.pgproto import UUID

from openworkflow.backend import liveness
from openworkflow.backend.failures import (
    DRIVER_ERRORS,
    ConnectionLost,
    UnreadableAnswer,
    as_backend_error,
    one_line,
    silent,
)
from openworkflow.backend.hosts import dial
from openworkflow.backend.liveness import Silences, bounded
from openworkflow.backend.sight import SEE_IN_TRANSACTION, dial_to_see
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
    "enable_sort": "off",
}
"""Every statement of a worker walks an index that has the rows in the order it needs. Without these
the planner, which knows nothing of tables that were never analysed, scans, hashes and sorts them: a
tenth of the throughput. How the statements are written for it: flush.sql."""

ISOLATION = "read committed"
"""The fence, the turns of builds and claims look again at a row that they had to wait for; a role
or database with another default would have them fail instead, each time that two meet."""
WORKER_LIMITS = {"lock_timeout": f"{liveness.LOCK_SECONDS * 1000:.0f}"}
"""How long PostgreSQL waits for others on behalf of a worker."""
REQUEST_LIMITS = {"lock_timeout": f"{liveness.REQUEST_LOCK_SECONDS * 1000:.0f}"}
"""Limits on behalf of a client, whose request may meet a transaction that somebody left open."""
POOLED_LIMITS = {
    "idle_in_transaction_session_timeout": f"{liveness.OPEN_TRANSACTION_SECONDS * 1000:.0f}"
}
"""Behind a pooler: how long a transaction stays open whose end does not arrive."""
ATTEMPTS = 3
"""How often a statement is sent where another one was in the way."""
_LEAVES_CONNECTION = {Fault.VALUE, Fault.MOMENT, Fault.SIZE, Fault.TABLE}
"""After these the connection is as good as before, unless the server ended it."""
MAY_BE_OF_SESSION = {Fault.SIZE, Fault.TABLE}
"""What a session may be refused that a new one is not: it keeps the settings of its role as they
were when it began, and a role that was dropped and made again is another one."""

_LOCK_TIMEOUT = "55P03"


def set_local(settings: Mapping[str, str]) -> str:
    """The SQL that gives these to a transaction."""
    return "; ".join(f"set local {name} = {value}" for name, value in settings.items())


_BEGIN = "; ".join(
    (
        f"begin isolation level {ISOLATION}",
        set_local({name: on for name, on in WORKER_SETTINGS.items() if "plan" not in name}),
        set_local(WORKER_LIMITS | POOLED_LIMITS),
        SEE_IN_TRANSACTION,
    )
)


async def connect(
    dsn: Dsn,
    *,
    application_name: str,
    settings: Mapping[str, str] | None = None,
    pooled: bool = False,
    patient: bool = False,
) -> Connection:
    """Open a connection; raises BackendError (ConnectionLost where trying again may help).

    A statement may take ANSWER_SECONDS there; if `patient`, as long as it likes.
    """
    arguments = connect_arguments(dsn, application_name, settings, pooled)
    limit = None if patient else liveness.ANSWER_SECONDS
    try:
        dialed = dial if pooled else dial_to_see
        return await dialed(dsn, **arguments, command_timeout=limit)
    except Exception as error:
        raise as_backend_error(error, dsn) from error


async def probe(dsn: Dsn, *, application_name: str) -> tuple[Connection, bool]:
    """A first connection, and whether there is a pooler in between.

    A pooler refuses a worker's settings, or shows by its process id that it is not the server.
    The connection is good for transactions in either case, and of any length: migrations use it.
    """
    try:
        connection = await connect(
            dsn,
            application_name=application_name,
            settings=WORKER_SETTINGS,
            pooled=True,
            patient=True,
        )
    except BackendError as error:
        if "startup parameter" not in str(error.__cause__):
            raise
        return await connect(
            dsn, application_name=application_name, pooled=True, patient=True
        ), True
    try:
        with bounded(connection):
            async with connection.transaction():
                pid = await connection.fetchval("select pg_backend_pid()")
    except BaseException as error:
        connection.terminate()  # whoever was cancelled has nobody else who could
        if not isinstance(error, Exception):
            raise
        raise as_backend_error(error, dsn) from error
    return connection, pid != connection.get_server_pid()


class Link:
    """One connection with a worker's settings that is opened again when it is needed.

    Not once it was closed: whoever still reads then, or is connecting, would leave one to nobody.
    """

    __slots__ = (
        "_application_name",
        "_connection",
        "_dsn",
        "_ended",
        "_opened",
        "_patience",
        "_pooled",
        "_silences",
        "_silences_before",
    )

    def __init__(
        self, dsn: Dsn, *, application_name: str, pooled: bool, silences: Silences | None = None
    ) -> None:
        self._dsn, self._application_name, self._pooled = dsn, application_name, pooled
        self._connection: Connection | None = None
        self._silences, self._silences_before = silences or Silences(), 0
        self._patience = liveness.ANSWER_SECONDS
        self._opened = 0.0
        self._ended = False

    async def open(self) -> None:
        """Connect, unless connected; raises BackendError, also once it was closed."""
        if not self._is_closed() and self._silences_before == self._silences.count:
            return
        self.drop()
        self._silences_before = self._silences.count
        self._opened = time.monotonic()
        self._refuse_if_ended()
        connection = await connect(
            self._dsn,
            application_name=self._application_name,
            settings=None if self._pooled else WORKER_SETTINGS | WORKER_LIMITS,
            pooled=self._pooled,
        )
        if self._ended:
            connection.terminate()
        self._refuse_if_ended()
        self._connection = connection

    async def fetch(self, sql: str, arguments: Sequence[Any]) -> list[asyncpg.Record]:
        """Run one statement as one transaction.

        Raises ConnectionLost, in doubt where it may have taken effect, if nothing can be done
        before the database answers; BackendError, of another fault, where PostgreSQL refused it.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._reopen()
                rows = await self._send(sql, arguments)
                self._patience = liveness.ANSWER_SECONDS
                return rows
            except TimeoutError as error:
                raise self._silence() from error
            except DRIVER_ERRORS as error:
                failure = self._failure(as_backend_error(error, self._dsn))
                # Who waited for a lock in vain has waited long enough.
                again = getattr(error, "sqlstate", None) != _LOCK_TIMEOUT and attempt < ATTEMPTS
                if failure.fault is Fault.MOMENT and again:
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

    def end(self) -> None:
        """Close for good, without a word to the server."""
        self._ended = True
        self.drop()

    async def close(self) -> None:
        """Disconnect for good."""
        self._ended = True
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            with contextlib.suppress(*DRIVER_ERRORS):
                await connection.close(timeout=liveness.GOODBYE_SECONDS)

    def _refuse_if_ended(self) -> None:
        if self._ended:
            raise ConnectionLost(
                f"the connection to PostgreSQL at {self._dsn} was closed by its owner; open another"
            )

    async def _reopen(self) -> None:
        """Whatever keeps a connection that once was good from coming back may pass."""
        try:
            await self.open()
        except ConnectionLost:
            raise
        except BackendError as error:
            raise ConnectionLost(str(error)) from error

    def _silence(self) -> BackendError:
        """No answer in time: the connection is taken for dead, and so are those of its age."""
        self.drop()
        self._silences.heard_nothing()
        seconds, self._patience = self._patience, min(2 * self._patience, liveness.PATIENT_SECONDS)
        return silent(self._dsn, seconds)

    def _failure(self, failure: BackendError) -> BackendError:
        """What a statement's failure means for the connection."""
        if failure.fault in _LEAVES_CONNECTION and not self._is_closed():
            if failure.fault in MAY_BE_OF_SESSION and self._is_old():
                self.drop()
            return failure
        self.drop()
        if failure.fault in (Fault.SIZE, Fault.OURS):
            return failure
        return ConnectionLost(str(failure)).of(Fault.SERVER, in_doubt=True)

    def _is_old(self) -> bool:
        return time.monotonic() - self._opened > liveness.REFUSED_SECONDS

    async def _send(self, sql: str, arguments: Sequence[Any]) -> list[asyncpg.Record]:
        connection = self._connection
        assert connection is not None
        if not self._pooled:
            rows: list[asyncpg.Record] = await connection.fetch(
                sql, *arguments, timeout=self._patience
            )
            return rows
        await connection.execute(_BEGIN, timeout=liveness.ANSWER_SECONDS)
        try:
            rows = await connection.fetch(sql, *arguments, timeout=self._patience)
        except asyncpg.PostgresError:
            if not connection.is_closed():
                await connection.execute("rollback", timeout=liveness.ANSWER_SECONDS)
            raise
        await connection.execute("commit", timeout=liveness.ANSWER_SECONDS)
        return rows

    def _is_closed(self) -> bool:
        return self._connection is None or bool(self._connection.is_closed())


@contextlib.asynccontextmanager
async def connected(dsn: Dsn, *, application_name: str, pooled: bool) -> AsyncIterator[Connection]:
    """A connection for the length of a block, for statements of any length; not in a pool."""
    connection = await connect(dsn, application_name=application_name, pooled=pooled, patient=True)
    try:
        yield connection
    except DRIVER_ERRORS as error:
        raise as_backend_error(error, dsn) from error
    finally:
        connection.terminate()


def connect_arguments(
    dsn: Dsn, application_name: str, settings: Mapping[str, str] | None, pooled: bool
) -> dict[str, Any]:
    """What a connection is asked for with, as asyncpg takes it."""
    startup = {"application_name": dsn.application_name or application_name, **(settings or {})}
    if dsn.options is not None:
        startup["options"] = dsn.options
    # By default the driver keeps no statement of more than 15 kB: such a flush would be parsed and
    # planned each time, which takes a third as long as all that it does.
    arguments = dsn.arguments() | {"server_settings": startup, "max_cacheable_statement_size": 0}
    if pooled:
        arguments["statement_cache_size"] = 0
    else:  # a pooler would refuse it: there each transaction says it
        startup["default_transaction_isolation"] = ISOLATION
    return arguments
