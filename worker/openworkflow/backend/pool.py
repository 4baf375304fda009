"""The pool of connections for everything that is not a worker's own traffic."""

import asyncio
import contextlib
from functools import partial
from typing import Any

import asyncpg

from openworkflow.backend import liveness
from openworkflow.backend.connection import REQUEST_LIMITS, Connection, connect_arguments
from openworkflow.backend.failures import as_backend_error
from openworkflow.backend.hosts import dial
from openworkflow.backend.sight import dial_to_see
from openworkflow.backend.url import Dsn


async def open_pool(dsn: Dsn, *, application_name: str, pooled: bool) -> Any:
    """The pool for everything that is not a worker's own traffic; it connects on demand."""
    limits = None if pooled else REQUEST_LIMITS  # behind a pooler each transaction has them
    try:
        return await asyncpg.create_pool(
            min_size=0,
            max_size=dsn.pool_size,
            reset=_leave_as_is,
            connect=partial(dial if pooled else dial_to_see, dsn),
            connection_class=_Leaving,
            **connect_arguments(dsn, application_name, limits, pooled),
        )
    except Exception as error:
        raise as_backend_error(error, dsn) from error


async def close_pool(pool: Any) -> None:
    """Close its connections; those that have not after CLOSE_SECONDS are dropped."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(liveness.CLOSE_SECONDS):  # on which the pool drops what it has
            await pool.close()


class _Leaving(asyncpg.Connection):
    """A connection of the pool, which says goodbye for a moment, whoever closes it.

    The driver itself closes the idle ones that expired, and those that were idle for long, and
    would wait for a silent server forever.
    """

    async def close(self, *, timeout: float | None = None) -> None:
        """Close it; drop it if that takes longer than GOODBYE_SECONDS."""
        limit = liveness.GOODBYE_SECONDS if timeout is None else timeout
        with contextlib.suppress(TimeoutError):  # it is dropped by then
            await super().close(timeout=limit)


async def _leave_as_is(connection: Connection) -> None:
    """Nothing to reset: what borrows from the pool leaves no state. Saves a round trip."""
