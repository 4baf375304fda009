"""All tests, and those that failed once more: one that fails twice fails the run.

    python -m tools.test_twice -n auto    # pytest's own arguments

Of some thousand tests, most of them against real servers and the clock, one now and then fails
for what else the machine does. What passes when run again is named at the end, since it is a
fault too, of the test if not of the code. Where more than MOST failed, or the run itself did not
get to its end, nothing is run again.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

MOST: Final = 5
_SOME_FAILED: Final = 1
"""Pytest's exit code for that; any other says that tests were not run at all."""


def main(arguments: Sequence[str], folder: Path) -> int:
    """Run them in this folder; returns pytest's exit code."""
    pytest = [sys.executable, "-m", "pytest"]
    code = subprocess.run([*pytest, *arguments], cwd=folder, check=False).returncode
    if code != _SOME_FAILED:
        return code
    failed = _failed(folder)
    if not 0 < len(failed) <= MOST:
        print(f"{len(failed)} tests failed: none is run again", flush=True)
        return code
    print(f"{len(failed)} failed, run once more, by themselves:", *failed, sep="\n  ", flush=True)
    # By name: one that is not found again is an error, where --last-failed would pass over it.
    with tempfile.TemporaryDirectory() as reports:
        report = Path(reports, "report.xml")
        again = [*pytest, "-n", "0", f"--junit-xml={report}", *failed]
        code = subprocess.run(again, cwd=folder, check=False).returncode
        if code == 0 and (skipped := _skipped(report)):
            print("failed once, skipped when run again:", *skipped, sep="\n  ", flush=True)
            return _SOME_FAILED
    if code == 0:
        print("failed once, passed when run again:", *failed, sep="\n  ", flush=True)
    return code


def _skipped(report: Path) -> list[str]:
    """The tests of a run that were not tried, which says nothing about them."""
    cases = ElementTree.parse(report).iter("testcase")
    return [str(case.get("name")) for case in cases if case.find("skipped") is not None]


def _failed(folder: Path) -> list[str]:
    """The tests that the latest run of pytest noted."""
    try:
        noted = (folder / ".pytest_cache/v/cache/lastfailed").read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return list(json.loads(noted))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path.cwd()))
