"""`OpenWorkflow.sync`: the client for code that blocks."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from openworkflow import (
    BackendPostgres,
    ConfigurationError,
    ConnectionLost,
    Cron,
    OpenWorkflow,
    ResultTimeout,
    RunHandle,
    RunNotFound,
    Step,
    SyncOpenWorkflow,
    SyncRunHandle,
    workflow,
)
from tests.helpers import StartWorker, eventually_sync
from tools.sync_client import modules

LEFT_OUT = {"sync", "new_worker"}


@workflow
async def welcome(input: str, step: Step) -> str:
    step.emit("said", input)
    return f"welcome, {input}"


@workflow
async def waiting(step: Step) -> str:
    word: str = await step.wait_for_signal("word", type=str)
    return word


@pytest.fixture
def sync(database_url: str) -> Iterator[SyncOpenWorkflow]:
    with OpenWorkflow.sync(database_url) as sync:
        yield sync


def test_what_is_written_is_what_the_async_client_says() -> None:
    for path, text in modules().items():
        assert path.read_text() == text, "run python -m tools.sync_client"


@pytest.mark.parametrize(
    ("one", "other"), [(OpenWorkflow, SyncOpenWorkflow), (RunHandle, SyncRunHandle)]
)
def test_it_has_all_methods_with_the_same_parameters(one: type, other: type) -> None:
    # One that only says how it is called elsewhere is in dir(), and is no attribute.
    names = {name for name in dir(one) if name[0] != "_" and hasattr(one, name)} - LEFT_OUT
    assert names <= set(dir(other))
    for name in names:
        if callable(getattr(one, name)) and name != "stop":
            given, taken = (inspect.signature(getattr(each, name)) for each in (one, other))
            plain = [(each.name, each.kind, each.default) for each in given.parameters.values()]
            assert plain == [(e.name, e.kind, e.default) for e in taken.parameters.values()], name


async def test_runs_are_started_followed_and_controlled(
    database_url: str, start_worker: StartWorker
) -> None:
    await start_worker(welcome, waiting)

    def blocking() -> None:
        with OpenWorkflow.sync(database_url) as ow:
            run = ow.run_workflow(welcome, "ada")
            assert run.result(timeout="20s") == "welcome, ada"
            assert [event.value for event in run.events("said")] == ["ada"]
            assert ow.handle(run.id, welcome).status() == "succeeded"
            assert [each.result("20s") for each in ow.run_workflows(welcome, ["a", "b"])] == [
                "welcome, a",
                "welcome, b",
            ]
            other = ow.run_workflow(waiting)
            with pytest.raises(ResultTimeout):
                other.result(timeout=0.01)
            ow.signal(other, "word", "yes")
            assert other.result("20s") == "yes"
            assert len(ow.list_runs(limit=10).runs) == 4
            assert [each.done for each in ow.bulk("cancel", "workflow:nobody")] == []
            ow.schedules.create("nightly", "welcome", Cron("0 3 * * *", input="x"))
            assert [each.name for each in ow.schedules.list()] == ["nightly"]
            assert ow.limits.list() == []
            with pytest.raises(RunNotFound):
                ow.get_run(type(run.id)("00000000-0000-7000-8000-000000000000"))

    await asyncio.to_thread(blocking)


def test_events_that_nobody_reads_to_the_end_are_let_go(sync: SyncOpenWorkflow) -> None:
    with pytest.raises(ConfigurationError, match="from_offset"):
        sync.run_workflow("nobody").events(from_offset=-1)
    events = sync.bulk("cancel", "workflow:nobody")
    assert next(iter(events)).done == 1


async def test_in_a_thread_of_an_event_loop_it_is_refused(database_url: str) -> None:
    with pytest.raises(ConfigurationError, match="to_thread"):
        OpenWorkflow.sync(database_url)
    ow = await asyncio.to_thread(OpenWorkflow.sync, database_url)
    with pytest.raises(ConfigurationError, match="to_thread"):
        ow.run_workflow("nobody")
    await asyncio.to_thread(ow.stop)


def test_many_threads_share_one_client(sync: SyncOpenWorkflow) -> None:
    with ThreadPoolExecutor(20) as threads:
        runs = list(threads.map(lambda n: sync.run_workflow("w", n), range(100)))
    assert len({run.id for run in runs}) == 100
    assert sum(len(page.runs) for page in [sync.list_runs(limit=200)]) == 100


def test_once_stopped_it_says_so_and_leaves_no_thread(database_url: str) -> None:
    before = set(threading.enumerate())
    ow = OpenWorkflow.sync(database_url)
    run = ow.run_workflow("nobody")
    ow.stop()
    ow.stop()
    assert set(threading.enumerate()) == before
    with pytest.raises(ConfigurationError, match="was stopped"):
        run.status()


def test_a_server_that_is_not_there_is_an_error_and_leaves_no_thread(unused_port: int) -> None:
    before = set(threading.enumerate())
    with pytest.raises(ConnectionLost):
        OpenWorkflow.sync(f"postgresql://u@127.0.0.1:{unused_port}/d")
    assert set(threading.enumerate()) == before
    with pytest.raises(TypeError, match="namespace_id"):
        OpenWorkflow.sync("postgresql://u@127.0.0.1/d", namespace="x")  # type: ignore[call-arg]


FORKING = """
import os, sys
from openworkflow import OpenWorkflow

ow = OpenWorkflow.sync(sys.argv[1])
run = ow.run_workflow("w", "parent")
if (child := os.fork()) == 0:
    assert run.run().input == "parent"
    ow.run_workflow("w", "child")
    sys.exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
ow.run_workflow("w", "parent again")
print(sorted(each.input for each in ow.list_runs().runs))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_opens_its_own_and_leaves_the_parents_alone(
    database_url: str, tmp_path: Path
) -> None:
    script = tmp_path / "forking.py"
    script.write_text(FORKING)
    done = subprocess.run(
        [sys.executable, script, database_url], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("['child', 'parent', 'parent again']\n", "")


def test_it_is_part_of_blocking_transactions(sync: SyncOpenWorkflow, database_url: str) -> None:
    engine = sqlalchemy.create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
    session = scoped_session(sessionmaker(engine))
    for given in (psycopg.connect(database_url), Session(engine), session, engine.connect()):
        sync.run_workflow("w", "undone", connection=given)
        given.rollback()
        sync.run_workflow("w", "done", connection=given)
        sync.signal("topic", 1, connection=given)
        given.commit()
        given.close()
    engine.dispose()
    assert [run.input for run in sync.list_runs().runs] == ["done"] * 4


def test_statements_are_sent_in_the_thread_that_calls(
    sync: SyncOpenWorkflow, database_url: str
) -> None:
    """SQLAlchemy's scoped sessions and Django's connections are others in each thread."""
    threads = set()
    engine = sqlalchemy.create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
    sqlalchemy.event.listen(
        engine, "before_cursor_execute", lambda *_: threads.add(threading.get_ident())
    )
    with Session(engine) as session:
        sync.run_workflow("w", connection=session)
        session.commit()
    engine.dispose()
    assert threads == {threading.get_ident()}


def test_more_threads_than_a_pool_has_wait_for_what_one_of_them_holds(
    sync: SyncOpenWorkflow, database_url: str
) -> None:
    with psycopg.connect(database_url) as holder:
        sync.run_workflow("w", idempotency_key="k", connection=holder)

        def wait(_: int) -> bool:
            with psycopg.connect(database_url) as mine:
                return sync.run_workflow("w", idempotency_key="k", connection=mine).created

        with ThreadPoolExecutor(40) as threads:
            waiting = [threads.submit(wait, number) for number in range(40)]
            eventually_sync(lambda: _blocked(holder) >= 30)
            sync.run_workflow("w", connection=holder)
            holder.commit()
            assert not any(each.result() for each in waiting)


def _blocked(connection: psycopg.Connection[Any]) -> int:
    sql = "select count(distinct pid) from pg_locks where not granted"
    row = connection.execute(sql).fetchone()
    return 0 if row is None else int(row[0])


async def test_connections_of_an_event_loop_are_refused(database_url: str) -> None:
    sync = await asyncio.to_thread(OpenWorkflow.sync, database_url)
    engine = create_async_engine(database_url.replace("postgresql:", "postgresql+asyncpg:"))
    plain = await asyncpg.connect(database_url)
    async with AsyncSession(engine) as session, plain.transaction():
        for given in (plain, session):
            with pytest.raises(ConfigurationError, match="belongs to an event loop"):
                await asyncio.to_thread(sync.run_workflow, "w", connection=given)
    await plain.close()
    await engine.dispose()
    assert (await asyncio.to_thread(sync.list_runs)).runs == []
    await asyncio.to_thread(sync.stop)


def test_an_interrupt_of_the_caller_takes_its_call_back(
    sync: SyncOpenWorkflow, database_url: str
) -> None:
    class Interrupting(psycopg.Connection[Any]):
        armed = False

        @property
        def closed(self) -> bool:
            if self.armed:
                raise KeyboardInterrupt
            return super().closed

    with Interrupting.connect(database_url) as connection:
        connection.armed = True
        with pytest.raises(KeyboardInterrupt):
            sync.run_workflow("w", connection=connection)
        connection.armed = False
        sync.run_workflow("w", "after", connection=connection)
    assert [run.input for run in sync.list_runs().runs] == ["after"]


async def test_the_async_client_reads_what_the_other_wrote(
    backend: BackendPostgres, database_url: str
) -> None:
    def start() -> Any:
        with OpenWorkflow.sync(database_url, namespace_id="mine", schema="elsewhere") as ow:
            return ow.run_workflow("w", 1).id

    run_id = await asyncio.to_thread(start)
    assert await backend.get_workflow_run(run_id) is None
    async with await BackendPostgres.connect(
        database_url, namespace_id="mine", schema="elsewhere"
    ) as there:
        assert await there.get_workflow_run(run_id)
