"""Sessions and connections of SQLAlchemy: the driver's connection below them.

SQLAlchemy begins its transaction with the first statement that it sends itself: whatever we sent
before would be committed at once, or be lost with a commit that SQLAlchemy takes for needless. So
it is asked to send one first.
"""

from typing import Any

_FIRST = "select 1"


def is_async(given: Any) -> bool:
    """Whether it is of SQLAlchemy's asyncio half, which may not be installed."""
    return any(kind.__module__.startswith("sqlalchemy.ext.asyncio") for kind in type(given).__mro__)


async def async_driver_of(given: Any) -> Any:
    """The driver's connection of an AsyncSession or AsyncConnection; None for another thing."""
    from sqlalchemy.ext.asyncio import (
        AsyncConnection,
        AsyncSession,
        async_scoped_session,
    )

    if isinstance(given, (AsyncSession, async_scoped_session)):
        given = await given.connection()
    if not isinstance(given, AsyncConnection) or given.dialect.name != "postgresql":
        return None
    await given.exec_driver_sql(_FIRST)
    return (await given.get_raw_connection()).driver_connection


def driver_of(given: Any) -> Any:
    """The driver's connection of a Session or Connection; None for another thing."""
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    if isinstance(given, Session):
        given = given.connection()
    if not isinstance(given, Connection) or given.dialect.name != "postgresql":
        return None
    given.exec_driver_sql(_FIRST)
    return given.connection.driver_connection
