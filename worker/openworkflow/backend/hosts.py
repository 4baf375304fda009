"""Which of the servers that a URL names is connected to: one that takes writes, if there is one."""

from typing import Any

import asyncpg

from openworkflow.backend.liveness import guard_socket
from openworkflow.backend.url import Dsn

_TRY_ANOTHER = (
    OSError,
    asyncpg.CannotConnectNowError,
    asyncpg.ConnectionDoesNotExistError,
    asyncpg.TargetServerAttributeNotMatched,
    asyncpg.TooManyConnectionsError,
)
"""After these another server may do; a wrong password is as wrong there."""

_last: dict[tuple[tuple[str, int], ...], int] = {}
"""By hosts: the place of the one that was connected to last. One that died without a word costs
its time once, not at each connection."""


async def dial(dsn: Dsn, /, *places: Any, **arguments: Any) -> Any:
    """Connect to the first of the URL's hosts that answers and is as wanted; raises as asyncpg.

    Each host has `connect_timeout` for itself. Where the URL does not say what is wanted and has
    several hosts, one that takes writes is preferred to a standby, and a standby to none.
    The kernel is told to notice when the host is gone.
    """
    connection = await _dial(dsn, places, arguments)
    guard_socket(connection._transport)
    return connection


async def _dial(dsn: Dsn, places: tuple[Any, ...], arguments: dict[str, Any]) -> Any:
    if len(dsn.hosts) == 1:
        return await asyncpg.connect(*places, **arguments)
    failure: BaseException | None = None
    first = _last.get(dsn.hosts, 0)
    order = [*range(first, len(dsn.hosts)), *range(first)]
    for wanted in _wanted(dsn):
        for place in order:
            host, port = dsn.hosts[place]
            chosen = {**arguments, "host": host, "port": port, "target_session_attrs": wanted}
            try:
                connection = await asyncpg.connect(*places, **chosen)
            except _TRY_ANOTHER as error:
                failure = error
                continue
            _last[dsn.hosts] = place
            return connection
    assert failure is not None
    raise failure


def _wanted(dsn: Dsn) -> tuple[str, ...]:
    """What is looked for, the best first."""
    if dsn.target_session_attrs is None:
        return "read-write", "any"
    if dsn.target_session_attrs == "prefer-standby":
        return "standby", "any"
    return (dsn.target_session_attrs,)
