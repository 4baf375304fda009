"""What is asked of the pool: everything that is not a worker's own traffic.

A request has a deadline, and is sent again where that is safe: where PostgreSQL says that nothing
of it took effect, or where doing it twice is doing it once.
"""

import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Set
from typing import Any, TypeVar

import asyncpg

from openworkflow.backend import liveness
from openworkflow.backend.connection import (
    MAY_BE_OF_SESSION,
    POOLED_LIMITS,
    REQUEST_LIMITS,
    Connection,
    set_local,
)
from openworkflow.backend.failures import (
    DRIVER_ERRORS,
    READ_ONLY,
    UnreadableAnswer,
    as_backend_error,
    one_line,
    was_not_sent,
)
from openworkflow.backend.failures import silent as silent_error
from openworkflow.backend.liveness import (
    RELEASE_SECONDS,
    REPEAT_SECONDS,
    REQUEST_SECONDS,
    Silences,
)
from openworkflow.backend.url import Dsn
from openworkflow.core.errors import BackendError, ConfigurationError, Fault

T = TypeVar("T")

PAUSES = 0.1, 0.4, 1.6, 3.2
"""Seconds before a request is sent again: a server that restarts is back within them."""

MAY_PASS: Set[Fault] = frozenset({Fault.MOMENT, Fault.SERVER, Fault.SIZE})
"""A short statement that took too long waited for a lock, or for a busy machine: SIZE passes, too.
A long one, or one that can be sent in parts, would take as long again."""

_NOTHING_DONE = (READ_ONLY, "53")
"""Errors in which the server says of itself that it did not begin; others may follow a commit."""


class Requests:
    """Sends statements over a pool, in the event loop and process that made it."""

    def __init__(self, pool: Any, dsn: Dsn, *, pooled: bool) -> None:
        self._pool, self._dsn, self._pooled = pool, dsn, pooled
        self._limits = set_local(POOLED_LIMITS | REQUEST_LIMITS)
        self._loop, self._process = asyncio.get_running_loop(), os.getpid()
        self.silences, self._silences_before = Silences(), 0
        self._renew_after = 0.0
        """By `monotonic`: until then connections that something was refused on are kept."""

    def check_usable(self) -> None:
        """Raise ConfigurationError where the connections are not there for the caller to use."""
        if os.getpid() != self._process:
            raise ConfigurationError(
                "the backend was connected before this process was forked, and its connections "
                "are the parent's; call BackendPostgres.connect in each process"
            )
        loop = asyncio.get_running_loop()
        if loop is not self._loop and getattr(loop, "is_of_workflow", False):
            raise ConfigurationError(
                "a workflow function asks the database by its steps alone: step.run_workflow and "
                "step.start_workflow start other runs, step.signal sends to them; any other call "
                "of a client belongs in a function that is a step, await step.run(name, function)"
            )
        if loop is not self._loop:
            raise ConfigurationError(
                "the backend was connected in another event loop; call BackendPostgres.connect in "
                "each, such as inside of the function given to asyncio.run"
            )
        if self._pool.is_closing():
            raise ConfigurationError(
                "the backend was stopped; call BackendPostgres.connect for another"
            )

    async def fetch(
        self, sql: str, *arguments: Any, safe: bool = True, seconds: float | None = None
    ) -> list[asyncpg.Record]:
        """Run one statement as one transaction; `safe` if it may be done twice. See `repeat`."""
        may_pass = MAY_PASS if seconds is None else MAY_PASS - {Fault.SIZE}
        return await self.repeat(
            lambda: self.fetch_once(sql, *arguments, seconds=seconds), safe, may_pass
        )

    async def fetch_once(
        self, sql: str, *arguments: Any, seconds: float | None = None
    ) -> list[asyncpg.Record]:
        """Run one statement as one transaction, once; raises as `borrow`."""
        async with self.borrow(seconds) as connection:
            try:
                rows: list[asyncpg.Record] = await connection.fetch(sql, *arguments)
            except DRIVER_ERRORS:
                raise
            except (ValueError, OverflowError) as error:
                connection.terminate()
                raise UnreadableAnswer(
                    f"PostgreSQL at {self._dsn} answered with a value that Python cannot hold: "
                    f"{one_line(error)}"
                ).of(Fault.SERVER, in_doubt=True) from error
            return rows

    async def repeat(
        self, attempt: Callable[[], Awaitable[T]], safe: bool, may_pass: Set[Fault] = MAY_PASS
    ) -> T:
        """Make the attempt, and for a few seconds again where it `may_pass` then and is safe.

        After a failure that is in doubt only what is `safe` is made again. Raises BackendError.
        """
        no_more = time.monotonic() + REPEAT_SECONDS
        for pause in PAUSES:
            try:
                return await attempt()
            except BackendError as error:
                if error.fault not in may_pass or isinstance(error, UnreadableAnswer):
                    raise
                if error.in_doubt and not safe:
                    raise
                if time.monotonic() > no_more:
                    raise
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
        return await attempt()

    @contextlib.asynccontextmanager
    async def borrow(
        self, seconds: float | None = None, *, more: float = 0.0
    ) -> AsyncIterator[Connection]:
        """A connection for the length of a block: for `seconds`, by default REQUEST_SECONDS and
        `more`.

        Behind a pooler the block is a transaction.

        Raises BackendError, in doubt where the block may have taken effect.
        """
        self.check_usable()
        if self._silences_before != self.silences.count:  # one of another kind of the backend's
            self._silences_before = self.silences.count
            await self._pool.expire_connections()
        try:
            connection = await self._pool.acquire(timeout=self._acquire_seconds)
        except DRIVER_ERRORS as error:
            raise as_backend_error(error, self._dsn) from error
        silent, seconds = asyncio.Event(), seconds or REQUEST_SECONDS + more
        # Whatever the block waits for then fails, and so do the rollback and the release.
        deadline = self._loop.call_later(seconds, _end, connection, silent)
        try:
            async with self._transaction(connection):
                yield connection
        except DRIVER_ERRORS as error:
            raise await self._failure(error, connection, silent, seconds) from error
        except AttributeError as error:  # the driver's, if it was ended between two of its steps
            if not silent.is_set():
                raise
            raise await self._failure(error, connection, silent, seconds) from error
        finally:
            deadline.cancel()
            await asyncio.shield(asyncio.ensure_future(self._give_back(connection)))

    @property
    def _acquire_seconds(self) -> float:
        """So that each host can be tried, twice where there are several."""
        hosts = len(self._dsn.hosts)
        tries = 1 if hosts == 1 else 2 * hosts
        return max(REQUEST_SECONDS, self._dsn.connect_timeout * tries)

    async def _give_back(self, connection: Connection) -> None:
        """One that does not end what it was at is dropped, also if nobody waits for that."""
        try:
            await self._pool.release(connection, timeout=RELEASE_SECONDS)
        except TimeoutError:
            self.silences.heard_nothing()
        except DRIVER_ERRORS:
            pass

    @contextlib.asynccontextmanager
    async def _transaction(self, connection: Connection) -> AsyncIterator[None]:
        """Behind a pooler, a transaction that the server ends if its end never arrives."""
        if not self._pooled:
            yield
            return
        transaction = connection.transaction(isolation="read_committed")
        try:
            await transaction.start()
            try:
                await connection.execute(self._limits)
                yield
            except asyncio.CancelledError:
                raise
            except BaseException:
                await transaction.rollback()
                raise
            await transaction.commit()
        except asyncio.CancelledError:
            _drop(connection)  # to ask for its end would be to wait once more
            raise

    async def _failure(
        self, error: Exception, connection: Connection, silent: asyncio.Event, seconds: float
    ) -> BackendError:
        """What went wrong, and what that means for this connection and the others."""
        if silent.is_set():
            self.silences.heard_nothing()  # the others may be as dead
            return silent_error(self._dsn, seconds)
        failure = as_backend_error(error, self._dsn)
        if failure.fault in MAY_BE_OF_SESSION and time.monotonic() > self._renew_after:
            self._renew_after = time.monotonic() + liveness.REFUSED_SECONDS
            await self._pool.expire_connections()
        if failure.fault is not Fault.SERVER:
            return failure
        state = getattr(error, "sqlstate", None) or ""
        if state == READ_ONLY:
            await self._pool.expire_connections()  # the others lead to the same server
        _drop(connection)
        nothing_done = state.startswith(_NOTHING_DONE) or was_not_sent(error)
        return failure.of(Fault.SERVER, in_doubt=not nothing_done)


def _end(connection: Connection, silent: asyncio.Event) -> None:
    silent.set()
    _drop(connection)


def _drop(connection: Connection) -> None:
    with contextlib.suppress(asyncpg.InterfaceError):  # it is gone already
        connection.terminate()
