"""Signals end the commands from their first line on, also where the kernel would not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

AS_A_TERMINAL = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
"""What a shell starts in the background ignores Ctrl-C, and so would what the test starts."""
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.mark.parametrize(
    ("command", "package", "number"),
    [
        ("openworkflow", "openworkflow", signal.SIGTERM),
        ("openworkflow", "openworkflow", signal.SIGINT),
        ("openworkflow-operator", "openworkflow_operator", signal.SIGTERM),
    ],
)
def test_a_signal_during_the_first_import_ends_the_command_in_silence(
    tmp_path: Path, command: str, package: str, number: signal.Signals
) -> None:
    """Ctrl-C showed a traceback of whatever was imported at that moment."""
    (tmp_path / f"{package}.py").write_text(
        "print('importing', flush=True)\nimport time\ntime.sleep(30)"
    )
    module, _, function = tomllib.loads(PYPROJECT.read_text())["project"]["scripts"][
        command
    ].partition(":")
    process = subprocess.Popen(
        [sys.executable, "-c", f"{AS_A_TERMINAL}import {module}; {module}.{function}()"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert "importing\n" == process.stdout.readline()
        process.send_signal(number)
        _, told = process.communicate(timeout=60)

    # By itself, not by the kernel, which spares the first process of a container.
    assert (128 + number, "") == (process.returncode, told)
