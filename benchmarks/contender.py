"""One worker in a process of its own: works off what is pending and prints what it took.

    python -m benchmarks.contender naive|ours|pinned|serve W1|W2 URL RUNS [CONNECTIONS]

`pinned` is ours with runs that are bound to a build. `serve` is ours without an end: it stops when its standard input closes.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Coroutine

import asyncpg
import uvloop

from benchmarks import naive
from benchmarks.workloads import Workload


def main(kind: str, workload: str, url: str, runs: str, connections: str = "20") -> None:
    work: Coroutine[object, object, float]
    if kind == "naive":
        work = drain_naive(Workload(workload), url, int(connections))
    elif kind in ("ours", "pinned"):
        work = drain_ours(Workload(workload), url, int(runs), pinned=kind == "pinned")
    else:
        work = serve(url)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        seconds = runner.run(work)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    report = {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_rss_mib": usage.ru_maxrss / 1024,
    }
    print(json.dumps(report), flush=True)


async def drain_naive(workload: Workload, url: str, connections: int) -> float:
    """Seconds from connected to nothing left."""
    opened = await naive.connect(url, connections)
    worker = naive.NaiveWorker(opened, workload.workflow_name, workload.steps)
    started = time.perf_counter()
    await worker.drain()
    seconds = time.perf_counter() - started
    for connection in opened:
        await connection.close()
    return seconds


async def drain_ours(workload: Workload, url: str, runs: int, *, pinned: bool) -> float:
    """Seconds from the worker's start, connected as the naive one, to the last run's commit."""
    from benchmarks import ours  # the naive process has no part of our engine in it

    observer = await asyncpg.connect(url, server_settings={"enable_seqscan": "off"})
    countdown = ours.Countdown(runs)
    served = [ours.make_workflow(workload, countdown)]
    async with ours.connected(url) as client, ours.serving(client, served, pinned=pinned):
        started = time.perf_counter()
        await countdown.wait()
        await ours.until_all_recorded(observer)
        seconds = time.perf_counter() - started
    await observer.close()
    return seconds


async def serve(url: str) -> float:
    """Serve both workflows until standard input closes; seconds served."""
    from benchmarks import ours  # the naive process has no part of our engine in it

    served = [ours.make_workflow(workload) for workload in Workload]
    started = time.perf_counter()
    async with ours.connected(url) as client, ours.serving(client, list(served)):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
    return time.perf_counter() - started


if __name__ == "__main__":
    main(*sys.argv[1:])
