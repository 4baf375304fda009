"""Environments without the fixture: for unittest, fixtures of other scopes, and scripts."""

import asyncio
import atexit
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from openworkflow.testing.databases import Databases
from openworkflow.testing.environment import TIMEOUT, Environment
from openworkflow.testing.server import Server

_databases: Databases | None = None


def databases(url: str | None = None) -> Databases:
    """The databases of this process, on the server of the first call."""
    global _databases
    if _databases is None:
        _databases = Databases(Server(url))
        atexit.register(_databases.close)
    return _databases


def close_databases() -> None:
    """Drop what this process has made."""
    global _databases
    if _databases is not None:
        atexit.unregister(_databases.close)
        _databases.close()
        _databases = None


@asynccontextmanager
async def environment(
    *, url: str | None = None, timeout: float = TIMEOUT, **options: Any
) -> AsyncIterator[Environment]:
    """An environment for the length of a block, on the running event loop.

    `url` names a PostgreSQL whose role may create databases; by default TEST_DATABASE_URL does, and
    else it is the embedded one. The `options` are those of OpenWorkflow.new_worker. Raises
    ConfigurationError where there is no PostgreSQL; AssertionError, if the block did not fail, for
    failures and crashes that were planned and met no call.
    """
    made = databases(url)
    database = await asyncio.to_thread(made.take)
    env = Environment(database, timeout=timeout, **options)
    try:
        yield env
        env.check()
    finally:
        try:
            await env.close()
        finally:
            await asyncio.to_thread(made.give_back, database, clean=env.is_clean)
