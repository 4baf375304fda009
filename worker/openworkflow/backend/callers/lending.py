"""Lends a caller's connection to one call, or refuses it before anything is stored.

The run is to come with the caller's commit and to go with the caller's rollback: so a connection
that is in no transaction is refused, and one that leads to another database.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

import asyncpg

from openworkflow.backend.callers import kinds
from openworkflow.backend.callers.threads import OfThread, Perform, own_thread
from openworkflow.backend.connection import Connection
from openworkflow.backend.failures import DRIVER_ERRORS, as_backend_error
from openworkflow.backend.requests import Requests
from openworkflow.backend.url import Dsn
from openworkflow.core.errors import BackendError, ConfigurationError

_ELSEWHERE = (
    "connection leads to another database than this client ({dsn}), whose workers would not see "
    "it; give one to that database, or leave connection= out"
)
_UNKNOWN: tuple[Any, ...] = ()
"""The server does not say which one it is."""
_BEGUN_BY_SQL = "manually started transaction"
"""The driver's words."""


class Callers:
    """Lends the connections of callers to statements for the database of `dsn`."""

    def __init__(self, requests: Requests, dsn: Dsn, queries: Mapping[str, str]) -> None:
        self._requests, self._dsn = requests, dsn
        self._identify = queries["identify_database"]
        self._here: tuple[Any, ...] | None = None
        self._led_here: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
        """Connections that were asked where they lead, which does not change."""

    @asynccontextmanager
    async def lent(self, given: Any) -> AsyncIterator[Connection]:
        """What has asyncpg's methods, for the length of the block.

        Raises ConfigurationError before anything is stored, and BackendError.
        """
        try:
            async with _taken(given) as (connection, driver):
                await self._check_place(connection, driver)
                yield connection
        except DRIVER_ERRORS as error:
            if isinstance(error, asyncpg.InterfaceError) and _BEGUN_BY_SQL in str(error):
                raise ConfigurationError(
                    "connection is in a transaction that was begun by SQL, in which asyncpg makes "
                    "no savepoint; begin it by async with connection.transaction()"
                ) from error
            raise as_backend_error(error, self._dsn) from error

    async def _check_place(self, connection: Connection, driver: Any) -> None:
        if driver in self._led_here:
            return
        if self._here is None:
            self._here = await self._look_here()
        there = _UNKNOWN if self._here == _UNKNOWN else await self._look_there(connection)
        if there not in (self._here, _UNKNOWN):
            raise ConfigurationError(_ELSEWHERE.format(dsn=self._dsn))
        self._led_here[driver] = True

    async def _look_here(self) -> tuple[Any, ...]:
        try:
            return _place(await self._requests.fetch(self._identify))
        except BackendError as error:
            if isinstance(error.__cause__, asyncpg.InsufficientPrivilegeError):
                return _UNKNOWN
            raise

    async def _look_there(self, connection: Connection) -> tuple[Any, ...]:
        try:
            async with connection.transaction():  # a refusal takes nothing of the caller's
                return _place(await connection.fetch(self._identify))
        except asyncpg.InsufficientPrivilegeError:
            return _UNKNOWN


def _place(rows: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(rows[0].values())


@asynccontextmanager
async def _taken(given: Any) -> AsyncIterator[tuple[Connection, Any]]:
    """What to send on, and the driver's own connection, which it stands for."""
    if isinstance(given, OfThread):
        yield await _blocking(given.given, given.perform)
    elif kinds.is_async(given):
        driver = await kinds.async_driver_of(given)
        yield kinds.as_async(driver), driver
    else:
        given = kinds.meant(given)
        async with own_thread() as perform:
            yield await _blocking(given, perform)


async def _blocking(given: Any, perform: Perform) -> tuple[Connection, Any]:
    driver = await perform(lambda: kinds.blocking_driver_of(given))
    return kinds.as_blocking(driver, perform), driver
