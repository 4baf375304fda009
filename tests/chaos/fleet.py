"""The worker processes of a campaign, and what may be done to them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.evidence import Exit

ROOT = Path(__file__).parents[2]
LEAVE_SECONDS = 20.0
"""How long a worker may take to end after SIGTERM: its drain of three seconds, and more."""
NOTHING: frozenset[int] = frozenset()
COULD_NOT_START = frozenset({1})
"""The database went away before a worker had done anything: what starts it starts it again."""


@dataclass
class Fleet:
    """Processes of tests/chaos/worker.py; the ledger and the logs are in `folder`.

    Every second one takes `pooled_url`, if there is one, and each of `builds` has as many.
    """

    url: str
    folder: Path
    lease: float
    rest: float = 0.0
    defect: str = ""
    pooled_url: str = ""
    builds: Sequence[str] = ()
    clock: str = ""
    """The library that lets the clocks of the workers jump (libfaketime), or none."""
    build_of: dict[int, str] = field(default_factory=dict)
    """By process, those that ended included."""
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)
    exits: list[Exit] = field(default_factory=list)

    async def start(self, count: int = 1) -> Sequence[asyncio.subprocess.Process]:
        """Add so many workers."""
        started = []
        for _ in range(count):
            started.append(await self._spawn())
            self.processes.append(started[-1])
        return started

    async def kill(self, process: asyncio.subprocess.Process) -> None:
        """SIGKILL."""
        if process.returncode is None:
            process.kill()
        await self._over(process, frozenset({-signal.SIGKILL}))

    async def terminate(self, process: asyncio.subprocess.Process) -> float:
        """SIGTERM; how many seconds it took to end. One that does not end is killed, and told."""
        begun = asyncio.get_running_loop().time()
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
        # One that has not begun yet dies of it, as any Python does.
        worked = self._has_worked(process)
        await self._over(process, frozenset({0} if worked else {0, -signal.SIGTERM}))
        return asyncio.get_running_loop().time() - begun

    async def freeze(self, process: asyncio.subprocess.Process, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later."""
        process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            process.send_signal(signal.SIGCONT)

    async def heal(self, count: int) -> None:
        """Start workers until there are so many; those that ended by themselves are noted."""
        for process in [each for each in self.processes if each.returncode is not None]:
            expected = NOTHING if self._has_worked(process) else COULD_NOT_START
            await self._over(process, expected)
        await self.start(count - len(self.processes))

    async def stop(self) -> None:
        """SIGTERM to all of them."""
        await asyncio.gather(*(self.terminate(process) for process in list(self.processes)))

    def set_clock(self, difference: str) -> None:
        """Have the clocks of all workers differ from the machine's, such as +3h."""
        (self.folder / "clock").write_text(difference)

    def abandon(self) -> None:
        """Leave none behind, whatever happened."""
        for process in self.processes:
            if process.returncode is None:
                process.kill()

    def _has_worked(self, process: asyncio.subprocess.Process) -> bool:
        ledger = self.folder / f"{process.pid}.jsonl"
        return ledger.exists() and ledger.stat().st_size > 0

    async def _over(self, process: asyncio.subprocess.Process, expected: frozenset[int]) -> None:
        code = await process.wait()
        self.processes.remove(process)
        self.exits.append(Exit(process.pid, code, expected))

    async def _spawn(self) -> asyncio.subprocess.Process:
        build = min(self.builds, key=self._workers_of, default="")
        pooled = self.pooled_url and len(self.build_of) % 4 in (1, 2)
        url = self.pooled_url if pooled else self.url
        log = os.open(self.folder / "workers.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.chaos.worker"),
                *(url, str(self.folder), str(self.lease), str(self.rest), build),
                env=self._environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        finally:
            os.close(log)
        self.build_of[process.pid] = build
        return process

    def _workers_of(self, build: str) -> int:
        return sum(self.build_of[process.pid] == build for process in self.processes)

    def _environment(self) -> dict[str, str]:
        code = os.pathsep.join([str(ROOT), str(ROOT / "worker")])
        environment = {**os.environ, "PYTHONPATH": code, "CHAOS_BREAK": self.defect}
        if self.clock:
            self.set_clock("+0")
            environment |= {
                "LD_PRELOAD": self.clock,
                "FAKETIME_TIMESTAMP_FILE": str(self.folder / "clock"),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        return environment
