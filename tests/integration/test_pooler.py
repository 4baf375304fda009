"""Everything works behind PgBouncer in transaction mode, where no session state survives."""

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from openworkflow import OpenWorkflow, Step, workflow
from openworkflow.backend.backend import BackendPostgres, NewRun, RunFilter
from openworkflow.backend.blueprint import known
from openworkflow.core.errors import BackendError, InvalidRunState
from openworkflow.core.workflow_run import RunStatus
from tests.flushes import LEASE, claim, end_of, flush, step_of, wanted
from tests.helpers import eventually_sync
from tests.migrating import Program, migration
from tests.ports import free_port

PGBOUNCER = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"

pytestmark = pytest.mark.skipif(
    not Path(PGBOUNCER).exists(), reason="pgbouncer is not installed (make test-programs)"
)

IGNORED = "jit,plan_cache_mode,enable_seqscan,enable_hashjoin,enable_mergejoin,enable_bitmapscan"


@pytest.fixture(params=["refuses settings", "ignores settings"])
def pooler_url(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> Iterator[str]:
    """PgBouncer in front of the test's database, as it comes and as people set it up."""
    split = urlsplit(database_url)
    if split.hostname is None:
        pytest.skip("this PostgreSQL listens on a Unix socket only")
    port = free_port()
    settings = tmp_path / "pgbouncer.ini"
    ignored = f"ignore_startup_parameters = {IGNORED}" if "ignores" in request.param else ""
    settings.write_text(
        "[databases]\n"
        f"* = host={split.hostname} port={split.port or 5432} "
        f"user={split.username} password={split.password or 'unused'}\n"
        "[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = transaction\ndefault_pool_size = 3\n{ignored}\n"
    )
    tmp_path.chmod(0o755)
    settings.chmod(0o644)
    as_nobody = ["-u", "nobody"] if os.geteuid() == 0 else []  # it refuses to run as root
    process = subprocess.Popen(
        [PGBOUNCER, "-q", *as_nobody, str(settings)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"postgresql://{split.username}@127.0.0.1:{port}{split.path}"
    try:
        eventually_sync(lambda: _answers(port))
        yield url
    finally:
        process.terminate()
        process.wait(60)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
async def pooled(pooler_url: str, database_url: str) -> AsyncIterator[BackendPostgres]:
    backend = await BackendPostgres.connect(pooler_url, listen_url=database_url)
    yield backend
    await backend.stop()


async def test_a_pooler_is_recognised(pooled: BackendPostgres, backend: BackendPostgres) -> None:
    assert pooled.pooled
    assert not backend.pooled


async def test_a_run_lives_its_life_behind_a_pooler(pooled: BackendPostgres) -> None:
    created = await pooled.create_workflow_runs(
        [NewRun("a"), NewRun("a", idempotency_key="k"), NewRun("a", delay=LEASE)]
    )
    session = await pooled.open_session()
    heartbeat = await pooled.open_heartbeat()

    runs = await claim(session, "a")
    held = await heartbeat.beat("host/1", LEASE, [(run.id, run.claim_no) for run in runs])
    flushed = await flush(
        session,
        steps=[step_of(run, "s") for run in runs],
        ends=[end_of(run) for run in runs],
        claim=wanted(5, "a"),
    )
    histories = await session.load_histories([run.id for run in runs])
    await pooled.cancel_workflow_run(created[2].id)
    await pooled.retry_workflow_run(created[2].id)

    assert len(runs) == len(held) == 2
    assert not flushed.lost
    assert [1, 1] == [len(history) for history in histories.values()]
    page = await pooled.list_workflow_runs(RunFilter(status=RunStatus.SUCCEEDED))
    assert {run.id for run in page.runs} == {run.id for run in runs}
    assert (await pooled.diagnostics()).violations == []
    await heartbeat.close()
    await session.close()


@workflow
async def told(step: Step) -> list[Any]:
    return [await step.wait_for_signal("a"), await step.wait_for_signal("b", timeout="1h")]


async def test_signals_come_through_a_pooler(pooled: BackendPostgres) -> None:
    ow = OpenWorkflow(pooled)
    worker = ow.new_worker(workflows=[told], rest=timedelta(0))
    await worker.start()
    run = await ow.run_workflow(told)
    await run.signal("a", 1)
    await ow.signal("b", 2)

    assert [1, 2] == await run.result(timeout=20)
    with pytest.raises(InvalidRunState):
        await run.signal("a", 1)
    await worker.stop()
    await ow.stop()


async def test_a_refused_statement_leaves_the_connection_usable(pooled: BackendPostgres) -> None:
    await pooled.create_workflow_runs([NewRun("a")])
    session = await pooled.open_session(1)
    (run,) = await claim(session, "a")

    with pytest.raises(BackendError, match="json"):
        await flush(session, steps=[step_of(run, "bad", output="{")])

    assert not (await flush(session, steps=[step_of(run, "good")])).lost
    await session.close()


async def test_many_clients_share_few_server_connections(pooled: BackendPostgres) -> None:
    sessions = [await pooled.open_session(2) for _ in range(5)]

    async def work(number: int) -> int:
        await pooled.create_workflow_runs([NewRun("a")] * 10)
        runs = await claim(sessions[number], "a", limit=10, worker=f"w/{number}")
        ends = [end_of(run) for run in runs]
        flushed = await flush(sessions[number], ends=ends, worker=f"w/{number}")
        return len(runs) - len(flushed.lost)

    async with asyncio.timeout(60):
        ended = await asyncio.gather(*(work(number) for number in range(5)))

    left = (await pooled.count_runs())[RunStatus.PENDING]
    assert sum(ended) + left == 50
    for session in sessions:
        await session.close()


async def test_wake_ups_come_over_the_direct_connection(pooled: BackendPostgres) -> None:
    async with pooled.listen() as listener:
        woken = asyncio.Event()
        listener.on_work(woken.set)

        await pooled.create_workflow_runs([NewRun("a")])

        async with asyncio.timeout(25):
            await woken.wait()


async def test_without_a_direct_connection_one_warning_and_polling(
    pooler_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend = await BackendPostgres.connect(pooler_url)

    async with backend.listen() as listener:
        assert not listener.healthy

    assert caplog.text.count("OPENWORKFLOW_LISTEN_URL") == 1
    await backend.stop()


async def test_transactional_enqueue_works_over_a_pooled_connection(
    pooled: BackendPostgres, pooler_url: str
) -> None:
    connection = await asyncpg.connect(pooler_url, statement_cache_size=0)
    async with connection.transaction():
        (created,) = await pooled.create_workflow_runs([NewRun("a")], connection=connection)

    assert await pooled.get_workflow_run(created.id) is not None
    await connection.close()


async def test_the_tables_are_made_through_a_pooler(
    pooler_url: str, empty_database_url: str
) -> None:
    name = urlsplit(empty_database_url).path
    url = urlsplit(pooler_url)._replace(path=name).geturl()

    backends = await asyncio.gather(*(BackendPostgres.connect(url) for _ in range(5)))

    assert await backends[0].create_workflow_runs([NewRun("a")])
    for backend in backends:
        await backend.stop()


async def test_tables_with_rows_are_migrated_through_a_pooler_all_but_their_indexes(
    pooler_url: str, empty_database_url: str, program: Program
) -> None:
    url = urlsplit(pooler_url)._replace(path=urlsplit(empty_database_url).path).geturl()
    program.knows(*known()[:2])
    first = await BackendPostgres.connect(url)
    connection = await asyncpg.connect(empty_database_url)
    await connection.execute(  # a program of now writes columns that are not there yet
        "insert into workflow_runs (namespace_id, workflow_name, status, available_at) "
        "values ('default', 'a', 'pending', now())"
    )
    await connection.close()

    carried = [*takewhile(lambda each: not each.concurrently, known())]
    assert len(carried) > 2
    program.knows(*carried)
    backends = await asyncio.gather(*(BackendPostgres.connect(url) for _ in range(5)))
    assert all(state.applied_at for state in await backends[0].migration_states())

    index = "CREATE INDEX CONCURRENTLY late ON workflow_runs (worker_id);"
    program.knows(*carried, migration(99, "late", index, "additive, concurrently"))
    with pytest.raises(BackendError, match=r"0099 late .*pooler.*a URL that leads to PostgreSQL"):
        await BackendPostgres.connect(url)
    await (await BackendPostgres.connect(empty_database_url)).stop()
    await (await BackendPostgres.connect(url)).stop()
    for backend in (first, *backends):
        await backend.stop()
