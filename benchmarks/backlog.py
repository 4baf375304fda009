"""How a claim and an end behave with many runs that wait behind many keys of a limit.

    python -m benchmarks.backlog --waiting 1000 10000 100000 --keys 1000

Starts a PostgreSQL of its own; each key has one slot, and all together a hundred, so that keys take
turns. Cases with few and many waiting runs are measured in turns, each batch of the one beside one
of the other, on analysed tables and on tables that never were.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import asyncpg

from benchmarks.database import Bench, start_server
from openworkflow import BackendPostgres, Limit, OpenWorkflow, workflow
from openworkflow.backend.backend import WorkerSession
from openworkflow.backend.records import ClaimRequest, Completion, Flush, Write, claim_key
from tests.flushes import completion_of

LEASE = timedelta(minutes=10)
BATCH = 25
SLOTS = 100
CHUNK = 5000


@workflow(limits=[Limit(1, key=lambda key: key), Limit(SLOTS)])
async def keyed(key: int) -> None: ...


@dataclass(slots=True)
class Backlog:
    """A database with runs that wait."""

    waiting: int
    analysed: bool
    backend: BackendPostgres
    sql: Any
    session: WorkerSession
    claims: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)

    async def batch(self) -> None:
        """Claim some, and end them, so that as many are let begin."""
        request = ClaimRequest(BATCH, [claim_key(keyed.name, "")])
        began = time.perf_counter()
        flushed = await self.session.flush(Flush("bench/1", LEASE, claim=request))
        self.claims.append((time.perf_counter() - began) * 1000)
        assert len(flushed.claimed) == BATCH
        self.inputs += [str(run.input) for run in flushed.claimed]
        began = time.perf_counter()
        ends: dict[type[Write], Any] = {Completion: [completion_of(run) for run in flushed.claimed]}
        await self.session.flush(Flush("bench/1", LEASE, ends))
        self.ends.append((time.perf_counter() - began) * 1000)

    def line(self) -> str:
        """A row of the table."""
        return (
            f"| {self.waiting:,} | {'yes' if self.analysed else 'no'} "
            f"| {statistics.median(self.claims[5:]):.2f} | {statistics.median(self.ends[5:]):.2f} "
            f"| {len(set(self.inputs)):,} of {len(self.inputs):,} |"
        )


async def backlog(bench: Bench, waiting: int, keys: int, analysed: bool) -> Backlog:
    """Make one. A table that is not analysed is not vacuumed either."""
    name = f"backlog_{waiting}_{'warm' if analysed else 'cold'}"
    admin = await asyncpg.connect(bench.server.url())
    await admin.execute(f"create database {name}")
    await admin.close()
    url = bench.server.url(name)
    backend, sql = await BackendPostgres.connect(url), await asyncpg.connect(url)
    if not analysed:
        tables = await sql.fetch("select tablename from pg_tables where schemaname = 'public'")
        for (table,) in tables:
            await sql.execute(f"alter table {table} set (autovacuum_enabled = off)")
    inputs = [number % keys for number in range(waiting)]
    for start in range(0, waiting, CHUNK):
        await OpenWorkflow(backend).run_workflows(keyed, inputs[start : start + CHUNK])
    if analysed:
        await sql.execute("vacuum analyze")
    return Backlog(waiting, analysed, backend, sql, await backend.open_session())


async def compare(bench: Bench, options: argparse.Namespace) -> None:
    """Print the table."""
    print("| waiting | analysed | ms of a claim of 25 | ms of the end of 25 | keys that came |")
    print("|---:|---|---:|---:|---:|", flush=True)
    cases = [
        await backlog(bench, waiting, options.keys, analysed)
        for waiting in options.waiting
        for analysed in (True, False)
    ]
    for _ in range(options.batches):
        for case in cases:
            await case.batch()
    for case in cases:
        print(case.line(), flush=True)
        await case.session.close()
        await case.sql.close()
        await case.backend.stop()


def main() -> None:
    """Measure on a server of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiting", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--batches", type=int, default=30)
    options = parser.parse_args()
    server = start_server()
    try:
        asyncio.run(compare(Bench(server), options))
    finally:
        server.stop()


if __name__ == "__main__":
    main()
