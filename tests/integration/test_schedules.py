"""Schedules on a real PostgreSQL: each occurrence once, whoever is there, and whatever overlaps.

Time is moved in the rows. The schedules are yearly, so that no real instant comes in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, TypeAlias
from uuid import UUID, uuid5

import asyncpg
import pytest

from openworkflow import BackendPostgres, Cron, OpenWorkflow, RunStatus, Step, SyncStep, workflow
from openworkflow.backend.namespace import Namespace
from openworkflow.backend.records import ClaimedOccurrence, RunFilter
from openworkflow.core.cron import Overlap
from openworkflow.core.errors import (
    ConfigurationError,
    ConnectionLost,
    Fault,
    OpenWorkflowError,
    ScheduleNotFound,
)
from openworkflow.core.workflow_run import WorkflowRun
from openworkflow.worker import declared
from tests.chaos.proxy import Proxy
from tests.helpers import StartWorker, eventually

YEARLY = "0 0 1 1 *"
Sql: TypeAlias = "asyncpg.Connection[Any]"


@workflow
async def report(step: Step) -> str:
    return "" if step.scheduled_for is None else step.scheduled_for.isoformat()


@workflow
async def sleeper(step: Step) -> None:
    await step.sleep("long", "1h")


async def make_due(sql: Sql, name: str = "s", ago: str = "1 second") -> datetime:
    """Have the next occurrence be due since then; returns its instant."""
    async with sql.transaction():
        row = await sql.fetchrow(
            "select id, next_run_id, now() - $2::text::interval as instant "
            "from workflow_schedules where name = $1 for update",
            name,
            ago,
        )
        assert row is not None
        instant: datetime = row["instant"]
        run_id = uuid5(row["id"], instant.isoformat())
        await sql.execute(
            "update workflow_schedules set next_at = $2, next_run_id = $3 where name = $1",
            name,
            instant,
            run_id,
        )
        await sql.execute(
            "update workflow_runs set id = $3, available_at = $2, scheduled_for = $2 "
            "where id = $1 and status = 'pending'",
            row["next_run_id"],
            instant,
            run_id,
        )
    await sql.execute("select pg_notify($1, '')", Namespace("default", "public").work_channel)
    return instant


async def runs(ow: OpenWorkflow, *statuses: RunStatus) -> list[WorkflowRun]:
    """In the order of their instants."""
    found = (await ow.list_runs(limit=1000)).runs
    chosen = [run for run in found if not statuses or run.status in statuses]
    return sorted(chosen, key=lambda run: run.scheduled_for or run.created_at)


def becomes(ow: OpenWorkflow, **counts: object) -> Callable[[], Any]:
    """Whether the schedule has come so far."""

    async def is_so() -> Any:
        found = await ow.schedules.get("s")
        return found if all(getattr(found, k) == v for k, v in counts.items()) else None

    return is_so


# -- an occurrence --------------------------------


async def test_a_schedule_has_one_run_that_waits_for_its_next_instant(ow: OpenWorkflow) -> None:
    made = await ow.schedules.create("s", report, Cron("0 9 * * 1-5", tz="Europe/Berlin"))

    (run,) = await runs(ow)
    assert (made.next_run_id, made.next_at) == (run.id, run.available_at)
    assert ("s", made.next_at, RunStatus.PENDING) == (
        run.schedule_name,
        run.scheduled_for,
        run.status,
    )
    assert made.next_at is not None
    assert made.next_at > datetime.now(UTC)


async def test_an_occurrence_knows_its_instant_and_puts_the_next_in_its_place(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Sql
) -> None:
    await ow.schedules.create("s", report, YEARLY)
    instant = await make_due(sql)

    await start_worker(report)

    after = await eventually(becomes(ow, begun=1))
    (done,) = await eventually(lambda: runs(ow, RunStatus.SUCCEEDED))
    (waiting,) = await runs(ow, RunStatus.PENDING)
    assert instant.isoformat() == done.output
    assert (done.id, instant) == (after.last_run_id, after.last_at)
    assert (waiting.id, waiting.available_at) == (after.next_run_id, after.next_at)
    assert datetime(datetime.now(UTC).year + 1, 1, 1, tzinfo=UTC) == after.next_at


async def test_a_plain_function_knows_its_instant_too_and_other_runs_have_none(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Sql
) -> None:
    @workflow
    def plain(step: SyncStep) -> str:
        return str(step.scheduled_for)

    await ow.schedules.create("s", plain, YEARLY)
    instant = await make_due(sql)
    await start_worker(plain, report)

    (done,) = await eventually(lambda: runs(ow, RunStatus.SUCCEEDED))
    assert str(instant) == done.output
    assert "" == await (await ow.run_workflow(report)).result(timeout=20)


async def test_many_workers_begin_each_occurrence_once(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Sql
) -> None:
    names = [f"s{n}" for n in range(20)]
    for name in names:
        await ow.schedules.create(name, report, YEARLY)
        await make_due(sql, name)

    await asyncio.gather(*(start_worker(report, concurrency=4) for _ in range(4)))

    async def done() -> bool:
        return len(await runs(ow, RunStatus.SUCCEEDED)) == 20

    await eventually(done, deadline=30)
    assert {1} == {each.begun for each in await ow.schedules.list()}
    assert 40 == len(await runs(ow))
    assert 20 == len(await runs(ow, RunStatus.PENDING))


async def test_a_deadline_counts_from_the_beginning_and_not_from_when_the_row_was_made(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Sql
) -> None:
    @workflow(deadline="10m")
    async def limited() -> str:
        return "in time"

    await ow.schedules.create("s", limited, YEARLY)
    await make_due(sql)
    await sql.execute("update workflow_runs set created_at = now() - interval '1 year'")

    await start_worker(limited)

    (done,) = await eventually(lambda: runs(ow, RunStatus.SUCCEEDED))
    assert done.started_at is not None
    assert done.started_at + timedelta(minutes=10) == done.deadline_at


async def test_the_input_of_a_schedule_reaches_its_runs(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Sql
) -> None:
    @workflow
    async def greet(names: list[str]) -> str:
        return ", ".join(names)

    await ow.schedules.create("s", greet, Cron(YEARLY, input=["Ada", "Grace"]))
    await make_due(sql)
    await start_worker(greet)

    (done,) = await eventually(lambda: runs(ow, RunStatus.SUCCEEDED))
    assert "Ada, Grace" == done.output


# -- crashes and lost answers --------------------------------


async def claim(sql: Sql, worker_id: str) -> ClaimedOccurrence:
    """Claim the due run as a worker that then does nothing."""
    row = await sql.fetchrow(
        "update workflow_runs set status = 'running', worker_id = $1, claim_no = claim_no + 1, "
        "started_at = coalesce(started_at, now()), available_at = now() + interval '1 hour' "
        "where status = 'pending' and available_at <= now() returning id, claim_no, now()",
        worker_id,
    )
    assert row is not None
    return ClaimedOccurrence(row["id"], row["claim_no"], row["now"], None)


async def test_a_worker_that_dies_before_it_has_decided_leaves_the_decision_to_the_next(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Sql
) -> None:
    await ow.schedules.create("s", report, YEARLY)
    await make_due(sql)
    await claim(sql, "dead")
    await sql.execute("update workflow_runs set available_at = now() where worker_id = 'dead'")

    await start_worker(report)

    await eventually(lambda: runs(ow, RunStatus.SUCCEEDED))
    assert 1 == (await ow.schedules.get("s")).begun
    assert 2 == len(await runs(ow))


async def test_a_decision_that_is_repeated_since_its_answer_was_lost_changes_nothing(
    backend: BackendPostgres, ow: OpenWorkflow, sql: Sql
) -> None:
    await ow.schedules.create("s", report, YEARLY)
    await make_due(sql)
    claimed = await claim(sql, "w")
    begin = backend.schedules.occurrences.begin

    first = await begin("w", [claimed])
    before = await ow.schedules.get("s")
    second = await begin("w", [claimed])

    assert first == second
    assert [claimed.run_id] == list(first)
    assert before == await ow.schedules.get("s")
    assert 2 == len(await runs(ow))


async def test_a_claim_that_is_lost_decides_nothing(
    backend: BackendPostgres, ow: OpenWorkflow, sql: Sql
) -> None:
    await ow.schedules.create("s", report, YEARLY)
    await make_due(sql)
    claimed = await claim(sql, "slow")
    await sql.execute("update workflow_runs set claim_no = claim_no + 1, worker_id = 'other'")

    assert {} == await backend.schedules.occurrences.begin("slow", [claimed])
    assert claimed.run_id == (await ow.schedules.get("s")).next_run_id
    assert 1 == len(await runs(ow))


# -- overlap --------------------------------


async def test_an_occurrence_is_skipped_while_an_earlier_one_has_not_ended(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Sql
) -> None:
    await ow.schedules.create("s", sleeper, YEARLY)
    worker = await start_worker(sleeper)
    await make_due(sql)
    await eventually(becomes(ow, begun=1))
    await make_due(sql)

    after = await eventually(becomes(ow, skipped=1))

    assert 1 == after.begun
    assert 2 == len(await runs(ow)), "one skipped leaves no row behind"
    lost = worker.metrics.registry.get_sample_value(
        "openworkflow_claim_lost_total", {"namespace_id": "default", "workflow": "sleeper"}
    )
    assert 0 == lost
    await eventually(lambda: worker.slots_used == 0)
    assert after.next_at > datetime.now(UTC)


async def test_a_queued_occurrence_is_not_due_and_begins_when_the_earlier_one_has_ended(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Sql
) -> None:
    release = asyncio.Event()

    @workflow
    async def waits(step: Step) -> None:
        await step.run("wait", release.wait)

    await ow.schedules.create("s", waits, Cron(YEARLY, overlap="queue_one"))
    await start_worker(waits)
    await make_due(sql)
    await eventually(becomes(ow, begun=1))
    await make_due(sql)

    async def queued() -> Any:
        found = await ow.schedules.get("s")
        return found if found.queued_run_ids else None

    waiting = (await eventually(queued)).queued_run_ids
    assert "infinity" == await sql.fetchval(
        "select available_at::text from workflow_runs where id = $1", waiting[0]
    )
    await make_due(sql)
    await eventually(becomes(ow, skipped=1))
    assert waiting == (await ow.schedules.get("s")).queued_run_ids

    release.set()

    done = await eventually(lambda: _ended(ow, 2))
    assert waiting[0] in [run.id for run in done]
    assert [] == (await ow.schedules.get("s")).queued_run_ids


async def _ended(ow: OpenWorkflow, count: int) -> Any:
    found = await runs(ow, RunStatus.SUCCEEDED)
    return found if len(found) >= count else None


async def test_all_that_are_queued_run_one_after_the_other_in_order(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Sql
) -> None:
    running = [0, 0]

    async def count() -> None:
        running[0] += 1
        running[1] = max(running)
        await asyncio.sleep(0.05)
        running[0] -= 1

    @workflow
    async def counted(step: Step) -> None:
        await step.run("count", count)

    await ow.schedules.create("s", counted, Cron("0 0 1 * *", overlap="queue_all", catch_up="all"))
    await make_due(sql, ago="130 days")

    await asyncio.gather(start_worker(counted), start_worker(counted))

    done = await eventually(lambda: _ended(ow, 5), deadline=30)
    assert 1 == running[1]
    ends = [run.completed_at for run in done]
    assert ends == sorted(ends, key=lambda at: at or datetime.max)
    # Those that had to wait count too: they did not, and the last was the first.
    after = await ow.schedules.get("s")
    assert (5, done[-1].id) == (after.begun, after.last_run_id)
    assert after.last_at == max(run.scheduled_for for run in done if run.scheduled_for)


async def test_an_earlier_occurrence_is_canceled_where_the_schedule_says_so(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Sql
) -> None:
    await ow.schedules.create("s", sleeper, Cron(YEARLY, overlap="cancel_running"))
    await start_worker(sleeper)
    await make_due(sql)
    first = (await eventually(becomes(ow, begun=1))).last_run_id
    await make_due(sql)

    after = await eventually(becomes(ow, begun=2))

    (canceled,) = await eventually(lambda: runs(ow, RunStatus.CANCELED))
    assert first == canceled.id
    assert first != after.last_run_id


async def test_occurrences_run_beside_each_other_where_the_schedule_allows_it(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Sql
) -> None:
    await ow.schedules.create("s", sleeper, Cron(YEARLY, overlap="allow"))
    await start_worker(sleeper)
    for number in (1, 2, 3):
        await make_due(sql)
        await eventually(becomes(ow, begun=number))

    assert 4 == len(await runs(ow, RunStatus.PENDING, RunStatus.RUNNING))
    assert [] == (await ow.schedules.get("s")).open_run_ids


# -- after an outage --------------------------------


async def test_after_an_outage_the_last_missed_occurrence_runs_and_no_other(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Sql
) -> None:
    await ow.schedules.create("s", report, Cron("0 0 1 * *", catch_up="60d"))
    await make_due(sql, ago="130 days")

    await start_worker(report)

    (done,) = await eventually(lambda: runs(ow, RunStatus.SUCCEEDED))
    after = await ow.schedules.get("s")
    assert done.scheduled_for is not None
    assert done.scheduled_for > datetime.now(UTC) - timedelta(days=32)
    assert (1, done.scheduled_for) == (done.scheduled_for.day, after.last_at)
    assert 4 <= after.missed <= 5
    assert 1 == after.begun


async def test_what_was_missed_for_too_long_does_not_run(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Sql
) -> None:
    await ow.schedules.create("s", report, Cron(YEARLY, catch_up="none"))
    await make_due(sql, ago="2 minutes")

    await start_worker(report)

    after = await eventually(becomes(ow, missed=1))
    assert 0 == after.begun
    assert after.next_at > datetime.now(UTC)
    assert 1 == len(await runs(ow))


async def test_an_occurrence_that_was_run_by_hand_is_not_caught_up_with_again(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Sql
) -> None:
    await ow.schedules.create("s", report, Cron("0 0 1 * *", catch_up="60d"))
    await make_due(sql, ago="130 days")
    now = datetime.now(UTC)
    made = await ow.schedules.backfill("s", now - timedelta(days=120), now)

    await start_worker(report)

    await eventually(lambda: _ended(ow, made))
    after = await eventually(becomes(ow, begun=0))
    await eventually(lambda: _no_more_due(sql))
    assert made == len(await runs(ow, RunStatus.SUCCEEDED))
    assert after.next_at is not None


async def _no_more_due(sql: Sql) -> bool:
    due = "select count(*) from workflow_runs where status <> 'succeeded' and available_at <= now()"
    return bool(await sql.fetchval(due) == 0)


async def test_a_row_whose_writer_computes_no_times_gets_its_first_instant_at_its_first_claim(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Sql
) -> None:
    """So may declare who has no cron, such as an operator: a fleet at zero is woken for it."""
    await ow.schedules.create("s", report, YEARLY)
    await make_due(sql)
    await sql.execute("update workflow_schedules set next_at = null")

    await start_worker(report)

    async def aimed() -> Any:
        found = await ow.schedules.get("s")
        return found if found.next_at is not None else None

    after = await eventually(aimed)
    (run,) = await runs(ow)
    assert (0, 0, 0) == (after.begun, after.skipped, after.missed)
    assert (after.next_run_id, after.next_at) == (run.id, run.available_at)
    assert 1 == after.next_at.month


# -- by hand --------------------------------


async def test_a_paused_schedule_begins_nothing_and_goes_on_from_when_it_is_resumed(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Sql
) -> None:
    await ow.schedules.create("s", report, YEARLY)
    await make_due(sql)

    paused = await ow.schedules.pause("s", "the warehouse moves")
    await start_worker(report)

    assert ("the warehouse moves", True) == (paused.pause_reason, paused.stopped)
    assert "infinity" == await sql.fetchval("select available_at::text from workflow_runs")
    resumed = await ow.schedules.resume("s")
    assert resumed.next_at is not None
    assert resumed.next_at > datetime.now(UTC)
    assert (None, None) == (resumed.paused_at, resumed.pause_reason)
    (run,) = await runs(ow)
    assert (resumed.next_run_id, resumed.next_at) == (run.id, run.available_at)


async def test_a_pause_between_claim_and_decision_is_heeded(
    backend: BackendPostgres, ow: OpenWorkflow, sql: Sql
) -> None:
    await ow.schedules.create("s", report, YEARLY)
    await make_due(sql)
    claimed = await claim(sql, "w")

    await ow.schedules.pause("s")

    assert {} == await backend.schedules.occurrences.begin("w", [claimed])
    (run,) = await runs(ow)
    assert (RunStatus.PENDING, None) == (run.status, run.worker_id)
    assert "infinity" == await sql.fetchval("select available_at::text from workflow_runs")


async def test_a_schedule_is_triggered_by_hand_paused_or_not(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await ow.schedules.create("s", report, YEARLY, paused=True)
    await start_worker(report)

    handle = await ow.schedules.trigger("s")

    assert (await handle.result(timeout=20)).startswith(str(datetime.now(UTC).year))
    assert "s" == (await handle.run()).schedule_name


async def test_a_fork_of_an_occurrence_is_of_the_same_instant(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    """It was of none, so that its replay took another course than the history it began with."""
    await ow.schedules.create("s", report, YEARLY)
    await start_worker(report)
    first = await ow.schedules.trigger("s")
    told = await first.result(timeout=20)

    fork = await ow.fork(first.id)
    second = await ow.fork(fork.id)

    assert [told, told] == [await each.result(timeout=20) for each in (fork, second)]
    assert told
    assert ["s"] * 2 == [(await each.run()).schedule_name for each in (fork, second)]


async def test_what_was_triggered_counts_as_running(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Sql
) -> None:
    await ow.schedules.create("s", sleeper, YEARLY)
    await start_worker(sleeper)
    await ow.schedules.trigger("s")
    await make_due(sql)

    assert 0 == (await eventually(becomes(ow, skipped=1))).begun


async def test_a_backfill_runs_each_instant_once_in_order(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await ow.schedules.create("s", report, Cron("0 0 1 * *"))
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)

    made = await ow.schedules.backfill("s", start, end)
    again = await ow.schedules.backfill("s", start, datetime(2026, 8, 2, tzinfo=UTC))
    await start_worker(report)

    done = await eventually(lambda: _ended(ow, 8))
    assert (6, 2) == (made, again)
    assert list(range(1, 9)) == [run.scheduled_for.month for run in done if run.scheduled_for]
    ends = [run.completed_at for run in done]
    assert ends == sorted(ends, key=lambda at: at or datetime.max)


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (datetime(2026, 1, 1), datetime(2026, 1, 2, tzinfo=UTC), "must carry a time zone"),
        (datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC), "ends after it"),
        (datetime(2026, 1, 2, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC), "still to come"),
        (datetime(2006, 1, 2, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC), "more than 10000"),
    ],
)
async def test_a_backfill_that_cannot_be_meant_is_refused(
    ow: OpenWorkflow, start: datetime, end: datetime, message: str
) -> None:
    await ow.schedules.create("s", report, "0 * * * *")

    with pytest.raises(ConfigurationError, match=message):
        await ow.schedules.backfill("s", start, end)


async def test_a_schedule_that_is_deleted_takes_its_waiting_run_along_and_may_come_again(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Sql
) -> None:
    await ow.schedules.create("s", report, YEARLY)
    await ow.schedules.delete("s")
    await ow.schedules.create("s", report, YEARLY)
    await make_due(sql)
    await start_worker(report)

    await eventually(lambda: runs(ow, RunStatus.SUCCEEDED))
    assert 1 == len(await runs(ow, RunStatus.CANCELED))
    assert 1 == len(await runs(ow, RunStatus.PENDING))


async def test_a_waiting_run_that_somebody_cancels_costs_its_own_occurrence_only(
    ow: OpenWorkflow,
) -> None:
    made = await ow.schedules.create("s", report, "0 0 * * *")
    assert made.next_run_id is not None
    assert made.next_at is not None

    await ow.cancel(made.next_run_id)

    after = await ow.schedules.get("s")
    (waiting,) = await runs(ow, RunStatus.PENDING)
    assert made.next_at + timedelta(days=1) == after.next_at == waiting.available_at


async def test_a_canceled_occurrence_lets_those_go_that_wait_for_it(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Sql
) -> None:
    await ow.schedules.create("s", sleeper, Cron(YEARLY, overlap="queue_all"))
    await start_worker(sleeper)
    await make_due(sql)
    first = (await eventually(becomes(ow, begun=1))).last_run_id
    await make_due(sql)

    async def queued() -> list[UUID]:
        return (await ow.schedules.get("s")).queued_run_ids

    (second,) = await eventually(queued)

    await ow.cancel(first)

    async def has_begun() -> bool:
        return (await ow.get_workflow_run(second)).started_at is not None

    await eventually(has_begun)


async def test_what_waits_for_an_occurrence_whose_end_nobody_told_of_is_released_in_the_end(
    backend: BackendPostgres, ow: OpenWorkflow, start_worker: StartWorker, sql: Sql
) -> None:
    """A worker may die between the end of a run and the look for what waits for it."""
    await ow.schedules.create("s", sleeper, Cron(YEARLY, overlap="queue_all"))
    worker = await start_worker(sleeper)
    await make_due(sql)
    await eventually(becomes(ow, begun=1))
    await make_due(sql)

    async def queued() -> list[UUID]:
        return (await ow.schedules.get("s")).queued_run_ids

    (second,) = await eventually(queued)
    await worker.stop()
    await sql.execute(
        "update workflow_runs set status = 'failed', completed_at = now(), worker_id = null "
        "where started_at is not null and id <> $1",
        second,
    )

    assert 1 == await backend.schedules.occurrences.mend()

    assert await sql.fetchval(
        "select available_at <= now() from workflow_runs where id = $1", second
    )
    assert 0 == await backend.schedules.occurrences.mend()


async def queued(ow: OpenWorkflow) -> list[UUID]:
    return (await ow.schedules.get("s")).queued_run_ids


async def has_begun(ow: OpenWorkflow, run_id: UUID) -> bool:
    return (await ow.get_workflow_run(run_id)).started_at is not None


async def one_behind_another(ow: OpenWorkflow, sql: Sql) -> tuple[UUID, UUID]:
    """An occurrence that has begun, and one that waits for it in a queue."""
    await make_due(sql)
    first = (await eventually(becomes(ow, begun=1))).last_run_id
    await make_due(sql)
    (second,) = await eventually(lambda: queued(ow))
    assert first is not None
    return first, second


async def end(sql: Sql, run_id: UUID, status: str = "failed") -> None:
    """Somebody ends the run, once it is parked: it would go on if a worker had it just then."""
    at_rest = "select worker_id is null and status = 'pending' from workflow_runs where id = $1"
    await eventually(lambda: sql.fetchval(at_rest, run_id))
    await sql.execute(
        "update workflow_runs set status = $2, completed_at = now() where id = $1", run_id, status
    )


async def test_the_next_occurrence_gives_a_queue_its_turn_that_nobody_is_left_to_give(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Sql
) -> None:
    """It was skipped, and so were those after it, with nothing running, for up to ten minutes."""
    await ow.schedules.create("s", sleeper, Cron(YEARLY, overlap="queue_one"))
    await start_worker(sleeper)
    first, second = await one_behind_another(ow, sql)
    await end(sql, first)

    await make_due(sql)

    await eventually(lambda: has_begun(ow, second))
    await eventually(becomes(ow, skipped=1, queued_run_ids=[], open_run_ids=[second]))


async def test_an_occurrence_that_ends_in_a_drain_lets_the_next_one_begin(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Sql
) -> None:
    """Each deploy that met one left the queue standing for up to ten minutes."""
    release = asyncio.Event()

    @workflow
    async def waits(step: Step) -> None:
        await step.run("wait", release.wait)

    await ow.schedules.create("s", waits, Cron(YEARLY, overlap="queue_one"))
    leaving = await start_worker(waits)
    _, second = await one_behind_another(ow, sql)
    await start_worker(waits)
    stopping = asyncio.create_task(leaving.stop())
    await eventually(lambda: not leaving.ready()[0])

    release.set()

    await stopping
    await eventually(lambda: has_begun(ow, second))


async def test_what_waits_for_an_occurrence_begins_though_the_database_was_away_at_its_end(
    backend: BackendPostgres,
    ow: OpenWorkflow,
    start_worker: StartWorker,
    sql: Sql,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release, failures = asyncio.Event(), [ConnectionLost("gone").of(Fault.SERVER)] * 2

    @workflow
    async def waits(step: Step) -> None:
        await step.run("wait", release.wait)

    occurrences = backend.schedules.occurrences
    as_ever = occurrences.release

    async def fail(names: Any) -> None:
        if failures:
            raise failures.pop()
        await as_ever(names)

    monkeypatch.setattr(occurrences, "release", fail)
    await ow.schedules.create("s", waits, Cron(YEARLY, overlap="queue_one"))
    await start_worker(waits)
    _, second = await one_behind_another(ow, sql)

    release.set()

    await eventually(lambda: has_begun(ow, second))
    assert not failures


async def test_what_waits_for_an_occurrence_begins_though_the_answer_to_its_end_was_lost(
    database_url: str, ow: OpenWorkflow, sql: Sql
) -> None:
    """The end that was sent again was taken for one of a lost claim, after which nobody begins."""
    release = asyncio.Event()

    @workflow
    async def waits(step: Step) -> None:
        await step.run("wait", release.wait)

    head, name = database_url.rsplit("/", 1)
    proxy = Proxy(int(head.rsplit(":", 1)[1]))
    await proxy.start()
    far = await BackendPostgres.connect(f"{head.rsplit(':', 1)[0]}:{proxy.port}/{name}")
    await ow.schedules.create("s", waits, Cron(YEARLY, overlap="queue_one"))
    worker = OpenWorkflow(far).new_worker(workflows=[waits])
    await worker.start()
    _, second = await one_behind_another(ow, sql)
    proxy.about, proxy.lose = b"wait", 1

    release.set()

    await eventually(lambda: has_begun(ow, second))
    assert 1 == proxy.lost
    await worker.stop()
    await far.stop()
    await proxy.stop()


async def test_a_cancellation_that_is_repeated_since_its_answer_was_lost_lets_the_next_one_begin(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Sql
) -> None:
    await ow.schedules.create("s", sleeper, Cron(YEARLY, overlap="queue_all"))
    await start_worker(sleeper)
    first, second = await one_behind_another(ow, sql)
    await end(sql, first, "canceled")

    await ow.cancel(first)

    await eventually(lambda: has_begun(ow, second))


async def test_names_that_are_there_or_not_there_are_told(ow: OpenWorkflow) -> None:
    await ow.schedules.create("s", report, YEARLY)

    with pytest.raises(ConfigurationError, match="there is a schedule 's' already"):
        await ow.schedules.create("s", report, YEARLY)
    for ask in (ow.schedules.get, ow.schedules.pause, ow.schedules.resume, ow.schedules.trigger):
        with pytest.raises(ScheduleNotFound, match="no schedule 'other'"):
            await ask("other")
    with pytest.raises(ScheduleNotFound):
        await ow.schedules.delete("other")


async def test_a_change_moves_the_waiting_run_and_keeps_the_pause(ow: OpenWorkflow) -> None:
    await ow.schedules.create("s", report, YEARLY, paused=True)

    await ow.schedules.update("s", sleeper, Cron("0 0 1 2 *"))

    (run,) = await runs(ow)
    after = await ow.schedules.get("s")
    assert ("sleeper", after.next_run_id) == (run.workflow_name, run.id)
    assert (2, True) == (after.next_at and after.next_at.month, after.stopped)


async def test_a_change_does_not_lose_an_occurrence_that_is_due(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Sql
) -> None:
    await ow.schedules.create("s", report, YEARLY)
    instant = await make_due(sql)
    await ow.schedules.update("s", report, Cron("0 0 1 2 *"))

    await start_worker(report)

    (done,) = await eventually(lambda: runs(ow, RunStatus.SUCCEEDED))
    after = await ow.schedules.get("s")
    assert instant == done.scheduled_for
    assert 2 == (after.next_at and after.next_at.month)


async def test_runs_are_listed_by_their_schedule(ow: OpenWorkflow) -> None:
    await ow.schedules.create("s", report, YEARLY)
    await ow.schedules.create("other", report, YEARLY)
    await ow.run_workflow(report)

    found = (await ow.list_runs(RunFilter(schedule_name="s"))).runs

    assert ["s"] == [run.schedule_name for run in found]


# -- declared in code --------------------------------


async def test_a_worker_registers_what_its_code_declares_and_a_fleet_does_so_once(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    @workflow(name="job", schedule=Cron("0 3 * * *", tz="Europe/Berlin", name="s"))
    async def job() -> None: ...

    await asyncio.gather(*(start_worker(job) for _ in range(4)))

    found = await eventually(ow.schedules.list)
    assert [("s", "job", "code", "0 3 * * *")] == [
        (each.name, each.workflow_name, each.source, each.cron) for each in found
    ]
    assert 1 == len(await runs(ow))


async def test_a_deploy_changes_what_is_declared_and_a_pause_by_hand_survives_it(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    @workflow(name="job", schedule=Cron("0 3 * * *", name="s"))
    async def before() -> None: ...

    @workflow(name="job", schedule=Cron("0 4 * * *", name="s"))
    async def after() -> None: ...

    old = await start_worker(before)
    await eventually(ow.schedules.list)
    await ow.schedules.pause("s", "not now")
    await old.stop()
    await start_worker(after)

    async def changed() -> Any:
        found = await ow.schedules.get("s")
        return found if found.cron == "0 4 * * *" else None

    found = await eventually(changed)
    assert "not now" == found.pause_reason
    assert 4 == (found.next_at and found.next_at.hour)
    assert 1 == len(await runs(ow))


async def test_a_schedule_that_is_taken_out_of_the_code_stops_and_comes_back_with_it(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Sql
) -> None:
    @workflow(name="job", schedule=Cron(YEARLY, name="s"))
    async def with_it() -> None: ...

    @workflow(name="job")
    async def without() -> None: ...

    @workflow(name="other")
    async def other() -> None: ...

    old = await start_worker(with_it)
    await eventually(ow.schedules.list)
    await old.stop()

    others = await start_worker(other)
    await eventually(lambda: _has_looked(sql, others.worker_id))
    assert not (await ow.schedules.get("s")).stopped, "who does not serve it does not know"
    newer = await start_worker(without)

    async def stopped() -> bool:
        return (await ow.schedules.get("s")).retired_at is not None

    await eventually(stopped)
    assert "infinity" == await sql.fetchval("select available_at::text from workflow_runs")
    await newer.stop()
    await start_worker(with_it)

    async def goes_on() -> bool:
        return not (await ow.schedules.get("s")).stopped

    await eventually(goes_on)
    assert "infinity" != await sql.fetchval("select available_at::text from workflow_runs")


async def _has_looked(sql: Sql, worker_id: str) -> bool:
    return bool(
        await sql.fetchval("select true from workflow_served where workflow_name = 'other'")
    )


async def test_code_leaves_a_schedule_alone_that_was_made_by_hand(
    ow: OpenWorkflow, start_worker: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    @workflow(name="job", schedule=Cron("0 4 * * *", name="s"))
    async def job() -> None: ...

    await ow.schedules.create("s", report, YEARLY)
    await start_worker(job)

    await eventually(lambda: "declared here, and by somebody else" in caplog.text)
    assert (YEARLY, "api") == ((await ow.schedules.get("s")).cron, "api")


async def test_what_code_declares_is_not_changed_by_hand(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    @workflow(name="job", schedule=Cron("0 4 * * *", name="s"))
    async def job() -> None: ...

    await start_worker(job)
    await eventually(ow.schedules.list)

    with pytest.raises(ConfigurationError, match="declared by the code of its workflow"):
        await ow.schedules.update("s", job, YEARLY)


async def test_only_the_build_that_takes_most_new_runs_says_what_is_scheduled(
    backend: BackendPostgres,
    ow: OpenWorkflow,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(declared, "REPEAT_SECONDS", 0.05)

    @workflow(name="job", schedule=Cron("0 3 * * *", name="s"))
    async def old_code() -> None: ...

    @workflow(name="job", schedule=Cron("0 4 * * *", name="s"))
    async def new_code() -> None: ...

    await start_worker(old_code, build_id="one")
    await eventually(ow.schedules.list)
    await backend.builds.promote("one")
    canary = await start_worker(new_code, build_id="two")
    await backend.builds.promote("two", 10)
    await eventually(lambda: canary.metrics.registry is not None)
    assert "0 3 * * *" == (await ow.schedules.get("s")).cron

    await backend.builds.promote("two", 100)

    async def changed() -> bool:
        return (await ow.schedules.get("s")).cron == "0 4 * * *"

    await eventually(changed)


# -- all of it at once ------------------------------

HANDS = ("due", "due", "due", "pause", "resume", "update", "trigger", "backfill", "cancel", "mend")


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_whatever_is_done_at_once_each_schedule_is_left_with_one_run_that_waits(
    backend: BackendPostgres, ow: OpenWorkflow, start_worker: StartWorker, sql: Sql, seed: int
) -> None:
    """And nothing waits forever, nothing deadlocks, and no instant has run twice."""
    random = Random(seed)
    overlaps: tuple[Overlap, ...] = ("skip", "queue_one", "queue_all", "cancel_running", "allow")
    for overlap in overlaps:
        await ow.schedules.create(overlap, report, Cron("0 0 1 * *", overlap=overlap))
    workers = [await start_worker(report, concurrency=4) for _ in range(2)]
    connections = asyncio.Semaphore(1)

    async def act(hand: str, name: Overlap) -> None:
        now = datetime.now(UTC)
        match hand:
            case "due":
                async with connections:
                    await make_due(sql, name)
            case "pause":
                await ow.schedules.pause(name)
            case "resume":
                await ow.schedules.resume(name)
            case "update":
                await ow.schedules.update(name, report, Cron("0 0 2 * *", overlap=name))
            case "trigger":
                await ow.schedules.trigger(name)
            case "backfill":
                await ow.schedules.backfill(name, now - timedelta(days=100), now)
            case "cancel":
                next_run_id = (await ow.schedules.get(name)).next_run_id
                with suppress(OpenWorkflowError):  # it may have ended, or moved on
                    await ow.cancel(next_run_id or UUID(int=0))
            case "mend":
                await backend.schedules.occurrences.mend()

    for _ in range(8):
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for _ in range(6):
                group.create_task(act(random.choice(HANDS), random.choice(overlaps)))

    for name in overlaps:
        await ow.schedules.resume(name)
    await backend.schedules.occurrences.mend()

    async def at_rest() -> bool:
        waiting = {each.next_run_id for each in await ow.schedules.list()}
        left = {run.id for run in await runs(ow, RunStatus.PENDING, RunStatus.RUNNING)}
        return len(waiting) == len(overlaps) and left == waiting

    await eventually(at_rest, deadline=60)
    assert [] == (await backend.diagnostics()).violations
    assert [] == (await backend.diagnostics()).late_schedules
    assert all(worker.ready()[0] for worker in workers)


# -- bad rows --------------------------------


async def test_a_schedule_that_cannot_be_computed_costs_itself_only(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Sql, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("bad", "good"):
        await ow.schedules.create(name, report, YEARLY)
    await sql.execute("update workflow_schedules set time_zone = 'Mars/Olympus' where name = 'bad'")
    await make_due(sql, "bad")
    await make_due(sql, "good")

    await start_worker(report)

    (done,) = await eventually(lambda: runs(ow, RunStatus.SUCCEEDED))
    assert "good" == done.schedule_name
    await eventually(lambda: "no time zone 'Mars/Olympus'" in caplog.text)
    assert {"bad", "good"} == {each.name for each in await ow.schedules.list()}


async def test_a_run_that_only_looks_like_an_occurrence_is_an_ordinary_run(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Sql
) -> None:
    await sql.execute(
        "insert into workflow_runs (id, namespace_id, workflow_name, status, config, available_at) "
        "values ('886313e1-3b8a-5372-9b90-0c9aee199e5d', 'default', 'report', 'pending', '{}', "
        "now())"
    )

    await start_worker(report)

    (done,) = await eventually(lambda: runs(ow, RunStatus.SUCCEEDED))
    assert "" == done.output


async def test_late_schedules_are_counted(
    backend: BackendPostgres, ow: OpenWorkflow, sql: Sql
) -> None:
    await ow.schedules.create("s", report, YEARLY)
    late = backend.schedules.occurrences.late
    assert (0, 0.0) == await late()

    await make_due(sql, ago="5 minutes")

    count, seconds = await late()
    assert 1 == count
    assert 300 <= seconds < 400
    await ow.schedules.pause("s")
    assert (0, 0.0) == await late()
