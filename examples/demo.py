"""What `make demo` shows: thirty orders, a worker killed halfway, and every run finished.

A PostgreSQL of its own in a temporary folder, the workflow of `order.py`, and a worker in a process
of its own. At the half of the orders that process gets a SIGKILL; a second worker takes over. Each
call of a step function leaves a line in a ledger, so at the end it can be counted what ran twice.
Exits 0 only if everything was as promised, and leaves nothing behind.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from order import Item, Order, Receipt, order
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from openworkflow import BackendPostgres, OpenWorkflow, RunHandle, RunStatus
from openworkflow.client import RunDetails
from openworkflow.core.step_attempt import StepAttempt, StepStatus
from openworkflow.embedded import EmbeddedPostgres

ORDERS = 30
CONCURRENCY = 8
LEASE_SECONDS = 2
"""How long a killed worker's runs stay claimed; 30 s by default."""
LIMIT_SECONDS = 60

Calls = Counter[tuple[int, str]]
"""How often something happened, by order and step."""


async def main() -> int:
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="openworkflow-demo-") as folder:
        console.print("Starting a PostgreSQL in a temporary folder …")
        with EmbeddedPostgres(Path(folder) / "postgres") as url:
            async with asyncio.timeout(LIMIT_SECONDS):
                return await show(console, url, Path(folder))


async def show(console: Console, url: str, folder: Path) -> int:
    """The demonstration itself; returns the exit code."""
    backend = await BackendPostgres.connect(url)
    ow, ledger = OpenWorkflow(backend), folder / "ledger"
    ledger.touch()
    runs = await ow.run_workflows(order, orders(), idempotency_keys=[str(n) for n in numbers()])
    console.print(f"Enqueued {len(runs)} orders. Their steps are in examples/order.py.\n")
    with contextlib.ExitStack() as workers, progress(console) as bar:
        first = workers.enter_context(worker(url, ledger, folder / "first.log"))
        await follow(console, bar, backend, ledger, first, until=ORDERS // 2)
        first.kill()
        first.wait()
        at_kill = await look(ow, runs, ledger)
        console.print(f"[bold red]SIGKILL[/] to worker {first.pid}: {summary(at_kill.details)}.")
        second = workers.enter_context(worker(url, ledger, folder / "second.log"))
        console.print(f"Worker {second.pid} starts; the leases end within {LEASE_SECONDS} s.")
        await follow(console, bar, backend, ledger, second, until=ORDERS)
        second.terminate()
        second.wait()
    at_end = await look(ow, runs, ledger)
    receipt = await runs[0].result(timeout="5s")
    await backend.stop()
    console.print()
    kept = verdict(console, at_kill, at_end)
    interrupted = at_kill.interrupted()
    console.print(runs_table([d for d in at_end.details if d.run.id in interrupted]))
    console.print(steps_table(most_eventful(at_end.details)))
    console.print(f"The first order returned {receipt!r}\n", soft_wrap=True)
    console.print("[bold green]As promised.[/]" if kept else "[bold red]NOT as promised.[/]")
    return 0 if kept else 1


def numbers() -> range:
    return range(1, ORDERS + 1)


def orders() -> list[Order]:
    lamp, chair = Item("lamp", 1, Decimal("19.90")), Item("chair", 2, Decimal("74.50"))
    return [Order(n, f"customer {n}", [lamp, chair][: 1 + n % 2]) for n in numbers()]


# -- workers ------------------------------------------------------------------------------------


@contextlib.contextmanager
def worker(url: str, ledger: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker as in production: `openworkflow worker`, configured by its environment."""
    environment = {name: v for name, v in os.environ.items() if not name.startswith("OPENWORKFLOW")}
    environment |= {
        "DATABASE_URL": url,
        "OPENWORKFLOW_CONCURRENCY": str(CONCURRENCY),
        "OPENWORKFLOW_LEASE_SECONDS": str(LEASE_SECONDS),
        "OPENWORKFLOW_DRAIN_SECONDS": "5",
        "OPENWORKFLOW_PORT": "0",
        "ORDER_LEDGER": str(ledger),
    }
    command = [sys.executable, "-m", "openworkflow", "worker", "order.py"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=Path(__file__).parent,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for the demo, which then ends its workers
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.returncode not in (0, -signal.SIGKILL):
            sys.stderr.write(log.read_text())


async def follow(
    console: Console,
    bar: Progress,
    backend: BackendPostgres,
    ledger: Path,
    worker: subprocess.Popen[bytes],
    *,
    until: int,
) -> None:
    """Show progress until so many runs have succeeded."""
    succeeded, told = 0, time.monotonic()
    while succeeded < until:
        if worker.poll() is not None:
            raise SystemExit(f"error: worker {worker.pid} ended by itself ({worker.returncode})")
        await asyncio.sleep(0.05)
        counts = await backend.count_runs()
        succeeded, calls = counts[RunStatus.SUCCEEDED], read(ledger).total()
        running, pending = counts[RunStatus.RUNNING], counts[RunStatus.PENDING]
        text = f"{running} running, {pending} waiting, {calls} steps called"
        bar.update(bar.task_ids[0], completed=succeeded, state=text)
        if not console.is_terminal and time.monotonic() - told >= 1:
            console.print(f"  {succeeded:2} of {ORDERS} orders done, {text}")
            told = time.monotonic()


def progress(console: Console) -> Progress:
    bar = Progress(
        TextColumn("orders"),
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[state]}"),
        console=console,
        disable=not console.is_terminal,
    )
    bar.add_task("orders", total=ORDERS, state="")
    return bar


# -- what happened, and what was recorded -------------------------------------------------------


@dataclass(frozen=True)
class Moment:
    """The runs as PostgreSQL has them, beside the ledger of what really ran."""

    details: list[RunDetails]
    calls: Calls

    def attempts(self) -> Calls:
        """Attempts that were recorded with their end."""
        return self._count(lambda s: s.status is not StepStatus.RUNNING and not cut_short(s))

    def successes(self) -> Calls:
        """Steps that were recorded with their result."""
        return self._count(lambda s: s.status is StepStatus.SUCCEEDED)

    def interrupted(self) -> set[object]:
        """The runs that had begun and not ended."""
        return {d.run.id for d in self.details if d.steps and not d.run.status.finished}

    def _count(self, wanted: Callable[[StepAttempt], bool]) -> Calls:
        return Counter(
            (d.run.input["number"], s.step_name)
            for d in self.details
            for s in d.steps
            if s.kind == "run" and wanted(s)
        )


async def look(ow: OpenWorkflow, runs: Iterable[RunHandle[Receipt]], ledger: Path) -> Moment:
    return Moment([await ow.get_run(run.id) for run in runs], read(ledger))


def read(ledger: Path) -> Calls:
    lines = [line.split() for line in ledger.read_text().splitlines()]
    return Counter((int(number), step) for number, step, _pid in lines)


def cut_short(step: StepAttempt) -> bool:
    """Ended by the next worker, because the one that ran it died."""
    return bool((step.context or {}).get("interrupted"))


def verdict(console: Console, at_kill: Moment, at_end: Moment) -> bool:
    """Hold what the ledger says against what was recorded; print it, and return whether it fits."""
    done = sum(d.run.status is RunStatus.SUCCEEDED for d in at_end.details)
    recorded = at_kill.successes()
    again = sum(at_end.calls[key] - at_kill.calls[key] for key in recorded)
    in_flight = at_kill.calls - at_kill.attempts()
    unrecorded = at_end.calls - at_end.attempts()
    unexplained = (unrecorded - in_flight).total() + (at_end.attempts() - at_end.calls).total()
    resumed = len(at_kill.interrupted())
    checks = [
        (done == ORDERS, f"{done} of {ORDERS} runs succeeded."),
        (resumed > 0, f"{resumed} of them had begun before the kill, and went on after it."),
        (again == 0, f"{again} of the {recorded.total()} steps recorded by then ran again."),
        (
            unexplained == 0,
            f"{in_flight.total()} calls were in flight at the kill, and {unrecorded.total()} of "
            "them left no record: those steps were called again (at least once is the promise). "
            f"{unexplained} other calls lack a record.",
        ),
    ]
    for kept, sentence in checks:
        console.print("[green]✓[/]" if kept else "[bold red]✗[/]", sentence)
    console.print()
    return all(kept for kept, _ in checks)


# -- tables -------------------------------------------------------------------------------------


def summary(details: list[RunDetails]) -> str:
    counts = Counter(str(d.run.status) for d in details)
    return ", ".join(f"{count} runs {status}" for status, count in counts.most_common())


def runs_table(details: list[RunDetails]) -> Table:
    table = Table("order", "status", "claims", "recorded attempts", "seconds", "total")
    table.title = "The runs that were interrupted (workflow_runs)"
    for d in details:
        assert d.run.completed_at is not None
        seconds = (d.run.completed_at - d.run.created_at).total_seconds()
        table.add_row(
            str(d.run.input["number"]),
            str(d.run.status),
            str(d.run.claim_no),
            str(len(d.steps)),
            f"{seconds:.1f}",
            (d.run.output or {}).get("total", "-"),
        )
    return table


def most_eventful(details: list[RunDetails]) -> RunDetails:
    """The run with the most claims, and among those the most attempts."""
    return max(details, key=lambda d: (d.run.claim_no, len(d.steps)))


def steps_table(details: RunDetails) -> Table:
    table = Table("at", "step", "attempt", "claim", "status", "took", "recorded")
    table.title = f"The steps of order {details.run.input['number']} (step_attempts)"
    for s in details.steps:
        took = (s.completed_at - s.created_at).total_seconds() if s.completed_at else 0.0
        recorded = s.error["message"] if s.error else s.output
        table.add_row(
            f"{(s.created_at - details.run.created_at).total_seconds():.2f} s",
            s.step_name,
            str(s.attempt),
            str(s.claim_no),
            str(s.status),
            f"{took:.2f} s",
            "" if recorded is None else str(recorded)[:30],
        )
    return table


def raise_interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, raise_interrupt)  # so that a stopped demo cleans up too
    try:
        sys.exit(asyncio.run(main()))
    except KeyboardInterrupt:
        sys.exit("interrupted")
