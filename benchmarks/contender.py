"""One worker in a process of its own: works off what is pending and prints what it took.

    python -m benchmarks.contender naive|ours|pinned|serve W1|W2 URL RUNS [CONNECTIONS]

It says `ready` once it is connected, and begins when it is sent a line: what a process costs until
then, above all where it compiles its modules, is nothing that a run costs. `pinned` is ours with
runs that are bound to a build. `serve` is ours without an end: it stops when its standard input
closes.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Callable, Coroutine
from typing import NamedTuple

import asyncpg
import uvloop

from benchmarks import naive
from benchmarks.workloads import Workload


def main(kind: str, workload: str, url: str, runs: str, connections: str = "20") -> None:
    work: Coroutine[object, object, Spent]
    if kind == "naive":
        work = drain_naive(Workload(workload), url, int(connections))
    elif kind in ("ours", "pinned"):
        work = drain_ours(Workload(workload), url, int(runs), pinned=kind == "pinned")
    else:
        work = serve(url)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        seconds, cpu_seconds = runner.run(work)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_rss_mib": peak / 1024}
    print(json.dumps(report), flush=True)


class Spent(NamedTuple):
    """What it took, from connected to nothing left."""

    seconds: float
    cpu_seconds: float


def measured() -> Callable[[], Spent]:
    """Say that this process is ready, and wait for the word; the answer is what was spent since."""
    print("ready", flush=True)
    sys.stdin.readline()
    started, cpu = time.perf_counter(), time.process_time()
    return lambda: Spent(time.perf_counter() - started, time.process_time() - cpu)


async def drain_naive(workload: Workload, url: str, connections: int) -> Spent:
    """From connected to nothing left."""
    opened = await naive.connect(url, connections)
    worker = naive.NaiveWorker(opened, workload.workflow_name, workload.steps)
    spent = measured()
    await worker.drain()
    report = spent()
    for connection in opened:
        await connection.close()
    return report


async def drain_ours(workload: Workload, url: str, runs: int, *, pinned: bool) -> Spent:
    """From the worker's start, connected as the naive one, to the last run's commit."""
    from benchmarks import ours  # the naive process has no part of our engine in it

    observer = await asyncpg.connect(url, server_settings={"enable_seqscan": "off"})
    countdown = ours.Countdown(runs)
    served = [ours.make_workflow(workload, countdown)]
    async with ours.connected(url) as client:
        spent = measured()
        async with ours.serving(client, served, pinned=pinned):
            await countdown.wait()
            await ours.until_all_recorded(observer)
            report = spent()
    await observer.close()
    return report


async def serve(url: str) -> Spent:
    """Serve both workflows until standard input closes."""
    from benchmarks import ours  # the naive process has no part of our engine in it

    served = [ours.make_workflow(workload) for workload in Workload]
    started, cpu = time.perf_counter(), time.process_time()
    async with ours.connected(url) as client, ours.serving(client, list(served)):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
    return Spent(time.perf_counter() - started, time.process_time() - cpu)


if __name__ == "__main__":
    main(*sys.argv[1:])
