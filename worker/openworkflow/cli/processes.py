"""`openworkflow worker --processes N`: several worker processes behind one command.

One event loop uses one core. This runs as many as there are cores, and is to Kubernetes what one of
them is: one port with the metrics of all, ready when all are, one drain. What one process dies of
costs the others nothing; it is started again.
"""

import asyncio
import contextlib
import http.client
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from openworkflow.telemetry.gathered import Gathered
from openworkflow.worker.http import DEFAULT_PORT, HealthServer

logger = logging.getLogger(__name__)

MOST_PROCESSES = 64
LOOPBACK = "127.0.0.1"
POLL_SECONDS = 1.0
ANSWER_SECONDS = 5.0
"""A probe of a process has this long."""
SCRAPE_SECONDS = 1.0
"""A process that blocks for longer is missing from a scrape; probes wait as long for it."""
SILENT_SECONDS = 10.0
"""A process that has told nothing for so long counts as hanging."""
PAUSES = 1.0, 2.0, 5.0, 15.0, 30.0
"""Seconds before a process that died is started again, each time that it dies young."""
YOUNG_SECONDS = 60.0
LEAVE_SECONDS = 30.0
"""After the drain: a process that has not ended by then is killed."""

Answer = tuple[bool, str]


def shares(total: int, processes: int) -> list[int]:
    """How many of the slots each process has."""
    each, left = divmod(total, processes)
    return [each + (number < left) for number in range(processes)]


@dataclass(slots=True)
class Member:
    """One of the processes, and what it answered last."""

    name: str
    process: asyncio.subprocess.Process
    line: socket.socket
    """The process tells its port over it; whose other end is closed knows that the other died."""
    port: int | None = None
    """None until it serves."""
    ready: Answer = (False, "starting")
    live: Answer = (True, "starting")
    heard_at: float = field(default_factory=time.monotonic)

    def lives(self) -> Answer:
        """Whether it lives, as far as it has told."""
        silent = time.monotonic() - self.heard_at
        if self.port is not None and silent > SILENT_SECONDS:
            return False, f"has not answered for {silent:.0f} s"
        return self.live


class Processes:
    """Keeps `commands` running, one process each, until a signal comes; then drains them."""

    def __init__(
        self, commands: Sequence[Sequence[str]], environ: Mapping[str, str], drain_seconds: float
    ) -> None:
        self._commands = commands
        self._environ = dict(environ)
        self._limit = drain_seconds + LEAVE_SECONDS
        self._members: dict[int, Member] = {}
        self._stopping, self._may_follow = asyncio.Event(), asyncio.Event()
        self._askers = ThreadPoolExecutor(len(commands), "openworkflow scrape")

    async def run(self, port: int | None) -> int:
        """The exit code: that of the process that could not begin, or the highest of a drain."""
        registry = CollectorRegistry()
        registry.register(Gathered(self._texts))
        served = HealthServer(
            DEFAULT_PORT if port is None else port,
            registry,
            live=self.live,
            ready=self.ready,
            elsewhere=port is None,
        )
        logger.info("metrics and health on port %d", served.start())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._drain)
        helping = [loop.create_task(self._poll()), loop.create_task(self._kill_what_stays())]
        try:
            return max(await asyncio.gather(*map(self._keep, range(len(self._commands)))))
        finally:
            for task in helping:
                task.cancel()
            served.stop()
            self._askers.shutdown(wait=False, cancel_futures=True)

    def live(self) -> Answer:
        """Whether all live; one that hangs is the command's fault, as it would be by itself."""
        return self._all([(member, member.lives()) for member in self._known()], "live")

    def ready(self) -> Answer:
        """Whether all are ready."""
        if self._stopping.is_set():
            return False, "draining"
        known = self._known()
        if len(known) < len(self._commands):
            return False, "a worker process is being started"
        return self._all([(member, member.ready) for member in known], "ready")

    @staticmethod
    def _all(answers: Sequence[tuple[Member, Answer]], good: str) -> Answer:
        bad = [f"process {member.name}: {why}" for member, (is_good, why) in answers if not is_good]
        return not bad, "; ".join(bad) or good

    def _known(self) -> list[Member]:
        return list(self._members.values())  # probes come in another thread

    async def _keep(self, number: int) -> int:
        """Have this process run until the drain; its last exit code."""
        died_young = 0
        if number > 0:  # the first shows whether any can begin: one migrates, and one complains
            await self._may_follow.wait()
        while not self._stopping.is_set():
            started_at = time.monotonic()
            code, served = await self._once(number)
            if self._stopping.is_set():
                return max(code, 0)
            if not served and not died_young:
                self._drain()  # what it said is on the screen: a mistake that all would repeat
                return max(code, 1)
            is_young = time.monotonic() - started_at < YOUNG_SECONDS
            pause = PAUSES[min(died_young, len(PAUSES) - 1)] if is_young else PAUSES[0]
            died_young = died_young + 1 if is_young else 1
            logger.error(
                "worker process %d ended (%s) and starts again in %.0f s; its runs go on elsewhere "
                "when their leases have run out",
                number,
                _cause(code),
                pause,
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
        return 0

    async def _once(self, number: int) -> tuple[int, bool]:
        """Run a process once: its exit code, and whether it came to serve."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *(*self._commands[number], "--report-to", str(theirs.fileno())),
                    env=self._environ,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,  # Ctrl-C comes to us alone, and is passed on once
                )
            member = self._members[number] = Member(str(number), process, ours)
            if self._stopping.is_set():
                process.terminate()
            try:
                await self._hear_port(member)
                return await process.wait(), member.port is not None
            finally:
                del self._members[number]

    async def _hear_port(self, member: Member) -> None:
        loop, told = asyncio.get_running_loop(), b""
        while not told.endswith(b"\n"):
            with contextlib.suppress(ConnectionError):
                if chunk := await loop.sock_recv(member.line, 64):
                    told += chunk
                    continue
            return  # it has ended
        member.port, member.heard_at = int(told), time.monotonic()
        self._may_follow.set()

    def _drain(self) -> None:
        """Pass a signal on; a second one cuts the drain of each short, as it does of one."""
        self._stopping.set()
        self._may_follow.set()
        for member in self._known():
            with contextlib.suppress(ProcessLookupError):
                member.process.terminate()

    async def _kill_what_stays(self) -> None:
        await self._stopping.wait()
        await asyncio.sleep(self._limit)
        for member in self._known():
            logger.error("worker process %s does not end, and is killed", member.name)
            with contextlib.suppress(ProcessLookupError):
                member.process.kill()

    async def _poll(self) -> None:
        while True:
            await asyncio.gather(*map(self._probe, self._known()))
            await asyncio.sleep(POLL_SECONDS)

    async def _probe(self, member: Member) -> None:
        if member.port is None:
            return
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                live, ready = [await _answer(member.port, path) for path in ("/livez", "/readyz")]
        except (TimeoutError, OSError, ValueError):
            return  # how long it has been silent says it
        member.live, member.ready, member.heard_at = live, ready, time.monotonic()

    def _texts(self) -> dict[str, str]:
        """The metrics of each; called in the thread of the health server."""
        asked = {
            member.name: self._askers.submit(_scrape, member.port)
            for member in self._known()
            if member.port is not None
        }
        texts = {}
        for name, answer in asked.items():
            with contextlib.suppress(OSError, http.client.HTTPException, TimeoutError):
                texts[name] = answer.result(SCRAPE_SECONDS)
        return texts


def tell(line: int, port: int) -> None:
    """In such a process: say where it serves. It drains once nobody is there to hear of it."""
    os.set_inheritable(line, False)  # or what a step starts would hold it
    ours = socket.socket(fileno=line)
    ours.sendall(b"%d\n" % port)

    def wait_for_the_end() -> None:
        with contextlib.suppress(OSError):
            ours.recv(1)  # nothing is ever sent
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_for_the_end, name="openworkflow parent", daemon=True).start()


def command(*arguments: str) -> list[str]:
    """The command line of a worker process."""
    return [sys.executable, "-m", "openworkflow", "worker", *arguments]


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


async def _answer(port: int, path: str) -> Answer:
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {LOOPBACK}\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    status = int(head.split(maxsplit=2)[1])
    return status == 200, body.decode().strip()


def _scrape(port: int) -> str:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=SCRAPE_SECONDS)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
