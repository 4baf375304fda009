"""What a driver says and hears: one peer in a process of its own, in an environment of its own.

Nothing but the standard library is imported here, since each peer's environment has only that
peer. A driver is told what to do by its arguments:

    setup URL                           make the peer's tables in an empty database
    enqueue URL WORKFLOW FORM COUNT     FORM: single, concurrent or batch
    work URL RUNS                       serve all workflows; `called` after RUNS runs (0: never)
    call URL WORKFLOW CALLERS SAMPLES SECONDS
                                        milliseconds from enqueue to result: one caller with a
                                        pause before each call, or many without

and speaks lines of JSON behind an `@`, so that what a library prints is not taken for its word:
`ready`, then it waits for a line; `first` at the first step's call, `called` after the last run's;
`spent` at the end. What is measured is thus the same for every peer: from the first call of a step
to the last commit, which whoever started the driver sees in the tables.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

#: Steps of a run, by the name of its workflow.
STEPS = {"one-step": 1, "three-steps": 3, "nine-steps": 9, "ten-steps": 10}

#: Idle means that nothing is in flight any more: seconds before the call of a single caller.
PAUSE = 0.02


class Tally:
    """Counts the steps and runs that were called; safe to use from threads."""

    def __init__(self, runs: int) -> None:
        self.steps = 0
        self.runs = 0
        self._expected = runs
        self._lock = threading.Lock()
        self._cpu = time.process_time()

    def step(self) -> None:
        """A step's function was called."""
        with self._lock:
            self.steps += 1
            if self.steps == 1:
                self._cpu = time.process_time()
                say("first", at=time.time())

    def run(self) -> None:
        """A workflow's function, or the function of a job, is at its last line."""
        with self._lock:
            self.runs += 1
            if self.runs == self._expected:
                say("called")

    def cpu_seconds(self) -> float:
        """CPU of this process since the first step."""
        return time.process_time() - self._cpu


@dataclass(frozen=True, slots=True)
class Enqueuer:
    """How a peer's runs are enqueued: one by the caller of that number, and many in one call."""

    one: Callable[[int], Awaitable[object]]
    many: Callable[[int], Awaitable[object]] | None
    callers: int = 100


class Peer(Protocol):
    """What the driver of a peer provides."""

    async def set_up(self, url: str) -> None:
        """Make the tables, and whatever else is made once for a database."""

    def enqueuing(self, url: str, workflow: str) -> AbstractAsyncContextManager[Enqueuer]:
        """A connected caller."""

    def serving(self, url: str, tally: Tally) -> AbstractAsyncContextManager[None]:
        """A worker that serves all workflows, or the one job, as long as the block lasts."""

    def calling(
        self, url: str, workflow: str
    ) -> AbstractAsyncContextManager[Callable[[int], Awaitable[object]]]:
        """Connected callers: each call, with its caller's number, waits for the end of one run."""


def say(what: str, **more: object) -> None:
    """One line for whoever started this process."""
    print("@" + json.dumps({"said": what, **more}), flush=True)


async def main(peer: Peer, role: str, url: str, *arguments: str) -> None:
    """Do what the arguments say."""
    if role == "setup":
        await peer.set_up(url)
        say("spent")
    elif role == "enqueue":
        workflow, form, count = arguments
        await enqueue(peer, url, workflow, form, int(count))
    elif role == "work":
        await work(peer, url, int(arguments[0]))
    elif role == "call":
        workflow, callers, samples, seconds = arguments
        await call(peer, url, workflow, int(callers), int(samples), float(seconds))
    else:
        msg = f"a driver knows setup, enqueue, work and call, not {role}"
        raise SystemExit(msg)


async def enqueue(peer: Peer, url: str, workflow: str, form: str, count: int) -> None:
    """Enqueue `count` runs in one of the forms."""
    async with peer.enqueuing(url, workflow) as enqueuer:
        await told_to_begin()
        started, cpu = time.perf_counter(), time.process_time()
        if form == "batch":
            assert enqueuer.many is not None
            for first in range(0, count, 1000):
                await enqueuer.many(min(1000, count - first))
        else:
            await share_out(enqueuer, 1 if form == "single" else enqueuer.callers, count)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    say("spent", seconds=seconds, cpu_seconds=cpu_seconds)


async def share_out(enqueuer: Enqueuer, callers: int, count: int) -> None:
    """`count` calls by that many callers, each of which makes its calls one after the other."""

    async def one_caller(number: int) -> None:
        for _ in range(number, count, callers):
            await enqueuer.one(number)

    await asyncio.gather(*(one_caller(number) for number in range(callers)))


async def work(peer: Peer, url: str, runs: int) -> None:
    """Serve until told to end."""
    tally = Tally(runs)
    async with peer.serving(url, tally):
        await told_to_begin()
        cpu_seconds = tally.cpu_seconds()
    say("spent", cpu_seconds=cpu_seconds, steps=tally.steps, runs=tally.runs)


async def call(
    peer: Peer, url: str, workflow: str, callers: int, samples: int, seconds: float
) -> None:
    """Milliseconds of each call, at most so many of them or for so long, the first ones apart."""
    milliseconds: list[float] = []
    warm_up = min(20 * callers, samples // 2)
    async with peer.calling(url, workflow) as one:
        await told_to_begin()
        started = time.perf_counter()

        async def one_caller(number: int) -> None:
            while len(milliseconds) < warm_up + samples and time.perf_counter() < started + seconds:
                if callers == 1:
                    await asyncio.sleep(PAUSE)
                begun = time.perf_counter()
                await one(number)
                milliseconds.append((time.perf_counter() - begun) * 1000)

        await asyncio.gather(*map(one_caller, range(callers)))
        rate = len(milliseconds) / (time.perf_counter() - started)
    enough = len(milliseconds) >= warm_up + samples
    say(
        "spent",
        milliseconds=milliseconds[warm_up if enough else len(milliseconds) // 4 :],
        rate=rate,
    )


async def told_to_begin() -> None:
    """Say that this process is ready, and wait for a line, or for the end of the input."""
    say("ready")
    await asyncio.to_thread(sys.stdin.readline)
