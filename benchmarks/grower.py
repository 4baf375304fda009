"""A worker for `benchmarks.growth` in a process of its own: it tells how far it is when asked.

    python -m benchmarks.grower URL STEPS

It says `ready` once it is connected, begins at the first line that it reads, answers each further
one with its count of runs and its CPU seconds, and ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import ours
from openworkflow import Step, workflow

ROOT = Path(__file__).parents[1]
PATIENCE = 120


@dataclass(frozen=True, slots=True)
class Told:
    """How far a worker is."""

    runs: int
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Grower:
    """The process, as whoever measures sees it."""

    process: Process

    @classmethod
    @asynccontextmanager
    async def started(cls, url: str, steps: int) -> AsyncIterator[Grower]:
        """A worker that is connected; ended with the block."""
        command = (sys.executable, "-m", "benchmarks.grower", url, str(steps))
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=PIPE, stdout=PIPE)
        try:
            grower = cls(process)
            assert await grower._line() == "ready"
            yield grower
        finally:
            assert process.stdin is not None
            process.stdin.close()
            await asyncio.wait_for(process.wait(), PATIENCE)

    async def begin(self) -> None:
        """Have it start its worker."""
        await self.told()

    async def told(self) -> Told:
        """Ask how far it is."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        return Told(**json.loads(await self._line()))

    async def _line(self) -> str:
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), PATIENCE)
        return line.decode().strip()


async def serve(url: str, steps: int) -> None:
    """Do as the lines of the standard input say."""
    runs = 0

    async def give(value: Any) -> Any:
        return value

    @workflow(name="echo")
    async def echo(input: Any, step: Step) -> int:
        nonlocal runs
        for number in range(steps):
            await step.run(f"step-{number}", give, input)
        runs += 1
        return runs

    async with ours.connected(url) as client:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        async with ours.serving(client, [echo]):
            while True:
                told = {"runs": runs, "cpu_seconds": time.process_time()}
                print(json.dumps(told), flush=True)
                if not await asyncio.to_thread(sys.stdin.readline):
                    return


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1], int(sys.argv[2])))
