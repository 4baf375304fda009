"""The measured server and its databases: each measurement gets a fresh one, with what it needs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import psutil

from benchmarks.workloads import Workload
from openworkflow import BackendPostgres
from tests.local_postgres import LocalPostgres, embedded_programs
from tests.postgres import DatabaseServer

#: Everything else is PostgreSQL's default. The first three are the defaults, said aloud.
DURABLE: Mapping[str, str] = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
    "max_connections": "200",
}

#: Ids that grow with time, as our client makes them, so that no contender pays for random pages.
_TIMED_ID = """
(lpad(to_hex(floor(extract(epoch FROM now()) * 1000)::bigint - 86400000 + g / 100), 12, '0')
 || '7' || lpad(to_hex(g % 4096), 3, '0') || 'a' || substr(md5(random()::text), 1, 15))::uuid
"""

_PENDING = f"""
INSERT INTO workflow_runs (id, namespace_id, workflow_name, status, input, available_at)
SELECT {_TIMED_ID}, 'default', $1, 'pending', '1', now() - interval '1 minute'
  FROM generate_series(1, $2::int) g
"""

FINISHED = f"""
WITH runs AS (
    INSERT INTO workflow_runs (id, namespace_id, workflow_name, status, input, output, claim_no,
                               available_at, created_at, started_at, completed_at)
    SELECT {_TIMED_ID}, 'default', 'one-step', 'succeeded', '1', '1', 1,
           now() - interval '2 days', now() - interval '2 days', now() - interval '2 days',
           now() - interval '2 days'
      FROM generate_series($1::int, $2::int) g
    RETURNING id)
INSERT INTO step_attempts (workflow_run_id, step_name, kind, status, output, claim_no, completed_at)
SELECT id, 'step-0', 'run', 'succeeded', '1', 1, now() FROM runs
"""


@dataclass(frozen=True, slots=True)
class Preload:
    """What a database holds before the clock starts. `analysed` = the planner knows the tables."""

    pending: int = 0
    finished: int = 0
    workload: Workload = Workload.ONE_STEP
    analysed: bool = True


@dataclass(slots=True)
class Bench:
    """The server under test with its default durability."""

    server: LocalPostgres
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @contextmanager
    def database(self, preload: Preload) -> Iterator[str]:
        """The name of a new, migrated and filled database; dropped afterwards."""
        with self.empty_database() as name:
            asyncio.run(self._prepare(name, preload))
            DatabaseServer(self.server.url()).execute("CHECKPOINT")
            yield name

    @contextmanager
    def empty_database(self) -> Iterator[str]:
        """The name of a new database without any table; dropped afterwards."""
        name = f"bench_{next(self._numbers)}"
        admin = DatabaseServer(self.server.url())
        admin.create_database(name)
        try:
            yield name
        finally:
            admin.drop_database(name)

    def check_drained(self, database: str, runs: int, workload: Workload) -> None:
        """Refuse a figure for work that was not done: every run and step has its row."""
        found = DatabaseServer(self.server.url()).fetch_value(
            "SELECT array[(SELECT count(*) FROM workflow_runs WHERE status = 'succeeded'),"
            " (SELECT count(*) FROM step_attempts WHERE status = 'succeeded')]",
            database,
        )
        if found != [runs, runs * workload.steps]:
            msg = f"expected {runs} runs of {workload.steps} steps, the tables hold {found}"
            raise RuntimeError(msg)

    def cpu_seconds(self) -> float:
        """CPU time of the server so far: its processes and those that have ended."""
        postmaster_pid = int((self.server.root / "data" / "postmaster.pid").read_text().split()[0])
        postmaster = psutil.Process(postmaster_pid)
        times = []
        for process in postmaster.children():
            with contextlib.suppress(psutil.NoSuchProcess):  # it ends while we look
                times.append(process.cpu_times())
        own = postmaster.cpu_times()
        ended = own.children_user + own.children_system
        return ended + sum(time.user + time.system for time in [own, *times])

    def wal_bytes(self) -> int:
        """Written to the log since the server was made."""
        admin = DatabaseServer(self.server.url())
        return int(str(admin.fetch_value("SELECT (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint")))

    def stored_bytes(self, database: str) -> int:
        """Both tables with their indexes."""
        sizes = (
            "SELECT pg_total_relation_size('workflow_runs')"
            " + pg_total_relation_size('step_attempts')"
        )
        return int(str(DatabaseServer(self.server.url()).fetch_value(sizes, database)))

    def settings(self) -> dict[str, str]:
        """What was measured on, read back from the server."""
        admin = DatabaseServer(self.server.url())
        names = ("server_version", *DURABLE, "wal_sync_method")
        return {name: str(admin.fetch_value(f"SHOW {name}")) for name in names}

    async def _prepare(self, name: str, preload: Preload) -> None:
        backend = await BackendPostgres.connect(self.server.url(name))
        await backend.stop()
        connection = await asyncpg.connect(self.server.url(name))
        try:
            await _fill(connection, preload)
        finally:
            await connection.close()


def start_server() -> LocalPostgres:
    """Debian's programs where they are, else the embedded ones, with default durability."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name)
    programs = installed[-1] if installed else embedded_programs()
    return LocalPostgres(programs, settings=dict(DURABLE), owner_pid=os.getpid()).start()


async def _fill(connection: asyncpg.Connection[asyncpg.Record], preload: Preload) -> None:
    if not preload.analysed:
        for table in ("workflow_runs", "step_attempts"):
            await connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    chunk = 100_000
    for first in range(1, preload.finished + 1, chunk):
        last = min(first + chunk - 1, preload.finished)
        await connection.execute(FINISHED, first, last, timeout=300)
    await connection.execute(_PENDING, preload.workload.workflow_name, preload.pending)
    if preload.analysed:
        await connection.execute("VACUUM ANALYZE workflow_runs")
        await connection.execute("VACUUM ANALYZE step_attempts")
