"""A connection that comes back by itself; workers use those.

Behind a pooler (PgBouncer and its kin) no session state survives between transactions, so there
every statement gets a transaction, settings are local to it, and nothing is prepared under a name.
"""

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import asyncpg

from openworkflow.backend import liveness
from openworkflow.backend.connection import (
    ISOLATION,
    MAY_BE_OF_SESSION,
    POOLED_LIMITS,
    WORKER_LIMITS,
    WORKER_SETTINGS,
    Connection,
    connect,
    set_local,
)
from openworkflow.backend.failures import (
    DRIVER_ERRORS,
    ConnectionLost,
    UnreadableAnswer,
    as_backend_error,
    one_line,
    silent,
)
from openworkflow.backend.incarnation import Incarnation, leads_elsewhere
from openworkflow.backend.liveness import Silences
from openworkflow.backend.sight import SEE_IN_TRANSACTION
from openworkflow.backend.url import Dsn
from openworkflow.core.errors import BackendError, Fault

ATTEMPTS = 3
"""How often a statement is sent where another one was in the way."""
_LEAVES_CONNECTION = {Fault.VALUE, Fault.MOMENT, Fault.SIZE, Fault.TABLE}
"""After these the connection is as good as before, unless the server ended it."""

_LOCK_TIMEOUT = "55P03"
_BEGIN = "; ".join(
    (
        f"begin isolation level {ISOLATION}",
        set_local({name: on for name, on in WORKER_SETTINGS.items() if "plan" not in name}),
        set_local(WORKER_LIMITS | POOLED_LIMITS),
        SEE_IN_TRANSACTION,
    )
)


class Link:
    """One connection with a worker's settings that is opened again when it is needed.

    Not once it was closed: whoever still reads then, or is connecting, would leave one to nobody.
    """

    __slots__ = (
        "_application_name",
        "_connection",
        "_dsn",
        "_ended",
        "_incarnation",
        "_opened",
        "_patience",
        "_pooled",
        "_seen",
        "_silences",
        "_silences_before",
    )

    def __init__(
        self,
        dsn: Dsn,
        *,
        application_name: str,
        pooled: bool,
        silences: Silences | None = None,
        incarnation: Incarnation | None = None,
    ) -> None:
        self._incarnation, self._seen = incarnation, ""
        self._dsn, self._application_name, self._pooled = dsn, application_name, pooled
        self._connection: Connection | None = None
        self._silences, self._silences_before = silences or Silences(), 0
        self._patience = liveness.ANSWER_SECONDS
        self._opened = 0.0
        self._ended = False

    async def open(self) -> None:
        """Connect, unless connected; raises BackendError, also once it was closed."""
        is_known = self._silences_before == self._silences.count and not self._is_elsewhere()
        if is_known and not self._is_closed():
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
        if self._incarnation is not None:
            await self._look(connection, self._incarnation)
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
                if self._is_elsewhere():
                    raise self._elsewhere()
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
        began = False
        try:
            await connection.execute(self._begin(), timeout=liveness.ANSWER_SECONDS)
            began = True
            rows = await connection.fetch(sql, *arguments, timeout=self._patience)
        except asyncpg.PostgresError as error:
            if not began and leads_elsewhere(error):
                raise self._elsewhere() from error
            if not connection.is_closed():  # open also where its beginning was refused
                await connection.execute("rollback", timeout=liveness.ANSWER_SECONDS)
            raise
        await connection.execute("commit", timeout=liveness.ANSWER_SECONDS)
        return rows

    async def _look(self, connection: Connection, incarnation: Incarnation) -> None:
        """Learn where it leads, before anything is asked there.

        Where another server has replaced the one before, no older connection is used again: one
        that still answers, of the heartbeat or the pool, would speak of runs that are not these.
        """
        before = incarnation.known
        try:
            if self._pooled:
                await connection.execute(_BEGIN)
            self._seen = await incarnation.look(connection)
            if self._pooled:
                await connection.execute("commit")
        except BaseException as error:
            connection.terminate()
            if not isinstance(error, DRIVER_ERRORS):
                raise
            raise as_backend_error(error, self._dsn) from error
        finally:
            if before is not None and before != incarnation.known:
                self._silences.heard_nothing()
                self._silences_before = self._silences.count

    def _begin(self) -> str:
        return (
            _BEGIN
            if self._incarnation is None
            else f"{_BEGIN}; {self._incarnation.guard(self._seen)}"
        )

    def _is_elsewhere(self) -> bool:
        return self._incarnation is not None and self._incarnation.known not in (None, self._seen)

    def _elsewhere(self) -> BackendError:
        """The error for a connection whose server another has replaced."""
        self.drop()
        return ConnectionLost(
            f"PostgreSQL at {self._dsn} is another server, or has other tables, than before"
        ).of(Fault.SERVER, in_doubt=True)

    def _is_closed(self) -> bool:
        return self._connection is None or bool(self._connection.is_closed())
