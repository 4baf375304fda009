"""A real Prometheus for a test."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.helpers import eventually_sync

Json = dict[str, Any]


def is_available() -> bool:
    """Whether one can be started here."""
    return shutil.which("prometheus") is not None


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running server."""

    url: str

    def get(self, path: str, **query: str) -> Any:
        """The `data` of its API's answer. Raises QueryRefused."""
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(address, timeout=60) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise QueryRefused(error.read().decode()) from None

    def values(self, expression: str) -> list[float]:
        """The numbers that an expression has now; NaN is none."""
        answer = self.get("query", query=expression)
        samples = [answer["result"]] if answer["resultType"] == "scalar" else answer["result"]
        values = [float((s["value"] if isinstance(s, dict) else s)[1]) for s in samples]
        return [value for value in values if value == value]


class QueryRefused(Exception):
    """Prometheus does not take the expression; the text is its answer."""


@contextlib.contextmanager
def running(folder: Path, port: int, jobs: Sequence[Json], rules: Path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes these jobs every second."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": list(jobs),
    }
    path, log = folder / "prometheus.yaml", folder / "prometheus.log"
    path.write_text(yaml.safe_dump(config))
    command = ["prometheus", f"--config.file={path}", f"--storage.tsdb.path={folder / 'data'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    server = Prometheus(f"http://127.0.0.1:{port}")
    try:
        eventually_sync(lambda: _is_ready(server, process, log), deadline=120)
        yield server
    finally:
        process.kill()
        process.wait()


def _is_ready(server: Prometheus, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        urllib.request.urlopen(f"{server.url}/-/ready", timeout=60).close()
    except OSError:
        return False
    return True
