"""The measurements themselves, one function for each; every one returns plain figures."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import asyncpg
import psutil
import uvloop

from benchmarks import naive, ours, pgbench
from benchmarks.database import Bench, Preload
from benchmarks.workloads import Workload
from openworkflow import OpenWorkflow, Workflow

T = TypeVar("T")

#: Latency samples thrown away: the first ones prepare statements.
WARM_UP = 20
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Drained:
    """A worker worked off a backlog. CPU is microseconds for each run."""

    runs_per_second: float
    client_cpu: float
    server_cpu: float
    peak_rss_mib: float
    wal_bytes: float
    """Bytes of the write-ahead log, for each run."""
    stored_bytes: float
    """Bytes of tables and indexes once all is done, for each run; vacuum would give some back."""


def drain(bench: Bench, kind: str, preload: Preload) -> Drained:
    """Runs per second of a fresh worker process (`ours` or `naive`) on a fresh database."""
    with bench.database(preload) as name:
        report = worked_off(bench, kind, preload, bench.server.url(name))
        stored = bench.stored_bytes(name)
        if preload.finished == 0:
            bench.check_drained(name, preload.pending, preload.workload)
    return Drained(
        runs_per_second=preload.pending / report["seconds"],
        client_cpu=report["cpu_seconds"] / preload.pending * 1e6,
        server_cpu=report["server_cpu_seconds"] / preload.pending * 1e6,
        peak_rss_mib=report["peak_rss_mib"],
        wal_bytes=report["wal_bytes"] / preload.pending,
        stored_bytes=stored / (preload.pending + preload.finished),
    )


def worked_off(bench: Bench, kind: str, preload: Preload, url: str) -> dict[str, float]:
    """What a contender in a process of its own reports, and what the server spent meanwhile."""
    with _process(kind, preload.workload.value, url, str(preload.pending)) as contender:
        cpu, wal = bench.cpu_seconds(), bench.wal_bytes()
        told, _ = contender.communicate("begin\n", timeout=600)
    if contender.returncode:
        raise subprocess.CalledProcessError(contender.returncode, contender.args)
    report: dict[str, float] = json.loads(told.splitlines()[-1])
    spent = {
        "server_cpu_seconds": bench.cpu_seconds() - cpu,
        "wal_bytes": float(bench.wal_bytes() - wal),
    }
    return report | spent


def drain_with_pgbench(bench: Bench, script: pgbench.Script, preload: Preload) -> float:
    """Runs per second that PostgreSQL alone allows for `script`."""
    with bench.database(preload) as name:
        return pgbench.run_script(bench.server, name, script, preload.pending)


def enqueue_ours(bench: Bench, count: int) -> dict[str, float]:
    """Runs enqueued per second: one caller, 100 concurrent callers, a thousand in one call."""
    with bench.database(Preload()) as name:
        return _on_uvloop(lambda: _enqueue_ours(bench.server.url(name), count))


def enqueue_naive(bench: Bench, count: int) -> dict[str, float]:
    """Enqueue with one insert for each run on one and on twenty connections."""
    with bench.database(Preload()) as name:
        return _on_uvloop(lambda: _enqueue_naive(bench.server.url(name), count))


def enqueue_with_pgbench(bench: Bench, count: int) -> dict[str, float]:
    """Enqueue without any client code."""
    rates = {}
    for script in pgbench.enqueue_scripts():
        units = count * 20 if script.units > 1 else count
        with bench.database(Preload()) as name:
            rates[script.name] = pgbench.run_script(bench.server, name, script, units)
    return rates


def idle_latency(bench: Bench, samples: int) -> dict[str, float]:
    """Milliseconds from enqueue to the caller seeing the result, worker and caller idle.

    The yardstick, a single-row insert and a single-row update each with its commit, is measured
    between the samples on one connection.
    """
    with bench.database(Preload()) as name, _serving(bench.server.url(name)):
        return _on_uvloop(lambda: _idle_latency(bench.server.url(name), samples))


def memory_over(bench: Bench, runs: int, marks: int = 10) -> list[float]:
    """Resident memory of one serving worker in MiB, at each tenth of `runs` finished runs."""
    with bench.database(Preload()) as name, _serving(bench.server.url(name)) as worker:
        return _on_uvloop(
            lambda: _memory_over(bench.server.url(name), worker.pid, runs // marks, marks)
        )


async def _enqueue_ours(url: str, count: int) -> dict[str, float]:
    one_step = ours.make_workflow(Workload.ONE_STEP)
    async with ours.connected(url) as client:

        async def callers(number: int, each: int) -> None:
            async def call() -> None:
                for _ in range(each):
                    await client.run_workflow(one_step, 1)

            async with asyncio.TaskGroup() as tasks:
                for _ in range(number):
                    tasks.create_task(call())

        async def batches() -> None:
            for _ in range(count * 20 // 1000):
                await client.run_workflows(one_step, [1] * 1000)

        await client.run_workflow(one_step, 1)
        return {
            "single": await _rate(callers(1, count), count),
            "concurrent": await _rate(callers(100, count * 5 // 100), count * 5),
            "batch": await _rate(batches(), count * 20),
        }


async def _enqueue_naive(url: str, count: int) -> dict[str, float]:
    connections = await naive.connect(url, 20)

    async def insert(connection: asyncpg.Connection[asyncpg.Record], times: int) -> None:
        for _ in range(times):
            await connection.fetchval(naive.ENQUEUE, Workload.ONE_STEP.workflow_name, "1")

    async def insert_on_all() -> None:
        async with asyncio.TaskGroup() as tasks:
            for connection in connections:
                tasks.create_task(insert(connection, count * 5 // len(connections)))

    rates = {
        "single": await _rate(insert(connections[0], count), count),
        "concurrent": await _rate(insert_on_all(), count * 5),
    }
    for connection in connections:
        await connection.close()
    return rates


async def _idle_latency(url: str, samples: int) -> dict[str, float]:
    one_step = ours.make_workflow(Workload.ONE_STEP)
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE commit_pair (id int PRIMARY KEY, done timestamptz)")
    latencies: list[float] = []
    pairs: list[float] = []
    async with ours.connected(url) as client:
        for number in range(-WARM_UP, samples):
            await asyncio.sleep(0.01)  # idle means that nothing is in flight any more
            pairs.append(await _milliseconds(_commit_pair(connection, number)))
            await asyncio.sleep(0.01)
            latencies.append(await _milliseconds(_run_to_result(client, one_step)))
    del latencies[:WARM_UP], pairs[:WARM_UP]
    await connection.close()
    return {
        "p50": statistics.median(latencies),
        "p99": _percentile(latencies, 99),
        "commit pair p50": statistics.median(pairs),
        "commit pair p99": _percentile(pairs, 99),
    }


async def _run_to_result(client: OpenWorkflow, one_step: Workflow[int, int]) -> None:
    handle = await client.run_workflow(one_step, 1)
    await handle.result(timeout=30)


async def _commit_pair(connection: asyncpg.Connection[asyncpg.Record], number: int) -> None:
    await connection.execute("INSERT INTO commit_pair (id) VALUES ($1)", number)
    await connection.execute("UPDATE commit_pair SET done = now() WHERE id = $1", number)


async def _memory_over(url: str, pid: int, chunk: int, marks: int) -> list[float]:
    one_step = ours.make_workflow(Workload.ONE_STEP)
    observer = await asyncpg.connect(url, server_settings={"enable_seqscan": "off"})
    resident = []
    async with ours.connected(url) as client:
        for _ in range(marks):
            for first in range(0, chunk, 5000):
                await client.run_workflows(one_step, [1] * min(5000, chunk - first))
                await ours.until_all_recorded(observer)
            resident.append(psutil.Process(pid).memory_info().rss / 2**20)
    await observer.close()
    return resident


@contextmanager
def _serving(url: str) -> Iterator[subprocess.Popen[str]]:
    """Our worker in a process of its own, until the block ends."""
    with _process("serve", "W1", url, "0") as worker:
        try:
            yield worker
        finally:
            assert worker.stdin is not None
            worker.stdin.close()
            worker.wait(timeout=60)


@contextmanager
def _process(*args: str) -> Iterator[subprocess.Popen[str]]:
    """A contender that has said that it is ready; one that is left is waited for."""
    command = [sys.executable, "-m", "benchmarks.contender", *args]
    with subprocess.Popen(
        command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            msg = "the worker did not start"
            raise RuntimeError(msg)
        yield process


def _on_uvloop(run: Callable[[], Coroutine[object, object, T]]) -> T:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


async def _rate(work: Awaitable[None], units: int) -> float:
    started = time.perf_counter()
    await work
    return units / (time.perf_counter() - started)


async def _milliseconds(work: Awaitable[None]) -> float:
    started = time.perf_counter()
    await work
    return (time.perf_counter() - started) * 1000


def _percentile(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]
