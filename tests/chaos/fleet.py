"""The worker processes of a campaign, and what may be done to them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.checker import Exit

ROOT = Path(__file__).parents[2]
LEAVE_SECONDS = 20.0
"""How long a worker may take to end after SIGTERM: its drain of three seconds, and more."""
NOTHING: frozenset[int] = frozenset()
COULD_NOT_START = frozenset({1})
"""The database went away before a worker had done anything: what starts it starts it again."""


@dataclass
class Fleet:
    """Processes of tests/chaos/worker.py; the ledger and the logs are in `folder`."""

    url: str
    folder: Path
    lease: float
    rest: float = 0.0
    defect: str = ""
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)
    exits: list[Exit] = field(default_factory=list)

    async def start(self, count: int = 1) -> Sequence[asyncio.subprocess.Process]:
        """Add so many workers."""
        started = [await self._spawn() for _ in range(count)]
        self.processes += started
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
        await self._over(process, frozenset({0}))
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
            worked = (self.folder / f"{process.pid}.jsonl").stat().st_size > 0
            await self._over(process, NOTHING if worked else COULD_NOT_START)
        await self.start(count - len(self.processes))

    async def stop(self) -> None:
        """SIGTERM to all of them."""
        await asyncio.gather(*(self.terminate(process) for process in list(self.processes)))

    def abandon(self) -> None:
        """Leave none behind, whatever happened."""
        for process in self.processes:
            if process.returncode is None:
                process.kill()

    async def _over(self, process: asyncio.subprocess.Process, expected: frozenset[int]) -> None:
        code = await process.wait()
        self.processes.remove(process)
        self.exits.append(Exit(process.pid, code, expected))

    async def _spawn(self) -> asyncio.subprocess.Process:
        code = [str(ROOT), str(ROOT / "worker")]
        log = os.open(self.folder / "workers.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.chaos.worker",
                self.url,
                str(self.folder),
                str(self.lease),
                str(self.rest),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(code), "CHAOS_BREAK": self.defect},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        finally:
            os.close(log)
