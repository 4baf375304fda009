"""The pytest plugin as its users have it: in processes of their own, with each way to run tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)  # pytest in processes of its own, some of them parallel

ROOT = Path(__file__).parents[2]
KINDS = """
import unittest

import pytest
import pytest_asyncio

from openworkflow import ConfigurationError, Step, workflow
from openworkflow.testing import environment


@workflow
async def add(number: int, step: Step) -> int:
    await step.sleep("a-week", "7d")
    return await step.run("add", plus_one, number)


async def plus_one(number: int) -> int:
    return number + 1


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.mark.asyncio
async def test_strict(ow_env):
    assert (await ow_env.run(add, 1)).output == 2


@pytest.mark.anyio
async def test_anyio(ow_env):
    assert (await ow_env.run(add, 1)).output == 2


def test_plain(ow_env):
    assert ow_env.sync.run(add, 1).output == 2


class TestMethods:
    @pytest.mark.asyncio
    @pytest.mark.parametrize("number", [1, 2])
    async def test_of_a_class(self, ow_env, number):
        assert (await ow_env.run(add, number)).output == number + 1


class TestUnittest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.env = await self.enterAsyncContext(environment())

    async def test_of_unittest(self):
        assert (await self.env.run(add, 1)).output == 2


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def env():
    async with environment() as env:
        yield env


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("number", [1, 2])
async def test_of_a_module(env, number):
    assert (await env.run(add, number)).output == number + 1


@pytest_asyncio.fixture
async def started(ow_env):
    return await ow_env.start(add, 5)


@pytest.mark.asyncio
async def test_with_a_fixture_on_top(started):
    assert await started.result() == 6


@pytest.mark.asyncio
async def test_of_another_loop(env):
    with pytest.raises(ConfigurationError, match="belongs to another event loop"):
        await env.run(add, 1)
"""
FAILING = """
import pytest

from openworkflow import Step, workflow


@workflow
async def greet(name: str, step: Step) -> str:
    return await step.run("greet", str.upper, name)


@pytest.mark.asyncio
async def test_misspelt(ow_env):
    ow_env.fail("gret", ValueError())
    await ow_env.run(greet, "ada")


@pytest.mark.asyncio
async def test_fails_by_itself(ow_env):
    ow_env.fail("gret", ValueError())
    await ow_env.run(greet, "ada")
    assert "its own failure" == "and no other"
"""

SERVER_OF_THE_SESSION = """
import os

import pytest
from tests.local_postgres import LocalPostgres, embedded_programs


@pytest.fixture(scope="session", autouse=True)
def server():
    programs = embedded_programs()
    server = LocalPostgres(programs, lib_dir=programs.parent / "lib").start()
    os.environ["TEST_DATABASE_URL"] = f"postgresql://postgres@127.0.0.1:{server.port}/postgres"
    yield
    server.stop()


"""


def _pytest(path: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    options = ["-q", "-c", os.devnull, "--rootdir", str(path.parent), "-p", "no:cacheprovider"]
    options += ["-o", "filterwarnings=error", "-o", "asyncio_default_fixture_loop_scope=function"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "openworkflow_pytest", *options, *arguments, path],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**os.environ, **environ},
    )


def test_every_way_to_run_tests_runs_them(tmp_path: Path) -> None:
    (test := tmp_path / "test_kinds.py").write_text(KINDS)
    done = _pytest(test, "-o", "asyncio_mode=strict")
    assert "10 passed" in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("name", "passed"), [("subscription", 7), ("agent", 8), ("nightly_report", 6)]
)
def test_the_examples_pass_in_parallel(name: str, passed: int) -> None:
    test = ROOT / "examples" / f"test_{name}.py"
    done = _pytest(test, "-o", "asyncio_mode=auto", "-n", "2")
    assert f"{passed} passed" in done.stdout, done.stdout


def test_a_plan_that_met_nothing_fails_its_test_and_hides_no_other_failure(tmp_path: Path) -> None:
    (test := tmp_path / "test_failing.py").write_text(FAILING)
    done = _pytest(test)
    assert "2 failed" in done.stdout, done.stdout
    assert "env.fail('gret', ...) met no step; did you mean 'greet'?" in done.stdout
    assert "assert 'its own failure' == 'and no other'" in done.stdout


def test_a_server_that_ends_with_the_session_leaves_no_error_behind(tmp_path: Path) -> None:
    """A container of a fixture is gone when what we made in it is dropped."""
    (test := tmp_path / "test_server.py").write_text(SERVER_OF_THE_SESSION + KINDS)
    code = os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])
    done = _pytest(test, "-o", "asyncio_mode=strict", "-k", "plain", PYTHONPATH=code)
    assert "1 passed" in done.stdout, done.stdout
    assert done.returncode == 0
    assert done.stderr == ""


def test_who_does_not_use_the_fixture_does_not_import_the_package(tmp_path: Path) -> None:
    (test := tmp_path / "test_other.py").write_text(
        "import sys\n\n\ndef test_other():\n    assert 'openworkflow' not in sys.modules\n"
    )
    done = _pytest(test)
    assert "1 passed" in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://nobody@127.0.0.1:1/none", "127.0.0.1:1"),
        ("mysql://localhost/x", "the database URL does not have the form"),
    ],
)
def test_a_server_that_does_not_answer_is_named(tmp_path: Path, url: str, told: str) -> None:
    (test := tmp_path / "test_failing.py").write_text(FAILING)
    done = _pytest(test, TEST_DATABASE_URL=url)
    assert "2 errors" in done.stdout, done.stdout
    assert told in done.stdout
