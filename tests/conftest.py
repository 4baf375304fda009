"""Fixtures that every test shares: a PostgreSQL once, a database of its own for each test.

The process that collects starts the server and tells the xdist workers its address; each worker
migrates one template database and every test gets a copy of it, which is faster than migrating.
"""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from tests import left_open, not_tried, real_cluster
from tests.control_plane import describe_tier, has_controllers
from tests.ports import free_port
from tests.postgres import DatabaseServer, Source, choose_source, run_sync
from tools.test_programs import BIN

if TYPE_CHECKING:
    from openworkflow import BackendPostgres, OpenWorkflow, Worker, Workflow
    from tests.helpers import StartWorker
    from tests.migrating import Program

_SOURCE = pytest.StashKey[Source]()
_ROOT = Path(__file__).parents[1]
pytest_plugins = ["openworkflow_pytest"]  # wherever the package is installed
DEFAULTS: dict[str, Any] = {"concurrency": 10, "rest": timedelta(0), "resident": 0}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("postgresql")
    group.addoption(
        "--postgres-url",
        metavar="URL",
        help="a server to use; its role must be allowed to create databases "
        "(default: testcontainers where Docker answers, else the embedded one)",
    )
    group.addoption(
        "--postgres-bin",
        metavar="DIR",
        type=Path,
        help="start the server from this folder of PostgreSQL's programs",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(left_open)
    # What a shell starts in the background ignores Ctrl-C, and so would all that tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Processes that tests start execute the code of this folder, wherever the package is installed.
    code = [str(_ROOT / folder) for folder in ("worker", "operator")]
    os.environ["PYTHONPATH"] = os.pathsep.join([*code, *filter(None, [os.getenv("PYTHONPATH")])])
    # After the machine's own, so that whoever installed one tests with it.
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), str(BIN)])
    worker_input: dict[str, str] | None = getattr(config, "workerinput", None)
    if worker_input is not None:
        config.stash[_SOURCE] = Source("shared", worker_input["postgres_url"])
    elif not (config.option.collectonly or config.option.help or config.option.version):
        config.stash[_SOURCE] = choose_source(
            config.getoption("--postgres-url"), config.getoption("--postgres-bin")
        )
    if (source := config.stash.get(_SOURCE, None)) is not None:
        os.environ["TEST_DATABASE_URL"] = source.url  # for `ow_env`, also where tests start pytest


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: pytest.Item) -> None:
    """Hand the address of the one server to an xdist worker."""
    workerinput: dict[str, str] = node.workerinput  # type: ignore[attr-defined]
    workerinput["postgres_url"] = node.config.stash[_SOURCE].url


def pytest_unconfigure(config: pytest.Config) -> None:
    if (source := config.stash.get(_SOURCE, None)) is not None:
        source.stop()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How much the tests of the operator could prove is part of their result."""
    colour = {"green" if has_controllers() else "yellow": True}
    terminalreporter.write_sep("=", f"operator: {describe_tier()}", bold=True, **colour)
    parallel = bool(terminalreporter.config.getoption("numprocesses", None))
    terminalreporter.write_line(real_cluster.describe(parallel))
    terminalreporter.write_line(not_tried.describe(terminalreporter.getreports("skipped")))


def pytest_report_header(config: pytest.Config) -> str | None:
    source = config.stash.get(_SOURCE, None)
    return None if source is None else f"postgresql: {source.describe()}"


@pytest.fixture(scope="session")
def postgres(pytestconfig: pytest.Config) -> DatabaseServer:
    """The server of this session; it is shared, so tests only touch databases of their own."""
    return DatabaseServer(pytestconfig.stash[_SOURCE].url)


@pytest.fixture(scope="session")
def template_database(postgres: DatabaseServer) -> Iterator[str]:
    """A database with the newest schema, to copy. Nobody stays connected to it."""
    from openworkflow.backend.backend import BackendPostgres

    async def migrate() -> None:
        backend = await BackendPostgres.connect(postgres.url(name))
        await backend.stop()

    name = _fresh_name("template")
    postgres.create_database(name)
    try:
        run_sync(migrate)
        yield name
    finally:
        postgres.drop_database(name)


@pytest.fixture
def empty_database_url(postgres: DatabaseServer) -> Iterator[str]:
    """A new database without any table."""
    name = _fresh_name("empty")
    postgres.create_database(name)
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture
def database_url(postgres: DatabaseServer, template_database: str) -> Iterator[str]:
    """A new database with the newest schema and no rows."""
    name = _fresh_name("test")
    postgres.create_database(name, template=template_database)
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture
def unused_port() -> int:
    """A port of this machine where nobody answers."""
    return free_port()


@pytest.fixture
async def backend(database_url: str) -> AsyncIterator[BackendPostgres]:
    """A backend on a database of the test's own."""
    from openworkflow.backend.backend import BackendPostgres

    connected = await BackendPostgres.connect(database_url)
    yield connected
    await connected.stop()


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection to the test's own database."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Program:
    """Which migrations the programs of the test know."""
    from tests.migrating import Program

    return Program(monkeypatch)


@pytest.fixture
def ow(backend: BackendPostgres) -> OpenWorkflow:
    """A client of the test's own database."""
    from openworkflow.client import OpenWorkflow

    return OpenWorkflow(backend)


@pytest.fixture
async def start_worker(ow: OpenWorkflow) -> AsyncIterator[StartWorker]:
    """Starts workers, which are stopped at the end of the test.

    Every wait of theirs parks its run and forgets it, so that what comes after it is a replay.
    """
    async with AsyncExitStack() as stack:

        async def start(*workflows: Workflow[Any, Any], **options: Any) -> Worker:
            worker = ow.new_worker(workflows=list(workflows), **DEFAULTS | options)
            await worker.start()
            stack.push_async_callback(worker.stop)
            return worker

        yield start


def _fresh_name(purpose: str) -> str:
    return f"openworkflow_{purpose}_{uuid.uuid4().hex[:12]}"
