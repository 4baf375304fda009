"""One command that measures everything side by side: `make bench` or `python -m benchmarks.run`.

Starts a PostgreSQL of its own with default durability, takes the contenders in turn (A B C A B C)
so that a slow minute of the machine meets all of them, and writes JSON and markdown.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks import measure, pgbench
from benchmarks.database import Bench, Preload, start_server
from benchmarks.report import Figures, describe_machine, markdown
from benchmarks.workloads import Workload
from benchmarks.written import RESULTS, plain, say, write

PARTS = ("drain", "cold", "enqueue", "latency", "memory")

#: The naive worker and single commits are this many times slower: they get less to do, so that
#: every contender runs about as long.
SLOWER = 10


def main() -> int:
    options = _options()
    server = start_server()
    try:
        bench = Bench(server)
        figures = Figures(describe_machine(), bench.settings(), plain(options))
        for number in range(options.rounds):
            say(f"round {number + 1} of {options.rounds}")
            for part in options.only:
                _PARTS[part](bench, figures, options)
            _preloaded(bench, figures, options)
        if "memory" in options.only:
            figures.memory_mib = measure.memory_over(bench, options.memory_runs)
    finally:
        server.stop()
    write(figures, markdown(figures), options.out)
    return 0


def _drain(bench: Bench, figures: Figures, options: argparse.Namespace) -> None:
    for workload in Workload:
        full = Preload(options.runs // workload.steps, workload=workload)
        part = replace(full, pending=full.pending // SLOWER)
        for kind, preload in (("ours", full), ("pinned", full), ("naive", part)):
            drained = measure.drain(bench, kind, preload)
            figures.add(f"{workload} {kind}", drained.runs_per_second)
            figures.add(f"{workload} {kind} client cpu", drained.client_cpu)
            figures.add(f"{workload} {kind} server cpu", drained.server_cpu)
            figures.add(f"{workload} {kind} wal", drained.wal_bytes)
            figures.add(f"{workload} {kind} stored", drained.stored_bytes)
            say(f"{workload} {kind}: {drained.runs_per_second:,.0f} runs/s")
        if pgbench.find_pgbench(bench.server) is not None:
            _drain_with_pgbench(bench, figures, workload, full)


def _drain_with_pgbench(bench: Bench, figures: Figures, workload: Workload, full: Preload) -> None:
    for script in pgbench.drain_scripts(workload):
        wanted = full.pending if script.units > 1 else full.pending // SLOWER
        # Whole repetitions for every client, so that the last claim still finds its runs.
        whole = script.units * script.clients
        preload = replace(full, pending=max(1, wanted // whole) * whole)
        rate = measure.drain_with_pgbench(bench, script, preload)
        figures.add(f"{workload} {script.name}", rate)
        say(f"{workload} {script.name}: {rate:,.0f} runs/s")


def _cold(bench: Bench, figures: Figures, options: argparse.Namespace) -> None:
    for workload in Workload:
        preload = Preload(options.runs // workload.steps, workload=workload, analysed=False)
        rate = measure.drain(bench, "ours", preload).runs_per_second
        figures.add(f"{workload} cold", rate)
        say(f"{workload} cold: {rate:,.0f} runs/s")


def _enqueue(bench: Bench, figures: Figures, options: argparse.Namespace) -> None:
    figures.add_all("W3 ours", measure.enqueue_ours(bench, options.enqueues))
    figures.add_all("W3 naive", measure.enqueue_naive(bench, options.enqueues))
    if pgbench.find_pgbench(bench.server) is not None:
        figures.add_all("W3 pgbench", measure.enqueue_with_pgbench(bench, options.enqueues))
    say("W3 done")


def _latency(bench: Bench, figures: Figures, options: argparse.Namespace) -> None:
    values = measure.idle_latency(bench, options.samples)
    figures.add_all("W4", values)
    say(f"W4: {values['p50']:.2f} ms, commit pair {values['commit pair p50']:.2f} ms")


def _preloaded(bench: Bench, figures: Figures, options: argparse.Namespace) -> None:
    preloads = {
        "finished": Preload(options.runs, finished=options.preload_finished),
        "pending": Preload(options.preload_pending),
    }
    for name, preload in preloads.items():
        if getattr(options, f"preload_{name}"):
            rate = measure.drain(bench, "ours", preload).runs_per_second
            figures.add(f"W1 with {name}", rate)
            say(f"W1 with {name}: {rate:,.0f} runs/s")


_PARTS: dict[str, Callable[[Bench, Figures, argparse.Namespace], None]] = {
    "drain": _drain,
    "cold": _cold,
    "enqueue": _enqueue,
    "latency": _latency,
    "memory": lambda *_: None,  # once, after the rounds: it takes long and has no rival
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.run", description=__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=3, help="rounds of all contenders; the median counts")
    add("--runs", type=int, default=50_000, help="W1 runs of a round (W2: a tenth, as many steps)")
    add("--enqueues", type=int, default=2_000, help="W3 single enqueues (batch: 20 times)")
    add("--samples", type=int, default=200, help="W4 samples of a round")
    add("--memory-runs", type=int, default=200_000, help="runs of the memory test")
    add("--preload-finished", type=int, default=0, help="also W1 beside this many finished runs")
    add("--preload-pending", type=int, default=0, help="also W1 with a backlog of this many")
    add("--only", nargs="+", choices=PARTS, default=list(PARTS), help="a part of it")
    add("--out", type=Path, default=RESULTS, help="folder to write to")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
