"""Steps at a rate: no faster than the limit says in all runs together, whoever dies or waits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from openworkflow import (
    BackendPostgres,
    ConfigurationError,
    OpenWorkflow,
    Rate,
    RetryPolicy,
    RunStatus,
    Step,
    SyncStep,
    WorkflowFailed,
    current_step,
    step,
    workflow,
)
from openworkflow.cli import render
from openworkflow.core.explanation import Reason
from openworkflow.core.ids import uuid7
from openworkflow.core.limits import LimitRule, StepRate
from tests.flushes import expire_leases
from tests.helpers import StartWorker, eventually

NAMED = StepRate("api", None)


def rule(rate: int, seconds: float, burst: int = 1) -> LimitRule:
    return LimitRule(name="api", rate=rate, rate_seconds=seconds, burst=burst)


async def turns(backend: BackendPostgres, digits: int, *runs: UUID) -> list[float | None]:
    """When each may begin, in seconds from now, rounded; None for now."""
    take = backend.limits.turns.take
    found = await asyncio.gather(*(take(NAMED, run, "s") for run in runs))
    now = await backend.now()
    return [None if at is None else round((at - now).total_seconds(), digits) for at in found]


async def shift(sql: asyncpg.Connection[Any], run: UUID, seconds: float) -> None:
    await sql.execute(
        "update workflow_turns set at = now() + make_interval(secs => $2) where run_id = $1",
        *(run, seconds),
    )


async def test_turns_are_given_evenly_and_a_burst_at_once(backend: BackendPostgres) -> None:
    await backend.limits.set(rule(1, 1000, burst=3))

    found = await turns(backend, -3, *(uuid7() for _ in range(6)))

    assert [None, None, None, 1000, 2000, 3000] == found


async def test_workers_that_ask_at_one_moment_are_given_turns_one_after_the_other(
    backend: BackendPostgres, database_url: str
) -> None:
    await backend.limits.set(rule(1, 1000))
    backends = [backend, *[await BackendPostgres.connect(database_url) for _ in range(3)]]

    found = await asyncio.gather(
        *(turns(one, -3, uuid7()) for one in backends for _ in range(5)),
    )

    given = sorted(at or 0 for (at,) in found)
    assert [1000.0 * place for place in range(20)] == given
    for one in backends[1:]:
        await one.stop()


async def test_whoever_asks_again_keeps_its_turn_and_nobody_gets_it_twice(
    backend: BackendPostgres, sql: asyncpg.Connection[Any]
) -> None:
    """A run that was taken over from a worker that died finds the turn that it had."""
    await backend.limits.set(rule(1, 1000))
    runs = [uuid7() for _ in range(4)]

    before, after = await turns(backend, -3, *runs), await turns(backend, -3, *runs[1:])

    assert [None, 1000, 2000, 3000] == before
    assert [1000, 2000, 3000] == after
    assert 3 == await sql.fetchval("select count(*) from workflow_turns")


async def test_a_turn_that_has_come_is_taken_and_leaves_no_row(
    backend: BackendPostgres, sql: asyncpg.Connection[Any]
) -> None:
    await backend.limits.set(rule(1, 1000))
    first, second = uuid7(), uuid7()
    await turns(backend, -3, first, second)
    await shift(sql, second, -3)

    assert [None] == await turns(backend, -3, second)
    assert 0 == await sql.fetchval("select count(*) from workflow_turns")


async def test_those_who_come_too_late_do_not_call_all_at_once(
    backend: BackendPostgres, sql: asyncpg.Connection[Any]
) -> None:
    """After an hour without workers a thousand turns have passed. A second one is kept however
    late it is taken, or a slow fleet would never call.
    """
    await backend.limits.set(rule(1, 1000))
    runs = [uuid7() for _ in range(4)]
    await turns(backend, -3, *runs)
    await sql.execute("update workflow_rates set arrival_at = now() - interval '1 hour'")
    for run in runs:
        await shift(sql, run, -3600)

    assert [None, 1000, 2000] == await turns(backend, -3, *runs[1:])

    await shift(sql, runs[3], -3600)
    assert [None] == await turns(backend, -3, runs[3])


async def test_a_pause_is_heeded_by_those_who_have_a_turn_and_by_all_others(
    backend: BackendPostgres, sql: asyncpg.Connection[Any]
) -> None:
    await backend.limits.set(rule(1, 1000))
    first, second, third = uuid7(), uuid7(), uuid7()
    await turns(backend, -3, first, second)
    await shift(sql, second, -1)
    await sql.execute("update workflow_rates set arrival_at = now()")

    await backend.limits.turns.pause("api", None, 5000)

    assert [5000, 6000] == await turns(backend, -3, second, third)


async def test_a_pause_may_come_before_anybody_has_told_of_the_limit(
    backend: BackendPostgres,
) -> None:
    await backend.limits.turns.pause("api", None, 5000)

    assert [5000] == await turns(backend, -3, uuid7())


async def test_another_rate_gives_those_who_wait_other_turns_in_their_order(
    backend: BackendPostgres,
) -> None:
    await backend.limits.set(rule(1, 100_000))
    runs = [uuid7() for _ in range(4)]
    await turns(backend, -3, *runs)

    await backend.limits.set(rule(1, 1000))
    assert [None, 1000, 2000] == await turns(backend, -3, *runs[1:])
    assert [3000] == await turns(backend, -3, uuid7())

    await backend.limits.delete("api")
    assert [None, None] == await turns(backend, -3, *runs[2:])


async def test_turns_follow_in_the_transaction_that_changes_the_limit_whoever_does(
    backend: BackendPostgres, sql: asyncpg.Connection[Any]
) -> None:
    await backend.limits.set(rule(1, 5000))
    runs = [uuid7() for _ in range(4)]
    assert [None, 5000, 10000, 15000] == await turns(backend, -1, *runs)

    await sql.execute("update workflow_limits set rate_seconds = 100")
    assert [0, 100, 200] == [await turn_in(sql, run) for run in runs[1:]]
    await sql.execute("update workflow_limits set paused_until = now() + interval '9000 s'")
    await sql.execute("update workflow_limits set paused_until = now() + interval '200 s'")
    assert [0, 200, 300] == [await turn_in(sql, run) for run in runs[1:]]
    await sql.execute("delete from workflow_limits")
    assert [0, 0, 0] == [await turn_in(sql, run) for run in runs[1:]]


async def test_a_run_that_is_about_to_be_parked_for_a_turn_is_told_that_it_has_another(
    ow: OpenWorkflow, backend: BackendPostgres, sql: asyncpg.Connection[Any]
) -> None:
    await backend.limits.set(rule(1, 5000))
    run = (await ow.run_workflow(calling, 1)).id
    await turns(backend, -1, uuid7(), run)
    seen = await sql.fetchval(
        "update workflow_runs set status = 'running', claim_no = 1, worker_id = 'w',"
        " available_at = now() + interval '1 min', started_at = now() returning wake_no"
    )

    await ow.limits.set("api", rate=Rate(1, per="10s"))

    assert seen < await sql.fetchval("select wake_no from workflow_runs")
    assert await sql.fetchval("select available_at > now() + interval '9 s' from workflow_runs")


async def test_a_limit_that_nobody_has_told_of_limits_nothing_and_is_told_once(
    backend: BackendPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    assert [None, None] == await turns(backend, 0, uuid7(), uuid7())
    assert [None] == await turns(backend, 0, uuid7())

    assert 1 == caplog.text.count("there is no limit 'api'")


async def turn_in(sql: asyncpg.Connection[Any], run: UUID) -> float:
    """Seconds until its turn, in tens."""
    found = await sql.fetchval(
        "select extract(epoch from at - now())::float8 from workflow_turns where run_id = $1", run
    )
    return float(round(max(found, 0), -1))


class Vendor:
    """Who is called, how often, and how it answers."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.refuses = 0

    async def call(self, number: int) -> int:
        return self.call_in_a_thread(number)

    def call_in_a_thread(self, number: int) -> int:
        self.calls.append(number)
        if self.refuses:
            self.refuses -= 1
            current_step().pause_limit("api", "5000s")
            raise OSError("429")
        return number

    async def fail(self, number: int) -> int:
        self.calls.append(number)
        raise OSError("down")


vendor = Vendor()


@pytest.fixture(autouse=True)
def fresh_vendor() -> None:
    vendor.__init__()  # type: ignore[misc]


@workflow
async def calling(number: int, step: Step) -> int:
    return await step.run("call", vendor.call, number, rate="api")


@workflow
async def calling_twice(number: int, step: Step) -> list[int]:
    return list(
        await asyncio.gather(
            step.run("one", vendor.call, number, rate="api"),
            step.run("two", vendor.call, number, rate="api"),
        )
    )


@workflow
def calling_in_a_thread(number: int, step: SyncStep) -> int:
    return step.run("call", vendor.call_in_a_thread, number, rate=Rate(1, per="5000s", name="api"))


@workflow
async def pausing(number: int, step: Step) -> int:
    await step.pause_limit("api", "5000s")
    return await step.run("call", vendor.call, number, rate="api")


@workflow
async def mistaken(number: int, step: Step) -> int:
    return await step.run("call", vendor.call, number, rate=Rate(1, key=str, name="x"))


@workflow
async def trying(number: int, step: Step) -> int:
    policy = RetryPolicy(max_attempts=3, initial=0.001)
    return await step.run("call", vendor.fail, number, rate="api", retry=policy)


@step(rate="api")
async def decorated(number: int) -> int:
    return await vendor.call(number)


@workflow
async def calling_decorated(number: int) -> int:
    return await decorated(number)


@workflow
async def running_decorated(number: int, step: Step) -> int:
    return await step.run("call", decorated, number)


@workflow
async def mapping(count: int, step: Step) -> list[int]:
    return await step.map("call", vendor.call, range(count), rate="api")


@workflow
def mapping_in_a_thread(count: int, step: SyncStep) -> list[int]:
    return step.map("call", vendor.call_in_a_thread, range(count), rate="api")


async def convert(amount: int, rate: str) -> str:
    return f"{amount} at {rate}"


@workflow
async def ambiguous(number: int, step: Step) -> str:
    return await step.run("convert", convert, number, rate="api")


async def parked(sql: asyncpg.Connection[Any], *runs: UUID) -> bool:
    rows = await sql.fetch(
        "select from workflow_runs where id = any ($1) and status = 'pending'"
        " and available_at > now() + interval '60 s' and claim_no > 0",
        list(runs),
    )
    return len(rows) == len(runs)


async def come(sql: asyncpg.Connection[Any], run_id: UUID) -> None:
    """Its turn has come, and so has its time."""
    await shift(sql, run_id, -1)
    await sql.execute(
        "update workflow_runs set available_at = case when paused then 'infinity' else now() end,"
        " due_at = case when paused then now() end where id = $1",
        run_id,
    )


async def one_waits(ow: OpenWorkflow, sql: asyncpg.Connection[Any], runs: Sequence[UUID]) -> UUID:
    """The run that is parked for its turn, once all others have ended."""
    done = await eventually(lambda: finished(ow, *runs), 30)
    (other,) = {*runs} - done
    await eventually(lambda: parked(sql, other), 30)
    return other


async def finished(ow: OpenWorkflow, *runs: UUID) -> set[UUID]:
    return {run for run in runs if (await ow.get_run(run)).run.status == RunStatus.SUCCEEDED}


async def test_a_step_waits_for_its_turn_without_a_worker_and_is_called_once(
    ow: OpenWorkflow,
    start_worker: StartWorker,
    sql: asyncpg.Connection[Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    await ow.limits.set("api", rate=Rate(1, per="5000s"))
    await start_worker(calling)
    runs = [(await ow.run_workflow(calling, n)).id for n in (1, 2, 3)]
    done = await eventually(lambda: finished(ow, *runs), 30)
    waiting = [run for run in runs if run not in done]
    assert 1 == len(done) == len(vendor.calls)
    await eventually(lambda: parked(sql, *waiting), 30)

    why = [await ow.explain(run) for run in waiting]
    assert [Reason.LIMITED] * 2 == [each.reason for each in why]
    assert all("limit 'api'" in each.sentence and each.until for each in why)
    assert {0, 1} == {each.ahead for each in why}
    ((turn,), (_,)) = [(await ow.get_run(run)).turns for run in waiting]
    assert ("call", "api") == (turn.step, turn.limit_name)
    for part in render.details(await ow.get_run(waiting[0])):
        render.console().print(part)
    assert "its turn to call 'call', at the rate of limit 'api', " in capsys.readouterr().out
    assert [] == (await ow.get_run(next(iter(done)))).turns
    assert [("api", 2)] == [(each.name, each.waiting) for each in await ow.limits.list()]
    assert 1 == await sql.fetchval("select count(*) from step_attempts")

    await come(sql, waiting[0])
    await ow.wait(waiting[0], 30)

    assert 2 == len(vendor.calls) == len({*vendor.calls})


async def test_branches_of_one_run_have_turns_of_their_own(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    await ow.limits.set("api", rate=Rate(1, per="5000s"))
    await start_worker(calling_twice)
    run = await ow.run_workflow(calling_twice, 1)
    await eventually(lambda: parked(sql, run.id), 30)
    assert [1] == vendor.calls

    await come(sql, run.id)

    assert [1, 1] == await run.result(30)
    assert [1, 1] == vendor.calls


async def test_a_dead_worker_s_run_goes_on_with_its_turn(
    ow: OpenWorkflow,
    backend: BackendPostgres,
    start_worker: StartWorker,
    sql: asyncpg.Connection[Any],
    database_url: str,
) -> None:
    await ow.limits.set("api", rate=Rate(1, per="5000s"))
    await turns(backend, 0, uuid7())
    worker = await start_worker(calling)
    run = await ow.run_workflow(calling, 1)
    await eventually(lambda: parked(sql, run.id), 30)
    before = await sql.fetchval("select at from workflow_turns where run_id = $1", run.id)
    await worker.stop()
    await sql.execute(
        "update workflow_runs set status = 'running', worker_id = 'dead', claim_no = claim_no + 1"
    )
    await expire_leases(database_url)

    await start_worker(calling)
    await eventually(lambda: parked(sql, run.id), 30)

    assert before == await sql.fetchval("select at from workflow_turns where run_id = $1", run.id)
    await come(sql, run.id)
    assert 1 == await run.result(30)


@pytest.mark.parametrize("flow", [calling, calling_in_a_thread])
async def test_a_429_pauses_the_limit_for_all_and_the_call_is_tried_again_after_it(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any], flow: Any
) -> None:
    await ow.limits.set("api", rate=Rate(1000, per=1))
    vendor.refuses = 1
    await start_worker(flow)
    run = await ow.run_workflow(flow, 1)
    await eventually(lambda: parked(sql, run.id), 30)
    other = await ow.run_workflow(flow, 2)
    await eventually(lambda: parked(sql, other.id), 30)
    assert [1] == vendor.calls

    assert await ow.limits.resume("api")

    assert [1, 2] == [await each.result(30) for each in (run, other)]
    assert [1, 1, 2] == sorted(vendor.calls)


async def test_a_pause_by_a_workflow_is_a_step_that_is_not_repeated(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    await ow.limits.set("api", rate=Rate(1000, per=1))
    await start_worker(pausing)
    run = await ow.run_workflow(pausing, 1)
    await eventually(lambda: parked(sql, run.id), 30)

    await ow.limits.resume("api")

    assert 1 == await run.result(30)
    names = await sql.fetch("select step_name from step_attempts order by completion_no")
    assert ["pause:api", "call"] == [row["step_name"] for row in names]


async def test_a_deadline_a_cancellation_and_a_pause_of_the_run_hold_while_it_waits(
    ow: OpenWorkflow,
    backend: BackendPostgres,
    start_worker: StartWorker,
    sql: asyncpg.Connection[Any],
) -> None:
    await ow.limits.set("api", rate=Rate(1, per="5000s"))
    await turns(backend, 0, uuid7())
    await start_worker(calling)
    late = await ow.run_workflow(calling, 1, deadline="50m")
    gone, held = await ow.run_workflow(calling, 2), await ow.run_workflow(calling, 3)
    await eventually(lambda: parked(sql, late.id, gone.id, held.id), 30)
    await sql.execute(
        "update workflow_runs set deadline_at = now(), available_at = now() where id = $1", late.id
    )
    await gone.cancel()
    await ow.pause(held.id)
    await come(sql, held.id)
    await ow.resume(held.id)

    with pytest.raises(WorkflowFailed, match="deadline"):
        await late.result(30)
    assert 3 == await held.result(30)
    assert RunStatus.CANCELED == (await ow.get_run(gone.id)).run.status
    assert [3] == vendor.calls
    assert [0] == [state.waiting for state in await ow.limits.list()]


async def test_the_rate_that_the_code_says_is_told_and_another_that_is_set_counts(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    await start_worker(calling_in_a_thread)
    runs = [(await ow.run_workflow(calling_in_a_thread, n)).id for n in (1, 2)]
    other = await one_waits(ow, sql, runs)
    (state,) = await ow.limits.list()
    assert (1, 5000.0) == (state.rate, state.rate_seconds)
    assert (True, False) == (state.is_declared, state.is_set)

    await ow.limits.set("api", rate=Rate(1000, per=1))

    assert RunStatus.SUCCEEDED == (await ow.wait(other, 30)).status


async def test_a_rate_without_a_name_or_with_a_key_is_refused(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(mistaken)
    run = await ow.run_workflow(mistaken, 1)

    with pytest.raises(WorkflowFailed, match="a Rate with a name and without a"):
        await run.result(30)


async def test_each_attempt_waits_for_a_turn(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    await ow.limits.set("api", rate=Rate(1, per="5000s"))
    await start_worker(trying)
    run = await ow.run_workflow(trying, 7)
    for attempts in (1, 2):
        await eventually(lambda: parked(sql, run.id), 30)
        assert attempts == len(vendor.calls)
        await come(sql, run.id)
        await eventually(lambda n=attempts: len(vendor.calls) > n, 30)  # type: ignore[misc]

    with pytest.raises(WorkflowFailed, match="down"):
        await run.result(30)
    assert [7, 7, 7] == vendor.calls


@pytest.mark.parametrize("asking", [calling_decorated, running_decorated], ids=lambda w: w.name)
async def test_a_decorated_step_has_its_rate(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any], asking: Any
) -> None:
    await ow.limits.set("api", rate=Rate(1, per="5000s"))
    await start_worker(asking)
    runs = [(await ow.run_workflow(asking, n)).id for n in (1, 2)]
    other = await one_waits(ow, sql, runs)
    assert 1 == len(vendor.calls)

    await come(sql, other)
    await ow.wait(other, 30)

    assert {1, 2} == {*vendor.calls}


@pytest.mark.parametrize(
    "rate", [Rate(1, per=1), Rate(1, per=1, key=str, name="x"), 3, ""], ids=repr
)
def test_a_decorated_step_is_refused_a_rate_that_is_none(rate: Any) -> None:
    with pytest.raises(ConfigurationError):
        step(rate=rate)(convert)


async def test_a_function_with_a_rate_of_its_own_is_not_given_that_of_the_step(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(ambiguous)
    run = await ow.run_workflow(ambiguous, 1)

    with pytest.raises(WorkflowFailed, match="the function takes 'rate' itself"):
        await run.result(30)


async def test_each_item_of_a_map_waits_for_a_turn_and_the_run_is_parked_meanwhile(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    await ow.limits.set("api", rate=Rate(1, per="5000s"))
    await start_worker(mapping)
    run = await ow.run_workflow(mapping, 3)
    for calls in (1, 2):
        await eventually(lambda: parked(sql, run.id), 30)
        assert calls == len(vendor.calls)
        await sql.execute(
            "update workflow_turns set at = now() - interval '1 s'"
            " where (run_id, step) in (select run_id, step from workflow_turns order by at limit 1)"
        )
        await sql.execute("update workflow_runs set available_at = now()")
        await eventually(lambda n=calls: len(vendor.calls) > n, 30)  # type: ignore[misc]

    assert [0, 1, 2] == await run.result(30)
    assert [0, 1, 2] == sorted(vendor.calls)


async def test_items_that_share_a_step_have_turns_of_their_own(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    await ow.limits.set("api", rate=Rate(1, per="1s", burst=2))
    await start_worker(mapping_in_a_thread)
    run = await ow.run_workflow(mapping_in_a_thread, 3)

    assert [0, 1, 2] == await run.result(30)
    assert [0, 1, 2] == sorted(vendor.calls)
    given = await sql.fetchval("select arrival_at - created_at from workflow_rates, workflow_runs")
    assert 3 <= given.total_seconds()
