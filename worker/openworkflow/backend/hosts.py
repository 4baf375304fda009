"""Which of the servers that a URL names is connected to: one that takes writes, if there is one.

A host's name may have several addresses, each of which may be another server.
"""

from typing import Any

import asyncpg

from openworkflow.backend.addresses import LoopTowards, addresses, begin_with
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

    Each address of each host has `connect_timeout` for itself. Where the URL does not say what is
    wanted and has several hosts, one that takes writes is preferred to a standby, and a standby to
    none.
    The kernel is told to notice when the host is gone.
    """
    connection = await _dial(dsn, places, arguments)
    guard_socket(connection._transport)
    return connection


async def _dial(dsn: Dsn, places: tuple[Any, ...], arguments: dict[str, Any]) -> Any:
    failure: BaseException | None = None
    first = _last.get(dsn.hosts, 0)
    order = [*range(first, len(dsn.hosts)), *range(first)]
    for wanted in _wanted(dsn):
        chosen = arguments if wanted is None else {**arguments, "target_session_attrs": wanted}
        for place in order:
            try:
                connection = await _dial_host(dsn, dsn.hosts[place], places, chosen)
            except _TRY_ANOTHER as error:
                failure = error
                continue
            _last[dsn.hosts] = place
            return connection
    assert failure is not None
    raise failure


async def _dial_host(
    dsn: Dsn, at: tuple[str, int], places: tuple[Any, ...], arguments: dict[str, Any]
) -> Any:
    """Connect to one host, at the first of its addresses that answers and is as wanted."""
    host, port = at
    arguments = {**arguments, "host": host, "port": port}
    found = await addresses(host, port, dsn.connect_timeout)
    if len(found) == 1:
        return await asyncpg.connect(*places, **arguments)
    failure: BaseException | None = None
    for address, after in zip(found, (*found[1:], found[0]), strict=True):
        try:
            connection = await asyncpg.connect(
                *places, **{**arguments, "loop": LoopTowards(address)}
            )
        except _TRY_ANOTHER as error:
            failure = error
            if isinstance(error, TimeoutError):  # its time is spent once, not at each connection
                begin_with(host, port, after)
            continue
        begin_with(host, port, address)
        return connection
    assert failure is not None
    raise failure


def _wanted(dsn: Dsn) -> tuple[str | None, ...]:
    """What is looked for, the best first; None for what the driver takes of itself."""
    if dsn.target_session_attrs is None:
        return (None,) if len(dsn.hosts) == 1 else ("read-write", "any")
    if dsn.target_session_attrs == "prefer-standby":
        return "standby", "any"
    return (dsn.target_session_attrs,)
