"""Each contender of the comparison does the work that its figures are for.

A peer is tried where its environment is, which `python -m benchmarks.compare --install-only` makes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from benchmarks.compare import measures
from benchmarks.compare.install import Installed, find_installed, is_installed, peers_folder
from benchmarks.compare.peers import CONTENDERS, OURS, Contender
from benchmarks.database import Bench
from benchmarks.workloads import Workload
from tests.local_postgres import LocalPostgres, embedded_programs

RUNS = 60


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    server = LocalPostgres(embedded_programs()).start()
    yield Bench(server)
    server.stop()


@pytest.fixture(params=CONTENDERS, ids=lambda contender: contender.name)
def peer(request: pytest.FixtureRequest) -> Installed:
    contender: Contender = request.param
    if not is_installed(contender, peers_folder()):
        pytest.skip("the peers of the comparison are not installed")
    return find_installed(contender, peers_folder())


def test_a_drain_calls_every_step_once_and_leaves_a_row_for_each_run(
    bench: Bench, peer: Installed
) -> None:
    for workload in peer.contender.workloads:
        figures = measures.drain(bench, peer, workload, RUNS)  # refused where counts are not so
        assert figures["rate"] > 0
        assert figures["wal"] > 0
        assert figures["dead"] > 0


def test_each_form_of_enqueueing_writes_the_runs(bench: Bench, peer: Installed) -> None:
    for form in peer.contender.forms:
        figures = measures.enqueue(bench, peer, form, RUNS)
        assert figures["rate"] > 0


def test_an_idle_call_comes_to_its_end(bench: Bench, peer: Installed) -> None:
    figures = measures.latency(bench, peer, "one-step", callers=1, samples=2, seconds=30)
    assert figures["samples"] >= 1
    assert 0 < figures["p50"] <= figures["p99"]


def test_many_callers_call_runs_of_several_steps_at_once(bench: Bench, peer: Installed) -> None:
    if Workload.TEN_STEPS not in peer.contender.workloads:
        pytest.skip("a job queue has no steps")
    figures = measures.latency(bench, peer, "three-steps", callers=10, samples=20, seconds=30)
    assert figures["samples"] >= 20
    assert 0 < figures["p50"] <= figures["p75"] <= figures["p90"] <= figures["p99"]
    assert figures["rate"] > 0


def test_a_figure_for_work_that_was_not_done_is_refused(bench: Bench) -> None:
    ours = find_installed(OURS, peers_folder())
    lying = replace(ours, contender=replace(OURS, finished="SELECT 59::bigint"))
    with pytest.raises(measures.WorkNotDone, match=r"calls of 60 runs and 60 steps, and 59 rows"):
        measures.drain(bench, lying, Workload.ONE_STEP, RUNS)
