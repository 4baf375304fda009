"""How cost grows: one axis at a time, a table of sizes, and the exponent of what a run costs.

    python -m benchmarks.growth
    python -m benchmarks.growth --axes finished namespaces --rows 1000000 --seconds 5

Starts a PostgreSQL of its own. Each size has a new database, filled, vacuumed and analysed, in
which workers run for some seconds, all the time with runs enough to claim. An exponent of 0 says
that a run costs the same whatever the size, 1 that it costs in proportion.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks import report
from benchmarks.database import FINISHED, Bench, start_server
from benchmarks.grower import Grower
from benchmarks.written import RESULTS, plain, say, write
from openworkflow import BackendPostgres

CHUNK = 100_000

#: Runs that the workers claim. Their input is their steps' result; it does not compress.
_SUPPLY = """
INSERT INTO workflow_runs (namespace_id, workflow_name, status, input, available_at)
SELECT 'default', 'echo', 'pending', to_jsonb(left(value, $2)), now() - interval '1 minute'
  FROM (SELECT string_agg(md5(n::text), '') AS value FROM generate_series(0, $2::int / 32) n) v,
       generate_series(1, $1::int)
"""

_SLEEPING = """
INSERT INTO workflow_runs (namespace_id, workflow_name, status, input, available_at)
SELECT 'default', 'echo', 'pending', '1', now() + interval '1 day' + g * interval '1 ms'
  FROM generate_series($1::int, $2::int) g
"""

_UNSERVED = """
INSERT INTO workflow_runs (namespace_id, workflow_name, status, input, available_at)
SELECT 'default', 'nobody-serves', 'pending', '1', now() - interval '1 hour'
  FROM generate_series($1::int, $2::int)
"""

#: A tenth is due, the rest is finished.
_OF_OTHERS = """
INSERT INTO workflow_runs (namespace_id, workflow_name, status, input, output, available_at,
                           completed_at, claim_no)
SELECT 'tenant-' || g % $3::int, 'echo',
       CASE WHEN g % 10 = 0 THEN 'pending' ELSE 'succeeded' END, '1',
       CASE WHEN g % 10 = 0 THEN NULL ELSE '1'::jsonb END, now() - interval '1 hour',
       CASE WHEN g % 10 = 0 THEN NULL ELSE now() END, 1
  FROM generate_series($1::int, $2::int) g
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A database, and who works on it."""

    size: int
    ballast: str = ""
    """The statement that makes what grows; it is given the first and the last number."""
    rows: int = 0
    further: tuple[int, ...] = ()
    """More that the statement is given."""
    supply: int = 200_000
    payload: int = 10
    """Bytes of a run's input, and of each of its results."""
    steps: int = 1
    workers: int = 1
    old_for: float = 0
    """Seconds of work behind a snapshot that is held open, before the clock starts."""


@dataclass(frozen=True, slots=True)
class Grown:
    """What one size cost."""

    size: int
    rate: float
    client_cpu: float
    server_cpu: float
    blocks: float
    """Pages that a run had the server look at."""


def axes(rows: int) -> dict[str, tuple[str, list[Case]]]:
    """Every axis: what grows in words, and its cases. `rows` is the most that is put beside."""
    sizes = [rows // part for part in (1000, 100, 10, 1)]
    spread = [1, 100, 1000, 10_000]
    return {
        "finished": ("finished runs beside", [Case(n, FINISHED, n) for n in sizes]),
        "sleeping": ("sleeping runs beside", [Case(n, _SLEEPING, n) for n in sizes]),
        "unserved": ("due runs that nobody serves", [Case(n, _UNSERVED, n) for n in sizes]),
        "pending": ("due runs", [Case(n, supply=n) for n in (200_000, 500_000, 1_000_000)]),
        "namespaces": (
            f"other namespaces, {rows:,} runs of them together",
            [Case(n, _OF_OTHERS, rows, (n,)) for n in spread],
        ),
        "payload": (
            "bytes of an input and a result",
            [Case(n, payload=n, supply=_supply(n)) for n in (10, 1000, 100_000, 10**6)],
        ),
        "steps": (
            "steps of a run, one after the other",
            [Case(n, steps=n, supply=max(3000, 600_000 // n)) for n in (1, 10, 100, 1000)],
        ),
        "workers": ("workers", [Case(n, workers=n, supply=300_000) for n in (1, 2, 4, 8)]),
        "snapshot": (
            "seconds of work behind a snapshot that is held open",
            [Case(n, old_for=n, supply=600_000) for n in (1, 5, 20)],
        ),
    }


def _supply(payload: int) -> int:
    """Runs enough for some seconds, and not more than two gigabytes."""
    return max(2000, min(200_000, 2 * 10**9 // payload))


async def grown(bench: Bench, case: Case, seconds: float) -> Grown:
    """Fill a database, have the workers run for so long, and say what a run cost."""
    with bench.empty_database() as name:
        url = bench.server.url(name)
        await (await BackendPostgres.connect(url)).stop()
        observer = await asyncpg.connect(url)
        try:
            await _fill(observer, case)
            async with AsyncExitStack() as stack:
                if case.old_for:
                    await stack.enter_async_context(_snapshot(url))
                workers = [
                    await stack.enter_async_context(Grower.started(url, case.steps))
                    for _ in range(case.workers)
                ]
                await asyncio.gather(*(worker.begin() for worker in workers))
                await asyncio.sleep(max(1.0, case.old_for))
                return await _measured(bench, observer, case, workers, seconds)
        finally:
            await observer.close()


async def _fill(connection: asyncpg.Connection[Any], case: Case) -> None:
    for first in range(1, case.rows + 1, CHUNK):
        last = min(first + CHUNK - 1, case.rows)
        await connection.execute(case.ballast, first, last, *case.further, timeout=600)
    await connection.execute(_SUPPLY, case.supply, case.payload, timeout=600)
    await connection.execute("VACUUM ANALYZE", timeout=600)
    await connection.execute("CHECKPOINT", timeout=600)


async def _measured(
    bench: Bench,
    observer: asyncpg.Connection[Any],
    case: Case,
    workers: Sequence[Grower],
    seconds: float,
) -> Grown:
    began, server, blocks = time.perf_counter(), bench.cpu_seconds(), await _blocks(observer)
    before = await asyncio.gather(*(worker.told() for worker in workers))
    await asyncio.sleep(seconds)
    after = await asyncio.gather(*(worker.told() for worker in workers))
    took, server = time.perf_counter() - began, bench.cpu_seconds() - server
    blocks = await _blocks(observer) - blocks
    runs = sum(now.runs - then.runs for now, then in zip(after, before, strict=True))
    cpu = sum(now.cpu_seconds - then.cpu_seconds for now, then in zip(after, before, strict=True))
    if not runs or sum(now.runs for now in after) >= case.supply:
        msg = f"{runs} runs in {took:.1f} s: nothing was done, or the supply came to its end"
        raise RuntimeError(msg)
    return Grown(case.size, runs / took, cpu / runs * 1e6, server / runs * 1e6, blocks / runs)


async def _blocks(observer: asyncpg.Connection[Any]) -> int:
    counted = "SELECT blks_hit + blks_read FROM pg_stat_database WHERE datname = current_database()"
    return int(await observer.fetchval(counted))


@asynccontextmanager
async def _snapshot(url: str) -> AsyncIterator[None]:
    """A transaction that sees the database as it is now, so that no dead row can be taken away."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await connection.fetchval("SELECT count(*) FROM pg_class")
            yield
    finally:
        await connection.close()


def exponent(points: Sequence[Grown], cost: Callable[[Grown], float]) -> float:
    """The slope of the cost over the size, both as logarithms, by least squares."""
    xs = [math.log(point.size) for point in points]
    ys = [math.log(cost(point)) for point in points]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum(
        (a - x) ** 2 for a in xs
    )


def table(title: str, grows: str, points: Sequence[Grown]) -> str:
    """One axis as markdown; the last line has the exponents."""
    rows = [
        [
            f"{point.size:,}",
            f"{point.rate:,.0f}",
            f"{point.client_cpu:,.0f}",
            f"{point.server_cpu:,.0f}",
            f"{point.blocks:,.1f}",
        ]
        for point in points
    ]
    if len(points) > 1:
        costs: list[Callable[[Grown], float]] = [
            lambda point: point.client_cpu,
            lambda point: point.server_cpu,
            lambda point: point.blocks,
        ]
        rows.append(["exponent", "", *(f"{exponent(points, cost):.2f}" for cost in costs)])
    header = [grows, "runs/s", "client CPU us a run", "server CPU us a run", "pages a run"]
    return report.table(title, header, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(prog="benchmarks.growth", description=__doc__)
    names = list(axes(1000))
    parser.add_argument("--axes", nargs="+", choices=names, default=names)
    parser.add_argument("--rows", type=int, default=1_000_000, help="the most that is put beside")
    parser.add_argument("--seconds", type=float, default=5, help="of work at each size")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder to write to")
    options = parser.parse_args(arguments)
    server = start_server()
    try:
        bench = Bench(server)
        figures = report.Figures(report.describe_machine(), bench.settings(), plain(options))
        tables = [report.conditions(figures)]
        try:
            for name in options.axes:
                tables.append(_axis(bench, figures, name, options))
        finally:  # what was measured is kept, whatever comes of the rest
            write(figures, "\n".join(tables), options.out, "growth-")
    finally:
        server.stop()
    return 0


def _axis(bench: Bench, figures: report.Figures, name: str, options: argparse.Namespace) -> str:
    grows, cases = axes(options.rows)[name]
    points = []
    for case in cases:
        points.append(point := asyncio.run(grown(bench, case, options.seconds)))
        figures.add_all(f"{name} {case.size}", asdict(point))
        say(f"{name} {case.size:,}: {point.rate:,.0f} runs/s")
    return table(name, grows, points)


if __name__ == "__main__":
    sys.exit(main())
