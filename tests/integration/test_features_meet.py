"""Features that were built apart, met: children, limits, rates, pauses, schedules, keys, signals.

What waits for a limit is due at no time and counts against it, whatever it is; nobody waits
for a slot that he keeps himself, and no two transactions wait for each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from openworkflow import (
    BackendPostgres,
    Cron,
    Limit,
    OpenWorkflow,
    Rate,
    RunHandle,
    Step,
    Unique,
    WorkflowCanceled,
    WorkflowFailed,
    current_step,
    workflow,
)
from openworkflow.backend import queries
from openworkflow.backend.backend import NewRun
from openworkflow.backend.records import ClaimedRun, Flush
from openworkflow.core.errors import DeadlineExceeded
from openworkflow.core.explanation import Reason
from openworkflow.core.ids import uuid7
from openworkflow.core.limits import LimitRule
from tests.database_roles import command
from tests.flushes import LEASE, claim, session_of
from tests.helpers import StartWorker, eventually
from tests.integration.test_children_races import new_child, wait_for

SQL = Any
DUE = "select count(*) from workflow_runs where status = 'pending' and available_at <= now()"
WAITING = "select count(*) from workflow_limit_runs where not has_slot"


@pytest.fixture(autouse=True)
async def sound(sql: SQL) -> AsyncIterator[None]:
    """Whatever happened, the tables are as they must be."""
    yield
    assert [] == await sql.fetch(queries.load("public")["check_invariants"])


# -- rates ---------------------------------------------------------------------------------------

SETTLED = """
select count(*) from workflow_runs
 where workflow_name = 'rated'
   and (completed_at is not null
        or limits is not null and available_at > now() + interval '10 minutes')
"""
RATED = "select count(*) from workflow_runs where workflow_name = 'rated' and status = 'succeeded'"


@workflow(rate=Rate(1, per="1h", name="r"))
async def rated(number: int, step: Step) -> int:
    return number


@workflow
async def maps_by_name(step: Step) -> Any:
    return await step.map("m", "rated", [1, 2, 3])


@workflow
async def maps(step: Step) -> Any:
    return await step.map("m", rated, [1, 2, 3])


async def by_name(ow: OpenWorkflow) -> None:
    for number in range(3):
        await ow.run_workflow("rated", number)


async def as_forks(ow: OpenWorkflow) -> None:
    first = await ow.run_workflow(rated, 0)
    await first.result(timeout=20)
    for _ in range(2):
        await ow.fork(first.id)


async def as_occurrences(ow: OpenWorkflow) -> None:
    await ow.schedules.create("s", rated, Cron("0 0 1 1 *", input=1, overlap="allow"))
    for _ in range(3):
        await ow.schedules.trigger("s")


async def as_children(ow: OpenWorkflow) -> None:
    await ow.run_workflow(maps)


async def as_children_by_name(ow: OpenWorkflow) -> None:
    await ow.run_workflow(maps_by_name)


@pytest.mark.parametrize(
    "start", [by_name, as_forks, as_occurrences, as_children, as_children_by_name]
)
async def test_a_rate_counts_runs_however_they_are_started(
    ow: OpenWorkflow, start_worker: StartWorker, sql: SQL, start: Any
) -> None:
    """One that was claimed to find out its limits counted as begun, so no rate held it."""
    await start_worker(rated, maps, maps_by_name)
    await start(ow)

    await eventually(lambda: sql.fetchval(f"select ({SETTLED}) = 3"), 20)

    assert 1 == await sql.fetchval(RATED)


# -- children ------------------------------------------------------------------------------------


@workflow(limits=[Limit(1, name="one")])
async def child(number: int, step: Step) -> int:
    return number


@workflow
async def maps_limited(step: Step) -> Any:
    return await step.map("m", child, [1, 2, 3, 4, 5])


@workflow(limits=[Limit(1, name="one")])
async def waits_for_a_child(step: Step) -> Any:
    return await step.run_workflow("child", child, 1, timeout="25s")


@workflow(limits=[Limit(1, name="one")])
async def waits_for_a_signal(step: Step) -> Any:
    return await step.wait_for_signal("go", timeout="25s")


@workflow(limits=[Limit(1, name="one")])
async def sends_it(step: Step) -> None:
    await step.signal("go", 1)


async def test_children_of_a_limited_workflow_are_due_one_after_the_other(
    ow: OpenWorkflow, start_worker: StartWorker, sql: SQL
) -> None:
    """They did not know their limits, so all were due, and brought pods, until a worker came."""
    await start_worker(maps_limited)
    run = await ow.run_workflow(maps_limited)
    await eventually(lambda: sql.fetchval(f"select ({WAITING}) = 4"), 20)

    assert 1 == await sql.fetchval(DUE)

    await start_worker(child)
    assert [1, 2, 3, 4, 5] == await run.result(timeout=20)


@pytest.mark.parametrize("flow", [waits_for_a_child, waits_for_a_signal], ids=lambda f: f.name)
async def test_who_waits_in_memory_keeps_no_slot_that_others_need_to_end_the_wait(
    ow: OpenWorkflow, start_worker: StartWorker, sql: SQL, flow: Any
) -> None:
    await start_worker(flow, child, sends_it, rest=timedelta(seconds=30))
    run = await ow.run_workflow(flow)
    if flow is waits_for_a_signal:
        await eventually(lambda: sql.fetchval("select exists (select from workflow_subscriptions)"))
        await ow.run_workflow(sends_it)

    assert 1 == await run.result(timeout=20)


async def family(backend: BackendPostgres) -> tuple[Any, ClaimedRun, ClaimedRun, ClaimedRun]:
    """A parent with limits that waits for a child, another with limits, and the child: executed."""
    await backend.limits.ensure([LimitRule(name="a", slots=5)])
    await backend.create_workflow_runs([NewRun("p", limits="a"), NewRun("r", limits="a")])
    session = await session_of(backend)
    (parent,) = await claim(session, "p")
    (other,) = await claim(session, "r")
    row = new_child(parent, "k")
    wait = wait_for(parent, row)
    await session.flush(Flush("host/1", LEASE, {type(row): [row], type(wait): [wait]}))
    (kid,) = await claim(session, "k")
    return session, parent, other, kid


ENDED = "update workflow_runs set status = 'succeeded', worker_id = null, completed_at = now()"
STARTED = """
insert into workflow_runs (id, namespace_id, workflow_name, status, config, available_at, limits)
values ($1, 'default', 'r', 'pending', '{}', now(), '{a}')
"""
BLOCKED = "select wait_event_type = 'Lock' from pg_stat_activity where pid = $1"


@pytest.mark.parametrize("woken_by", ["the end of a child", "a signal"])
async def test_who_decides_about_limits_waits_for_nobody_who_waits_for_that(
    backend: BackendPostgres, sql: SQL, database_url: str, woken_by: str
) -> None:
    """A parent that was being parked waited for the limits, and who woke it, with them, for it."""
    session, parent, other, kid = await family(backend)
    parks, wakes = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    parking, waking = parks.transaction(), wakes.transaction()
    await parking.start()
    await parks.execute(
        "update workflow_runs set status = 'pending', worker_id = null, available_at = 'infinity'"
        " where id = $1",
        parent.id,
    )
    await waking.start()
    if woken_by == "a signal":
        await wakes.execute(STARTED, uuid7())
        await wakes.execute("select openworkflow_signal($1, 'go')", parent.id)
    else:
        await wakes.execute(f"{ENDED} where id = $1", other.id)
        await wakes.execute(f"{ENDED} where id = $1", kid.id)
    commit = asyncio.create_task(waking.commit())
    await eventually(lambda: sql.fetchval(BLOCKED, wakes.get_server_pid()))

    await parking.commit()

    await commit
    if woken_by != "a signal":
        assert await sql.fetchval(
            "select status = 'pending' and available_at <= now() from workflow_runs where id = $1",
            parent.id,
        )
    for connection in (parks, wakes, session):
        await connection.close()


async def test_that_a_limited_parent_sleeps_through_the_end_of_its_child_is_found(
    backend: BackendPostgres, sql: SQL
) -> None:
    session, parent, _, kid = await family(backend)
    await sql.execute(
        "update workflow_runs set status = 'pending', worker_id = null, available_at = 'infinity'"
        " where id = $1",
        parent.id,
    )
    await sql.execute(f"{ENDED} - interval '1 minute' where id = $1", kid.id)
    assert [] == (await backend.diagnostics()).violations
    await sql.execute(
        "update workflow_runs set status = 'running', worker_id = 'a' where id = $1", parent.id
    )
    await sql.execute(
        "update workflow_runs set status = 'pending', worker_id = null, available_at = 'infinity',"
        " due_at = 'infinity', paused = true where id = $1",
        parent.id,
    )

    (found,) = (await backend.diagnostics()).violations

    assert "does not sleep through" in found.invariant
    await sql.execute("delete from workflow_runs")
    await session.close()


# -- pauses --------------------------------------------------------------------------------------


@workflow(limits=[Limit(0, name="none")])
async def never(step: Step) -> None: ...


@pytest.mark.parametrize("paused", ["before", "after"])
async def test_what_is_paused_is_not_due_at_its_deadline_whatever_limits_it_has(
    ow: OpenWorkflow, start_worker: StartWorker, sql: SQL, paused: str
) -> None:
    """It was, and claimed and set aside again and again."""
    if paused == "before":
        await ow.pause(workflow=never)
    run = await ow.run_workflow(never, deadline="500ms")
    if paused == "after":
        await ow.pause(workflow=never)
    over = "select deadline_at <= now() from workflow_runs where id = $1"
    await eventually(lambda: sql.fetchval(over, run.id))
    await start_worker(never)

    held = "select available_at = 'infinity' from workflow_runs where id = $1"
    await eventually(lambda: sql.fetchval(held, run.id), 20)
    assert 0 == await sql.fetchval(DUE)

    await ow.resume(workflow=never)
    with pytest.raises(WorkflowFailed) as caught:
        await run.result(timeout=20)
    assert isinstance(caught.value.__cause__, DeadlineExceeded)


@pytest.mark.parametrize("what", ["the run", "its workflow"])
async def test_a_run_that_was_paused_does_not_keep_the_time_that_a_limit_gave_it(
    ow: OpenWorkflow, start_worker: StartWorker, sql: SQL, what: str
) -> None:
    """It slept on until then, though the limit let others begin."""
    await start_worker(child)
    await eventually(lambda: ow.limits.pause("one", "1d"), 20)
    run = await ow.run_workflow(child, 1)
    held: dict[str, Any] = {"workflow": child} if what == "its workflow" else {"run_id": run.id}
    await ow.pause(**held)
    assert Reason.PAUSED is (await run.explain()).reason
    assert 0 == await sql.fetchval(DUE)
    await ow.resume(**held)
    assert Reason.LIMITED is (await run.explain()).reason

    await ow.limits.resume("one")

    assert 1 == await run.result(timeout=20)


# -- what is told of it --------------------------------------------------------------------------


@workflow(limits=[Limit(3, name="three")])
async def sleeps(step: Step) -> None:
    await step.sleep("night", "7d")


@workflow(limits=[Limit(3, name="three")])
async def waits_for_never(step: Step) -> None:
    await step.run_workflow("child", never)


async def test_a_list_tells_what_a_run_with_limits_waits_for(
    backend: BackendPostgres,
    ow: OpenWorkflow,
    start_worker: StartWorker,
    sql: SQL,
    database_url: str,
) -> None:
    """It said of all of them that somebody had paused them."""
    await start_worker(sleeps, waits_for_never)
    asleep = await ow.run_workflow(sleeps)
    waits = await ow.run_workflow(waits_for_never)
    later = await ow.run_workflow(never, available_at="1d")
    parked = "select count(*) = 2 from workflow_runs where status = 'pending' and claim_no > 0"
    await eventually(lambda: sql.fetchval(parked), 20)
    limited = await sql.fetchval("select id from workflow_runs where parent_run_id = $1", waits.id)

    code, said = await command(database_url, "runs", "list", "--json")

    assert 0 == code
    for run_id, word in (
        (asleep.id, "sleeping"),
        (waits.id, "waiting"),
        (later.id, "scheduled"),
        (limited, "limited"),
    ):
        assert f'"{run_id}": "{word}"' in said
    assert "when it has a slot" in (await command(database_url, "runs", "show", str(limited)))[1]
    assert "when it is woken" in (await command(database_url, "runs", "show", str(waits.id)))[1]
    found = [each.id for each in (await ow.list_runs(where="limited:yes")).runs]
    assert [limited] == found
    counts = await backend.board.counts()
    assert (1, 3, 0) == (counts.limited, counts.later, counts.paused)


@workflow
async def waits_for_many(step: Step) -> None:
    started = await step.start_workflow("a", child, 1)
    await started.result()
    await step.run_workflow("b", child, 1)
    await step.map("c", child, [1, 2, 3])


async def test_waits_for_children_and_limits_are_counted(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    worker = await start_worker(waits_for_many, child)
    await (await ow.run_workflow(waits_for_many)).result(timeout=20)

    def counted(flow: Any, kind: str) -> float | None:
        labels = {"namespace_id": "default", "workflow": flow.name, "kind": kind}
        return worker.metrics.registry.get_sample_value("openworkflow_waits_begun_total", labels)

    assert 3 == counted(waits_for_many, "child")
    assert 2 == counted(child, "limit")


# -- keys and schedules --------------------------------------------------------------------------


async def test_a_run_that_has_not_begun_takes_the_newest_input_though_it_was_claimed(
    ow: OpenWorkflow, start_worker: StartWorker, sql: SQL
) -> None:
    """Claimed to find out its limits, it counted as begun: another was started, and both ran."""
    newest = Unique("k", on_conflict="replace")
    await start_worker(child)
    await eventually(lambda: ow.limits.pause("one", "1d"), 20)
    run = await ow.run_workflow("child", 1, unique=newest)
    adopted = "select limits is not null from workflow_runs where id = $1"
    await eventually(lambda: sql.fetchval(adopted, run.id), 20)

    assert run.id == (await ow.run_workflow("child", 2, unique=newest)).id

    await ow.limits.resume("one")
    assert 2 == await run.result(timeout=20)


@workflow(limits=[Limit(0, name="none")], deadline="2s")
async def late(step: Step) -> None: ...


async def test_an_occurrence_that_waits_for_a_limit_fails_at_its_deadline(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(late)
    await ow.schedules.create("s", late, Cron("0 0 1 1 *"))
    run = await ow.schedules.trigger("s")

    with pytest.raises(WorkflowFailed) as caught:
        await run.result(timeout=30)

    assert isinstance(caught.value.__cause__, DeadlineExceeded)
    await ow.schedules.delete("s")


# -- families that undo, and tell ----------------------------------------------------------------

DONE: dict[str, list[str]] = {}
"""By what was asked for: what was done and undone."""


async def take(thing: str, who: str) -> str:
    DONE.setdefault(thing, []).append(f"{who} takes")
    return who


async def give_back(thing: str, who: str) -> None:
    DONE[thing].append(f"{who} gives back")
    current_step().emit("undone", who)


@workflow(limits=[Limit(1, name="family")])
async def takes(thing: str, step: Step) -> Any:
    await step.run("take", take, thing, "child", undo=lambda who: give_back(thing, who))
    return await step.wait_for_signal("go")


@workflow(limits=[Limit(1, name="family")])
async def takes_and_has_taken(thing: str, step: Step) -> Any:
    await step.run("take", take, thing, "parent", undo=lambda who: give_back(thing, who))
    step.emit("told", "before")
    told = await step.run_workflow("child", takes, thing)
    step.emit("told", "after")
    return told


async def values(run: Any, topic: str) -> list[Any]:
    async with asyncio.timeout(20):
        return [event.value async for event in run.events(topic)]


async def test_a_family_under_one_limit_is_undone_once_and_goes_on_when_it_is_retried(
    ow: OpenWorkflow, start_worker: StartWorker, sql: SQL
) -> None:
    await start_worker(takes, takes_and_has_taken)
    waits = (
        "select child.id from workflow_runs child"
        " join workflow_subscriptions told on told.workflow_run_id = child.id and told.waiting"
        " where parent_run_id = $1 and completed_at is null"
    )
    run = await ow.run_workflow(takes_and_has_taken, str(uuid7()))
    thing = (await run.run()).input
    kid: RunHandle[Any] = ow.handle(await eventually(lambda: sql.fetchval(waits, run.id), 20))

    await run.cancel()

    with pytest.raises(WorkflowCanceled):
        await kid.result(timeout=20)
    taken = ["parent takes", "child takes"]
    assert [*taken, "parent gives back", "child gives back"] == DONE[thing]
    assert (["parent"], ["child"]) == (await values(run, "undone"), await values(kid, "undone"))
    await ow.retry(run.id)
    other: RunHandle[Any] = ow.handle(await eventually(lambda: sql.fetchval(waits, run.id), 20))
    await other.signal("go", 1)
    assert 1 == await run.result(timeout=20)
    assert taken == DONE[thing][4:]
    assert kid.id != other.id
    assert ["before", "before", "after"] == await values(run, "told")


async def test_a_signal_to_many_that_wait_makes_no_more_due_than_there_are_slots(
    ow: OpenWorkflow, start_worker: StartWorker, sql: SQL
) -> None:
    @workflow(limits=[Limit(2, name="two")])
    async def listens(step: Step) -> Any:
        return await step.wait_for_signal("topic")

    worker = await start_worker(listens)
    runs = await ow.run_workflows(listens, [None] * 9)
    listening = "select count(*) = 9 from workflow_subscriptions where waiting"
    await eventually(lambda: sql.fetchval(listening), 30)
    await worker.stop()

    await ow.signal("topic", 5)

    assert 2 == await sql.fetchval(DUE)
    await start_worker(listens)
    assert [5] * 9 == [await run.result(timeout=30) for run in runs]
