"""`openworkflow dashboard`: who can reach it, and what it says where it cannot be served."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from openworkflow.cli.dashboard import TOKENS
from tests.integration.test_cli import run, start

SERVED = "dashboard: "


async def served(folder: Path, url: str, *options: str, **settings: str) -> tuple[Any, str]:
    args = ("dashboard", "--port", "0", *options)
    process = await start(folder, url, *args, stdin=None, **settings)
    assert process.stdout is not None
    async with asyncio.timeout(60):
        line = (await process.stdout.readline()).decode()
    if not line.startswith(SERVED):
        raise AssertionError((await process.communicate())[1])
    return process, line.removeprefix(SERVED).strip()


async def ended(process: Any) -> None:
    process.send_signal(signal.SIGTERM)
    await asyncio.wait_for(process.communicate(), 60)
    assert 0 == process.returncode


async def test_it_is_served_to_this_machine_and_to_no_other_name(
    tmp_path: Path, database_url: str
) -> None:
    await run(tmp_path, database_url, "migrate")
    process, link = await served(tmp_path, database_url, "--also", "billing")
    try:
        async with aiohttp.ClientSession() as browser:
            async with browser.get(link) as page:
                assert "billing" in await page.text()
            async with browser.get(link, headers={"Host": "evil.example"}) as page:
                assert 401 == page.status
    finally:
        await ended(process)


async def test_tokens_of_the_environment_are_asked_for(tmp_path: Path, database_url: str) -> None:
    await run(tmp_path, database_url, "migrate")
    tokens = {TOKENS: "viewer:0123456789abcdef, ann:admin:fedcba9876543210"}
    process, link = await served(tmp_path, database_url, "--host", "0.0.0.0", **tokens)
    link = link.replace("0.0.0.0", "127.0.0.1") + "n/default"
    try:
        async with aiohttp.ClientSession() as browser:
            for token, status, name in (("no", 401, ""), ("fedcba9876543210", 200, "ann")):
                headers = {"Authorization": f"Bearer {token}"}
                async with browser.get(link, headers=headers) as page:
                    assert status == page.status
                    assert name in await page.text()
    finally:
        await ended(process)


async def test_its_actions_are_in_its_log(tmp_path: Path, database_url: str) -> None:
    await run(tmp_path, database_url, "migrate")
    process, link = await served(tmp_path, database_url)
    async with (
        aiohttp.ClientSession(headers={"Sec-Fetch-Site": "same-origin"}) as browser,
        browser.post(f"{link}n/default/schedules/nightly/pause") as page,
    ):
        assert 200 == page.status
    process.send_signal(signal.SIGTERM)
    _, log = await asyncio.wait_for(process.communicate(), 60)

    told = [json.loads(line) for line in log.decode().splitlines()]
    (audit,) = [each for each in told if each["logger"] == "openworkflow.dashboard.audit"]
    said = json.loads(audit["message"])
    assert ("local", "pause_schedule", "nightly", "ScheduleNotFound") == tuple(
        said[name] for name in ("who", "what", "name", "outcome")
    )


@pytest.mark.parametrize(
    ("options", "tokens", "said"),
    [
        (["--host", "0.0.0.0"], None, "others can reach the dashboard"),
        ([], "viewer:short", "at least 16 characters"),
        ([], "root:0123456789abcdef", "there is no role 'root'"),
        ([], "0123456789abcdef", "role:token"),
        (["--proxy-header", "X-User"], None, "networks of the proxies"),
        (["--proxy-header", "X-User", "--proxy-from", "here"], None, "10.0.0.0/8"),
    ],
)
async def test_what_would_let_in_anybody_is_refused(
    tmp_path: Path,
    database_url: str,
    options: list[str],
    tokens: str | None,
    said: str,
) -> None:
    settings = {} if tokens is None else {TOKENS: tokens}

    done = await run(tmp_path, database_url, "dashboard", "--port", "0", *options, **settings)

    assert 1 == done.code
    assert said in done.err
    assert "Traceback" not in done.err
    assert "0123456789abcdef" not in done.err


async def test_a_port_that_is_taken_is_told(tmp_path: Path, database_url: str) -> None:
    await run(tmp_path, database_url, "migrate")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        taken = await run(tmp_path, database_url, "dashboard", "--port", port)
    assert 1 == taken.code
    assert f"port {port}" in taken.err
    assert "--port" in taken.err
