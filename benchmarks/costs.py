"""What so many runs cost: statements, rows, WAL, and the server's time, each for one of them.

Statements are those that asyncpg sends in this process, its `BEGIN` and `COMMIT` among them; rows,
commits and the log are PostgreSQL's own counts. Counts are exact on a machine that others load;
times are not, and mean something only beside those of the same minute.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import asyncpg

from benchmarks.database import Bench
from benchmarks.schedules import Counting

Sql: TypeAlias = "asyncpg.Connection[Any]"
_TOLD_SECONDS = 1.5
"""Until the count of the last commits is told."""
_COUNTS = """
select xact_commit as commits, tup_inserted + tup_updated + tup_deleted as rows,
       (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint as wal
  from pg_stat_database where datname = current_database()
"""


@dataclass(slots=True)
class Cost:
    """What was spent while `measured` was entered."""

    _counting: Counting
    _bench: Bench
    _began: float
    _cpu: float
    seconds: float = 0
    statements: int = 0
    commits: int = 0
    rows: int = 0
    wal: int = 0
    server_ms: float = 0

    async def until_none(self, sql: Sql, query: str) -> None:
        """Wait until a query counts nothing any more; what is done after that is not counted."""
        while await sql.fetchval(query):
            await asyncio.sleep(0.05)
        self.seconds = time.perf_counter() - self._began
        self.server_ms = (self._bench.cpu_seconds() - self._cpu) * 1000
        self.statements = self._counting.statements.total()

    def line(self, what: str, count: int) -> str:
        """A row of the table, each figure but the first for one of `count`."""
        return (
            f"| {what} | {count / self.seconds:,.0f} | {self.statements / count:.2f} "
            f"| {self.commits / count:.2f} | {self.rows / count:.2f} | {self.wal / count:,.0f} "
            f"| {self.server_ms / count:.3f} |"
        )


HEAD = """
| | a second | statements of each | commits | rows written | WAL bytes | server's CPU, ms |
|---|---:|---:|---:|---:|---:|---:|"""


@asynccontextmanager
async def measured(bench: Bench, sql: Sql) -> AsyncIterator[Cost]:
    """What is spent within the block until `until_none`; it ends when all others are gone.

    PostgreSQL's processes tell their counts when they end, and now and then before. What `sql` does
    by `fetchval` is not counted among the statements.
    """
    await sql.execute("checkpoint")
    await asyncio.sleep(_TOLD_SECONDS)
    before = await _counts(sql)
    with Counting() as counting:
        cost = Cost(counting, bench, time.perf_counter(), bench.cpu_seconds())
        yield cost
    await asyncio.sleep(_TOLD_SECONDS)
    after = await _counts(sql)
    cost.commits, cost.rows, cost.wal = (new - old for new, old in zip(after, before, strict=True))


async def _counts(sql: Sql) -> tuple[int, ...]:
    await sql.fetchval("select pg_stat_clear_snapshot()")
    return tuple((await sql.fetchrow(_COUNTS)).values())  # type: ignore[union-attr]
