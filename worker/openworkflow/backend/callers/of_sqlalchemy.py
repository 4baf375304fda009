"""Sessions and connections of SQLAlchemy: the driver's connection below them.

SQLAlchemy begins its transaction with the first statement that it sends itself: whatever we sent
before would be committed at once, or be lost with a commit that SQLAlchemy takes for needless. So
it is asked to send one first.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from openworkflow.backend.callers.foreign import as_asyncpg

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

    with _errors_of_the_driver():
        if isinstance(given, (AsyncSession, async_scoped_session)):
            given = await given.connection() if _is_ours(given.get_bind()) else None
        if not isinstance(given, AsyncConnection) or not _is_ours(given):
            return None
        await given.exec_driver_sql(_FIRST)
        return (await given.get_raw_connection()).driver_connection


def driver_of(given: Any) -> Any:
    """The driver's connection of a Session or Connection; None for another thing."""
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    with _errors_of_the_driver():
        if isinstance(given, Session):
            given = given.connection() if _is_ours(given.get_bind()) else None
        if not isinstance(given, Connection) or not _is_ours(given):
            return None
        given.exec_driver_sql(_FIRST)
        return given.connection.driver_connection


def _is_ours(bind: Any) -> bool:
    """Whether an engine or connection leads to PostgreSQL; another one is not even opened."""
    return bool(bind.dialect.name == "postgresql")


@contextmanager
def _errors_of_the_driver() -> Iterator[None]:
    """Raise what a driver said as asyncpg would, without what SQLAlchemy says around it."""
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except DBAPIError as error:
        said = error.orig
        state = getattr(said, "sqlstate", None) or getattr(said, "pgcode", None)
        if not isinstance(said, Exception) or state is None:
            raise
        raise as_asyncpg(said, state) from error
