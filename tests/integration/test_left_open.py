"""A test that leaves a connection open fails by name, and no other test does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.postgres import DatabaseServer

ROOT = Path(__file__).parents[2]
TESTS = """
import asyncio
import gc
import threading

import asyncpg
import pytest

URL = {url!r}


def connect():
    return asyncpg.connect(URL)


class Cycle:
    pass


@pytest.fixture(scope="module")
def of_the_module():
    loop = asyncio.new_event_loop()
    connection = loop.run_until_complete(connect())
    yield connection
    loop.run_until_complete(connection.close())
    loop.close()


def test_closes(of_the_module):
    async def use():
        await (await connect()).close()

    asyncio.run(use())


def test_forgets():
    async def forget():
        cycle = Cycle()
        cycle.self, cycle.connection = cycle, await connect()

    gc.disable()
    asyncio.run(forget())
    gc.enable()


def test_is_innocent(of_the_module):
    gc.collect()
    assert not of_the_module.is_closed()


def test_has_a_thread_close():
    def close():
        async def use():
            connection = await connect()
            connected.set()
            await asyncio.sleep(0.2)
            await connection.close()

        asyncio.run(use())

    connected = threading.Event()
    threading.Thread(target=close).start()
    assert connected.wait(60)
"""


def test_a_connection_that_was_left_open_fails_the_test_that_made_it_alone(
    postgres: DatabaseServer, tmp_path: Path
) -> None:
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"
    )
    (tmp_path / "test_it.py").write_text(TESTS.format(url=postgres.admin_url))

    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.left_open", "-n", "0", "-q", "-rA"],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    told = ran.stdout[ran.stdout.rindex("short test summary info") :]
    failed = [line.split()[1] for line in told.splitlines() if line.startswith(("FAILED", "ERROR"))]
    assert ["test_it.py::test_forgets"] == failed, ran.stdout
    assert "connections were left open" in ran.stdout
    assert re.search(r"test_it\.py:\d+ forget$", ran.stdout, re.MULTILINE)
    assert 4 == told.count("PASSED"), ran.stdout
