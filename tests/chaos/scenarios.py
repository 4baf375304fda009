"""Short courses of events, each enough to show a defect of its kind; a sound engine passes all."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from tests.chaos import shapes
from tests.chaos.evidence import Evidence
from tests.chaos.more_load import MoreLoad
from tests.chaos.proxy import Proxy
from tests.chaos.stage import Stage, stage, until

LEASE = 1.0
PATIENCE = 30.0
"""Seconds in which nothing else would keep a run from its end, on a machine that others use."""
FAILS = frozenset({"failed"})
Scenario = Callable[[str, Path, str], Awaitable[Evidence]]


async def calm(url: str, folder: Path, defect: str) -> Evidence:
    """Nothing happens; every wait parks its run, so that what comes after it is a replay."""
    async with stage(url, folder, lease=LEASE, defect=defect) as on:
        await on.enqueue(shapes.sequential)
        await on.enqueue(shapes.sleeping, values={"seconds": 0.1})
        await on.enqueue(shapes.parallel)
        await on.enqueue(shapes.retrying)
        await on.enqueue(shapes.renewed)
        await on.enqueue(shapes.sync)
        await on.enqueue(shapes.telling)
        name, run = await on.enqueue(shapes.signaled)
        for number in range(shapes.SIGNALS):
            await on.signal(run, number, f"{name}-{number}")
        await on.enqueue(shapes.late, ends=FAILS, error="DeadlineExceeded", deadline=0.8)
        await on.fleet.start()
        return await on.evidence(patience=PATIENCE)


async def two_workers(url: str, folder: Path, defect: str) -> Evidence:
    """Nothing happens to two workers."""
    async with stage(url, folder, lease=LEASE, defect=defect) as on:
        await on.fleet.start(2)
        for _ in range(10):
            await on.enqueue(shapes.slow)
        return await on.evidence(patience=PATIENCE)


async def frozen(url: str, folder: Path, defect: str) -> Evidence:
    """A worker is frozen in a step; it wakes when another has ended the run.

    The step blocks the event loop: what it returned is on its way before a heartbeat is heard.
    """
    async with stage(url, folder, lease=LEASE, defect=defect) as on:
        (first,) = await on.fleet.start()
        await on.enqueue(shapes.blocking, values={"seconds": 1.0})
        await on.called("b")
        with on.fault("sigstop", [first.pid]):
            first.send_signal(signal.SIGSTOP)
            await on.fleet.start()
            await on.settle(15)
            first.send_signal(signal.SIGCONT)
        return await on.evidence()


async def frozen_at_the_end(url: str, folder: Path, defect: str) -> Evidence:
    """A worker is frozen between the last step of a run and its end."""
    async with stage(url, folder, lease=LEASE, defect=defect) as on:
        (first,) = await on.fleet.start()
        await on.enqueue(shapes.lingering, values={"seconds": 1.0})
        await on.called("a")
        await asyncio.sleep(0.2)  # it lingers for a second
        with on.fault("sigstop", [first.pid]):
            first.send_signal(signal.SIGSTOP)
            await on.fleet.start()
            await on.settle(15)
            first.send_signal(signal.SIGCONT)
        return await on.evidence()


async def canceled(url: str, folder: Path, defect: str) -> Evidence:
    """Runs are canceled while they are executed."""
    async with stage(url, folder, lease=LEASE, defect=defect) as on:
        await on.fleet.start()
        runs = [await on.enqueue(shapes.doomed) for _ in range(3)]
        await on.called("s1", 3)
        for name, handle in runs:
            await on.cancel(name, handle)
        await asyncio.sleep(LEASE + 1.0)  # nothing is to happen meanwhile
        return await on.evidence()


async def locked_and_killed(url: str, folder: Path, defect: str) -> Evidence:
    """A worker dies while nothing that it does can be recorded."""
    async with stage(url, folder, lease=LEASE, defect=defect) as on:
        (first,) = await on.fleet.start()
        connection = await asyncpg.connect(url)
        with on.fault("table-lock", [first.pid]):
            async with connection.transaction():
                await connection.execute("LOCK TABLE step_attempts IN EXCLUSIVE MODE")
                await on.enqueue(shapes.slow, values={"seconds": 0.05})
                await on.called("a")
                await until(lambda: any(call.key == "b" for call in on.calls()), 1)
                await on.fleet.kill(first)
                # Else it would get the lock, and record what its worker did.
                await connection.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND application_name LIKE 'chaos%'"
                )
        await connection.close()
        await on.fleet.start()
        return await on.evidence()


async def answer_lost(url: str, folder: Path, defect: str) -> Evidence:
    """Answers to statements that were executed are lost, with their connections."""
    async with _behind_a_proxy(url, folder, defect) as (on, proxy):
        (only,) = await on.fleet.start()
        proxy.about = f"{only.pid}.".encode()  # a token of it: a step is recorded
        await on.enqueue(shapes.slow)
        for key in "abc":
            await on.called(key)
            with on.fault("lost-answer"):
                proxy.lose = 1
                await until(lambda: not proxy.lose, 5)
        return await on.evidence()


def _more(*shapes: str, schedules: bool = False) -> Scenario:
    """Nothing happens to such runs."""

    async def scenario(url: str, folder: Path, defect: str) -> Evidence:
        async with stage(url, folder, lease=LEASE, defect=defect) as on:
            more = MoreLoad(on, random.Random(1))
            await on.fleet.start()
            if schedules:
                await more.start_schedules()
            start = more.shapes()
            with contextlib.suppress(TimeoutError):  # what a broken copy is asked for may never be
                async with asyncio.timeout(2 * PATIENCE):
                    await asyncio.gather(*(start[shape]() for shape in shapes))
            return await on.evidence(patience=2 * PATIENCE)

    return scenario


SCENARIOS: Mapping[str, Scenario] = {
    "calm": calm,
    "two workers": two_workers,
    "frozen": frozen,
    "frozen at the end": frozen_at_the_end,
    "canceled": canceled,
    "locked and killed": locked_and_killed,
    "answer lost": answer_lost,
    "families": _more("family", "spread", "mapped", "clan canceled"),
    "sagas": _more("saga kept", "saga failing", "saga late", "saga canceled"),
    "counted": _more(*["limited"] * 10, *["rated"] * 5, *["unique", "debounced"] * 2),
    "scheduled": _more("backfilled", schedules=True),
    "by hand": _more(*["paused"] * 4, "followed", "mended", "reopened", "forked", "bulk canceled"),
}


@contextlib.asynccontextmanager
async def _behind_a_proxy(
    url: str, folder: Path, defect: str
) -> AsyncIterator[tuple[Stage, Proxy]]:
    parts = urlsplit(url)
    proxy = Proxy(parts.port or 5432)
    await proxy.start()
    through = f"postgresql://{parts.username}@127.0.0.1:{proxy.port}{parts.path}"
    try:
        async with stage(url, folder, lease=LEASE, workers_url=through, defect=defect) as on:
            yield on, proxy
    finally:
        await proxy.stop()
