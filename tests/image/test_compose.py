"""The stack for development: what can be known of it without starting it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from openworkflow.settings import Settings
from openworkflow.worker.http import DEFAULT_PORT

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())[
    "services"
]


def test_its_worker_is_the_image_and_its_workflows_are_there() -> None:
    worker = SERVICES["worker"]

    assert f" AS {worker['build']['target']}\n" in (ROOT / "Dockerfile").read_text()
    folder = worker["volumes"][0].partition(":")[0]
    assert (ROOT / folder / f"{worker['command'][1]}.py").is_file()


def test_its_worker_reaches_its_database() -> None:
    url = urlsplit(SERVICES["worker"]["environment"]["DATABASE_URL"])
    postgres = SERVICES["postgres"]["environment"]

    assert "postgres" == url.hostname
    assert (url.username, url.password) == (
        postgres["POSTGRES_USER"],
        postgres["POSTGRES_PASSWORD"],
    )
    # The image names the database after its user.
    assert url.path == f"/{postgres['POSTGRES_USER']}"


def test_its_worker_may_drain() -> None:
    seconds = int(SERVICES["worker"]["stop_grace_period"].removesuffix("s"))

    assert seconds > Settings().drain_seconds


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_of_it_is_reachable_from_elsewhere_or_missing(name: str) -> None:
    service = SERVICES[name]

    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    for volume in service.get("volumes", ()):
        source = volume.partition(":")[0]
        assert not source.startswith(".") or (ROOT / source).exists(), source
    if "image" in service:
        assert re.fullmatch(r"docker\.io/[a-z/]+:v?\d[\d.]*", service["image"])


def test_grafana_finds_prometheus_which_finds_the_workers() -> None:
    source = yaml.safe_load((ROOT / "compose/grafana-datasource.yaml").read_text())["datasources"][
        0
    ]
    scraped = yaml.safe_load((ROOT / "compose/prometheus.yaml").read_text())["scrape_configs"][0]
    found = scraped["dns_sd_configs"][0]

    assert "prometheus" == urlsplit(source["url"]).hostname
    assert ["worker"] == found["names"]
    assert DEFAULT_PORT == found["port"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (make test-programs)")
def test_prometheus_accepts_its_configuration() -> None:
    subprocess.run(
        ["promtool", "check", "config", str(ROOT / "compose/prometheus.yaml")],
        check=True,
        capture_output=True,
    )
