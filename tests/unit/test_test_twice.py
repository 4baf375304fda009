"""What failed is run once more, and only what failed; what fails twice fails the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.test_twice import MOST, main

COUNTS = """
from pathlib import Path

def count(name):
    runs = Path(__file__).with_name(name)
    runs.write_text(runs.read_text() + "x" if runs.exists() else "x")
    return len(runs.read_text())
"""
PASSES = """
def test_passes():
    count("passes")
"""
FLAKES = """
import pytest

@pytest.mark.parametrize("odd", ["a b::c[d] -n 'e'"])
def test_flakes(odd):
    assert count("flakes") == 2
"""
BREAKS = """
def test_breaks():
    assert not count("breaks")
"""


def project(folder: Path, *tests: str) -> Path:
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_it.py").write_text(COUNTS + "".join(tests))
    return folder


def runs(folder: Path, name: str) -> int:
    return len((folder / name).read_text())


def test_what_passes_when_run_again_fails_nothing_and_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = main(["-n", "2"], project(tmp_path, PASSES, FLAKES))

    said = capfd.readouterr().out
    assert 0 == code
    assert said.endswith(
        "failed once, passed when run again:\n  test_it.py::test_flakes[a b::c[d] -n 'e']\n"
    )
    assert (1, 2) == (runs(tmp_path, "passes"), runs(tmp_path, "flakes"))


def test_what_fails_twice_fails_the_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = main([], project(tmp_path, PASSES, FLAKES, BREAKS))

    assert 1 == code
    assert "failed once, passed" not in capfd.readouterr().out
    assert 2 == runs(tmp_path, "breaks")


def test_what_is_not_found_again_fails_the_run(tmp_path: Path) -> None:
    renamed = "import os, pytest\n@pytest.mark.parametrize('n', [os.getpid()])"
    flakes = renamed + "\ndef test_flakes(n):\n    assert count('flakes') == 2\n"

    assert main([], project(tmp_path, PASSES, flakes)) not in (0, 1)


def test_what_is_skipped_when_run_again_fails_the_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fails = "import pytest\ndef test_fails():\n    if count('fails') == 2: pytest.skip('no helm')\n"

    assert 1 == main([], project(tmp_path, PASSES, fails + "    assert False\n"))
    assert capfd.readouterr().out.endswith("failed once, skipped when run again:\n  test_fails\n")


def test_many_failures_are_no_accident(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    many = "import pytest\n" + f"@pytest.mark.parametrize('n', range({MOST + 1}))"
    tests = many + "\ndef test_flakes(n):\n    assert count(f'flakes{n}') == 2\n"

    code = main([], project(tmp_path, tests))

    assert 1 == code
    assert f"{MOST + 1} tests failed: none is run again" in capfd.readouterr().out
    assert 1 == runs(tmp_path, "flakes0")


def test_a_run_that_came_to_no_end_is_not_made_good_by_the_tests_that_failed(
    tmp_path: Path,
) -> None:
    stops = "import pytest\ndef test_stops():\n    if count('stops') == 1: pytest.exit('enough')\n"

    assert main([], project(tmp_path, FLAKES, stops, PASSES)) not in (0, 1)
    assert 1 == runs(tmp_path, "flakes")


def test_a_file_that_cannot_be_read_is_not_run_alone(tmp_path: Path) -> None:
    assert main([], project(tmp_path, PASSES, "def test_(:\n")) not in (0, 1)


def test_when_all_pass_nothing_is_run_again(tmp_path: Path) -> None:
    assert 0 == main([], project(tmp_path, PASSES))
    assert 1 == runs(tmp_path, "passes")
