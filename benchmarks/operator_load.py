"""What many resources on one database cost the operator: `python -m benchmarks.operator_load`.

Starts an API server (see tests/control_plane.py), a PostgreSQL and the operator's own process, and
measures that process: CPU, memory, API calls and looks at the database, at rest and at the start.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from openworkflow.backend.backend import BackendPostgres
from tests.control_plane import OPERATOR_NAMESPACE, ControlPlane, started
from tests.kubernetes_space import Space
from tests.postgres import DatabaseServer, choose_source

PORT = 18080


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--resources", type=int, default=500)
    options.add_argument("--seconds", type=float, default=60.0)
    arguments = options.parse_args()
    source = choose_source(None, None)
    try:
        server = DatabaseServer(source.url)
        name = f"openworkflow_bench_{uuid.uuid4().hex[:8]}"
        server.create_database(name)
        asyncio.run(_migrate(server.url(name)))
        with started() as plane, tempfile.TemporaryDirectory() as folder:
            _create(plane, server.url(name), arguments.resources)
            _measure(plane, Path(folder), arguments.resources, arguments.seconds)
        server.drop_database(name)
    finally:
        source.stop()


async def _migrate(url: str) -> None:
    backend = await BackendPostgres.connect(url)
    await backend.stop()


def _create(plane: ControlPlane, url: str, count: int) -> None:
    plane.create_namespace("bench")
    space = Space(plane, "bench")
    space.secret(url)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: space.resource(f"tenant-{number}"), range(count)))


def _measure(plane: ControlPlane, folder: Path, count: int, seconds: float) -> None:
    token = plane.token(OPERATOR_NAMESPACE, "openworkflow-operator")
    settings = {"NAMESPACE": OPERATOR_NAMESPACE, "PORT": str(PORT), "ALLOW_LOOPBACK": "true"}
    settings |= {"LOG_LEVEL": "WARNING"}
    environment = {f"OPENWORKFLOW_OPERATOR_{name}": value for name, value in settings.items()}
    environment |= {"KUBECONFIG": str(plane.kubeconfig(folder, token))}
    command = [sys.executable, "-m", "openworkflow_operator"]
    begun = time.monotonic()
    with subprocess.Popen(command, env=os.environ | environment) as process:
        try:
            watched = psutil.Process(process.pid)
            while _sum("namespace_last_observation_timestamp_seconds", above=1) < count:
                time.sleep(0.5)
            start = time.monotonic() - begun
            _print(f"{count} resources made and observed", f"{start:.1f} s")
            _print("CPU until then", f"{_cpu(watched):.1f} s")
            time.sleep(10)
            cpu, calls, looks = _cpu(watched), _sum("kubernetes_requests_total"), _looks()
            visits = _sum("reconcile_total")
            time.sleep(seconds)
            _print("CPU at rest", f"{(_cpu(watched) - cpu) / seconds * 100:.1f} % of a core")
            _print("memory", f"{watched.memory_info().rss / 2**20:.0f} MiB")
            _print("API calls", f"{(_sum('kubernetes_requests_total') - calls) / seconds:.2f} /s")
            _print("visits", f"{(_sum('reconcile_total') - visits) / seconds:.1f} /s")
            _print("looks at the database", f"{(_looks() - looks) / seconds:.2f} /s")
            mean = _sum("observation_seconds_sum") / max(1.0, _looks())
            _print("mean duration of a look", f"{mean * 1000:.1f} ms")
        finally:
            process.terminate()


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _looks() -> float:
    return _sum("observation_seconds_count")


def _sum(name: str, above: float | None = None) -> float:
    """The sum of a metric's series; with `above`, how many of them are larger."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except OSError:
        return 0.0
    found = re.findall(rf"^openworkflow_{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
    values = [float(value) for value in found]
    return sum(values) if above is None else float(sum(1 for value in values if value > above))


def _print(what: str, value: str) -> None:
    sys.stdout.write(f"{what:38}{value:>24}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
