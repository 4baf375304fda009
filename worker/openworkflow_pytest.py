"""The pytest plugin of OpenWorkflow: the fixture `ow_env`.

A module of its own, since pytest imports the plugins that are installed: the package is imported
by the first test that asks for the fixture, and costs nobody else anything.
"""

import functools
import inspect
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from openworkflow.testing import Environment

_URL = "openworkflow_postgres_url"
_TIMEOUT = "openworkflow_timeout"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the PostgreSQL for tests is, and how long a test waits for its runs."""
    parser.addini(_URL, "a PostgreSQL for tests (default: TEST_DATABASE_URL, or the embedded one)")
    parser.addini(_TIMEOUT, "real seconds that a test waits for its runs (default: 30)")


def pytest_unconfigure() -> None:
    """Drop the databases of this process."""
    import sys

    if (kit := sys.modules.get("openworkflow.testing.kit")) is not None:
        kit.close_databases()


@pytest.fixture
def ow_env(request: pytest.FixtureRequest) -> "Iterator[Environment]":
    """OpenWorkflow on a database of this test's own, in which time passes at once.

    `await ow_env.run(workflow, input)` in an async test, `ow_env.sync.run(...)` in another.
    """
    from openworkflow.testing.environment import TIMEOUT, Environment
    from openworkflow.testing.kit import databases

    config = request.config
    made = databases(config.getini(_URL) or None)
    database = made.take()
    env = Environment(database, timeout=float(config.getini(_TIMEOUT) or TIMEOUT))
    _close_within(request.node, env)
    try:
        yield env
    finally:
        try:
            env.end()
        finally:
            made.give_back(database, clean=env.is_clean)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """A test that planned a failure which never happened has not tested it."""
    answer = yield
    env: Any = pyfuncitem.funcargs.get("ow_env")
    if env is not None:
        env.check()
    return answer


def _close_within(item: Any, env: "Environment") -> None:
    """Have an async test close its environment, before its event loop is gone."""
    test = getattr(item, "obj", None)
    if not inspect.iscoroutinefunction(test):
        return

    @functools.wraps(test)
    async def closing(*arguments: Any, **named: Any) -> Any:
        try:
            return await test(*arguments, **named)
        finally:
            await env.close()

    item.obj = closing
