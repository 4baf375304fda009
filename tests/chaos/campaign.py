"""A campaign of faults against a fleet at work: `make chaos`.

    python -m tests.chaos.campaign --seconds 300 --workers 2 --rate 10 --seed 7

It starts a PostgreSQL of its own, does one fault after the other, each kind as often as the others,
and holds what is left against the checker's rules. The exit code is 1 if one was violated.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import shutil
import sys
import tempfile
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncpg

from openworkflow.core.errors import BackendError
from tests.chaos import faults, shapes
from tests.chaos.checker import check
from tests.chaos.evidence import Evidence, Verdict
from tests.chaos.ground import Ground
from tests.chaos.load import Load
from tests.chaos.pooler import Pooler
from tests.chaos.pooler import program as pooler_program
from tests.chaos.proxy import Proxy
from tests.chaos.stage import Stage, stage
from tests.local_postgres import LocalPostgres, embedded_programs
from tools.test_programs import BIN

SETTINGS = {
    # Not off: an immediate stop is a crash of the server, and what it had confirmed must be there.
    "synchronous_commit": "on",
    # The machine itself does not crash.
    "fsync": "off",
    "max_connections": "60",
}
RECOVERY_SECONDS = 60.0
"""How long a run that is started after a fault is waited for."""
BUILDS = ("b1", "b2")
SETTLE_SECONDS = 90.0
"""How long the runs may take that are left at the end."""


@dataclass(frozen=True)
class Options:
    """How long, how much, and what; the same seed makes the same choices."""

    seconds: float = 180
    workers: int = 2
    rate: float = 6
    lease: float = 2
    seed: int = 0
    kinds: Sequence[str] = tuple(faults.FAULTS)
    together: bool = False
    """Whether each comes with another one, of those that leave the server as it is."""


@dataclass(slots=True)
class Report:
    """What a campaign came to."""

    options: Options
    evidence: Evidence
    verdict: Verdict
    started: Counter[str]
    refused: int
    recovery: Mapping[str, list[float]]
    """By kind: seconds from the end of a fault to the end of a run that was started then."""
    seconds: float

    def lines(self) -> Iterator[str]:
        """The report for people."""
        evidence, options = self.evidence, self.options
        done = Counter(fault.kind for fault in evidence.faults)
        yield (
            f"seed {options.seed}: {len(evidence.runs)} runs, {len(evidence.calls)} calls of steps,"
            f" {done.total()} faults of {len(done)} kinds in {self.seconds:.0f} s"
        )
        yield f"enqueues that the client was refused: {self.refused}"
        yield "runs: " + ", ".join(f"{name} {n}" for name, n in sorted(self.started.items()))
        yield "kind               faults  recovery median  max    stranded median  max (seconds)"
        for kind, count in sorted(done.items()):
            recovered = _middle_and_most(self.recovery.get(kind, []))
            yield f"{kind:18} {count:6}  {recovered}  {_middle_and_most(stranded(evidence, kind))}"
        yield f"calls excused, of processes that had been frozen: {self.verdict.excused}"
        yield f"calls repeated, of processes whose heartbeats came late: {self.verdict.starved}"
        yield f"violations: {len(self.verdict.violations)}"
        for each in self.verdict.violations[:50]:
            yield f"  {each.rule}: {each.job} {each.detail}"


def stranded(evidence: Evidence, kind: str) -> list[float]:
    """For each fault of that kind: until the last run of its process went on, in seconds."""
    calls, found = evidence.calls, []
    for fault in evidence.faults:
        if fault.kind != kind or not fault.pids:
            continue
        since, begin, end = (
            bisect_right(calls, at, key=lambda call: call.at)
            for at in (fault.begin - evidence.lease, fault.begin, fault.begin + RECOVERY_SECONDS)
        )
        last = {call.job: call.pid for call in calls[since:begin]}
        waiting = {job for job, pid in last.items() if pid in fault.pids}
        first: dict[str, float] = {}
        for call in calls[begin:end]:
            if call.job in waiting:
                first.setdefault(call.job, call.at - fault.begin)
        if first:
            found.append(max(first.values()))
    return found


def _middle_and_most(values: Sequence[float]) -> str:
    if not values:
        return f"{'-':>15}  {'-':>5}"
    ordered = sorted(values)
    return f"{ordered[len(ordered) // 2]:15.2f}  {ordered[-1]:5.2f}"


@dataclass
class Campaign:
    """Faults one after the other, a fleet that is healed in between, and runs all the while."""

    options: Options
    ground: Ground
    recovery: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    async def run(self) -> None:
        """Do faults until the time is over."""
        stage, options = self.ground.stage, self.options
        give_up = time.monotonic() + options.seconds
        await stage.fleet.start(options.workers)
        await self._recovered()
        waiting: list[str] = []
        while time.monotonic() < give_up:
            if not waiting:
                waiting = list(options.kinds)
                self.ground.chance.shuffle(waiting)
            kind = waiting.pop()
            both = [kind]
            if options.together:
                both.append(self.ground.chance.choice([k for k in faults.BESIDE if k != kind]))
            # Some need the client or a connection, which may be refused.
            with contextlib.suppress(BackendError, asyncpg.PostgresError, OSError):
                await asyncio.gather(*map(self._do, both))
                await stage.fleet.heal(options.workers)
                self.recovery[kind].append(await self._recovered())
                if "silence" in both:  # which lasts until the connections are given up
                    self._lengthen_silence()
            await stage.fleet.heal(options.workers)

    async def _do(self, kind: str) -> None:
        """Do one; what it is refused is no reason to leave another one undone."""
        with contextlib.suppress(BackendError, asyncpg.PostgresError, OSError):
            await faults.FAULTS[kind](self.ground)

    async def _recovered(self) -> float:
        """Seconds until a run that is started now has ended."""
        begun = time.monotonic()
        name = self.ground.stage.name()
        while time.monotonic() < begun + RECOVERY_SECONDS:
            with contextlib.suppress(BackendError, asyncpg.PostgresError, OSError):
                await self.ground.stage.enqueue(shapes.sequential, name=name, idempotency_key=name)
                await self._ended(name, begun + RECOVERY_SECONDS)
                break
            await asyncio.sleep(0.05)
        return time.monotonic() - begun

    def _lengthen_silence(self) -> None:
        done = self.ground.stage.faults
        for number in range(max(0, len(done) - 2), len(done)):
            if done[number].kind == "silence":
                done[number] = replace(done[number], end=time.monotonic())

    async def _ended(self, name: str, give_up: float) -> None:
        async with self.ground.admin() as connection:
            while time.monotonic() < give_up and not await connection.fetchval(
                "SELECT true FROM workflow_runs WHERE namespace_id = 'default'"
                " AND workflow_name = 'sequential' AND idempotency_key = $1"
                " AND completed_at IS NOT NULL",
                name,
            ):
                await asyncio.sleep(0.02)


async def run(options: Options, folder: Path) -> Report:
    """A whole campaign; the ledger and the logs of the workers are left in `folder`."""
    programs = embedded_programs()
    server = LocalPostgres(programs, lib_dir=programs.parent / "lib", settings=SETTINGS).start()
    proxy, direct = Proxy(server.port), Proxy(server.port)
    servers: list[LocalPostgres] = [server]
    pooler = Pooler(0, folder) if pooler_program() is not None else None
    try:
        await proxy.start()
        await direct.start()
        more: dict[str, Any] = {"builds": BUILDS, "clock": _clock(options)}
        if pooler is not None:
            pooler.upstream_port = proxy.port
            await pooler.start()
            more["pooled_url"] = _url(pooler.port)
        async with stage(
            *(_url(direct.port), folder),
            lease=options.lease,
            workers_url=_url(proxy.port),
            rest=0.2,
            **more,
        ) as on:
            chance = random.Random(options.seed)
            ground = Ground(server, proxy, direct, on, chance, pooler, servers)
            return await _on(on, ground, options)
    finally:
        if pooler is not None:
            await pooler.stop()
        await proxy.stop()
        await direct.stop()
        _stop(servers, folder)


def _stop(servers: Sequence[LocalPostgres], folder: Path) -> None:
    for number, each in enumerate(servers):
        if each.root.exists():
            shutil.copy(each.root / "log", folder / f"postgres-{number}.log")
        each.stop()


def _url(port: int) -> str:
    return f"postgresql://postgres@127.0.0.1:{port}/postgres"


def _clock(options: Options) -> str:
    """The library that lets clocks jump, where it is needed and there."""
    found = next(iter((BIN.parent).glob("*faketime/usr/lib/*/faketime/libfaketime.so.1")), None)
    return str(found) if found is not None and "clock-jump" in options.kinds else ""


async def _on(on: Stage, ground: Ground, options: Options) -> Report:
    begun = time.monotonic()
    load = Load(on, random.Random(options.seed + 1), options.rate)
    over = asyncio.Event()
    campaign = Campaign(options, ground)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(load.run(over))
        try:
            await campaign.run()
        finally:
            over.set()
    ground.proxy.keeps = False
    ground.proxy.forget()
    evidence = await on.evidence(SETTLE_SECONDS)
    seconds = time.monotonic() - begun
    return Report(
        options, evidence, check(evidence), load.started, load.refused, campaign.recovery, seconds
    )


def main(arguments: Sequence[str]) -> int:
    """Run a campaign and print its report."""
    parser = argparse.ArgumentParser(prog="make chaos CHAOS_ARGS=...", description=__doc__)
    parser.add_argument("--seconds", type=float, default=Options.seconds)
    parser.add_argument("--workers", type=int, default=Options.workers)
    parser.add_argument("--rate", type=float, default=Options.rate, help="runs started a second")
    parser.add_argument("--lease", type=float, default=Options.lease, help="seconds")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--kinds", default="", help="a,b: these faults only")
    parser.add_argument("--together", action="store_true", help="two faults at a time")
    told = parser.parse_args(arguments)
    kinds: list[str] = told.kinds.split(",") if told.kinds else list(faults.FAULTS)
    limits = (told.seconds, told.workers, told.rate, told.lease, told.seed)
    options = Options(*limits, kinds, told.together)
    print(f"seed {options.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="openworkflow-chaos-"))
    report = asyncio.run(run(options, folder))
    print("\n".join(report.lines()))
    (folder / "faults.txt").write_text("\n".join(map(str, report.evidence.faults)))
    if report.verdict.violations:
        print(f"the ledger and the logs are in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
