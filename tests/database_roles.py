"""Roles of a test's own, made for it and gone with it, and what is tried with them."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from openworkflow import BackendPostgres, OpenWorkflow, Step, workflow
from openworkflow.backend.arranging import Wish, arrange
from openworkflow.backend.roles import Kind, Role


@dataclass
class Roles:
    """The roles of one database, and logins that are members of them."""

    url: str
    prefix: str = field(default_factory=lambda: f"ow_{uuid.uuid4().hex[:12]}")
    made: list[str] = field(default_factory=list)

    async def arrange(self, *, bind: Sequence[Role] = (), unbind: Sequence[str] = ()) -> list[str]:
        """What `openworkflow migrate --roles` does."""
        return await arrange(self.url, "public", Wish(self.prefix, tuple(bind), tuple(unbind)))

    def shared(self, kind: str) -> str:
        """The name of the role of all namespaces."""
        return f"{self.prefix}_{kind}"

    async def login(self, *groups: str, options: str = "") -> str:
        """A URL of a new role that may log in, a member of these."""
        name = f"{self.prefix}_login_{len(self.made)}"
        self.made.append(name)
        await self.execute(f"create role {name} login password 'pw' {options}")
        for group in groups:
            await self.execute(f"grant {group} to {name}")
        return self.url_of(name)

    def url_of(self, name: str, password: str = "pw") -> str:
        """The test's database, as this role."""
        split = urlsplit(self.url)
        place = split.netloc.rpartition("@")[2]
        return urlunsplit(split._replace(netloc=f"{name}:{password}@{place}"))

    async def execute(self, *statements: str) -> None:
        """As the administrator."""
        connection = await asyncpg.connect(self.url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def drop(self) -> None:
        """All of them, with what they own in this database."""
        connection = await asyncpg.connect(self.url)
        names = [*self.made, *(self.shared(kind) for kind in Kind)]
        for name in names:
            if await connection.fetchval("select true from pg_roles where rolname = $1", name):
                await connection.execute(f"drop owned by {name} cascade; drop role {name}")
        await connection.close()


@asynccontextmanager
async def roles_of(url: str) -> AsyncIterator[Roles]:
    """Roles for the length of a block."""
    roles = Roles(url)
    try:
        yield roles
    finally:
        await roles.drop()


def name_in(url: str) -> str:
    """The role that the URL logs in as."""
    return str(urlsplit(url).username)


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[BackendPostgres]:
    backend = await BackendPostgres.connect(url, **options)
    try:
        yield backend
    finally:
        await backend.stop()


async def double(n: int) -> int:
    return 2 * n


@workflow
async def doubled(n: int, step: Step) -> int:
    await step.sleep("a moment", timedelta(milliseconds=1))
    return await step.run("double", double, n)


async def command(url: str, *args: str) -> tuple[int, str]:
    """The exit code of `openworkflow`, and what it said."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("OPENWORKFLOW_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "openworkflow", *args),
        env={**env, "DATABASE_URL": url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode()


@asynccontextmanager
async def working(backend: BackendPostgres, *workflows: Any, **options: Any) -> AsyncIterator[None]:
    worker = OpenWorkflow(backend).new_worker(workflows=list(workflows), **options)
    await worker.start()
    try:
        yield
    finally:
        await worker.stop()


@asynccontextmanager
async def client_of(backend: BackendPostgres) -> AsyncIterator[OpenWorkflow]:
    client = OpenWorkflow(backend)
    try:
        yield client
    finally:
        await client.stop()


async def refused(url: str, statement: str) -> str:
    """What PostgreSQL says to this role; its transaction comes to nothing in any case."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute(statement)
            raise LookupError(f"{statement} was not refused")
    except asyncpg.InsufficientPrivilegeError as error:
        return str(error)
    finally:
        await connection.close()
