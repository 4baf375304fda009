"""Runs that concurrent callers start share statements, and nothing else: not an error, no fate."""

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest

from openworkflow.backend.backend import BackendPostgres, ConnectionLost, CreatedRun, NewRun
from openworkflow.backend.gathering import FLIGHTS, Gathering
from openworkflow.core.errors import BackendError, Fault
from tests.helpers import eventually

GOOD = NewRun("w", input="1")
REFUSED = NewRun("w", input=r'"\u0000"')
"""The client would not let this pass; it stands for whatever only PostgreSQL can know."""


async def create(backend: BackendPostgres, run: NewRun) -> CreatedRun:
    (created,) = await backend.create_workflow_runs([run])
    return created


async def test_a_hundred_callers_share_commits(
    backend: BackendPostgres, sql: asyncpg.Connection
) -> None:
    created = await asyncio.gather(*(create(backend, GOOD) for _ in range(100)))

    stored = await sql.fetch("SELECT id, xmin FROM workflow_runs")
    assert {run.id for run in created} == {row["id"] for row in stored}
    assert 100 == len(stored)
    assert len({row["xmin"] for row in stored}) <= 5


async def test_each_caller_gets_the_run_it_asked_for(backend: BackendPostgres) -> None:
    wanted = [NewRun(f"w{number % 3}", input=str(number)) for number in range(60)]

    created = await asyncio.gather(*(create(backend, run) for run in wanted))

    for asked, answer in zip(wanted, created, strict=True):
        run = await backend.get_workflow_run(answer.id)
        assert run is not None
        assert (asked.workflow_name, asked.input) == (run.workflow_name, str(run.input))


async def test_a_run_that_is_refused_fails_alone(backend: BackendPostgres) -> None:
    wanted = [GOOD] * 10 + [REFUSED] + [GOOD] * 10

    answers = await asyncio.gather(
        *(create(backend, run) for run in wanted), return_exceptions=True
    )

    assert isinstance(answers[10], BackendError)
    assert 20 == sum(isinstance(answer, CreatedRun) for answer in answers)
    assert 20 == len((await backend.list_workflow_runs(limit=100)).runs)


async def test_a_caller_that_gives_up_takes_nobody_along(
    backend: BackendPostgres, database_url: str
) -> None:
    blocker = await asyncpg.connect(database_url)
    async with blocker.transaction():
        await blocker.execute("LOCK TABLE workflow_runs")
        callers = [asyncio.create_task(create(backend, GOOD)) for _ in range(10)]
        await eventually(lambda: _blocked(blocker, 2))
        callers[5].cancel()
    answers = await asyncio.gather(*callers, return_exceptions=True)
    await blocker.close()

    assert isinstance(answers[5], asyncio.CancelledError)
    assert 9 == sum(isinstance(answer, CreatedRun) for answer in answers)
    assert 9 == len((await backend.list_workflow_runs()).runs)


async def test_callers_that_have_all_given_up_have_nothing_sent() -> None:
    """A statement for nobody, once it failed, was cut in halves that were as empty, forever."""
    sent: list[int] = []
    gate = asyncio.Event()

    async def send(runs: Sequence[NewRun]) -> list[CreatedRun]:
        sent.append(len(runs))
        await gate.wait()
        raise BackendError("refused").of(Fault.TABLE)

    gathering = Gathering(send)
    callers = [asyncio.create_task(gathering.create(GOOD)) for _ in range(FLIGHTS + 2)]
    await eventually(lambda: len(sent) == FLIGHTS)
    for caller in callers:
        caller.cancel()
    gate.set()
    await asyncio.gather(*callers, return_exceptions=True)
    with pytest.raises(BackendError, match="refused"):
        await gathering.create(GOOD)

    assert [1] * (FLIGHTS + 1) == sent


async def test_a_lost_connection_is_told_to_all_and_the_next_caller_gets_through(
    backend: BackendPostgres, database_url: str
) -> None:
    blocker, killer = [await asyncpg.connect(database_url) for _ in range(2)]
    async with blocker.transaction():
        await blocker.execute("LOCK TABLE workflow_runs")
        callers = [asyncio.create_task(create(backend, GOOD)) for _ in range(10)]
        await eventually(lambda: _killed_until_done(killer, callers))
    for connection in (blocker, killer):
        await connection.close()

    answers = await asyncio.gather(*callers, return_exceptions=True)
    assert [ConnectionLost] * 10 == [type(answer) for answer in answers]
    assert (await create(backend, GOOD)).created


@pytest.mark.parametrize("size", [10, 100_000])
async def test_what_is_too_big_to_share_goes_by_itself(
    backend: BackendPostgres, sql: asyncpg.Connection, size: int
) -> None:
    run = NewRun("w", input=f'"{"x" * size}"')

    await asyncio.gather(*(create(backend, run) for _ in range(20)))

    commits = await sql.fetchval("SELECT count(DISTINCT xmin::text) FROM workflow_runs")
    assert (commits == 20) == (size > 65_536)


async def _blocked(connection: asyncpg.Connection, count: int) -> bool:
    waiting = await connection.fetchval(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'workflow_runs'::regclass"
    )
    return bool(waiting >= count)


async def _killed_until_done(
    killer: asyncpg.Connection, callers: list[asyncio.Task[CreatedRun]]
) -> bool:
    await killer.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    return all(caller.done() for caller in callers)


async def test_what_is_too_much_for_one_statement_is_sent_in_halves_at_once(
    backend: BackendPostgres, sql: asyncpg.Connection
) -> None:
    """Where statement_timeout is too short for many, waiting does not help."""
    await sql.execute("""
        create sequence refusals;
        create function refuse_many() returns trigger language plpgsql as $$
        begin
            if (select count(*) from added) > 5 then
                perform nextval('refusals');
                raise exception 'a test says that it takes too long' using errcode = '57014';
            end if;
            return null;
        end $$;
        create trigger refuse_many after insert on workflow_runs
            referencing new table as added for each statement execute function refuse_many()""")

    created = await asyncio.gather(*(create(backend, GOOD) for _ in range(42)))

    assert 42 == len({run.id for run in created})
    # Of two that go alone 40 are left: 40, 20 twice, 10 four times.
    assert await sql.fetchval("select last_value from refusals") <= 7
    assert await sql.fetchval("select count(distinct xmin::text) from workflow_runs") <= 10
