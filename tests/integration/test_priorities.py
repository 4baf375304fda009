"""Priorities: who goes first where there is not room for all, and that nobody waits forever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from openworkflow import BackendPostgres, OpenWorkflow, RunHandle, RunStatus, Step, workflow
from openworkflow.backend import flush as flushes
from openworkflow.backend import queries
from openworkflow.backend.backend import NewRun, WorkerSession
from openworkflow.backend.connection import WORKER_SETTINGS
from openworkflow.backend.flush import Shape
from openworkflow.backend.records import ClaimedRun
from openworkflow.core.limits import LimitRule
from tests.flushes import claim, end_of, flush, wanted
from tests.helpers import StartWorker, eventually


@pytest.fixture
async def session(backend: BackendPostgres) -> AsyncIterator[WorkerSession]:
    session = await backend.open_session(1)
    yield session
    await session.close()


async def create(backend: BackendPostgres, *runs: NewRun) -> list[UUID]:
    return [created.id for created in await backend.create_workflow_runs(list(runs))]


async def aged(sql: asyncpg.Connection[Any], run_id: UUID, minutes: float) -> None:
    """As if it had been due for so long."""
    await sql.execute(
        "update workflow_runs set available_at = now() - make_interval(secs => 60 * $2::float8)"
        " where id = $1",
        *(run_id, minutes),
    )


async def look(session: WorkerSession, *names: str) -> None:
    """A claim that takes nothing; from now on it is known whether runs with a priority wait."""
    assert [] == await take(session, 0, *(names or ("a",)))


async def take(session: WorkerSession, limit: int, *names: str, **options: Any) -> list[ClaimedRun]:
    return (await flush(session, claim=wanted(limit, *names, **options))).claimed


async def in_turn(session: WorkerSession, *names: str, **options: Any) -> list[UUID]:
    """All that is due, one claim for each."""
    taken = []
    while runs := await take(session, 1, *names, **options):
        taken += [run.id for run in runs]
    return taken


async def test_of_runs_that_are_due_the_higher_priority_is_taken_first(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    plain, low, high = await create(
        backend, NewRun("a"), NewRun("a", priority=1), NewRun("a", priority=9)
    )
    await look(session)

    assert [high, low, plain] == await in_turn(session, "a")


async def test_one_claim_takes_those_with_a_priority_and_fills_itself_with_others(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    created = await create(
        backend, *[NewRun("a")] * 3, *[NewRun("a", priority=2)] * 3, *[NewRun("b", priority=1)] * 2
    )
    await look(session, "a", "b")

    first = await take(session, 4, "a", "b")
    rest = await take(session, 10, "a", "b")

    assert {*created[3:6]} < {run.id for run in first} <= {*created[3:]}
    assert {*created} == {run.id for run in [*first, *rest]}
    assert len(created) == len(first) + len(rest)


@pytest.mark.parametrize(("minutes", "is_first"), [(59, False), (61, True)])
async def test_a_priority_is_an_hour_of_waiting_for_each_of_its_levels(
    backend: BackendPostgres,
    session: WorkerSession,
    sql: asyncpg.Connection[Any],
    minutes: int,
    is_first: bool,
) -> None:
    """So nobody waits forever behind those who go before."""
    plain, prior = await create(backend, NewRun("a"), NewRun("a", priority=2))
    await aged(sql, plain, 60 + minutes)
    await look(session)

    (first,) = await take(session, 1, "a")

    assert (plain if is_first else prior) == first.id


async def test_a_run_ages_among_those_with_a_priority_too(
    backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    old, new = await create(backend, NewRun("a", priority=1), NewRun("a", priority=3))
    await aged(sql, old, 121)
    await look(session)

    assert [old, new] == await in_turn(session, "a")


@pytest.mark.parametrize("of", [1, 2, -1])
async def test_a_workflow_with_a_priority_counts_as_longer_due(
    backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any], of: int
) -> None:
    """Whoever started its runs, and by what code: those that serve it know."""
    plain, prior = await create(backend, NewRun("a"), NewRun("b"))
    later = 60 * abs(of)
    priorities = {"b\x1f": of}
    ages = [(later - 1, 0), (later + 1, 0)] if of > 0 else [(0, later + 1), (0, later - 1)]
    firsts = []
    for plain_age, prior_age in ages:
        await aged(sql, plain, plain_age)
        await aged(sql, prior, prior_age)
        first, second = await in_turn(session, "a", "b", priorities=priorities)
        assert {plain, prior} == {first, second}
        firsts.append(first)
        await sql.execute("update workflow_runs set status = 'pending', worker_id = null")

    assert [prior, plain] == firsts


async def test_a_priority_below_that_of_the_workflow_changes_nothing(
    backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    plain, lower, higher = await create(
        backend, NewRun("a"), NewRun("a", priority=2), NewRun("a", priority=3)
    )
    await aged(sql, plain, 1)
    await look(session)

    assert [higher, plain, lower] == await in_turn(session, "a", priorities={"a\x1f": 2})


async def test_a_run_with_a_priority_is_due_when_others_are(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    await create(backend, NewRun("a", priority=9, delay=timedelta(minutes=10)))
    await look(session)

    assert [] == await take(session, 10, "a")


async def test_a_run_that_wakes_goes_before_those_that_came_before(
    backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    """A head start that were taken off `available_at` when it was started would be gone by now."""
    sleeping, plain = await create(backend, NewRun("a", priority=1), NewRun("a"))
    (run,) = [each for each in await claim(session, "a") if each.id == sleeping]
    await flush(session, ends=[end_of(run, RunStatus.PENDING, delay=0.0)])
    await sql.execute(
        "update workflow_runs set status = 'pending', worker_id = null,"
        " available_at = now() - interval '10 minutes' where id = $1",
        plain,
    )
    await look(session)

    assert [sleeping, plain] == await in_turn(session, "a")


async def test_a_priority_counts_among_runs_of_a_build_and_beside_them(
    backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    own, own_prior, other, other_prior = await create(
        backend,
        *(NewRun("a"), NewRun("a", priority=2), NewRun("a"), NewRun("a", priority=1)),
    )
    await sql.execute(
        "update workflow_runs set pinned = true, build_id = 'x' where id = any ($1)",
        [own, own_prior],
    )
    await look(session)

    assert [own_prior, other_prior, own, other] == await in_turn(session, "a", build_id="x")


async def test_only_the_build_that_a_run_is_pinned_to_takes_it_whatever_its_priority(
    backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    (run_id,) = await create(backend, NewRun("a", priority=9))
    await sql.execute("update workflow_runs set pinned = true, build_id = 'x'")
    await look(session)

    assert [] == await take(session, 5, "a", build_id="y")
    assert [run_id] == [run.id for run in await take(session, 5, "a", build_id="x")]


async def test_a_run_that_cannot_be_claimed_keeps_no_priority_waiting(
    backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    """One that has been due for days would come before any that goes before others."""
    refused, plain, prior = await create(backend, NewRun("a"), NewRun("a"), NewRun("a", priority=1))
    await aged(sql, refused, 3 * 24 * 60)
    await aged(sql, plain, 30)
    await look(session)

    (first,) = await take(session, 1, "a", spared=[refused])
    assert prior == first.id

    await flush(session, ends=[end_of(first)])
    (again,) = await create(backend, NewRun("a", priority=1))
    async with sql.transaction():
        await sql.execute("select from workflow_runs where id = $1 for update", refused)
        (first,) = await take(session, 1, "a")
    assert again == first.id


async def test_a_paused_run_with_a_priority_is_set_aside_like_any_other(
    backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    prior, plain = await create(backend, NewRun("a", priority=1), NewRun("b"))
    await sql.execute("insert into workflow_pauses (namespace_id, workflow_name) values ($1, $2)",
                      "default", "a")  # fmt: skip
    await look(session, "a", "b")

    assert [plain] == [run.id for run in await take(session, 10, "a", "b")]
    assert await sql.fetchval("select paused from workflow_runs where id = $1", prior)


async def test_a_claim_where_nobody_has_a_priority_looks_for_none(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    """What is not used costs nothing: the statement is the one without these arms."""
    await create(backend, *[NewRun("a")] * 3)
    await take(session, 1, "a")
    assert [False] == [shape.urgent for shape in session._statements]

    await create(backend, NewRun("a", priority=1))
    await take(session, 1, "a")
    await take(session, 1, "a")
    assert [False, True] == [shape.urgent for shape in session._statements]

    await take(session, 5, "a")
    assert 2 == len(session._statements)
    (shape,) = {*session._statements} - {Shape((), False, True, urgent=True)}
    assert not shape.urgent
    assert not session._urgent


_MANY = (
    "insert into workflow_runs (workflow_name, status, available_at, priority)"
    " select 'a', 'pending', now() - interval '1 s' * i, case when i % 100 = 0 then 3 end"
    " from generate_series(1, 20000) i"
)


@pytest.mark.parametrize("is_analysed", [False, True])
async def test_claims_find_priorities_by_their_index_on_any_table(
    database_url: str, is_analysed: bool
) -> None:
    """Also on a table that was never analysed, in a plan that was made for any arguments."""
    connection = await asyncpg.connect(database_url, server_settings=dict(WORKER_SETTINGS))
    await connection.execute("alter table workflow_runs set (autovacuum_enabled = off)")
    await connection.execute(_MANY)
    if is_analysed:
        await connection.execute("analyze workflow_runs")
    shape = Shape((), updates=False, claim=True, urgent=True)
    statement = flushes.statement(queries.load("public"), shape)
    await connection.execute(f"prepare claims as {statement}")
    nothing = ", ".join("null" for _ in shape.parameters)

    plan = [row[0] for row in await connection.fetch(f"explain execute claims ({nothing})")]
    await connection.close()

    scans = [line for line in plan if "idx_workflow_runs_priority on workflow_runs" in line]
    others = [line for line in plan if "Scan using" in line and "on workflow_runs" in line]
    # Two walks for each of two arms, and the look that says whether there are any.
    assert 5 == len(scans), "\n".join(others)


@workflow
async def leaf(input: int, step: Step) -> int:
    return input


@workflow
async def quick(input: int, step: Step) -> int:
    return await step.run_workflow("child", leaf, input)


@workflow(priority=4)
async def important(input: int, step: Step) -> int:
    await step.run_workflow("higher", leaf, input, priority=6)
    await step.run_workflow("lower", leaf, input, priority=1)
    return await step.run_workflow("child", leaf, input)


@workflow
async def mapped(input: int, step: Step) -> list[int]:
    return await step.map("items", leaf, [1, 2], priority=3)


async def priorities(sql: asyncpg.Connection[Any], parent: UUID) -> list[int | None]:
    rows = await sql.fetch(
        "select priority from workflow_runs where parent_run_id = $1 order by priority", parent
    )
    return [row["priority"] for row in rows]


async def test_children_have_the_priority_of_their_parent_if_that_is_higher(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    await start_worker(leaf, quick, important, mapped)
    runs: list[RunHandle[Any]] = [
        await ow.run_workflow(quick, 1, priority=2),
        await ow.run_workflow(quick, 1),
        await ow.run_workflow(important, 1),
        await ow.run_workflow(important, 1, priority=9),
        await ow.run_workflow(mapped, 1, priority=1),
    ]
    await asyncio.gather(*(run.result(30) for run in runs))

    found = [await priorities(sql, run.id) for run in runs]

    assert [[2], [None], [4, 4, 6], [9, 9, 9], [3, 3]] == found


@workflow
async def again(input: int, step: Step) -> int:
    if input < 2:
        await step.continue_as_new(input + 1)
    if input == 2:
        raise ValueError("it fails the first time")
    return input


async def test_a_run_keeps_its_priority_when_it_goes_on_is_retried_or_forked(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    await start_worker(again)
    run = await ow.run_workflow(again, 0, priority=5)
    await eventually(lambda: status_is(ow, run.id, RunStatus.FAILED))
    assert 5 == (await ow.get_run(run.id)).run.priority

    await sql.execute("update workflow_runs set input = '3'")
    await ow.retry(run.id)
    assert 3 == await run.result(30)
    fork = await ow.fork(run.id, input=7)

    assert 7 == await fork.result(30)
    assert [5, 5] == [(await ow.get_run(each.id)).run.priority for each in (run, fork)]


async def status_is(ow: OpenWorkflow, run_id: UUID, status: RunStatus) -> bool:
    return (await ow.get_run(run_id)).run.status == status


class Till:
    """One run at a time; the first holds it until all others are there."""

    def __init__(self) -> None:
        self.order: list[int] = []
        self.begun, self.open = asyncio.Event(), asyncio.Event()

    async def serve(self, number: int) -> None:
        self.order.append(number)
        self.begun.set()
        await self.open.wait()


till = Till()


@workflow
async def customer(number: int, step: Step) -> None:
    await step.run("serve", till.serve, number)


async def test_under_a_backlog_a_worker_takes_priorities_first_and_everybody_in_the_end(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    till.__init__()  # type: ignore[misc]
    runs = await ow.run_workflows(customer, list(range(40)))
    await start_worker(customer, concurrency=1)
    await till.begun.wait()
    runs += await ow.run_workflows(customer, list(range(100, 110)), priority=1)
    runs += await ow.run_workflows(customer, list(range(200, 210)), priority=2)
    till.open.set()
    await asyncio.gather(*(run.result(60) for run in runs))

    # What was claimed before they came, and by the claim that found out that they are there.
    late = [number for number in till.order[:24] if number < 100]
    high = [number for number in till.order if number >= 200]
    assert 60 == len(till.order) == len({*till.order})
    assert len(late) <= 4
    assert {*range(200, 210)} == {*high}
    assert [*range(100, 110)] == [number for number in till.order if 100 <= number < 200]
    assert max(map(till.order.index, high)) < till.order.index(100)


async def test_a_debounced_or_unique_run_has_its_priority_and_so_has_one_with_a_key(
    ow: OpenWorkflow,
) -> None:
    runs = [
        await ow.run_workflow(leaf, 1, priority=1, unique="x"),
        await ow.run_workflow(leaf, 1, priority=2, idempotency_key="y"),
        *await ow.run_workflows(leaf, [1, 1], priority=3),
        await ow.run_workflow("leaf", 1, priority=4),
        await ow.run_workflow(leaf, 1, priority=0),
    ]

    found = [(await ow.get_run(run.id)).run.priority for run in runs]

    assert [1, 2, 3, 3, 4, None] == found
    assert {runs[2].id, runs[3].id, runs[4].id} == {
        run.id for run in (await ow.list_runs(where="priority>2")).runs
    }
    assert [runs[5].id] == [run.id for run in (await ow.list_runs(where="priority:0")).runs]


async def test_runs_that_wait_for_a_limit_stand_in_their_lane_by_priority(
    backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    await backend.limits.ensure([LimitRule(name="a", slots=1)])
    (first,) = await create(backend, NewRun("a", limits="a"))
    plain, prior, higher = await create(
        backend,
        *(NewRun("a", limits="a"), NewRun("a", limits="a", priority=1)),
        NewRun("a", limits="a", priority=2),
    )
    await sql.execute("update workflow_runs set priority = 3 where id = $1", plain)
    order = []
    for _ in range(4):
        (run,) = await take(session, 5, "a")
        order.append(run.id)
        await flush(session, ends=[end_of(run)])

    assert [first, plain, higher, prior] == order
    assert [] == (await backend.diagnostics()).violations
