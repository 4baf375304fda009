"""Transactions of callers, by every library whose connections are taken: the same words for all."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Any

import asyncpg
import psycopg
import psycopg2
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool


class Caller(ABC):
    """Somebody with a connection of his own; his transaction is about to begin."""

    given: Any
    """What is passed as `connection`."""

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    async def open(self) -> None: ...

    @abstractmethod
    async def execute(self, sql: str) -> None:
        """Send a statement in the transaction."""

    @abstractmethod
    async def commit(self) -> None: ...

    @abstractmethod
    async def rollback(self) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...


class OfAsyncpg(Caller):
    async def open(self) -> None:
        self.given = await asyncpg.connect(self.url)
        self.transaction = self.given.transaction()
        await self.transaction.start()

    async def execute(self, sql: str) -> None:
        await self.given.execute(sql)

    async def commit(self) -> None:
        await self.transaction.commit()

    async def rollback(self) -> None:
        await self.transaction.rollback()
        self.transaction = self.given.transaction()
        await self.transaction.start()

    async def close(self) -> None:
        await self.given.close()


class Blocking(Caller):
    """A driver whose `connection`, which may not be what is given, has the methods of DB-API."""

    connection: Any

    async def commit(self) -> None:
        self.connection.commit()

    async def rollback(self) -> None:
        self.connection.rollback()

    async def close(self) -> None:
        self.connection.close()


class Awaited(Caller):
    """A driver whose connection has the same methods, to be awaited."""

    async def commit(self) -> None:
        await self.given.commit()

    async def rollback(self) -> None:
        await self.given.rollback()

    async def close(self) -> None:
        await self.given.close()


class OfPsycopg(Blocking):
    async def open(self) -> None:
        self.connection = self.connect()
        self.given = self.connection

    def connect(self) -> Any:
        return psycopg.connect(self.url)

    async def execute(self, sql: str) -> None:
        self.connection.cursor().execute(sql)


class OfPsycopg2(OfPsycopg):
    def connect(self) -> Any:
        return psycopg2.connect(self.url)


class OfCursor(OfPsycopg):
    async def open(self) -> None:
        await super().open()
        self.given = self.connection.cursor()


class OfCursor2(OfCursor, OfPsycopg2):
    pass


class OfAsyncPsycopg(Awaited):
    async def open(self) -> None:
        self.given = await psycopg.AsyncConnection.connect(self.url)

    async def execute(self, sql: str) -> None:
        await self.given.execute(sql)


class OfSession(Blocking):
    driver = "psycopg"

    async def open(self) -> None:
        self.engine = sqlalchemy.create_engine(of_driver(self.url, self.driver), poolclass=NullPool)
        self.given = self.connection = self.of_engine()

    def of_engine(self) -> Any:
        return Session(self.engine)

    async def execute(self, sql: str) -> None:
        self.given.execute(sqlalchemy.text(sql))

    async def close(self) -> None:
        await super().close()
        self.engine.dispose()


class OfSession2(OfSession):
    driver = "psycopg2"


class OfConnection(OfSession):
    def of_engine(self) -> Any:
        return self.engine.connect()


class OfConnection2(OfConnection):
    driver = "psycopg2"


class OfAsyncSession(Awaited):
    driver = "asyncpg"
    given: AsyncSession | AsyncConnection

    async def open(self) -> None:
        self.engine = create_async_engine(of_driver(self.url, self.driver), poolclass=NullPool)
        self.given = await self.of_engine()

    async def of_engine(self) -> AsyncSession | AsyncConnection:
        return AsyncSession(self.engine)

    async def execute(self, sql: str) -> None:
        await self.given.execute(sqlalchemy.text(sql))

    async def close(self) -> None:
        await super().close()
        await self.engine.dispose()


class OfAsyncSessionOverPsycopg(OfAsyncSession):
    driver = "psycopg"


class OfAsyncConnection(OfAsyncSession):
    async def of_engine(self) -> AsyncConnection:
        return await self.engine.connect()


class OfAsyncConnectionOverPsycopg(OfAsyncConnection):
    driver = "psycopg"


def of_driver(url: str, driver: str) -> str:
    """The URL as SQLAlchemy has it."""
    return url.replace("postgresql://", f"postgresql+{driver}://")


class OfDjango(Caller):
    """What `transaction.atomic()` makes of a connection; in a thread, as Django asks for."""

    async def open(self) -> None:
        self.given = django_connection(self.url)
        self.given.inc_thread_sharing()
        await asyncio.to_thread(self.given.set_autocommit, False)

    async def execute(self, sql: str) -> None:
        await asyncio.to_thread(lambda: self.given.cursor().execute(sql))

    async def commit(self) -> None:
        await asyncio.to_thread(self.given.commit)

    async def rollback(self) -> None:
        await asyncio.to_thread(self.given.rollback)

    async def close(self) -> None:
        await asyncio.to_thread(self.given.close)


def django_connection(url: str) -> Any:
    """A connection of Django's to a database that no settings name."""
    import django
    from django.conf import settings
    from django.db.backends.postgresql.base import DatabaseWrapper
    from django.db.utils import ConnectionHandler

    if not settings.configured:
        settings.configure()
        django.setup()
    options = {"ENGINE": "django.db.backends.postgresql", "OPTIONS": {}, "NAME": "postgres"}
    configured = ConnectionHandler({"default": options}).settings["default"]
    parameters = psycopg.conninfo.conninfo_to_dict(url)
    configured["NAME"] = parameters.pop("dbname")
    configured["OPTIONS"] = parameters
    return DatabaseWrapper(configured, "default")


CALLERS: list[type[Caller]] = [
    OfAsyncPsycopg,
    OfAsyncSession,
    OfAsyncSessionOverPsycopg,
    OfAsyncpg,
    OfDjango,
    OfPsycopg,
    OfPsycopg2,
    OfSession,
]
VARIANTS: list[type[Caller]] = [
    OfAsyncConnection,
    OfAsyncConnectionOverPsycopg,
    OfConnection,
    OfConnection2,
    OfCursor,
    OfCursor2,
    OfSession2,
]
"""Other ways to the same drivers."""
