"""The command line as people and scripts use it: real processes on a real database."""

import asyncio
import json
import os
import re
import signal
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest

from openworkflow import (
    BackendPostgres,
    OpenWorkflow,
    RunHandle,
    RunStatus,
    Step,
    workflow,
)
from openworkflow.backend.backend import NewRun
from openworkflow.backend.blueprint import known
from openworkflow.backend.failures import ConnectionLost
from openworkflow.cli.migrate import apply
from openworkflow.cli.options import Database
from openworkflow.core.workflow_run import WorkflowRun
from tests.helpers import StartWorker, eventually
from tests.postgres import DatabaseServer

DOCS = Path(__file__).parents[2] / "docs"
WORKFLOWS = """
from dataclasses import dataclass
from openworkflow import RetryPolicy, Step, workflow

@dataclass
class Order:
    id: int

async def charge(order: Order) -> str:
    if order.id < 0:
        raise ValueError("no such order")
    return f"receipt-{order.id}"

@workflow
async def ship(order: Order, step: Step) -> str:
    return await step.run("charge", charge, order, retry=RetryPolicy(max_attempts=1))
"""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a module of workflows."""
    (tmp_path / "shop.py").write_text(WORKFLOWS)
    return tmp_path


async def start(
    project: Path, url: str | None, *args: str, stdin: int | None = None, **settings: str
) -> asyncio.subprocess.Process:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENWORKFLOW_")}
    environment |= settings
    environment.pop("DATABASE_URL", None)
    if url is not None:
        environment["DATABASE_URL"] = url
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "openworkflow",
        *args,
        cwd=project,
        env=environment,
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run(project: Path, url: str | None, *args: str, **settings: str) -> Done:
    process = await start(project, url, *args, stdin=None, **settings)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    assert "Traceback" not in err.decode()
    return Done(process.returncode, out.decode(), err.decode())


async def test_a_worker_serves_until_sigterm_and_exits_0(project: Path, database_url: str) -> None:
    worker = await start(project, database_url, "worker", "shop", "--port", "0")
    try:
        done = await run(
            project, database_url, "run", "shop:ship", "--input", '{"id": 7}', "--wait"
        )
        failed = await run(project, database_url, "run", "ship", "-i", '{"id": -1}', "--wait")
    finally:
        worker.send_signal(signal.SIGTERM)
        _, logs = await asyncio.wait_for(worker.communicate(), 60)

    assert (0, '"receipt-7"\n') == (done.code, done.out)
    assert 3 == failed.code
    assert "no such order" in failed.err
    assert 0 == worker.returncode
    lines = [json.loads(line) for line in logs.decode().splitlines()]
    assert any("stopped" in line["message"] for line in lines)


async def test_a_worker_serves_several_targets_and_what_they_share_once(
    project: Path, database_url: str
) -> None:
    (project / "bills.py").write_text(
        "from openworkflow import workflow\n"
        "from shop import ship\n\n"
        "@workflow\n"
        "async def bill() -> str:\n"
        "    return 'billed'\n"
    )
    worker = await start(project, database_url, "worker", "shop", "bills", "--port", "0")
    try:
        shipped = await run(project, database_url, "run", "ship", "-i", '{"id": 7}', "--wait")
        billed = await run(project, database_url, "run", "bill", "--wait")
    finally:
        worker.send_signal(signal.SIGTERM)
        _, logs = await asyncio.wait_for(worker.communicate(), 60)

    assert ('"receipt-7"\n', '"billed"\n') == (shipped.out, billed.out), logs.decode()
    assert 0 == worker.returncode


STUBBORN = """
import asyncio
from pathlib import Path
from openworkflow import Step, workflow

async def rest() -> None:
    while True:
        Path("called").touch()
        try:
            await asyncio.sleep(60)
        except BaseException:
            pass

@workflow
async def alone(step: Step) -> None:
    await step.run("rest", rest)

@workflow
async def branches(step: Step) -> None:
    await asyncio.gather(step.run("one", rest), step.run("other", rest))

@workflow
async def catching(step: Step) -> None:
    while True:
        try:
            await step.run("call", Path("called").touch)
            await step.run("rest", asyncio.sleep, 60)
        except BaseException:
            pass
"""


async def test_a_workflow_that_catches_everything_is_stopped_like_any_other(
    project: Path, database_url: str, ow: OpenWorkflow
) -> None:
    """A function on a loop of its own only does what its execution lets it do."""
    code, logs, run = await _ended(project, database_url, await ow.run_workflow("catching"))

    assert (0, RunStatus.PENDING, 0) == (code, run.status, run.crashes), logs


@pytest.mark.parametrize("name", ["alone", "branches"])
async def test_a_step_that_cannot_be_stopped_does_not_keep_its_process(
    project: Path, database_url: str, ow: OpenWorkflow, name: str
) -> None:
    code, logs, run = await _ended(project, database_url, await ow.run_workflow(name))

    assert (1, RunStatus.PENDING, 0) == (code, run.status, run.crashes), logs
    assert "do not let themselves be stopped" in logs


@pytest.mark.parametrize(("build_id", "warned"), [("", True), ("3f2c1aa", False)])
async def test_a_worker_says_that_it_pins_no_run_where_its_build_has_no_name(
    project: Path, database_url: str, build_id: str, warned: bool
) -> None:
    worker = await start(
        project,
        database_url,
        *("worker", "shop", "--port", "0"),
        OPENWORKFLOW_BUILD_POLICY="pinned",
        OPENWORKFLOW_BUILD_ID=build_id,
    )
    assert worker.stderr is not None
    said = ""
    try:
        async with asyncio.timeout(60):
            while " slots" not in said:
                line = await worker.stderr.readline()
                assert line, said
                said += line.decode()
    finally:
        worker.send_signal(signal.SIGTERM)
        await asyncio.wait_for(worker.communicate(), 60)

    assert ("OPENWORKFLOW_BUILD_POLICY is pinned, and no run is" in said) is warned
    assert worker.returncode == 0


async def _ended(
    project: Path, database_url: str, handle: RunHandle[Any]
) -> tuple[int | None, str, WorkflowRun]:
    """Start the run and stop its worker; how that ended, what it said, and what became of it."""
    (project / "stubborn.py").write_text(STUBBORN)
    command = ("worker", "stubborn", "--port", "0")
    worker = await start(project, database_url, *command, OPENWORKFLOW_DRAIN_SECONDS="0")
    try:
        await eventually((project / "called").exists, deadline=30)
    finally:
        worker.send_signal(signal.SIGTERM)
        _, logs = await asyncio.wait_for(worker.communicate(), 60)

    return worker.returncode, logs.decode(), await handle.run()


async def test_runs_can_be_listed_shown_canceled_and_retried(
    project: Path, database_url: str
) -> None:
    async def openworkflow(*args: str) -> Done:
        return await run(project, database_url, *args)

    run_id = (await openworkflow("run", "ship", "-i", '{"id": 1}', "--json")).json["id"]
    listed = (await openworkflow("runs", "list", "--json")).json
    assert [run_id] == [each["id"] for each in listed["runs"]]
    assert run_id in (await openworkflow("runs", "list", "--status", "pending")).out
    none = await openworkflow("runs", "list", "--status", "failed", "--namespace", "nope")
    assert "no runs in namespace 'nope'\n" == none.out
    assert (
        "where a run stands, and no status: pending, running"
        in (await openworkflow("runs", "list", "--status", "queued")).err
    )
    assert {"id": 1} == (await openworkflow("runs", "show", run_id, "--json")).json["run"]["input"]
    assert "ship" in (await openworkflow("runs", "show", run_id)).out

    assert f"{run_id} is canceled\n" == (await openworkflow("runs", "cancel", run_id)).out
    assert f"{run_id} is pending\n" == (await openworkflow("runs", "retry", run_id)).out
    refused = await openworkflow("runs", "retry", run_id)
    assert 1 == refused.code
    assert "cannot be retried" in refused.err


async def test_a_run_that_waits_for_no_time_is_shown_with_a_word_and_not_with_a_date(
    project: Path, database_url: str, ow: OpenWorkflow, sql: asyncpg.Connection
) -> None:
    handle = await ow.run_workflow("ship", {"id": 1})
    await sql.execute(
        "UPDATE workflow_runs SET available_at = 'infinity', deadline_at = 'infinity'"
    )

    shown = await run(project, database_url, "runs", "show", str(handle.id))

    assert "when it is woken" in shown.out
    assert "never" in shown.out
    assert "9999" not in shown.out


async def test_waiting_no_longer_than_asked_exits_4(project: Path, database_url: str) -> None:
    done = await run(project, database_url, "run", "nobody", "--wait", "--timeout", "200ms")

    assert 4 == done.code
    assert "no worker that serves 'nobody' has claimed it so far; `openworkflow runs" in done.err


async def test_who_waits_in_vain_is_told_why(
    project: Path, database_url: str, ow: OpenWorkflow
) -> None:
    """Of a paused workflow it asked whether a worker serves it."""
    await ow.pause(workflow="nobody", by="ann", reason="an incident")

    done = await run(project, database_url, "run", "nobody", "--wait", "--timeout", "200ms")

    assert 4 == done.code
    assert "it is not done: workflow 'nobody' was paused by 'ann' at 20" in done.err


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["worker", "missing"], 1, "there is no module 'missing'"),
        (["worker", "broken"], 1, "broken.py:1"),
        (["worker", "empty"], 1, "empty holds no workflow"),
        (["worker", "."], 1, "'.' is no module"),
        (["worker", "more/json.py"], 1, "another module is called 'json'"),
        (["worker", "shop:nope"], 1, "the workflows of shop: ship"),
        (["run", "shop:ship", "--input", '{"id": "x"}'], 1, "input.id"),
        (
            ["run", "good.shop"],
            1,
            "good.shop is a module; say which of its workflows: good.shop:ship",
        ),
        (["run", "ship", "--input", "{"], 2, "--input is not JSON"),
        (["run", "ship", "--delay", "-5"], 2, "duration"),
        (["run", "ship", "--timeout", "5s"], 2, "add --wait"),
        (["runs", "show", "7"], 2, "not a run id"),
        (["runs", "show", "01a20861-4896-7345-9be3-c894fef5bc1d"], 1, "there is no workflow run"),
        (["migrate", "--namespace", "n" * 300], 1, "namespace_id"),
        (["list"], 2, "it is `openworkflow runs list`, or `openworkflow builds list`"),
        (["start", "ship"], 2, "there is no command 'start': it is `openworkflow run`"),
        (["shw"], 2, "No such command 'shw'"),
    ],
)
async def test_a_mistake_gets_one_clear_line(
    project: Path, database_url: str, args: list[str], code: int, message: str
) -> None:
    (project / "broken.py").write_text("def oops(:\n")
    (project / "empty.py").write_text("")
    (project / "good").mkdir()
    (project / "good" / "shop.py").write_text(WORKFLOWS)
    (project / "more").mkdir()
    (project / "more" / "json.py").write_text(WORKFLOWS)

    done = await run(project, database_url, *args)

    assert code == done.code
    assert message in done.err
    assert "" == done.out


async def test_without_a_database_the_error_says_what_to_do(project: Path) -> None:
    missing = await run(project, None, "runs", "list")
    refused = await run(project, "postgresql://me:secret@127.0.0.1:1/db", "runs", "list")

    assert (1, 1) == (missing.code, refused.code)
    assert "set DATABASE_URL" in missing.err
    assert "refused the connection" in refused.err
    assert "secret" not in refused.err


@pytest.mark.parametrize(
    "command",
    [
        ("runs", "list"),
        ("runs", "show", "01a20971-d381-7b36-8ff8-4d75211e5a42"),
        ("runs", "export"),
        ("builds", "list"),
        ("prune", "--dry-run"),
    ],
)
async def test_looking_into_the_wrong_schema_makes_no_tables(
    project: Path, database_url: str, command: tuple[str, ...]
) -> None:
    done = await run(project, database_url, *command, "--schema", "typo")

    assert 1 == done.code
    assert "there is no schema 'typo' in this database; correct schema=" in done.err
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT to_regnamespace('typo')") is None
    await connection.close()


async def test_migrate_shows_the_sql_applies_it_and_says_so(
    project: Path, empty_database_url: str
) -> None:
    async def migrate(*args: str) -> Done:
        return await run(project, empty_database_url, "migrate", *args)

    assert "CREATE TABLE workflow_runs" in (await migrate("--dry-run")).out
    status = (await migrate("--status", "--json")).json
    assert [None] * len(known()) == [m["applied_at"] for m in status["migrations"]]
    applied = (await migrate()).out
    assert "applied 0001 initial" in applied
    assert "applied 0002 builds" in applied
    assert {"applied": [], "mended": []} == (await migrate("--json")).json
    assert "up to date" in (await migrate("--dry-run")).out


async def test_migrate_waits_for_a_server_that_does_not_answer_yet(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    connect, refusals = BackendPostgres.connect, iter([ConnectionLost("it starts")] * 2)

    async def refuse(*args: Any, **options: Any) -> BackendPostgres:
        for refusal in refusals:
            raise refusal
        return await connect(*args, **options)

    monkeypatch.setattr(BackendPostgres, "connect", refuse)
    where = Database(empty_database_url, "default", "public", None)
    applied = await apply(where, timedelta(seconds=30))

    assert list(known()) == applied
    assert "waiting: it starts\n" == capsys.readouterr().err  # said once


async def test_migrate_does_not_wait_for_ever(project: Path) -> None:
    nobody = "postgresql://me:secret@127.0.0.1:1/db"
    done = await run(project, nobody, "migrate", "--wait", "1s")

    assert 1 == done.code
    assert ["waiting", "error"] == [line.split(":")[0] for line in done.err.splitlines()]
    assert "secret" not in done.err


@pytest.fixture
def durable(postgres: DatabaseServer, database_url: str) -> None:
    """Test servers forget commits when they die; a database that is content does not."""
    name = urlsplit(database_url).path[1:]
    postgres.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = on')


async def test_doctor_is_content_with_a_healthy_database(
    project: Path, database_url: str, durable: None
) -> None:
    done = await run(project, database_url, "doctor", "--json")

    assert 0 == done.code
    assert {"ok"} == {finding["level"] for finding in done.json["findings"]}
    for page in ("cli.md", "operations.md"):
        (shown,) = re.findall(r"\$ openworkflow doctor\n((?:ok .*\n)+)", (DOCS / page).read_text())
        assert [f["check"] for f in done.json["findings"]] == [
            line[8:23].strip() for line in shown.splitlines()
        ]


async def test_doctor_says_when_commits_are_forgotten(
    project: Path, database_url: str, durable: None, postgres: DatabaseServer
) -> None:
    """The promise of durability was broken by a setting, and nobody noticed."""
    name = urlsplit(database_url).path[1:]
    postgres.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')

    done = await run(project, database_url, "doctor", "--json")

    assert 3 == done.code
    (problem,) = (finding for finding in done.json["findings"] if finding["level"] == "problem")
    assert "synchronous_commit is off" in problem["found"]
    assert "SET synchronous_commit = on" in problem["advice"]


async def test_doctor_says_that_nothing_can_be_written(
    project: Path, database_url: str, sql: asyncpg.Connection
) -> None:
    """It said that all is well, while workers could not write."""
    name = await sql.fetchval("select current_database()")
    await sql.execute(f'alter database "{name}" set default_transaction_read_only = on')

    done = await run(project, database_url, "doctor", "--json")

    assert 3 == done.code
    problems = [finding for finding in done.json["findings"] if finding["level"] == "problem"]
    assert any("default_transaction_read_only is on" in each["found"] for each in problems)


async def test_doctor_finds_what_is_broken_and_exits_3(
    project: Path, ow: OpenWorkflow, database_url: str, empty_database_url: str, durable: None
) -> None:
    late = await ow.run_workflow("nobody")
    broken = await ow.run_workflow("broken")
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "UPDATE workflow_runs SET available_at = now() - interval '1 h' WHERE id = $1", late.id
    )
    await connection.execute(
        "UPDATE workflow_runs SET worker_id = 'ghost' WHERE id = $1", broken.id
    )
    await connection.close()

    done = await run(project, database_url, "doctor", "--json")
    empty = await run(project, empty_database_url, "doctor")

    assert (3, 3) == (done.code, empty.code)
    problems = {f["check"]: f["found"] for f in done.json["findings"] if f["level"] == "problem"}
    assert {"due runs", "tables"} == set(problems)
    assert "only a running run has a worker" in problems["tables"]
    assert "openworkflow migrate" in empty.out


async def test_doctor_names_what_was_dropped_and_migrate_makes_again_what_it_may(
    project: Path, database_url: str, durable: None
) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("DROP INDEX idx_workflow_runs_pinned")

    found = await run(project, database_url, "doctor", "--json")
    mended = await run(project, database_url, "migrate")
    await connection.execute("DROP TABLE step_attempts")
    lost = await run(project, database_url, "doctor")
    refused = await run(project, database_url, "migrate")

    (index,) = (finding for finding in found.json["findings"] if finding["level"] == "problem")
    assert "CREATE INDEX CONCURRENTLY idx_workflow_runs_pinned" in index["found"]
    assert "`openworkflow migrate` makes them again" in index["advice"]
    assert "made idx_workflow_runs_pinned again" in mended.out
    assert (3, 1) == (lost.code, refused.code)
    assert "table step_attempts is gone and workflow_runs is not" in lost.out
    assert "restore both from a backup; or, if all runs may go" in refused.err
    await connection.close()


async def test_prune_deletes_old_finished_runs_with_their_steps(
    project: Path, ow: OpenWorkflow, database_url: str, start_worker: StartWorker
) -> None:
    async def value() -> int:
        return 1

    @workflow
    async def short(step: Step) -> int:
        return await step.run("value", value)

    await start_worker(short)
    old, young = [await ow.run_workflow(short) for _ in range(2)]
    for each in (old, young):
        await each.result(timeout=20)
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "UPDATE workflow_runs SET completed_at = now() - interval '31 d' WHERE id = $1", old.id
    )

    planned = await run(project, database_url, "prune", "--dry-run", "--json")
    done = await run(project, database_url, "prune", "--batch", "1", "--json")

    assert {"deleted": 0, "found": 1} == planned.json
    assert {"deleted": 1, "found": 1} == done.json
    assert 1 == await connection.fetchval("SELECT count(*) FROM step_attempts")
    await connection.close()
    assert RunStatus.SUCCEEDED is await young.status()


async def test_prune_says_first_what_it_deletes_and_asks_on_a_terminal(
    project: Path, backend: BackendPostgres, database_url: str
) -> None:
    """`prune --older-than 30` meant thirty seconds, and asked nothing."""
    await backend.create_workflow_runs([NewRun("a")] * 3)
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "UPDATE workflow_runs SET status = 'succeeded', completed_at = '2020-02-01 12:00+00'"
    )

    async def prune(answer: str, *args: str) -> Done:
        """With a terminal for standard input, at which somebody answers."""
        terminal, stdin = os.openpty()
        try:
            os.write(terminal, answer.encode())
            process = await start(project, database_url, "prune", *args, stdin=stdin)
            out, err = await asyncio.wait_for(process.communicate(), 60)
            assert process.returncode is not None
            return Done(process.returncode, out.decode(), err.decode())
        finally:
            os.close(terminal)
            os.close(stdin)

    bare = await run(project, database_url, "prune", "--older-than", "30")
    declined = await prune("n\n", "--older-than", "1d")
    left = await backend.count_runs()
    accepted = await prune("y\n", "--older-than", "1d")

    assert (2, "") == (bare.code, bare.out)
    assert "30 of what? give a unit, such as 30d for days" in bare.err
    assert "deleting 3 succeeded runs of namespace default at 127.0.0.1" in declined.err
    assert "that ended before 20" in declined.err
    assert (1, "", 3) == (declined.code, declined.out, left[RunStatus.SUCCEEDED])
    assert (0, "3 runs were deleted\n") == (accepted.code, accepted.out)
    await backend.create_workflow_runs([NewRun("a")])
    await connection.execute(
        "UPDATE workflow_runs SET status = 'succeeded', completed_at = '2020-02-01 12:00+00'"
    )
    assert "1 run was deleted\n" == (await prune("", "--yes")).out
    await connection.close()


async def test_init_writes_a_project_that_dev_serves(tmp_path: Path) -> None:
    made = await run(tmp_path, None, "init", "shop")
    again = await run(tmp_path, None, "init", "shop")
    shop = tmp_path / "shop"
    assert (0, 1) == (made.code, again.code)
    assert "already has workflows.py" in again.err

    dev = await start(shop, None, "dev", "workflows", "--data", str(tmp_path / "postgres"))
    try:
        url = await _url(dev)
        assert dev.stdout is not None
        async with asyncio.timeout(60):
            link = (await _line(dev.stdout, b"dashboard: ")).decode().split()[1]
        async with aiohttp.ClientSession() as browser, browser.get(link) as page:
            assert "<h1>Overview</h1>" in await page.text()
        started = await run(
            shop, url, "run", "ship-order", "-i", '{"id": 1, "email": "a@b.c"}', "--json"
        )
        assert await eventually(lambda: _steps(shop, url, started.json["id"]), deadline=30)
    finally:
        dev.send_signal(signal.SIGINT)
        await asyncio.wait_for(dev.communicate(), 60)
    assert 0 == dev.returncode

    away = await run(shop, url, "runs", "list")
    assert "the database of `openworkflow dev`, which does not run now: start that" in away.err
    dev = await start(shop, url, "dev", "workflows", "--data", str(tmp_path / "postgres"))
    try:
        assert url == await _url(dev), "where its own DATABASE_URL was set, it started no database"
    finally:
        dev.send_signal(signal.SIGINT)
        await asyncio.wait_for(dev.communicate(), 60)


async def test_dev_starts_a_new_worker_when_something_kills_it(
    project: Path, database_url: str
) -> None:
    """It waited for the code to change; a run that it was told to begin and to end says so."""
    dev = await start(project, database_url, "dev", "shop")
    assert dev.stdout is not None
    assert dev.stderr is not None
    try:
        async with asyncio.timeout(60):
            first = await _line(dev.stdout, b"worker process ")
            await _line(dev.stderr, b" started, ")
            os.kill(int(first.split()[-1]), signal.SIGKILL)
            await _line(dev.stdout, b"was killed: starting a new one")
            second = await _line(dev.stdout, b"worker process ")
            await _line(dev.stderr, b" started, ")
            started = await run(project, database_url, "run", "ship", "-i", '{"id": 1}', "--json")
            for word in (b" begins", b" succeeded after "):
                assert started.json["id"].encode() in await _line(dev.stderr, word)
    finally:
        dev.send_signal(signal.SIGINT)
        await asyncio.wait_for(dev.communicate(), 60)

    assert first != second


async def test_dev_starts_its_database_again_when_something_kills_it(
    project: Path, tmp_path: Path
) -> None:
    """Its own worker said to start `openworkflow dev`, for as long as that went on."""
    data = tmp_path / "postgres"
    dev = await start(project, None, "dev", "shop", "--no-reload", "--data", str(data))
    assert dev.stdout is not None
    assert dev.stderr is not None
    try:
        url = await _url(dev)
        async with asyncio.timeout(60):
            await _line(dev.stderr, b" started, ")
            os.kill(int((data / "postmaster.pid").read_text().split()[0]), signal.SIGQUIT)
            await _line(dev.stdout, b"PostgreSQL had ended: started it again")
        done = await run(
            project, url, "run", "ship", "-i", '{"id": 1}', "--wait", "--timeout", "1m"
        )
        assert 0 == done.code, done.err
    finally:
        dev.send_signal(signal.SIGINT)
        await asyncio.wait_for(dev.communicate(), 60)
    assert not (data / "postmaster.pid").exists()


async def _line(stream: asyncio.StreamReader, part: bytes) -> bytes:
    while part not in (line := await stream.readline()):
        assert line, part
    return line


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_a_shell_is_told_how_to_complete(project: Path, shell: str) -> None:
    done = await run(project, None, "completion", shell)

    assert 0 == done.code
    assert "_OPENWORKFLOW_COMPLETE" in done.out


async def test_dev_on_a_database_of_yours_does_not_show_its_password(
    project: Path, database_url: str
) -> None:
    separator = "&" if "?" in database_url else "?"
    dev = await start(project, f"{database_url}{separator}password=hunter2", "dev", "shop")
    assert dev.stdout is not None
    assert dev.stderr is not None
    said: list[bytes] = []
    logged = b""
    try:
        async with asyncio.timeout(60):
            said = [await dev.stdout.readline() for _ in range(3)]
            while b" started, " not in logged:  # before that, SIGINT may leave its worker behind
                line = await dev.stderr.readline()
                assert line
                logged += line
    finally:
        dev.send_signal(signal.SIGINT)
        out, err = await asyncio.wait_for(dev.communicate(), 60)

    assert b"in another terminal, with the same DATABASE_URL:\n" == said[1]
    assert b"hunter2" not in b"".join(said) + logged + out + err


async def _url(dev: asyncio.subprocess.Process) -> str:
    assert dev.stdout is not None
    async with asyncio.timeout(60):
        async for line in dev.stdout:
            if b"DATABASE_URL='" in line:
                return line.decode().split("'")[1]
    raise AssertionError("dev ended without a word on its database")


async def _steps(shop: Path, url: str, run_id: str) -> bool:
    shown = (await run(shop, url, "runs", "show", run_id, "--json")).json
    return {"charge", "pack", "notify"} <= {s["step_name"] for s in shown["steps"]}
