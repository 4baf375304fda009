"""Which PostgreSQL the tests run on, and what they ask of it: databases of their own."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
import warnings
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from tests.local_postgres import LocalPostgres, embedded_programs

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Source:
    """Where the server of this session came from, and how to give it back."""

    name: str
    url: str
    give_back: Callable[[], object] | None = None

    def describe(self) -> str:
        """One line for the header of a test run."""
        version = DatabaseServer(self.url).fetch_value("SHOW server_version")
        return f"{version} ({self.name})"

    def stop(self) -> None:
        """End the server if this session started it."""
        if self.give_back is not None:
            self.give_back()


@dataclass(frozen=True, slots=True)
class DatabaseServer:
    """A running server, addressed by a role that may create databases."""

    admin_url: str

    def url(self, database: str) -> str:
        """The connection string of one database of this server."""
        return urlunsplit(urlsplit(self.admin_url)._replace(path=f"/{database}"))

    def create_database(self, name: str, template: str = "template1") -> None:
        """Make a database, as a copy of `template`."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')

    def drop_database(self, name: str) -> None:
        """Remove a database, and with it whatever a crashed test left connected."""
        self.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
            f'DROP DATABASE IF EXISTS "{name}"',
        )

    def execute(self, *statements: str, database: str | None = None) -> None:
        """Run statements one by one, each in a transaction of its own."""

        async def run() -> None:
            connection = await asyncpg.connect(self.url(database) if database else self.admin_url)
            try:
                for statement in statements:
                    await connection.execute(statement)
            finally:
                await connection.close()

        run_sync(run)

    def fetch_value(self, query: str, database: str | None = None) -> object:
        """The first column of the first row."""

        async def run() -> object:
            connection = await asyncpg.connect(self.url(database) if database else self.admin_url)
            try:
                return await connection.fetchval(query)
            finally:
                await connection.close()

        return run_sync(run)


def choose_source(url: str | None, programs: Path | None) -> Source:
    """`--postgres-url`, else `--postgres-bin`, else a container, else the embedded server."""
    if url is not None:
        return Source("--postgres-url", url)
    if programs is not None:
        return _local(f"started from {programs}", programs)
    if _docker_answers():
        return _container()
    return _local("embedded", embedded_programs())


def run_sync(run: Callable[[], Coroutine[object, object, T]]) -> T:
    """Run a coroutine to its end in another thread, so that a running loop is no obstacle."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(lambda: asyncio.run(run())).result()


def _local(name: str, programs: Path) -> Source:
    sibling = programs.parent / "lib"
    server = LocalPostgres(programs, lib_dir=sibling if sibling.is_dir() else None).start()
    return Source(name, server.url(), server.stop)


def _docker_answers() -> bool:
    """A client without an engine is common, so the engine itself is asked for a connection."""
    host = urlsplit(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    try:
        if host.scheme == "unix":
            with socket.socket(socket.AF_UNIX) as engine:
                engine.settimeout(3)
                engine.connect(host.path)
        else:
            socket.create_connection((host.hostname, host.port or 2375), timeout=3).close()
    except OSError:
        return False
    return importlib.util.find_spec("testcontainers") is not None


def _container() -> Source:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from testcontainers.postgres import PostgresContainer

    container = PostgresContainer("postgres:18-alpine", driver=None).with_command(
        "postgres -c fsync=off -c synchronous_commit=off -c max_connections=300"
    )
    container.start()
    return Source("testcontainers", container.get_connection_url(), container.stop)
