"""The parts of the comparison that need no server: order, parsing, environments, the report."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.compare.install import Installed, NotInstalled, install, is_installed
from benchmarks.compare.measures import percentile
from benchmarks.compare.peers import CONTENDERS, DBOS, NEVER_TRIED, OPENWORKFLOW_TS, OURS, PGQUEUER
from benchmarks.compare.process import DriverFailed, parse, started
from benchmarks.compare.report import LIMIT, Comparison, markdown, participants
from benchmarks.compare.rounds import turns

ROOT = Path(__file__).parents[2]


def script(code: str) -> Installed:
    """A driver that is this program."""
    return Installed(OURS, (sys.executable, "-c", code), ROOT, ())


def test_contenders_take_turns_within_a_part_and_rounds_follow_one_another() -> None:
    taken = [
        (turn.number, turn.part, turn.contender.name)
        for turn in turns(2, ["W1", "W4"], [OURS, DBOS])
    ]
    once = [("W1", "ours"), ("W1", "dbos"), ("W4", "ours"), ("W4", "dbos")]
    assert taken == [(number, *turn) for number in (1, 2) for turn in once]


def test_a_job_queue_has_no_turn_in_the_workload_of_ten_steps() -> None:
    assert [turn.contender for turn in turns(1, ["W2"], [OURS, PGQUEUER])] == [OURS]


def test_the_forms_of_enqueueing_take_turns_among_those_that_have_them() -> None:
    prefixes = [turn.prefix for turn in turns(1, ["W3"], [OURS, DBOS])]
    assert prefixes == [
        "W3 ours single",
        "W3 dbos single",
        "W3 ours concurrent",
        "W3 dbos concurrent",
        "W3 ours batch",
    ]


def test_runs_of_one_three_and_nine_steps_take_turns_at_both_loads() -> None:
    prefixes = [turn.prefix for turn in turns(1, ["W5"], [OURS, PGQUEUER])]
    assert prefixes == [
        f"W5 ours {steps} {load}" for load in ("low", "full") for steps in ("1", "3", "9")
    ]


def test_a_slower_contender_has_a_part_of_the_runs_and_never_none() -> None:
    assert (OURS.share(400), DBOS.share(400), DBOS.share(3)) == (400, 10, 1)


def test_a_line_of_a_library_is_no_word_of_the_driver() -> None:
    assert parse("INFO: ready\n") is None
    assert parse('@{"said": "first", "at": 1.5}\n') == {"said": "first", "at": 1.5}


def test_what_a_driver_says_is_found_in_whatever_order_it_comes() -> None:
    lines = "\n".join(f'print(\'@{{"said": "{word}"}}\')' for word in ("ready", "first", "called"))
    with started(script(f"print('of a library')\n{lines}")) as driver:
        heard = [driver.wait_for(word)["said"] for word in ("first", "called", "ready")]
    assert heard == ["first", "called", "ready"]


def test_a_driver_that_ends_early_is_told_with_its_last_words() -> None:
    failing = script("raise SystemExit('SomeError: no tables')")
    said = pytest.raises(DriverFailed, match=r"before it said ready: SomeError: no tables")
    with said, started(failing) as driver:
        driver.wait_for("ready")


def test_a_peer_that_cannot_be_installed_says_why(tmp_path: Path) -> None:
    absent = replace(DBOS, packages=("./no-such-package",))
    with pytest.raises(NotInstalled, match="no-such-package"):
        install(absent, tmp_path)
    assert not is_installed(absent, tmp_path)


def test_a_peer_is_not_installed_where_its_installer_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotInstalled, match="npm is not installed"):
        install(OPENWORKFLOW_TS, tmp_path)


def test_an_environment_of_other_pins_is_made_anew(tmp_path: Path) -> None:
    own = tmp_path / DBOS.name
    own.mkdir()
    (own / "installed.json").write_text('{"pins": ["dbos==3.3.0"], "versions": []}')
    assert not is_installed(DBOS, tmp_path)


def test_every_package_of_a_peer_is_pinned() -> None:
    pin = {"pip": re.compile(r"[\w.-]+(\[[\w,]+\])?==[\d.]+"), "npm": re.compile(r"[\w-]+@[\d.]+")}
    for contender in CONTENDERS:
        for package in contender.packages:
            assert pin[contender.installer].fullmatch(package), package


def test_a_percentile_of_few_values_is_the_largest() -> None:
    assert percentile([3.0, 1.0, 2.0], 99) == 3.0
    assert percentile([float(value) for value in range(1, 201)], 99) == 199.0


def compared() -> Comparison:
    comparison = Comparison({"cpu": "2 x some"}, {"fsync": "on"}, {})
    comparison.versions = {"ours": [], "dbos": ["dbos==3.4.0"]}
    return comparison


def test_the_report_has_medians_their_spread_and_the_ratio_to_ours() -> None:
    comparison = compared()
    for rate in (900.0, 1000.0, 1300.0):
        comparison.add_all("W1 ours", {"rate": rate, "client cpu": 45.4, "commits": 0.016})
    for rate in (240.0, 250.0, 260.0):
        comparison.add_all("W1 dbos", {"rate": rate, "client cpu": 4012.0, "commits": 8.3})
    comparison.add(f"W1 {LIMIT} rate", 2000.0)
    text = markdown(comparison)
    assert "| ours | 1,000 | 900 to 1,300 | 1.00 x | 45 | - | - | 0.02 | - |" in text
    assert "| dbos | 250 | 240 to 260 | 4.00 x | 4,012 | - | - | 8.30 | - |" in text
    assert "| pgbench batch | 2,000 | 2,000 to 2,000 | 0.50 x | - | - | - | - | - |" in text
    assert "W2" not in text


def test_the_report_has_enqueueing_and_latencies() -> None:
    comparison = compared()
    comparison.add_all("W3 ours batch", {"rate": 65000.0, "commits": 0.001})
    comparison.add_all("W4 ours", {"p50": 4.5, "p99": 17.25, "samples": 200.0})
    text = markdown(comparison)
    assert "| ours, batch | 65,000 | 65,000 to 65,000 | 1.00 x | - | - | - | 0.00 | - |" in text
    assert "| ours | 4.50 | 4.50 to 4.50 | 17.25 | 200 |" in text


def test_the_report_has_a_table_of_steps_and_percentiles_for_each_load() -> None:
    comparison = compared()
    figures = {"p50": 4.25, "p75": 5.0, "p90": 6.0, "p99": 9.0, "rate": 41.0, "samples": 100.0}
    comparison.add_all("W5 ours 3 low", figures)
    comparison.add_all("W5 dbos 3 full", figures)
    low, full = markdown(comparison).split("### W5, ")[1:]
    assert "| 3 ours | 4.2 | 5.0 | 6.0 | 9.0 | 41 | 100 |" in low
    assert "| 3 dbos | 4.2 | 5.0 | 6.0 | 9.0 | 41 | 100 |" in full
    assert "dbos" not in low


def test_the_report_names_who_was_not_tried_and_what_failed() -> None:
    comparison = compared()
    comparison.not_tried = {"oban": "there is no installer"}
    comparison.failed = {"W2 dbos": ["WorkNotDone: 9 runs of 10"]}
    text = markdown(comparison)
    assert "### Not tried\n\n- oban: there is no installer\n" in text
    assert "### Failed\n\n- W2 dbos: WorkNotDone: 9 runs of 10\n" in text


def test_the_page_on_benchmarks_has_the_table_of_contenders_and_who_is_never_tried() -> None:
    page = (ROOT / "benchmarks" / "README.md").read_text()
    assert participants(CONTENDERS).replace("### Who took part\n\n", "").strip() in page
    for name, why in NEVER_TRIED.items():
        assert f"- {name}: {why}" in page
