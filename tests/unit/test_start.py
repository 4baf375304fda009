"""SIGTERM ends the commands from their first line on, also where the kernel would not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.mark.parametrize(
    ("command", "package"),
    [("openworkflow", "openworkflow"), ("openworkflow-operator", "openworkflow_operator")],
)
def test_sigterm_during_the_first_import_ends_the_command(
    tmp_path: Path, command: str, package: str
) -> None:
    (tmp_path / f"{package}.py").write_text(
        "print('importing', flush=True)\nimport time\ntime.sleep(30)"
    )
    module, _, function = tomllib.loads(PYPROJECT.read_text())["project"]["scripts"][
        command
    ].partition(":")
    process = subprocess.Popen(
        [sys.executable, "-c", f"import {module}; {module}.{function}()"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert "importing\n" == process.stdout.readline()
        process.terminate()

    # By itself, not by the kernel, which spares the first process of a container.
    assert 128 + signal.SIGTERM == process.returncode
