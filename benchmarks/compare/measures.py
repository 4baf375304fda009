"""The measurements, alike for all contenders; every one returns plain figures of one turn."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from benchmarks.compare.install import Installed
from benchmarks.compare.process import started
from benchmarks.database import Bench
from benchmarks.workloads import Workload
from tests.postgres import DatabaseServer

#: What the tables' statistics say of versions of rows, in all schemas of a database.
_ROWS = """
SELECT array[coalesce(sum(n_tup_ins), 0), coalesce(sum(n_tup_upd + n_tup_del), 0)]::bigint[]
  FROM pg_stat_user_tables
"""
_COMMITS = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"


class WorkNotDone(Exception):
    """A figure that is refused: steps, runs or rows are not as many as were asked for."""


def drain(bench: Bench, peer: Installed, workload: Workload, runs: int) -> dict[str, float]:
    """One worker works off `runs`; the clock goes from its first step to the last commit."""
    with _set_up(bench, peer) as database:
        form = "batch" if peer.contender.batches else "concurrent"
        _enqueued(bench, peer, database, workload, form, runs)
        _made_ready(bench, database)
        before = _counts(bench, database)
        with started(peer, "work", bench.server.url(database), str(runs)) as driver:
            first = driver.wait_for("first")
            server = bench.cpu_seconds()
            driver.wait_for("called")
            polls = asyncio.run(_until_finished(bench.server.url(database), peer))
            seconds = time.time() - float(first["at"])
            server = bench.cpu_seconds() - server
            driver.wait_for("ready")
            driver.tell()
            spent = driver.wait_for("spent")
        counts = _counts(bench, database)
        _check(bench, peer, database, spent, runs, workload.steps)
    return {
        "rate": runs * workload.steps / seconds,
        "client cpu": spent["cpu_seconds"] / runs * 1e6,
        "server cpu": server / runs * 1e6,
        "wal": (counts["wal"] - before["wal"]) / runs,
        "commits": (counts["commits"] - before["commits"] - polls) / runs,
        "dead": (counts["dead"] - before["dead"]) / runs,
    }


def enqueue(bench: Bench, peer: Installed, form: str, runs: int) -> dict[str, float]:
    """`runs` are enqueued with no worker there."""
    with _set_up(bench, peer) as database:
        before = _counts(bench, database)
        spent = _enqueued(bench, peer, database, Workload.ONE_STEP, form, runs)
        counts = _counts(bench, database)
    return {
        "rate": runs / spent["seconds"],
        "client cpu": spent["cpu_seconds"] / runs * 1e6,
        "server cpu": spent["server_cpu_seconds"] / runs * 1e6,
        "wal": (counts["wal"] - before["wal"]) / runs,
        "commits": (counts["commits"] - before["commits"]) / runs,
        "dead": (counts["dead"] - before["dead"]) / runs,
    }


def latency(
    bench: Bench, peer: Installed, workflow: str, callers: int, samples: int, seconds: float
) -> dict[str, float]:
    """Milliseconds from enqueue to the caller's knowledge of the end; runs a second.

    A single caller meets an idle system, since it pauses before each call; many do not pause.
    """
    with _set_up(bench, peer) as database:
        url = bench.server.url(database)
        with started(peer, "work", url, "0") as worker:
            worker.wait_for("ready")
            asked = (workflow, str(callers), str(samples), str(seconds))
            with started(peer, "call", url, *asked) as caller:
                caller.wait_for("ready")
                caller.tell()
                spent = caller.wait_for("spent")
            worker.tell()
            worker.wait_for("spent")
    taken = [float(one) for one in spent["milliseconds"]]
    return {
        "p50": statistics.median(taken),
        **{f"p{percent}": percentile(taken, percent) for percent in (75, 90, 99)},
        "rate": float(spent["rate"]),
        "samples": float(len(taken)),
    }


def percentile(values: list[float], percent: int) -> float:
    """The value that so many percent are not above; of few samples the largest."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


@contextmanager
def _set_up(bench: Bench, peer: Installed) -> Iterator[str]:
    """A new database with the peer's tables."""
    with bench.empty_database() as database:
        with started(peer, "setup", bench.server.url(database)) as driver:
            driver.wait_for("spent")
        yield database


def _enqueued(
    bench: Bench, peer: Installed, database: str, workload: Workload, form: str, runs: int
) -> dict[str, float]:
    """Seconds, and CPU seconds of both sides, that the enqueueing took."""
    arguments = (workload.workflow_name, form, str(runs))
    with started(peer, "enqueue", bench.server.url(database), *arguments) as driver:
        driver.wait_for("ready")
        server = bench.cpu_seconds()
        driver.tell()
        spent = driver.wait_for("spent")
        server = bench.cpu_seconds() - server
    return {
        "seconds": float(spent["seconds"]),
        "cpu_seconds": float(spent["cpu_seconds"]),
        "server_cpu_seconds": server,
    }


def _made_ready(bench: Bench, database: str) -> None:
    """No contender pays for what the enqueueing left to do."""
    admin = DatabaseServer(bench.server.url())
    admin.execute("VACUUM ANALYZE", database=database)
    admin.execute("CHECKPOINT", database=database)


def _counts(bench: Bench, database: str) -> dict[str, int]:
    """What the server counted so far; asked when no contender is connected, so that all is told."""
    admin = DatabaseServer(bench.server.url())
    rows = admin.fetch_value(_ROWS, database)
    assert isinstance(rows, list)
    commits = admin.fetch_value(_COMMITS, database)
    return {"wal": bench.wal_bytes(), "commits": int(str(commits)), "dead": int(rows[1])}


async def _until_finished(url: str, peer: Installed) -> int:
    """Return once nothing is left to do; how often that was asked, each a commit of its own."""
    connection = await asyncpg.connect(url, server_settings={"enable_seqscan": "off"})
    polls = 1
    while await connection.fetchval(peer.contender.unfinished):
        polls += 1
        await asyncio.sleep(0.002)
    await connection.close()
    return polls


def _check(
    bench: Bench, peer: Installed, database: str, spent: dict[str, float], runs: int, steps: int
) -> None:
    """Refuse a figure for work that was not done, or was done twice."""
    rows = DatabaseServer(bench.server.url()).fetch_value(peer.contender.finished, database)
    found = [spent["runs"], spent["steps"], rows]
    if found != [runs, runs * steps, runs]:
        msg = (
            f"expected {runs} runs of {steps} steps and as many rows that say so,"
            f" found calls of {found[0]} runs and {found[1]} steps, and {found[2]} rows"
        )
        raise WorkNotDone(msg)
