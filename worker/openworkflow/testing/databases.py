"""Databases for tests: each test has one for itself, empty, with a clock that can be moved.

A template is migrated once for a state of the code, and copied once for a test that runs beside
others. A database that a test has left clean is emptied and given to the next one.
"""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator
from importlib.resources import files
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from uuid import uuid4

from openworkflow.backend.backend import BackendPostgres
from openworkflow.backend.blueprint import known
from openworkflow.backend.connection import Connection
from openworkflow.backend.failures import DRIVER_ERRORS
from openworkflow.client.blocking.loop_thread import LoopThread
from openworkflow.core.errors import BackendError, ConfigurationError
from openworkflow.testing.server import Server, connect

_NAMES = "openworkflow_testing_"
_KEPT_SECONDS = 86_400
"""What processes that were killed have left is dropped after a day."""
_TEMPLATE_SECONDS = 7 * _KEPT_SECONDS
"""So long a template is kept for code that is not ours."""
_LOCK = "select pg_advisory_lock(hashtext('openworkflow.testing'))"
_FILLED = (
    "select format('%I.%I', schemaname, tablename) as name,"
    " format('select exists (select from %I.%I)', schemaname, tablename) as filled"
    " from pg_tables where schemaname not in ('pg_catalog', 'information_schema')"
)
_OURS = ("public.openworkflow", "openworkflow_clock.")
"""Tables that say what the database is, and stay as they are."""


class Database:
    """One database, with the number of its tables."""

    def __init__(self, name: str, url: str, tables: int) -> None:
        self.name, self.url, self._tables = name, url, tables

    @classmethod
    async def of(cls, name: str, url: str) -> "Database":
        """One that was just made."""
        async with _connected(url) as connection:
            return cls(name, url, len(await connection.fetch(_FILLED)))

    async def empty(self) -> bool:
        """Remove every row, and let the clock be that of the server again.

        False where somebody has made tables of his own, which nobody else expects.
        """
        async with _connected(self.url) as connection:
            tables = await connection.fetch(_FILLED)
            if len(tables) != self._tables:
                return False
            names = {table["name"]: table["filled"] for table in tables}
            filled = [
                name
                for name, question in names.items()
                if not name.startswith(_OURS) and await connection.fetchval(question)
            ]
            if filled:
                await connection.execute(f"truncate {', '.join(filled)} cascade")
            await connection.execute("update openworkflow_clock.clock set ahead = '0'")
        return True


class Databases:
    """The databases of this process; made when the first is asked for, dropped by `close`."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._thread: LoopThread | None = None
        self._turn = asyncio.Lock()
        self._admin: Connection = None
        self._template = self._mark = ""
        self._free: list[Database] = []
        self._all: list[Database] = []

    def take(self) -> Database:
        """An empty database, for the caller alone; blocks. Raises ConfigurationError."""
        if self._thread is None:
            self._thread = LoopThread("openworkflow testing databases")
        return self._thread.call(self._take())

    def give_back(self, database: Database, *, clean: bool) -> None:
        """Let it be used again; one in which something may still be going on is dropped."""
        assert self._thread is not None
        self._thread.call(self._give_back(database, clean))

    def close(self) -> None:
        """Drop what was made, and let go of the server."""
        if self._thread is not None:
            try:
                self._thread.call(self._close())
            finally:
                self._thread.close()
                self._thread = None
        self._server.stop()

    async def _take(self) -> Database:
        async with self._turn:
            if self._free:
                return self._free.pop()
            async with self._administered():
                if not self._template:
                    # A template can be copied by the role that made it.
                    role = await self._admin.fetchval("select current_user::text")
                    self._mark = _fingerprint(role)
                    await self._sweep()
                    self._template = await self._made_template()
                name = _fresh("t")
                await self._create(name, self._template)
            database = await Database.of(name, _url(str(self._server.url), name))
            self._all.append(database)
            return database

    async def _give_back(self, database: Database, clean: bool) -> None:
        async with self._turn:
            if clean and await database.empty():
                self._free.append(database)
                return
            self._all.remove(database)
            async with self._administered():
                await self._drop(database)

    async def _close(self) -> None:
        async with self._turn:
            # A server that ended before us, as a container of the session does, has none to drop;
            # one that comes back is swept by the next session.
            with contextlib.suppress(BackendError, *DRIVER_ERRORS):
                if self._all:
                    async with self._administered():
                        for database in self._all:
                            await self._drop(database)
            self._all, self._free, self._template = [], [], ""

    @contextlib.asynccontextmanager
    async def _administered(self) -> AsyncIterator[None]:
        """With a connection for what is done with databases, which nobody keeps between tests."""
        async with _connected(await self._server.start()) as self._admin:
            yield

    async def _drop(self, database: Database) -> None:
        await self._admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1",
            database.name,
        )
        await self._admin.execute(f'drop database if exists "{database.name}"')

    async def _create(self, name: str, template: str) -> None:
        """Make a database whose SQL reads the clock of the kit."""
        try:
            await self._admin.execute(f'create database "{name}" template "{template}"')
        except Exception as error:
            if getattr(error, "sqlstate", None) != "42501":
                raise
            raise ConfigurationError(
                "the role of the PostgreSQL for tests may not create databases, and each test has "
                "one of its own: ALTER ROLE ... CREATEDB, or use the embedded PostgreSQL"
            ) from error
        path = "public, openworkflow_clock, pg_catalog"
        await self._admin.execute(f'alter database "{name}" set search_path = {path}')
        # Workers warn where it is off, which says nothing of the code under test.
        await self._admin.execute(f'alter database "{name}" set synchronous_commit = on')

    async def _made_template(self) -> str:
        """The template of this state of the code, made by the first who needs it."""
        await self._admin.execute(_LOCK)
        try:
            made = await self._admin.fetchval(
                "select datname from pg_database where datname ~ $1",
                f"^{_NAMES}template_\\d+_{self._mark}$",
            )
            if made is not None:
                return str(made)
            making, name = _fresh("m"), f"{_NAMES}template_{int(time.time())}_{self._mark}"
            await self._admin.execute(f'create database "{making}" template template0')
            await self._migrate(_url(str(self._server.url), making))
            await self._admin.execute(f'alter database "{making}" rename to "{name}"')
            return name
        finally:
            await self._admin.execute(_LOCK.replace("_lock", "_unlock"))

    @staticmethod
    async def _migrate(url: str) -> None:
        backend = await BackendPostgres.connect(url)
        await backend.stop()
        async with _connected(url) as connection:
            await connection.execute(_clock_sql())

    async def _sweep(self) -> None:
        """Drop what processes that were killed have left, and templates of old code."""
        rows = await self._admin.fetch(
            "select datname from pg_database db where starts_with(datname, $1)"
            " and not exists (select from pg_stat_activity a where a.datname = db.datname)",
            _NAMES,
        )
        for row in rows:
            kind, made, rest = row["datname"].removeprefix(_NAMES).split("_")
            kept = _TEMPLATE_SECONDS if kind == "template" else _KEPT_SECONDS
            if rest != self._mark and int(made) < time.time() - kept:
                with contextlib.suppress(*DRIVER_ERRORS):  # somebody uses it, or was first
                    await self._admin.execute(f'drop database if exists "{row["datname"]}"')


@contextlib.asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Connection]:
    connection = await connect(url)
    try:
        yield connection
    finally:
        await connection.close()


def _fresh(purpose: str) -> str:
    return f"{_NAMES}{purpose}_{int(time.time())}_{uuid4().hex[:10]}"


def _url(server: str, database: str) -> str:
    parts = urlsplit(server)
    query = [(k, v) for k, v in parse_qsl(parts.query, keep_blank_values=True) if k != "dbname"]
    return urlunsplit(parts._replace(path=f"/{database}", query=urlencode(query)))


def _clock_sql() -> str:
    return (files("openworkflow.testing") / "clock.sql").read_text()


def _fingerprint(role: str) -> str:
    """Digest of everything that makes a template."""
    made = hashlib.sha256(f"{role} {_clock_sql()}".encode())
    for migration in known():
        made.update(repr(migration).encode())
    return f"x{made.hexdigest()[:12]}"
