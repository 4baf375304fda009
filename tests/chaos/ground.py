"""What faults are done to: the server, the ways to it, and the stage with its workers."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from tests.chaos.pooler import Pooler
from tests.chaos.proxy import Proxy
from tests.chaos.stage import Stage
from tests.local_postgres import LocalPostgres

TERMINATE = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
 WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'
   AND datname = current_database() AND application_name LIKE $1
"""


@dataclass
class Ground:
    """What faults are done to. `proxy` is the workers' way to the server, `direct` ours."""

    server: LocalPostgres
    proxy: Proxy
    direct: Proxy
    stage: Stage
    chance: random.Random
    pooler: Pooler | None = None
    """Between half of the workers and the proxy, where this machine has one."""
    servers: list[LocalPostgres] = field(default_factory=list)
    """Those that took the place of the first one, to be stopped."""

    @property
    def url(self) -> str:
        """The server as it is now, by our own way."""
        return f"postgresql://postgres@127.0.0.1:{self.direct.port}/postgres"

    @property
    def outage(self) -> float:
        """Seconds without a database: sometimes longer than a lease."""
        return self.stage.fleet.lease * self.chance.choice((0.3, 0.8, 1.5))

    @contextlib.asynccontextmanager
    async def admin(self) -> AsyncIterator[asyncpg.Connection[Any]]:
        """A connection of the campaign's own, not through the proxy of the workers."""
        connection = await asyncpg.connect(
            self.url, server_settings={"default_transaction_read_only": "off"}
        )
        try:
            yield connection
        finally:
            connection.terminate()


Fault = Callable[[Ground], Awaitable[None]]
