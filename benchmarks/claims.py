"""What a claim costs beside due runs that this worker does not serve.

    python -m benchmarks.claims --unserved 0 200000 --workflows 1 20

Starts a PostgreSQL of its own, fills a database for each case, and claims batches of a hundred.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from datetime import timedelta

import asyncpg

from benchmarks.database import DURABLE
from openworkflow import BackendPostgres
from openworkflow.backend.records import ClaimRequest, Flush, claim_key
from tests.local_postgres import LocalPostgres, embedded_programs

BATCH = 100
CLAIMS = 60
WARM_UP = 10  # PostgreSQL plans a statement five times before it keeps a plan
LEASE = timedelta(minutes=10)

_DUE = """
insert into workflow_runs (workflow_name, status, available_at, created_at)
select $1 || i % $3, 'pending', now() - $4::interval + i * interval '1 us', now()
  from generate_series(1, $2::int) i
"""


async def measure(server: str, unserved: int, workflows: int) -> tuple[float, float]:
    """Milliseconds of a claim, the median and the longest."""
    name = f"claims_{unserved}_{workflows}"
    connection = await asyncpg.connect(server)
    await connection.execute(f"create database {name}")
    await connection.close()
    url = f"{server.rsplit('/', 1)[0]}/{name}"
    backend = await BackendPostgres.connect(url)
    connection = await asyncpg.connect(url)
    await connection.execute(_DUE, "unserved-", unserved, 3, timedelta(hours=1))
    await connection.execute(
        _DUE, "served-", BATCH * (CLAIMS + WARM_UP + 5), workflows, timedelta(minutes=1)
    )
    await connection.execute("vacuum analyze workflow_runs")
    session = await backend.open_session(1)
    keys = [claim_key(f"served-{number}", "") for number in range(workflows)]
    took = []
    for _ in range(WARM_UP + CLAIMS):
        started = time.perf_counter()
        flush = Flush("bench/1", LEASE, claim=ClaimRequest(BATCH, keys))
        claimed = (await session.flush(flush)).claimed
        took.append((time.perf_counter() - started) * 1000)
        assert len(claimed) == BATCH
    await session.close()
    await connection.close()
    await backend.stop()
    return statistics.median(took[WARM_UP:]), max(took[WARM_UP:])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--unserved", type=int, nargs="+", default=[0, 200_000])
    parser.add_argument("--workflows", type=int, nargs="+", default=[1, 20, 200])
    options = parser.parse_args()
    programs = embedded_programs()
    library = programs.parent / "lib"
    server = LocalPostgres(programs, library if library.is_dir() else None, DURABLE).start()
    try:
        print("| due runs that nobody serves | workflows served | ms of a claim of 100 | longest |")
        print("|---:|---:|---:|---:|")
        for unserved in options.unserved:
            for workflows in options.workflows:
                median, longest = asyncio.run(measure(server.url(), unserved, workflows))
                print(f"| {unserved:,} | {workflows} | {median:.2f} | {longest:.1f} |", flush=True)
    finally:
        server.stop()


if __name__ == "__main__":
    main()
