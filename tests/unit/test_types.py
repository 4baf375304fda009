"""What type checkers say of a user's module: nothing of what is right, each planted mistake.

`tests/typed/shop.py` is written as the documentation has it; `mistakes.py` has a mistake on each
line that bears a comment for mypy. Both checkers are asked without those comments.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from openworkflow import DurableFunction, Step, SyncStep, Workflow, workflow
from openworkflow.core.workflow import step as make_step
from openworkflow.worker.options import WorkerOptions, WorkerSettings

ROOT = Path(__file__).parents[2]
TYPED = ROOT / "tests" / "typed"
IGNORE = re.compile(r"  # type: ignore\[[^\]]*\]")
PLANTED = {
    number
    for number, line in enumerate((TYPED / "mistakes.py").read_text().splitlines(), start=1)
    if IGNORE.search(line)
}
INTERNAL = ("call", "interrupt", "invoke")


def copies(folder: Path) -> Path:
    """The modules as a user has them, who has not marked the mistakes."""
    for name in ("shop.py", "mistakes.py"):
        text = IGNORE.sub("", (TYPED / name).read_text())
        text = text.replace(
            "def untyped(input, step):", "def untyped(input: Any, step: Step) -> Any:"
        )
        (folder / name).write_text(text.replace("from tests.typed.shop", "from shop"))
    return folder


def test_mypy_finds_each_mistake_and_nothing_else(tmp_path: Path) -> None:
    config = tmp_path / "mypy.ini"
    config.write_text(f"[mypy]\nstrict = true\nmypy_path = {ROOT / 'worker'}\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", config, "--no-error-summary", "."],
        cwd=copies(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.findall(r"^(\S+):(\d+): error:", done.stdout, re.MULTILINE)

    assert {("mistakes.py", line) for line in PLANTED} == {(n, int(at)) for n, at in found}, (
        done.stdout + done.stderr
    )


def test_pyright_finds_each_mistake_and_nothing_else(tmp_path: Path) -> None:
    """As pyright asks by default; basedpyright is what pip installs, with a node of its own."""
    program = shutil.which("basedpyright", path=str(Path(sys.executable).parent)) or shutil.which(
        "basedpyright"
    )
    if program is None:
        pytest.skip("basedpyright is not installed: pip install '.[test]'")
    settings = {
        "typeCheckingMode": "standard",
        "enableTypeIgnoreComments": False,
        "extraPaths": [str(ROOT / "worker")],
    }
    (copies(tmp_path) / "pyrightconfig.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [program, "--pythonpath", sys.executable, "--outputjson", "-p", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    told = json.loads(done.stdout)["generalDiagnostics"]
    found = {
        (Path(each["file"]).name, each["range"]["start"]["line"] + 1)
        for each in told
        if each["severity"] == "error"
    }

    assert {("mistakes.py", line) for line in PLANTED} == found, told


def test_the_options_that_a_checker_knows_are_those_of_a_worker() -> None:
    fields = set(WorkerOptions.__dataclass_fields__) - {"concurrency"}

    assert fields | {"worker_id", "metrics"} == set(WorkerSettings.__annotations__)


@pytest.mark.parametrize("kind", [Step, SyncStep, Workflow, DurableFunction])
def test_what_is_not_for_users_is_not_offered_to_them(kind: type) -> None:
    assert [] == [name for name in INTERNAL if hasattr(kind, name)]


def test_what_users_make_shows_its_name() -> None:
    @make_step(name="charge")
    def charge() -> None: ...

    @workflow(name="ship", version="2")
    def ship() -> None: ...

    assert "<step 'charge'>" == repr(charge)
    assert "<workflow 'ship', version='2'>" == repr(ship)
