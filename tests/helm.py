"""Real helm, by itself and against a real API server."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.control_plane import ControlPlane

CHARTS = Path(__file__).parents[1] / "charts"


def helm(
    *args: str, env: dict[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run helm; the caller looks at the exit code."""
    return subprocess.run(
        ["helm", *args],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **(env or {})},
    )


def render(chart: str, *args: str, release: str = "openworkflow") -> list[dict[str, Any]]:
    """What `helm template` makes of a chart."""
    done = helm("template", release, str(CHARTS / chart), "--namespace", "here", *args)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


class Cluster:
    """helm and kubectl against the API server, as its administrator."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane = plane
        self.env = {"KUBECONFIG": str(plane.kubeconfig(folder, "the-tests"))}
        self.env |= {
            f"HELM_{name}_HOME": str(folder / name.lower()) for name in ("CACHE", "CONFIG", "DATA")
        }

    def helm(self, *args: str) -> str:
        """Run helm; fails the test if it fails."""
        done = helm(*args, env=self.env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, path: str) -> Any:
        """An object."""
        return self.plane.request("GET", path)
