"""Limits: never more than they allow, never less than there is room for, whoever writes,
in whatever order. What waits for a limit is not due, and nothing has to be running for it to go on.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from openworkflow import (
    BackendPostgres,
    Limit,
    OpenWorkflow,
    Rate,
    RetryPolicy,
    RunStatus,
    Step,
    WorkflowFailed,
    workflow,
)
from openworkflow.backend.backend import NewRun, WorkerSession
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.explanation import Reason
from openworkflow.core.limits import LimitRule
from openworkflow.core.workflow_run import WorkflowRun
from tests.database_roles import command
from tests.flushes import claim, end_of, expire_leases, flush
from tests.helpers import StartWorker

DUE = "select count(*) from workflow_runs where status = 'pending' and available_at <= now()"


@pytest.fixture
async def session(backend: BackendPostgres) -> Any:
    session = await backend.open_session(1)
    yield session
    await session.close()


async def run_of(backend: BackendPostgres, run_id: UUID) -> WorkflowRun:
    run = await backend.get_workflow_run(run_id)
    assert run is not None
    return run


async def sound(backend: BackendPostgres) -> None:
    assert [] == (await backend.diagnostics()).violations


def of(key: str, *, all: bool = False) -> str:
    return f"a/key\x1f{key}" + ("\x1ea" if all else "")


async def test_no_more_runs_are_due_than_there_are_slots(
    backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    await backend.limits.ensure([LimitRule(name="a/key", slots=2)])
    created = await backend.create_workflow_runs([NewRun("a", limits=of("x"))] * 5)
    await backend.create_workflow_runs([NewRun("a", limits=of("y"))])

    assert 3 == await sql.fetchval(DUE)
    await sound(backend)
    runs = await claim(session, "a")
    assert 3 == len(runs)
    first = [run for run in runs if run.id in {each.id for each in created}]
    assert [created[0].id, created[1].id] == [run.id for run in first]
    await sound(backend)

    await flush(session, ends=[end_of(first[0])])

    assert [created[2].id] == [run.id for run in await claim(session, "a")]
    await sound(backend)
    await flush(session, ends=[end_of(first[1])])
    assert 1 == await sql.fetchval(DUE)
    for _ in range(3):
        for run in await claim(session, "a"):
            await flush(session, ends=[end_of(run)])
    assert {RunStatus.RUNNING, RunStatus.SUCCEEDED} == {
        status for status, count in (await backend.count_runs()).items() if count
    }
    await sound(backend)


class Shop:
    """Counts how many of its customers' steps go on at once."""

    def __init__(self) -> None:
        self.now: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self.most_of_all = 0

    async def serve(self, name: str) -> str:
        self.now[name] = self.now.get(name, 0) + 1
        self.most[name] = max(self.most.get(name, 0), self.now[name])
        self.most_of_all = max(self.most_of_all, sum(self.now.values()))
        await asyncio.sleep(0.01)
        self.now[name] -= 1
        return name


async def test_a_worker_executes_as_many_of_a_customer_at_once_as_the_code_says(
    ow: OpenWorkflow, backend: BackendPostgres, start_worker: StartWorker
) -> None:
    shop = Shop()

    @workflow(limits=[Limit(2, key=lambda name: name), Limit(5)])
    async def serve(name: str, step: Step) -> str:
        await step.run("serve", shop.serve, name)
        await step.sleep("nap", 0.01)
        return await step.run("again", shop.serve, name)

    handles = await ow.run_workflows(serve, [f"c{n % 5}" for n in range(40)])
    await start_worker(serve, concurrency=40)
    by_name = [await ow.run_workflow("serve", f"c{n % 5}") for n in range(10)]

    async with asyncio.timeout(60):
        for handle in handles:
            await handle.result()
        for each in by_name:
            await each.result()
    assert 2 >= max(shop.most.values())
    assert 5 == shop.most_of_all
    await sound(backend)
    assert [("serve", 0, 0), ("serve/key", 0, 0)] == [
        (each.name, each.used, each.waiting) for each in await backend.limits.list()
    ]


async def test_lanes_of_a_shared_limit_take_turns(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    await backend.limits.ensure([LimitRule(name="a/key", slots=5), LimitRule(name="a", slots=2)])
    await backend.create_workflow_runs([NewRun("a", limits=of("x", all=True))] * 6)
    await backend.create_workflow_runs([NewRun("a", limits=of("y", all=True))] * 2)
    await backend.create_workflow_runs([NewRun("a", limits=of("z", all=True))] * 2)
    order: list[str] = []

    running = await claim(session, "a")
    while running:
        run = running.pop(0)
        order.append((await run_of(backend, run.id)).limits[0][-1])  # type: ignore[index]
        await flush(session, ends=[end_of(run)])
        running += await claim(session, "a")
        assert 2 >= len(running)
        await sound(backend)

    assert "xxxyzxyzxx" == "".join(order)  # the one that waited first


@pytest.mark.parametrize("how", ["cancel", "pause", "delete", "deadline", "fail", "truncate"])
async def test_a_slot_is_never_lost(
    ow: OpenWorkflow,
    backend: BackendPostgres,
    session: WorkerSession,
    sql: asyncpg.Connection[Any],
    how: str,
) -> None:
    await backend.limits.ensure([LimitRule(name="a/key", slots=1)])
    first, second, third = await backend.create_workflow_runs([NewRun("a", limits=of("x"))] * 3)
    if how == "cancel":
        await ow.cancel(second.id)
        await ow.cancel(first.id)
    elif how == "pause":
        await ow.pause(second.id)
        await ow.pause(first.id)
    elif how == "delete":
        await sql.execute("delete from workflow_runs where id = any ($1)", [first.id, second.id])
    elif how == "deadline":
        await sql.execute(
            "update workflow_runs set deadline_at = now() where id = any ($1)",
            [first.id, second.id],
        )
        assert {first.id, second.id} == {run.id for run in await claim(session, "a")}
        ended = "update workflow_runs set status = 'failed', completed_at = now(), worker_id = null"
        await sql.execute(f"{ended} where id = any ($1)", [first.id, second.id])
    elif how == "fail":
        for _ in range(2):
            (run,) = await claim(session, "a")
            await flush(session, ends=[end_of(run, RunStatus.FAILED)])
    else:
        await sql.execute("set session_replication_role = replica")
        await sql.execute("delete from workflow_runs where id = any ($1)", [first.id, second.id])
        assert (await backend.diagnostics()).violations
        await sql.execute("update workflow_limits set updated_at = now() - interval '1 h'")
        await backend.limits.declare([LimitRule(name="a/key", slots=1)], ["a"])

    assert [third.id] == [run.id for run in await claim(session, "a")]
    await sound(backend)
    if how == "pause":
        await ow.resume(first.id)
        await ow.resume(second.id)
        await ow.cancel(third.id)
        assert [first.id] == [run.id for run in await claim(session, "a")]
    if how == "cancel":
        await ow.retry(first.id)
        assert [] == await claim(session, "a")
        await ow.cancel(third.id)
        assert [first.id] == [run.id for run in await claim(session, "a")]
    await sound(backend)


async def test_a_run_that_sleeps_gives_its_slot_back_and_waits_for_one_when_it_wakes(
    backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    await backend.limits.ensure([LimitRule(name="a/key", slots=1)])
    sleeper, forever, other = await backend.create_workflow_runs([NewRun("a", limits=of("x"))] * 3)
    (run,) = await claim(session, "a")
    await flush(session, ends=[end_of(run, RunStatus.PENDING, delay=3600.0)])
    await sound(backend)
    (run,) = await claim(session, "a")
    await flush(session, ends=[end_of(run, RunStatus.PENDING, forever=True, wake_no=0)])
    (run,) = await claim(session, "a")
    assert other.id == run.id

    await backend.wake_workflow_run(forever.id)
    assert 0 == await sql.fetchval(DUE)
    # The time of the first comes: the claim that finds it lets it wait behind.
    await sql.execute("update workflow_runs set available_at = now() where id = $1", sleeper.id)
    assert [] == await claim(session, "a")
    await sound(backend)
    await flush(session, ends=[end_of(run, RunStatus.PENDING, delay=0.0)])

    # Handed back, it goes on first; it is about to be executed, and keeps its slot.
    (run,) = await claim(session, "a")
    assert other.id == run.id
    await flush(session, ends=[end_of(run)])
    (run,) = await claim(session, "a")
    assert forever.id == run.id
    await flush(session, ends=[end_of(run)])
    assert [sleeper.id] == [run.id for run in await claim(session, "a")]
    await sound(backend)


async def test_a_dead_worker_keeps_the_slot_until_another_takes_over(
    backend: BackendPostgres,
    session: WorkerSession,
    sql: asyncpg.Connection[Any],
    database_url: str,
) -> None:
    await backend.limits.ensure([LimitRule(name="a/key", slots=1)])
    await backend.create_workflow_runs([NewRun("a", limits=of("x"))] * 2)
    (run,) = await claim(session, "a")
    await expire_leases(database_url)

    assert [run.id] == [each.id for each in await claim(session, "a", worker="host/2")]
    assert 0 == await sql.fetchval(DUE)
    await sound(backend)


async def test_a_paused_workflow_takes_no_slots_and_goes_on_when_it_is_resumed(
    ow: OpenWorkflow, backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    await backend.limits.ensure([LimitRule(name="shared", slots=1)])
    created = await backend.create_workflow_runs([NewRun("a", limits="shared")] * 2)
    await ow.pause(workflow="a")
    late = await backend.create_workflow_runs([NewRun("a", limits="shared")])
    (other,) = await backend.create_workflow_runs([NewRun("b", limits="shared")])

    assert [other.id] == [run.id for run in await claim(session, "a", "b")]
    await sound(backend)
    await ow.resume(workflow="a")
    assert [] == await claim(session, "a", "b")
    await ow.cancel(other.id)
    for each in (*created, *late):
        (run,) = await claim(session, "a", "b")
        assert each.id == run.id
        await flush(session, ends=[end_of(run)])
    await sound(backend)


async def test_a_rate_lets_runs_begin_one_after_the_other(
    backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    rule = LimitRule(name="a/rate", rate=1, rate_seconds=60.0, burst=2)
    await backend.limits.ensure([rule])
    created = await backend.create_workflow_runs([NewRun("a", limits="a/rate")] * 5)

    first = await claim(session, "a")
    assert [created[0].id, created[1].id] == [run.id for run in first]
    third = await run_of(backend, created[2].id)
    assert third.limits == ["a/rate"]
    wait = (third.available_at - first[0].claimed_at).total_seconds()
    assert 59 < wait < 61
    assert 0 == await sql.fetchval(DUE)
    await sound(backend)
    # It counts once, when it begins: not when it goes on.
    await flush(session, ends=[end_of(run, RunStatus.PENDING, delay=0.0) for run in first])
    assert 2 == len(await claim(session, "a"))

    await backend.limits.set(LimitRule(name="a/rate"))

    assert 3 == await sql.fetchval(DUE)
    await sound(backend)
    assert await backend.limits.delete("a/rate")
    await backend.create_workflow_runs([NewRun("a", limits="a/rate")])
    assert 3 == await sql.fetchval(DUE)


async def woken(sql: asyncpg.Connection[Any], run_id: UUID) -> None:
    """What it waited for is there."""
    await sql.execute(
        "update workflow_runs set available_at = case when paused then available_at else now() end,"
        " due_at = case when paused then now() end where id = $1",
        run_id,
    )


async def asleep(session: WorkerSession, *names: str) -> Any:
    """The one run that is due, which has begun and sleeps from now on."""
    (run,) = await claim(session, *names)
    await flush(session, ends=[end_of(run, RunStatus.PENDING, delay=7200.0)])
    return run


async def test_a_pause_of_a_limit_holds_no_run_that_has_begun(
    backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    """It slept until the end of the pause, as if it were to begin."""
    await backend.limits.ensure([LimitRule(name="one", slots=1)])
    await backend.create_workflow_runs([NewRun("a", limits="one")])
    run = await asleep(session, "a")
    await backend.limits.pause("one", None, 3600.0)

    await woken(sql, run.id)

    assert [run.id] == [each.id for each in await claim(session, "a")]
    await sound(backend)


@pytest.mark.parametrize("held", ["pause", "rate"])
@pytest.mark.parametrize("who", ["one that has begun", "another workflow"])
async def test_a_run_that_may_not_begin_yet_keeps_no_slot_from_those_who_may(
    backend: BackendPostgres,
    session: WorkerSession,
    sql: asyncpg.Connection[Any],
    held: str,
    who: str,
) -> None:
    """It had the only slot for all of the hour until its time, and everybody waited for that."""
    rate = LimitRule(name="r", rate=1, rate_seconds=3600.0, burst=1)
    await backend.limits.ensure([LimitRule(name="one", slots=1), LimitRule(name="p"), rate])
    both = "one\x1e" + ("r" if held == "rate" else "p")
    await backend.create_workflow_runs([NewRun("a", limits=both)])
    begun = await asleep(session, "a")
    if held == "pause":
        await backend.limits.pause("p", None, 3600.0)
    (later,) = await backend.create_workflow_runs([NewRun("a", limits=both)])
    opens = (await run_of(backend, later.id)).available_at
    assert timedelta(minutes=59) < opens - begun.claimed_at < timedelta(minutes=61)

    if who == "another workflow":
        await backend.create_workflow_runs([NewRun("b", limits="one")])
    else:
        await woken(sql, begun.id)

    (run,) = await claim(session, "a", "b")
    await sound(backend)
    assert (begun.id == run.id) is (who == "one that has begun")
    assert opens != (await run_of(backend, later.id)).available_at
    await flush(session, ends=[end_of(run)])
    assert opens == (await run_of(backend, later.id)).available_at
    assert 0 == await sql.fetchval(DUE)
    await sound(backend)


async def test_a_slot_goes_to_who_may_begin_before_who_may_only_later(
    backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    rate = LimitRule(name="r", rate=1, rate_seconds=3600.0, burst=1)
    await backend.limits.ensure([LimitRule(name="one", slots=1), rate])
    await backend.create_workflow_runs([NewRun("a", limits="one\x1er")])
    (running,) = await claim(session, "a")
    await backend.create_workflow_runs([NewRun("a", limits="one\x1er")])
    (now,) = await backend.create_workflow_runs([NewRun("b", limits="one")])

    await flush(session, ends=[end_of(running)])

    assert [now.id] == [each.id for each in await claim(session, "a", "b")]
    await sound(backend)


async def test_a_limit_is_changed_and_paused_without_a_deploy(
    backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    rule = LimitRule(name="a/key", slots=1, workflow_name="a")
    await backend.limits.ensure([rule])
    await backend.create_workflow_runs([NewRun("a", limits=of("x"))] * 6)

    await backend.limits.set(LimitRule(name="a/key", slots=3))
    await backend.limits.declare([rule], ["a"])
    assert 3 == await sql.fetchval(DUE)
    await backend.limits.set(LimitRule(name="a/key", slots=0))
    assert 3 == len(await claim(session, "a"))
    assert await backend.limits.delete("a/key")
    assert 0 == await sql.fetchval(DUE)
    await backend.limits.declare([], ["a"])  # the code has it no more
    assert 3 == await sql.fetchval(DUE)
    assert [] == await backend.limits.list()


async def test_what_a_run_waits_for_is_explained(
    ow: OpenWorkflow, backend: BackendPostgres, session: WorkerSession
) -> None:
    rate = LimitRule(name="a/rate", rate=1, rate_seconds=3600.0, burst=1)
    await backend.limits.ensure([LimitRule(name="a/key", slots=1), rate])
    keyed = await backend.create_workflow_runs([NewRun("a", limits=of("x"))] * 3)
    rated = await backend.create_workflow_runs([NewRun("a", limits="a/rate")] * 3)
    assert {keyed[0].id, rated[0].id} == {run.id for run in await claim(session, "a")}

    last, next, third = [await ow.explain(run.id) for run in (keyed[2], rated[1], rated[2])]

    assert Reason.LIMITED == last.reason
    assert (
        "it waits for limit 'a/key' of 'x', which has 1 of 1 slots in use, by run "
        f"{keyed[0].id}, behind 1 with the same." == last.sentence
    )
    assert (1, "a/key", "x") == (last.ahead, last.limits[0].name, last.limits[0].key)
    assert keyed[0].id == last.limits[0].holder
    assert "it waits for limit 'a/rate', and may begin " in next.sentence
    assert next.until is not None
    assert "it waits for limit 'a/rate'." == third.sentence
    await backend.limits.pause("a/rate", None, 7200.0)
    held, behind = [(await ow.explain(run.id)).sentence for run in (rated[1], rated[2])]
    assert held.startswith("it waits for limit 'a/rate', which is paused until 2")
    assert "begin" not in held
    assert held[:-1] in behind
    await backend.limits.set(LimitRule(name="a/key", slots=0))
    told = (await ow.explain(keyed[1].id)).sentence
    assert "it waits for limit 'a/key' of 'x', which lets none be executed." == told
    assert not (await run_of(backend, keyed[1].id)).paused
    await ow.pause(keyed[2].id)
    assert Reason.PAUSED == (await ow.explain(keyed[2].id)).reason
    assert (await run_of(backend, keyed[2].id)).paused


async def test_limits_are_listed_set_and_paused_from_the_command_line(
    backend: BackendPostgres, database_url: str, sql: asyncpg.Connection[Any]
) -> None:
    await backend.limits.ensure([LimitRule(name="a/key", slots=1, workflow_name="a")])
    await backend.create_workflow_runs([NewRun("a", limits=of("x"))] * 4)

    async def cli(*arguments: str) -> str:
        code, said = await command(database_url, "limits", *arguments)
        assert code == 0, said
        return said

    assert "a/key  1" in await cli("list")
    assert '"waiting": 3' in await cli("list", "--json")
    await cli("set", "a/key", "2")
    assert 2 == await sql.fetchval(DUE)
    await cli("set", "a/key", "3", "--rate", "5", "--per", "1m", "--burst", "2")
    assert "5 in 60 s, 2 at once" in await cli("list")
    await cli("pause", "a/key", "--for", "1h")
    await cli("set", "a/key", "5")
    assert 3 == await sql.fetchval(DUE)
    assert "until 20" in await cli("list")
    await cli("resume", "a/key")
    assert 4 == await sql.fetchval(DUE)
    await cli("delete", "a/key")
    assert 1 == (await backend.limits.list())[0].slots
    code, said = await command(database_url, "limits", "pause", "b", "--for", "1h")
    assert (1, True) == (code, "there is no limit 'b'" in said)


async def test_runs_that_wake_without_a_slot_keep_no_others_waiting(
    ow: OpenWorkflow,
    backend: BackendPostgres,
    start_worker: StartWorker,
    sql: asyncpg.Connection[Any],
) -> None:
    @workflow(limits=[Limit(1)])
    async def narrow(step: Step) -> None: ...

    @workflow
    async def free(step: Step) -> None: ...

    await backend.limits.ensure(narrow.limits.rules)
    await ow.run_workflows(narrow, [None] * 60, available_at="1h")
    async with sql.transaction():  # as time would, which no trigger sees
        await sql.execute("set local session_replication_role = replica")
        await sql.execute("update workflow_runs set available_at = now() - interval '1 m'")
    others = await ow.run_workflows(free, [None] * 3)

    await start_worker(narrow, free, concurrency=4)

    async with asyncio.timeout(20):
        for other in others:
            await other.result()
        while (await backend.count_runs())[RunStatus.PENDING]:
            await asyncio.sleep(0.05)
    await sound(backend)


async def test_a_deadline_ends_a_run_that_waits(
    ow: OpenWorkflow, backend: BackendPostgres, start_worker: StartWorker
) -> None:
    held = asyncio.Event()

    async def hold() -> None:
        await held.wait()

    @workflow(limits=[Limit(1)])
    async def slow(step: Step) -> None:
        await step.run("hold", hold)

    first = await ow.run_workflow(slow)
    await start_worker(slow)
    second = await ow.run_workflow(slow, deadline="1s")
    third = await ow.run_workflow(slow)

    with pytest.raises(WorkflowFailed, match="DeadlineExceeded"):
        await second.result(timeout=20)
    assert RunStatus.RUNNING == await first.status()
    held.set()
    await third.result(timeout=20)
    await sound(backend)


async def test_a_key_that_cannot_be_made_fails_the_run_and_no_other(
    ow: OpenWorkflow, backend: BackendPostgres, start_worker: StartWorker
) -> None:
    @workflow(limits=[Limit(1, key=lambda order: order["customer"])])
    async def ship(order: dict[str, str], step: Step) -> str:
        return order["customer"]

    said = "workflow 'ship': the key of limit 'ship/key' raised KeyError: 'customer'"
    with pytest.raises(ConfigurationError, match=said) as caught:
        await ow.run_workflow(ship, {})
    assert isinstance(caught.value.__cause__, KeyError)
    bad = await ow.run_workflow("ship", {})
    good = await ow.run_workflow("ship", {"customer": "ann"})
    await start_worker(ship)

    with pytest.raises(WorkflowFailed, match=said):
        await bad.result(timeout=20)
    assert "ann" == await good.result(timeout=20)
    assert ["ship/key\x1fann"] == (await run_of(backend, good.id)).limits
    fork = await ow.fork(good.id, input={"customer": "bob"})
    assert "bob" == await fork.result(timeout=20)
    assert ["ship/key\x1fbob"] == (await run_of(backend, fork.id)).limits


async def test_a_drain_hands_its_slots_on(
    ow: OpenWorkflow, backend: BackendPostgres, start_worker: StartWorker
) -> None:
    held = asyncio.Event()

    async def hold() -> None:
        await held.wait()

    @workflow(limits=[Limit(2)], retry=RetryPolicy(max_attempts=2))
    async def slow(step: Step) -> None:
        await step.run("hold", hold)

    runs = await ow.run_workflows(slow, [None] * 6)
    first = await start_worker(slow, drain=timedelta(0))
    async with asyncio.timeout(20):
        while (await backend.count_runs())[RunStatus.RUNNING] < 2:
            await asyncio.sleep(0.02)
    await first.stop()
    await sound(backend)
    held.set()
    await start_worker(slow)
    for run in runs:
        await run.result(timeout=20)
    await sound(backend)


def test_limits_that_mean_nothing_are_refused() -> None:
    wrong: list[dict[str, Any]] = [
        {"limits": [Limit(-1)]},
        {"limits": [Limit(True)]},
        {"limits": [5]},
        {"limits": [Limit(1), Limit(2)]},
        {"limits": [Limit(1, key="customer")]},  # type: ignore[arg-type]
        {"limits": [Limit(1, name="")]},
        {"limits": [Limit(1, name=f"n{n}") for n in range(9)]},
        {"rate": Rate(0)},
        {"rate": Rate(1, per=0)},
        {"rate": Rate(1, burst=0)},
        {"rate": Rate(1, per="soon")},
    ]
    for options in wrong:
        with pytest.raises(ConfigurationError):

            @workflow(name="w", **options)
            async def refused(step: Step) -> None: ...


async def test_rows_that_others_wrote_wait_as_well_or_not_at_all(
    ow: OpenWorkflow, backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    await backend.limits.ensure([LimitRule(name="a/key", slots=1)])
    insert = (
        "insert into workflow_runs (workflow_name, status, available_at, limits)"
        " values ('a', 'pending', now(), $1)"
    )
    for limits in (["a/key\x1fx"], ["a/key\x1fx"], ["nobody said"], [], None):
        await sql.execute(insert, limits)

    assert 4 == len(await claim(session, "a"))
    assert [] == (await ow.list_runs(where="paused:yes")).runs
    assert 1 == await ow.count_runs("status:pending")
    await sound(backend)
    with pytest.raises(asyncpg.FeatureNotSupportedError, match="READ COMMITTED"):
        async with sql.transaction(isolation="repeatable_read"):
            await sql.execute(insert, ["a/key\x1fx"])


async def test_a_limit_that_nothing_has_named_so_far_is_set_with_a_word(
    ow: OpenWorkflow, database_url: str
) -> None:
    """Who misspells it in an incident would believe that it is set."""
    await ow.limits.set("ship-order", 3)

    code, known = await command(database_url, "limits", "set", "ship-order", "5")
    assert (0, "limit ship-order is set: 5 slots\n") == (code, known)
    code, new = await command(database_url, "limits", "set", "shiporder", "5")

    assert 0 == code
    assert "it is new" in new
    assert "did you mean 'ship-order'?" in " ".join(new.split())


async def test_a_limit_that_is_set_is_told_with_its_time(
    ow: OpenWorkflow, database_url: str
) -> None:
    """Who means 20 a minute, and leaves out `--per`, sets 20 a second."""
    await ow.limits.set("vendor", rate=Rate(30, per="1m"))

    said = await command(database_url, "limits", "set", "vendor", "--rate", "20")
    assert (0, "limit vendor is set: 20 in 1 s\n") == said
    said = await command(
        database_url, "limits", "set", "vendor", "7", "--rate", "9", "--per", "1m", "--burst", "3"
    )
    assert (0, "limit vendor is set: 7 slots, 9 in 60 s, 3 at once\n") == said
