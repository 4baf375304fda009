"""What people who look at the dashboard cost the database, for none, one and many of them.

    python -m benchmarks.dashboard --viewers 50 --runs 100000

Starts a PostgreSQL of its own with runs in it, and `openworkflow dashboard` in a process of its
own. Every viewer follows the overview, which changes all the time. Transactions are those of the
database but for the benchmark's own; processor time is that of the connections of the dashboard,
and of its process.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import asyncpg
import psutil

from benchmarks.database import DURABLE
from openworkflow import BackendPostgres
from tests.local_postgres import LocalPostgres, embedded_programs

_FILL = """
insert into workflow_runs (namespace_id, id, workflow_name, status, input, error, available_at,
                           created_at, started_at, completed_at)
select 'default', md5(each::text)::uuid, 'workflow-' || each % 20,
       case when each % 50 = 0 then 'failed' else 'succeeded' end, 'null',
       case when each % 50 = 0 then '{"message": "declined", "type": "CardDeclined"}'::jsonb end,
       at, at, at, at + interval '2 s'
  from (select each, now() - each * interval '1 s' as at from generate_series(1, $1::int) each) made
"""
_ONE_MORE = """
insert into workflow_runs (namespace_id, id, workflow_name, status, input, available_at)
values ('default', md5(clock_timestamp()::text)::uuid, 'workflow-1', 'pending', 'null', now())
"""
_COMMITTED = """
select xact_commit + xact_rollback from pg_stat_database where datname = current_database()"""
_BACKENDS = "select pid from pg_stat_activity where application_name = 'openworkflow-dashboard'"
SETTLE_SECONDS = 5.0
CHANGE_EVERY = 0.2


@dataclass
class Seen:
    """What viewers were sent."""

    messages: int = 0
    bytes: int = 0


@asynccontextmanager
async def dashboard(url: str) -> AsyncIterator[tuple[str, psutil.Process]]:
    """Address of a dashboard, and its process."""
    command = [sys.executable, "-m", "openworkflow", "dashboard", "--port", "0", "--url", url]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout is not None
    try:
        said = (await process.stdout.readline()).decode()
        found = re.search(r"http://\S+[^/\s]", said)
        assert found, said
        yield found[0], psutil.Process(process.pid)
    finally:
        process.terminate()
        await process.wait()


async def follow(session: aiohttp.ClientSession, where: str, seen: Seen) -> None:
    """Look until cancelled."""
    async with session.get(f"{where}/n/default/live") as answer:
        assert answer.status == 200, await answer.text()
        async for line in answer.content:
            seen.bytes += len(line)
            seen.messages += line == b"\n"


async def change(sql: Any, made: Seen) -> None:
    """Have something to show for each look, until cancelled."""
    while True:
        await sql.execute(_ONE_MORE)
        made.messages += 1
        await asyncio.sleep(CHANGE_EVERY)


async def measure(
    url: str, where: str, process: psutil.Process, viewers: int, seconds: float
) -> str:
    """A row of the table."""
    seen, made = Seen(), Seen()
    sql, changing = await asyncpg.connect(url), await asyncpg.connect(url)
    async with AsyncExitStack() as stack:
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=connector, timeout=timeout)
        )
        tasks = [asyncio.create_task(follow(session, where, seen)) for _ in range(viewers)]
        tasks.append(asyncio.create_task(change(changing, made)))
        await asyncio.sleep(SETTLE_SECONDS)
        pids = [row["pid"] for row in await sql.fetch(_BACKENDS)]
        seen.messages = seen.bytes = made.messages = 0
        before = await sql.fetchval(_COMMITTED), busy(pids), spent(process), time.perf_counter()
        await asyncio.sleep(seconds)
        took = time.perf_counter() - before[3]
        own, committed = made.messages, await sql.fetchval(_COMMITTED) - before[0]
        server, client = busy(pids) - before[1], spent(process) - before[2]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await changing.close()
        await sql.close()
    sent = seen.messages / max(viewers, 1) / took
    return (
        f"| {viewers} | {(committed - own) / took:.1f} | {server / took:.1%} "
        f"| {client / took:.1%} | {sent:.2f} | {seen.bytes / took / 1e3:,.0f} |"
    )


def busy(pids: list[int]) -> float:
    """Seconds of a processor that these processes have used."""
    return sum(spent(psutil.Process(pid)) for pid in pids)


def spent(process: psutil.Process) -> float:
    """Seconds of a processor that this one has used."""
    times = process.cpu_times()
    return times.user + times.system


async def compare(server: str, runs: int, viewers: list[int], seconds: float) -> None:
    """Print a line for each number of viewers."""
    backend = await BackendPostgres.connect(server)
    await backend.stop()
    sql = await asyncpg.connect(server)
    await sql.execute(_FILL, runs)
    await sql.execute("vacuum analyze")
    await sql.close()
    print(f"{runs:,} runs, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| viewers | transactions/s | PostgreSQL, of a core | dashboard, of a core ", end="")
    print("| pages/s to each | kB/s to all |\n|---:|---:|---:|---:|---:|---:|")
    async with dashboard(server) as (where, process):
        for count in viewers:
            print(await measure(server, where, process, count, seconds), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--viewers", type=int, nargs="+", default=[0, 1, 50])
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    programs = embedded_programs()
    library = programs.parent / "lib"
    server = LocalPostgres(programs, library if library.is_dir() else None, DURABLE).start()
    try:
        asyncio.run(compare(server.url(), arguments.runs, arguments.viewers, arguments.seconds))
    finally:
        server.stop()


if __name__ == "__main__":
    main()
