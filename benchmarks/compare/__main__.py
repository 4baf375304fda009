"""One command that sets up the peers and measures them: `python -m benchmarks.compare`.

Starts a PostgreSQL of its own with default durability, installs each peer into an environment of
its own (a folder `.bench`, kept for the next time), lets them take turns, and writes JSON and
markdown. A peer that cannot be installed is named as not tried. The exit code is 1 if a turn
failed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import measure, pgbench
from benchmarks.compare import measures
from benchmarks.compare.drivers.protocol import STEPS
from benchmarks.compare.install import Installed, NotInstalled, install, peers_folder
from benchmarks.compare.peers import CONTENDERS, NEVER_TRIED, OURS, find
from benchmarks.compare.report import LIMIT, Comparison, markdown
from benchmarks.compare.rounds import PARTS, Turn, turns
from benchmarks.database import Bench, Preload, start_server
from benchmarks.report import describe_machine
from benchmarks.workloads import Workload
from benchmarks.written import RESULTS, plain, say, write

WORKFLOWS = {steps: name for name, steps in STEPS.items()}
"""By its steps, the name of a workflow that all drivers serve."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    not_tried = dict(NEVER_TRIED)
    peers = _installed(options.peers, not_tried)
    for name, why in not_tried.items():
        say(f"NOT TRIED: {name}: {why}")
    if options.install_only:
        return 0
    server = start_server()
    try:
        bench = Bench(server)
        comparison = Comparison(describe_machine(), bench.settings(), plain(options))
        comparison.versions = {name: list(peer.versions) for name, peer in peers.items()}
        comparison.not_tried = not_tried
        contenders = [peer.contender for peer in peers.values()]
        for turn in turns(options.rounds, options.only, contenders):
            _take(bench, comparison, peers[turn.contender.name], turn, options)
    finally:
        server.stop()
    write(comparison, markdown(comparison), options.out, "compare-")
    return 1 if comparison.failed else 0


def _installed(names: Sequence[str], not_tried: dict[str, str]) -> dict[str, Installed]:
    peers = {}
    for name in names:
        try:
            peers[name] = install(find(name), peers_folder())
        except NotInstalled as error:
            not_tried[name] = f"it could not be installed: {error}"
        else:
            say(f"{name}: {' '.join(peers[name].versions) or 'this repository'}")
    return peers


def _take(
    bench: Bench, comparison: Comparison, peer: Installed, turn: Turn, options: argparse.Namespace
) -> None:
    """One turn; one that fails is written down, and the others go on."""
    try:
        figures = _measured(bench, peer, turn, options)
    except Exception as error:  # whatever a peer does, the others are measured
        comparison.failed.setdefault(turn.prefix, []).append(f"{type(error).__name__}: {error}")
        say(f"round {turn.number}, {turn.prefix}: FAILED: {error}")
        return
    comparison.add_all(turn.prefix, figures)
    told = ", ".join(f"{name} {value:,.1f}" for name, value in figures.items())
    say(f"round {turn.number}, {turn.prefix}: {told}")
    if turn.contender is OURS and turn.part in tuple(Workload):
        _limit(bench, comparison, Workload(turn.part), options.runs)


def _measured(
    bench: Bench, peer: Installed, turn: Turn, options: argparse.Namespace
) -> dict[str, float]:
    if turn.part == "W3":
        times = 20 if turn.form == "batch" else 5 if turn.form == "concurrent" else 1
        return measures.enqueue(bench, peer, turn.form, options.enqueues * times)
    if turn.part == "W4":
        return measures.latency(bench, peer, "one-step", 1, options.samples, options.seconds)
    if turn.part == "W5":
        steps, load = turn.form.split()
        callers = options.callers if load == "full" else 1
        samples = options.samples * callers if load == "full" else options.samples // 2
        workflow = WORKFLOWS[int(steps)]
        return measures.latency(bench, peer, workflow, callers, samples, options.seconds / 2)
    workload = Workload(turn.part)
    return measures.drain(
        bench, peer, workload, turn.contender.share(options.runs // workload.steps)
    )


def _limit(bench: Bench, comparison: Comparison, workload: Workload, runs: int) -> None:
    """What PostgreSQL allows with the rows of ours, 250 runs at a time; in the turn after ours."""
    if pgbench.find_pgbench(bench.server) is None:
        return
    script = next(one for one in pgbench.drain_scripts(workload) if one.name == LIMIT)
    whole = script.units * script.clients
    preload = Preload(max(1, runs // workload.steps // whole) * whole, workload=workload)
    rate = measure.drain_with_pgbench(bench, script, replace(preload)) * workload.steps
    comparison.add(f"{workload} {LIMIT} rate", rate)
    say(f"{workload} {LIMIT}: {rate:,.0f}")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = [contender.name for contender in CONTENDERS]
    parser = argparse.ArgumentParser(prog="benchmarks.compare", description=__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="rounds of all contenders; the median counts")
    add("--runs", type=int, default=40_000, help="W1 runs of ours in a round (W2: a tenth)")
    add("--enqueues", type=int, default=1_000, help="W3 single enqueues (batch: 20 times)")
    add("--samples", type=int, default=200, help="W4 samples of a round")
    add("--seconds", type=float, default=20, help="W4 at most so long for a contender (W5: half)")
    add("--callers", type=int, default=100, help="W5 callers at full load")
    add("--peers", nargs="+", choices=names, default=names, help="some of them")
    add("--only", nargs="+", choices=PARTS, default=list(PARTS), help="a part of it")
    add("--install-only", action="store_true", help="make the environments, measure nothing")
    add("--out", type=Path, default=RESULTS, help="folder to write to")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
