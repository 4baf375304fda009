"""Connections to PostgreSQL: how they are made, and one clear error for each way they fail.

Those of workers come back by themselves: see link.py.
"""

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from asyncpg.pgproto.pgproto import UUID

from openworkflow.backend import liveness
from openworkflow.backend.failures import (
    DRIVER_ERRORS,
    as_backend_error,
)
from openworkflow.backend.hosts import dial
from openworkflow.backend.liveness import bounded
from openworkflow.backend.sight import dial_to_see
from openworkflow.backend.url import Dsn
from openworkflow.core import ids
from openworkflow.core.errors import BackendError, Fault

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
MAY_BE_OF_SESSION = {Fault.SIZE, Fault.TABLE}
"""What a session may be refused that a new one is not: it keeps the settings of its role as they
were when it began, and a role that was dropped and made again is another one."""


def set_local(settings: Mapping[str, str]) -> str:
    """The SQL that gives these to a transaction."""
    return "; ".join(f"set local {name} = {value}" for name, value in settings.items())


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
