"""Connections of psycopg2, which has its own way to write parameters: our statements are rewritten.

It sends values as literals, so that lists of ids are lists of text with the cast that the
statement has anyway.
"""

import re
from functools import cache
from typing import Any
from uuid import UUID

import psycopg2
import psycopg2.extensions

from openworkflow.backend.callers.foreign import Foreign, as_asyncpg, rows_of
from openworkflow.backend.callers.threads import Perform


class Blocking(Foreign):
    """A connection that blocks, in the thread of `perform`."""

    def __init__(self, driver: psycopg2.extensions.connection, perform: Perform) -> None:
        self._driver, self._perform = driver, perform

    async def fetch(self, sql: str, *arguments: Any) -> list[dict[str, Any]]:
        """See Foreign."""
        return await self._perform(lambda: self._fetch(sql, arguments))

    def _fetch(self, sql: str, arguments: tuple[Any, ...]) -> list[dict[str, Any]]:
        values = {f"p{number}": _plain(value) for number, value in enumerate(arguments, start=1)}
        try:
            with self._driver.cursor(cursor_factory=psycopg2.extensions.cursor) as cursor:
                cursor.execute(rewritten(sql), values)
                return rows_of(cursor.description, cursor.fetchall() if cursor.description else [])
        except psycopg2.Error as error:
            raise as_asyncpg(error, error.pgcode) from error


@cache
def rewritten(sql: str) -> str:
    """The statement with `%(p1)s` in place of `$1`."""
    return re.sub(r"\$(\d+)", r"%(p\1)s", sql.replace("%", "%%"))


def _plain(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    return [_plain(each) for each in value] if isinstance(value, list) else value
