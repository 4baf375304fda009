"""Connections of psycopg 3, blocking and async: it takes our statements as they are written."""

from contextlib import nullcontext
from typing import Any

import psycopg
from psycopg.pq import PipelineStatus
from psycopg.rows import tuple_row

from openworkflow.backend.callers.foreign import Foreign, as_asyncpg, rows_of
from openworkflow.backend.callers.threads import Perform


def is_async(given: Any) -> bool:
    """Whether it is used in an event loop."""
    return isinstance(given, (psycopg.AsyncConnection, psycopg.AsyncCursor))


class Blocking(Foreign):
    """A connection that blocks, in the thread of `perform`."""

    def __init__(self, driver: "psycopg.Connection[Any]", perform: Perform) -> None:
        self._driver, self._perform = driver, perform

    async def fetch(self, sql: str, *arguments: Any) -> list[dict[str, Any]]:
        """See Foreign."""
        return await self._perform(lambda: self._fetch(sql, arguments))

    def _fetch(self, sql: str, arguments: tuple[Any, ...]) -> list[dict[str, Any]]:
        try:
            with psycopg.RawCursor(self._driver, row_factory=tuple_row) as cursor:
                with self._driver.pipeline() if _pipelined(self._driver) else nullcontext():
                    cursor.execute(sql.encode(), arguments or None)
                return rows_of(cursor.description, cursor.fetchall() if cursor.description else [])
        except psycopg.Error as error:
            raise as_asyncpg(error, error.sqlstate) from error


class InLoop(Foreign):
    """A connection of the event loop that is running."""

    def __init__(self, driver: "psycopg.AsyncConnection[Any]") -> None:
        self._driver = driver

    async def fetch(self, sql: str, *arguments: Any) -> list[dict[str, Any]]:
        """See Foreign."""
        try:
            async with psycopg.AsyncRawCursor(self._driver, row_factory=tuple_row) as cursor:
                async with self._driver.pipeline() if _pipelined(self._driver) else nullcontext():
                    await cursor.execute(sql.encode(), arguments or None)
                rows = await cursor.fetchall() if cursor.description else []
                return rows_of(cursor.description, rows)
        except psycopg.Error as error:
            raise as_asyncpg(error, error.sqlstate) from error


def _pipelined(driver: Any) -> bool:
    """Whether it answers later: a pipeline within the caller's ends by an answer to all so far."""
    return bool(driver.info.pipeline_status != PipelineStatus.OFF)
