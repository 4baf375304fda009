"""A secret planted in the database URL comes out nowhere, whatever is wrong with the URL.

The canary is looked for in what commands print, in logs of every level, tracebacks, metrics,
health, tables, the server's own lists, and process lists.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import signal
import sys
import traceback
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from openworkflow import BackendPostgres
from openworkflow.settings import Settings
from openworkflow.telemetry import logs
from openworkflow_operator.cluster.credentials import _interpret
from openworkflow_operator.database.connection import ConnectOptions, Database
from openworkflow_operator.database.diagnosis import diagnose
from tests.guarded_postgres import guarded_server
from tests.local_postgres import LocalPostgres
from tests.postgres import run_sync

CANARY = "kanarienvogel7"
WRONG: dict[str, str] = {
    "a wrong password": "postgresql://careful:{c}@{place}/postgres",
    "a wrong password, as a parameter": "postgresql://careful@{place}/postgres?password={c}",
    "a database that is not there": "postgresql://owner:{c}@{place}/nowhere",
    "a port where nobody answers": "postgresql://owner:{c}@127.0.0.1:1/db",
    "a host that is not there": "postgresql://owner:{c}@no-such-host.invalid/db",
    "a host that is none": "postgresql://owner:{c}@" + "x" * 70 + ".example/db",
    "a socket that is not there": "postgresql://owner:{c}@/db?host=/no/such/folder",
    "TLS that is not there": "postgresql://owner:{c}@{place}/postgres?sslmode=verify-full",
    "a key's password": "postgresql://owner:{c}@{place}/postgres?sslpassword={c}&sslmode=require"
    "&sslkey=/no/such.key&sslcert=/no/such.crt",
    "the wrong scheme": "mysql://owner:{c}@{place}/db",
    "no scheme": "owner:{c}@{place}/db",
    "a slash in it": "postgresql://owner:{c}/x@{place}/db",
    "a slash after digits": "postgresql://owner:5432/{c}@{place}/db",
    "a slash at its beginning": "postgresql://owner:/{c}@{place}/db",
    "a question mark in it": "postgresql://owner:1?{c}@{place}/db",
    "a question mark and an equals sign in it": "postgresql://owner:1?sslmode={c}@{place}/db",
    "a parameter's name in it": "postgresql://owner:1?pool_size={c}@{place}/db",
    "a question mark and a slash in it": "postgresql://owner:1/2?connect_timeout={c}@{place}/db",
    "an at sign and a question mark in it": "postgresql://owner:1@2?{c}@{place}/db",
    "an at sign and a slash in it": "postgresql://owner:1@2/{c}@{place}/db",
    "an ampersand in it": "postgresql://owner@{place}/postgres?password=1&{c}",
    "a number sign in it": "postgresql://owner:{c}#x@{place}/db",
    "a number sign before it": "postgresql://owner:1#{c}@{place}/db",
    "a bracket in it": "postgresql://owner:[{c}@{place}/db",
    "a percent sign in it": "postgresql://owner:%zz{c}@{place}/postgres",
    "NUL in it": "postgresql://owner:%00{c}@{place}/postgres",
    "what is no UTF-8 in it": "postgresql://owner:%ff{c}@{place}/postgres",
    "a line break in it": "postgresql://owner:\n{c}@{place}/postgres",
    "a space in it": "postgresql://owner:x {c}@{place}/postgres",
    "an unknown parameter": "postgresql://owner:{c}@{place}/postgres?ssl_mode=on",
    "a bad port": "postgresql://owner:{c}@127.0.0.1:port/db",
    "a pool that is too small": "postgresql://owner:{c}@{place}/postgres?pool_size=0",
    "libpq's other form": "host=127.0.0.1 user=owner password={c} dbname=db",
    "a setting that the server refuses": "postgresql://owner:{c}@{place}/postgres"
    "?options=-c%20nothing%3D1",
}


@pytest.fixture(scope="module")
def guarded() -> Iterator[LocalPostgres]:
    """A server that asks for passwords."""

    async def prepare() -> None:
        connection = await asyncpg.connect(server.url())
        await connection.execute(
            f"CREATE ROLE careful LOGIN PASSWORD 'right'; "
            f"CREATE ROLE owner LOGIN SUPERUSER PASSWORD '{CANARY}'"
        )
        await connection.close()

    with guarded_server() as server:
        run_sync(prepare)
        yield server


@pytest.fixture
def url(guarded: LocalPostgres) -> Callable[[str], str]:
    def fill(template: str) -> str:
        return template.replace("{place}", f"127.0.0.1:{guarded.port}").replace("{c}", CANARY)

    return fill


@pytest.fixture(params=WRONG)
def wrong(request: pytest.FixtureRequest, url: Callable[[str], str]) -> str:
    return url(WRONG[request.param])


@contextlib.contextmanager
def everything_logged(level: str = "DEBUG") -> Iterator[io.StringIO]:
    """All that any library logs meanwhile, as a worker writes it."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()
    logs.configure("json", level, stream)
    try:
        yield stream
    finally:
        root.handlers[:], root.level = before[0], before[1]
        logging.captureWarnings(False)


async def test_no_error_of_a_client_tells_it_nor_its_traceback_nor_a_log(wrong: str) -> None:
    with everything_logged() as logged:
        try:
            await (await BackendPostgres.connect(wrong)).stop()
        except Exception as error:
            logging.exception("it failed")
            said = "".join(traceback.format_exception(error))
            assert "openworkflow.core.errors" in said, "one of ours, whatever was wrong"
        else:
            raise AssertionError("it could connect")

    assert CANARY not in said + logged.getvalue()


async def test_neither_does_the_operator_that_finds_it_in_a_secret(wrong: str) -> None:
    with everything_logged() as logged:
        credentials = _interpret(wrong.encode(), "uid")
        said = f"{credentials} {credentials!r}"
        if credentials.dsn is not None:
            try:
                options = ConnectOptions(allow_loopback=True)
                (await Database.connect(credentials.dsn, "public", options)).terminate()
            except Exception as error:
                logging.exception("it failed")
                said += f"{diagnose(error)}{''.join(traceback.format_exception(error))}"

    assert CANARY not in said + logged.getvalue()


async def openworkflow(url: str, *args: str, **environment: str) -> asyncio.subprocess.Process:
    env = {k: v for k, v in os.environ.items() if not k.startswith("OPENWORKFLOW_")}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "openworkflow", *args),
        env={**env, "DATABASE_URL": url, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


@pytest.mark.parametrize("args", [["doctor"], ["doctor", "--json"], ["migrate", "--roles"]])
@pytest.mark.parametrize(
    "what", ["a wrong password", "a slash after digits", "a question mark in it", "NUL in it"]
)
async def test_no_command_prints_it(what: str, args: list[str], url: Callable[[str], str]) -> None:
    process = await openworkflow(url(WRONG[what]), *args)
    out, _ = await asyncio.wait_for(process.communicate(), 60)

    assert process.returncode in (1, 3)
    assert CANARY not in out.decode()
    assert "Traceback" not in out.decode()


async def test_the_listening_url_is_no_exception(url: Callable[[str], str]) -> None:
    process = await openworkflow(
        url("postgresql://owner:{c}@{place}/postgres"),
        *("runs", "list"),
        OPENWORKFLOW_LISTEN_URL=url(WRONG["a slash after digits"]),
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)

    assert 1 == process.returncode
    assert CANARY not in out.decode()


WORKFLOWS = """
import os
from openworkflow import RetryPolicy, Step, workflow

async def fail() -> None:
    raise RuntimeError("on purpose")

@workflow
async def failing(step: Step) -> None:
    await step.run("fail", fail, retry=RetryPolicy(max_attempts=1))
"""


@contextlib.asynccontextmanager
async def a_worker(url: str, tmp_path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    (tmp_path / "shop.py").write_text(WORKFLOWS)
    process = await openworkflow(
        url,
        *("worker", str(tmp_path / "shop.py"), "--port", "0", "--log-format", "json"),
        OPENWORKFLOW_LOG_LEVEL="DEBUG",
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 60)


async def test_a_worker_at_work_and_in_trouble_shows_it_nowhere(
    guarded: LocalPostgres, url: Callable[[str], str], tmp_path: Path
) -> None:
    good = url("postgresql://owner:{c}@{place}/postgres")
    admin = await asyncpg.connect(guarded.url())
    async with a_worker(good, tmp_path) as worker:
        said = await _until(worker, "metrics and health on port")
        port = said.rpartition("on port ")[2].split('"')[0]
        run = await openworkflow(good, "run", "failing", "--wait")
        out, _ = await asyncio.wait_for(run.communicate(), 60)
        shown = [out.decode(), _process_list(worker.pid)]
        shown += [str(row) for row in await admin.fetch("select * from pg_stat_activity")]
        # Its connections end and no new one is let in: the error path of everything it does.
        await admin.execute("alter role owner connection limit 0; alter role owner nosuperuser")
        await admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'owner'"
        )
        said += await _until(worker, "too many connections for role")
        for path in ("metrics", "readyz", "livez", "healthz"):
            shown.append(await asyncio.to_thread(_get, f"http://127.0.0.1:{port}/{path}"))
        await admin.execute("alter role owner connection limit -1; alter role owner superuser")
    rest = await worker.stdout.read() if worker.stdout else b""
    for table in ("workflow_runs", "step_attempts"):
        shown += [str(row) for row in await admin.fetch(f"select * from {table}")]
    await admin.close()

    everything = "\n".join([said, rest.decode(), *shown])
    assert "on purpose" in everything
    assert "openworkflow_" in everything
    assert CANARY not in everything


def _process_list(pid: int) -> str:
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    lines = [" ".join([process.name(), *process.cmdline()]) for process in family]
    lines += [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]
    return "\n".join(line for line in lines if "pytest" not in line)


async def _until(process: asyncio.subprocess.Process, words: str) -> str:
    assert process.stdout is not None
    said = b""
    async with asyncio.timeout(30):
        while words.encode() not in said:
            line = await process.stdout.readline()
            assert line, said.decode()
            said += line
    return said.decode()


def _get(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return error.read().decode()


def test_settings_and_urls_do_not_show_it_when_printed(url: Callable[[str], str]) -> None:
    good = url("postgresql://owner:{c}@{place}/postgres?sslpassword={c}")
    settings = Settings.from_env({"DATABASE_URL": good, "OPENWORKFLOW_LISTEN_URL": good})

    assert CANARY not in f"{settings!r}{settings}"


async def test_a_url_in_an_option_is_seen_in_process_lists_so_the_command_says_it(
    url: Callable[[str], str],
) -> None:
    process = await openworkflow("", "doctor", "--url", url(WRONG["a wrong password"]))
    out, _ = await asyncio.wait_for(process.communicate(), 60)

    assert "set DATABASE_URL instead" in out.decode()
    assert CANARY not in out.decode()
