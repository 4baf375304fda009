"""Another driver's connection with the methods of asyncpg's that our statements are sent by.

The statements are the same text. What a driver raises is raised as asyncpg would: one place says
what an error means.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

import asyncpg

from openworkflow.backend.failures import DRIVER_ERRORS
from openworkflow.core.errors import ConfigurationError, ConnectionLost

IDLE = 0
"""libpq's word for a connection that is in no transaction."""
_UUID = 2950
"""The type of a column, as PostgreSQL numbers it."""
_FIELDS = {
    "M": "message_primary",
    "D": "message_detail",
    "H": "message_hint",
    "W": "context",
    "F": "source_file",
}
"""Parts of an error, by their letter on the wire, as libpq's wrappers call them."""


class Foreign(ABC):
    """A connection in a transaction of its owner's, who alone ends that."""

    @abstractmethod
    async def fetch(self, sql: str, *arguments: Any) -> list[dict[str, Any]]:
        """The rows that a statement answers; raises what asyncpg would."""

    async def execute(self, sql: str, *arguments: Any) -> None:
        """Run a statement for its effect."""
        await self.fetch(sql, *arguments)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """A savepoint: a block that fails takes nothing else of the owner's transaction along."""
        await self.execute("savepoint openworkflow")
        try:
            yield
        except BaseException:
            with suppress(*DRIVER_ERRORS):  # the connection may be gone: that is what is raised
                await self.execute("rollback to savepoint openworkflow")
                await self.execute("release savepoint openworkflow")
            raise
        await self.execute("release savepoint openworkflow")


def check_open(driver: Any) -> None:
    """Refuse what is closed, and what would commit each statement by itself."""
    if driver.closed:
        raise ConnectionLost("the connection given as connection= is closed; nothing was stored")
    if driver.autocommit and driver.info.transaction_status == IDLE:
        raise no_transaction(
            "begin one (psycopg: with connection.transaction(); Django: transaction.atomic(); "
            "SQLAlchemy: an isolation level other than AUTOCOMMIT)"
        )


def no_transaction(begin: str) -> ConfigurationError:
    """The refusal of a connection on which each statement is committed at once."""
    return ConfigurationError(
        "connection is in no transaction: what you start would be there at once, whatever comes "
        f"after; {begin}, or leave connection= out"
    )


def rows_of(columns: Sequence[Any] | None, rows: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    """Rows by the names of their columns, with ids as asyncpg gives them."""
    if columns is None:
        return []
    ids = [column[0] for column in columns if column[1] == _UUID]
    names = [column[0] for column in columns]
    found: list[dict[str, Any]] = [dict(zip(names, row, strict=True)) for row in rows]
    for row in found:
        row |= {name: UUID(str(row[name])) for name in ids if row[name] is not None}
    return found


def as_asyncpg(error: Exception, sqlstate: str | None) -> Exception:
    """The error that asyncpg would have raised; without a state it is the driver's own."""
    if sqlstate is None:
        return asyncpg.InterfaceError(str(error) or type(error).__name__)
    diagnosis = getattr(error, "diag", None)
    said = {letter: getattr(diagnosis, name, None) for letter, name in _FIELDS.items()}
    fields: Mapping[str, str] = {
        "C": sqlstate,
        **{letter: text for letter, text in said.items() if text is not None},
    }
    raised: Exception = asyncpg.PostgresError.new({"M": str(error), **fields})
    return raised
