"""Schedules that a resource declares, in a real PostgreSQL, beside those of code and by hand."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeAlias

import asyncpg
import pytest

from openworkflow import BackendPostgres, Cron, OpenWorkflow, RunStatus, Step, workflow
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.schedule import NewSchedule, Schedule, Source
from openworkflow_operator.api.schedules import ScheduleEntry
from openworkflow_operator.api.spec import Key
from openworkflow_operator.database import schedule_rows
from openworkflow_operator.database.connection import ConnectOptions, Database
from openworkflow_operator.database.dsn import Dsn, parse
from openworkflow_operator.database.schedules import Declared, Pace, ScheduleKeeper
from openworkflow_operator.decide.schedules import Kept
from tests.helpers import StartWorker, eventually

Sql: TypeAlias = "asyncpg.Connection[Any]"
YEARLY = "0 0 1 1 *"
KEY, OTHER = Key("shop", "orders"), Key("shop", "other")
LOCAL = ConnectOptions(allow_loopback=True)
AT_ONCE = Pace(0.1, 0.05, 0.1)


@workflow
async def report(step: Step, kind: str | None = None) -> str | None:
    assert step.scheduled_for is not None
    return kind


def entry(name: str = "s", **changes: Any) -> ScheduleEntry:
    return ScheduleEntry.parse({"name": name, "workflow": "report", "cron": YEARLY} | changes)


async def keep(database: Database, *entries: ScheduleEntry) -> Kept:
    return await schedule_rows.keep(database, "default", entries)


async def run_of(sql: Sql, schedule: Schedule) -> Any:
    return await sql.fetchrow(
        "select *, available_at::text as due from workflow_runs where id = $1",
        schedule.next_run_id,
    )


async def make_due(sql: Sql, name: str = "s") -> None:
    """As if the time of its next occurrence had come."""
    await sql.execute(
        "update workflow_schedules set next_at = now() - interval '1 second' where name = $1", name
    )
    await sql.execute(
        "update workflow_runs set available_at = now() where schedule_name = $1"
        " and status = 'pending'",
        name,
    )


async def test_what_is_declared_is_stored_as_the_workers_would_have_it(
    database: Database, ow: OpenWorkflow, sql: Sql
) -> None:
    """Without a worker: nothing is due before its time, so that no fleet is woken for it."""
    assert Kept([]) == await keep(
        *(database, entry(input="all", jitterSeconds=3600, timeZone="Europe/Berlin")),
        entry("t", overlap="QueueAll", catchUp="All", version="2"),
    )

    ours, other = await ow.schedules.list()
    wish = NewSchedule.of(
        Cron(YEARLY, "Europe/Berlin", jitter=3600), Source.RESOURCE, ("report", None), '"all"', "s"
    )
    assert wish.matches(ours)
    assert ours.next_at is not None
    assert ours.recurrence.after(datetime.now(UTC)) == ours.next_at
    assert ours.run_id(ours.next_at) == ours.next_run_id
    run = await run_of(sql, ours)
    assert (ours.due_at(ours.next_at), ours.next_at) == (run["available_at"], run["scheduled_for"])
    assert ("report", '"all"', "s", "pending") == (
        *(run["workflow_name"], run["input"], run["schedule_name"], run["status"]),
    )
    assert ("2", "all", "queue_all") == (other.version, other.catch_up, other.overlap)


async def test_it_runs_and_goes_on(
    database: Database, ow: OpenWorkflow, sql: Sql, start_worker: StartWorker
) -> None:
    await keep(database, entry(input="all"))
    await make_due(sql)

    await start_worker(report)

    async def ended() -> Any:
        runs = (await ow.list_runs()).runs
        return [run for run in runs if run.status is RunStatus.SUCCEEDED]

    (run,) = await eventually(ended)
    assert ("all", "s") == (run.output, run.schedule_name)
    before = await ow.schedules.get("s")
    assert 1 == before.begun
    assert Kept([]) == await keep(database, entry(input="all"))
    assert before == await ow.schedules.get("s")


async def test_what_is_there_as_wanted_is_not_written_again(database: Database, sql: Sql) -> None:
    entries = [entry(f"s{n}", input={"n": n, "of": [1.0, True]}) for n in range(5)]
    await keep(database, *entries)
    rows = "select xmin::text, name from workflow_schedules union all select xmin::text, id::text"
    before = await sql.fetch(f"{rows} from workflow_runs")

    await keep(database, *entries)

    assert before == await sql.fetch(f"{rows} from workflow_runs")


@pytest.mark.parametrize(
    "changes",
    [
        {"input": {"all": True}},
        {"overlap": "Allow"},
        {"workflow": "other", "version": "2"},
        {"jitterSeconds": 60},
        {"cron": "0 0 2 2 *"},
        {"timeZone": "Asia/Kolkata"},
    ],
    ids=str,
)
async def test_a_change_reaches_the_row_and_the_run_that_waits(
    database: Database, ow: OpenWorkflow, sql: Sql, changes: dict[str, Any]
) -> None:
    await keep(database, entry())
    before = await ow.schedules.get("s")

    assert Kept([]) == await keep(database, entry(**changes))

    after = await ow.schedules.get("s")
    run = await run_of(sql, after)
    assert before.id == after.id
    assert after.next_at is not None
    assert after.recurrence.after(datetime.now(UTC)) == after.next_at
    assert after.run_id(after.next_at) == after.next_run_id
    assert after.due_at(after.next_at) == run["available_at"]
    assert (after.workflow_name, after.version, after.input) == (
        *(run["workflow_name"], run["version"], run["input"]),
    )
    assert 1 == await sql.fetchval("select count(*) from workflow_runs")


async def test_an_occurrence_that_is_due_when_the_times_change_is_not_lost(
    database: Database, ow: OpenWorkflow, sql: Sql
) -> None:
    await keep(database, entry())
    await make_due(sql)
    before = await ow.schedules.get("s")

    await keep(database, entry(cron="0 0 2 2 *"))

    after = await ow.schedules.get("s")
    assert ("0 0 2 2 *", before.next_at) == (after.cron, after.next_at)
    assert (await run_of(sql, after))["available_at"] <= datetime.now(UTC)


async def test_an_entry_that_is_taken_out_stops_and_comes_back_with_its_pause(
    database: Database, ow: OpenWorkflow, sql: Sql
) -> None:
    await keep(database, entry(), entry("t"))
    await ow.schedules.pause("s", "the warehouse moves")

    await keep(database)

    for stopped in await ow.schedules.list():
        assert stopped.retired_at is not None
        assert "infinity" == (await run_of(sql, stopped))["due"]
    await keep(database, entry(), entry("t"))
    paused, back = await ow.schedules.list()
    assert (None, "the warehouse moves") == (paused.retired_at, paused.pause_reason)
    assert "infinity" == (await run_of(sql, paused))["due"]
    assert back.next_at == (await run_of(sql, back))["available_at"]
    assert 2 == await sql.fetchval("select count(*) from workflow_runs")


async def test_a_bad_entry_is_named_and_costs_no_other(
    database: Database, ow: OpenWorkflow, sql: Sql
) -> None:
    await sql.execute("""
        create function refuse() returns trigger language plpgsql as
          $$ begin raise exception 'our own reasons: secret'; end $$;
        create trigger refuse before insert on workflow_schedules
          for each row when (new.name = 'disliked') execute function refuse()""")
    bad = [entry("never", cron="0 0 30 2 *"), entry("mars", timeZone="Mars/Olympus")]
    refused = [entry("nul", input="a\0b"), entry("disliked")]

    kept = await keep(database, *bad, entry("good"), *refused, entry("fine"))

    assert [("never", "SchedulesInvalid"), ("mars", "SchedulesInvalid")] == [
        (fault.name, fault.reason) for fault in kept.faults[:2]
    ]
    assert [("nul", "SchedulesRefused"), ("disliked", "SchedulesRefused")] == [
        (fault.name, fault.reason) for fault in kept.faults[2:]
    ]
    assert "secret" not in str(kept)
    assert ["fine", "good"] == [each.name for each in await ow.schedules.list()]


async def test_an_entry_that_turns_bad_goes_on_as_it_was(
    database: Database, ow: OpenWorkflow
) -> None:
    await keep(database, entry())
    before = await ow.schedules.get("s")

    kept = await keep(database, entry(cron="99 * * * *"))

    assert ["s"] == [fault.name for fault in kept.faults]
    assert before == await ow.schedules.get("s")


async def test_neither_code_nor_hand_nor_resource_touches_what_another_made(
    database: Database, ow: OpenWorkflow, backend: BackendPostgres
) -> None:
    of_code = NewSchedule.of(Cron(YEARLY), Source.CODE, ("report", None), None, "of code")
    ours = NewSchedule.of(Cron("@daily"), Source.CODE, ("report", None), None, "ours")
    await backend.schedules.declare([of_code], [("report", "")])
    await ow.schedules.create("by hand", report, Cron(YEARLY))
    before = await ow.schedules.list()

    kept = await keep(
        database, entry("of code", cron="@daily"), entry("by hand", cron="@daily"), entry("ours")
    )

    assert [("of code", "NameTaken"), ("by hand", "NameTaken")] == [
        (fault.name, fault.reason) for fault in kept.faults
    ]
    assert ["ours"] == await backend.schedules.declare([of_code, ours], [("report", "")])
    for call in (ow.schedules.create, ow.schedules.update):
        with pytest.raises(ConfigurationError, match=r"there is a schedule|a WorkflowNamespace"):
            await call("ours", report, Cron("@daily"))
    await keep(database)
    assert before == [each for each in await ow.schedules.list() if each.name != "ours"]
    # And code that declares no schedule any more stops none of a resource.
    await keep(database, entry("ours"))
    await backend.schedules.declare([], [("report", "")])
    assert (await ow.schedules.get("ours")).retired_at is None


async def test_other_namespaces_have_names_of_their_own(database: Database, sql: Sql) -> None:
    await schedule_rows.keep(database, "other", [entry()])

    await keep(database, entry())
    await keep(database)

    stopped = "select namespace_id from workflow_schedules where retired_at is not null"
    assert ["default"] == [row[0] for row in await sql.fetch(stopped)]


@pytest.mark.parametrize(
    "harm",
    [
        "delete from workflow_schedules",
        "delete from workflow_runs",
        "update workflow_runs set status = 'canceled', completed_at = now()",
        "update workflow_schedules set next_at = null",
        "update workflow_schedules set cron = '* * * * *'",
    ],
)
async def test_what_somebody_harms_is_put_right(
    database: Database, ow: OpenWorkflow, sql: Sql, harm: str
) -> None:
    """A fleet at zero has no worker that would."""
    await keep(database, entry())
    await sql.execute(harm)

    assert Kept([]) == await keep(database, entry())

    after = await ow.schedules.get("s")
    run = await run_of(sql, after)
    assert (YEARLY, "pending", after.next_at) == (after.cron, run["status"], run["available_at"])


async def test_a_change_while_the_next_run_is_claimed_is_left_to_the_claim(
    database: Database, ow: OpenWorkflow, sql: Sql, start_worker: StartWorker
) -> None:
    await keep(database, entry())
    await make_due(sql)
    await sql.execute(
        "update workflow_runs set status = 'running', worker_id = 'w', claim_no = 1,"
        " available_at = now()"
    )

    assert Kept([]) == await keep(database, entry(cron="0 0 2 2 *"))

    assert 1 == await sql.fetchval("select count(*) from workflow_runs")
    await start_worker(report)

    async def begun() -> Any:
        found = await ow.schedules.get("s")
        return found if found.begun == 1 else None

    after = await eventually(begun)
    assert after.next_at is not None
    assert 2 == after.next_at.month


async def test_operators_and_workers_at_once_leave_one_next_run(
    database_url: str, ow: OpenWorkflow, sql: Sql, start_worker: StartWorker
) -> None:
    """Three operators cannot be, but one that is killed may still be writing."""
    await start_worker(report)
    connections = [await Database.connect(parse(database_url), "public", LOCAL) for _ in range(3)]
    try:
        for turn in range(12):
            entries = [entry(f"s{n}", cron=f"0 0 {turn + 1} 1 *", input=str(n)) for n in range(4)]
            if turn % 4 == 3:
                entries = entries[1:]
            await asyncio.gather(*(keep(each, *entries) for each in connections))
            await make_due(sql, f"s{turn % 4}")
        entries = [entry(f"s{n}", cron="0 0 20 1 *") for n in range(4)]
        await keep(connections[0], *entries)
    finally:
        for each in connections:
            each.terminate()

    async def is_whole() -> bool:
        """In one look: nothing is due, and each schedule has one run that waits, its next."""
        return not await sql.fetchval("""
            select exists (select from workflow_runs
                            where completed_at is null and available_at <= now())
                or exists (select from workflow_schedules schedule
                            where array (select id from workflow_runs run
                                          where run.schedule_name = schedule.name
                                            and completed_at is null)
                               is distinct from array[schedule.next_run_id])""")

    await eventually(is_whole)


# -- the keeper -----------------------------


class Told:
    def __init__(self) -> None:
        self.ended: list[Key] = []

    def keeper(self, pace: Pace = AT_ONCE) -> ScheduleKeeper:
        return ScheduleKeeper(self.ended.append, LOCAL, pace)


def declared(dsn: Dsn, *entries: ScheduleEntry, namespace_id: str = "default") -> Declared:
    return Declared(dsn, "public", namespace_id, entries)


async def test_the_keeper_tells_of_changes_only_and_brings_back_what_was_deleted(
    database_url: str, ow: OpenWorkflow
) -> None:
    dsn, told = parse(database_url), Told()
    async with told.keeper() as keeper:
        keeper.keep(KEY, declared(dsn, entry()))
        assert keeper.last(KEY) is None
        await eventually(lambda: keeper.last(KEY) == Kept([]))
        await ow.schedules.delete("s")
        await eventually(ow.schedules.list)
        assert [KEY] == told.ended
        keeper.keep(KEY, declared(dsn, entry(cron="bad")))
        assert keeper.last(KEY) is None
        await eventually(lambda: keeper.last(KEY) is not None)
        assert [KEY, KEY] == told.ended
        keeper.forget(KEY)
        assert keeper.last(KEY) is None
        assert not keeper._clerks


async def test_one_resource_costs_no_other_of_its_database(
    database_url: str, sql: Sql, ow: OpenWorkflow
) -> None:
    """Somebody holds a schedule of one of them locked."""
    dsn = parse(database_url)
    async with Told().keeper() as keeper:
        keeper.keep(OTHER, declared(dsn, entry(), namespace_id="other"))
        await eventually(lambda: keeper.last(OTHER) == Kept([]))
        async with sql.transaction():
            await sql.execute("select from workflow_schedules for update")
            keeper.keep(OTHER, declared(dsn, entry(cron="@daily"), namespace_id="other"))
            keeper.keep(KEY, declared(dsn, entry()))
            await eventually(lambda: keeper.last(KEY) == Kept([]))
            await eventually(problem(keeper, OTHER, "TimedOut"))
        await eventually(lambda: keeper.last(OTHER) == Kept([]))


async def test_a_role_that_may_not_is_told_until_it_may(database_url: str, sql: Sql) -> None:
    role = f"scaler_{sql.get_server_pid()}"
    await sql.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p'")
    await sql.execute(f"GRANT SELECT ON workflow_runs TO {role}")
    own = parse(database_url)
    dsn = Dsn(own.hosts, own.ports, own.database, role, "p", own.tls)
    try:
        async with Told().keeper() as keeper:
            keeper.keep(OTHER, declared(dsn))
            keeper.keep(KEY, declared(dsn, entry()))
            await eventually(problem(keeper, KEY, "PermissionDenied"))
            # Where it cannot have stored any there are none to take back.
            await eventually(lambda: keeper.last(OTHER) == Kept())
            for table in ("workflow_runs", "workflow_schedules"):
                await sql.execute(f"GRANT SELECT, INSERT, UPDATE ON {table} TO {role}")
            await eventually(lambda: keeper.last(KEY) == Kept([]))
    finally:
        await sql.execute(f"DROP OWNED BY {role}")
        await sql.execute(f"DROP ROLE {role}")


async def test_tables_from_before_schedules_are_told_only_to_who_declares_some(
    database_url: str, sql: Sql
) -> None:
    await sql.execute("drop table workflow_schedules")
    dsn = parse(database_url)
    async with Told().keeper() as keeper:
        keeper.keep(OTHER, declared(dsn))
        keeper.keep(KEY, declared(dsn, entry()))
        await eventually(problem(keeper, KEY, "SchemaMissing"))
        await eventually(lambda: keeper.last(OTHER) == Kept())


def problem(keeper: ScheduleKeeper, key: Key, reason: str) -> Callable[[], bool]:
    def has_it() -> bool:
        kept = keeper.last(key)
        return kept is not None and kept.problem is not None and kept.problem.reason == reason

    return has_it


async def test_a_database_that_fails_is_asked_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    times: list[float] = []

    async def refuse(*_: object) -> Database:
        times.append(asyncio.get_running_loop().time())
        raise ConnectionRefusedError

    monkeypatch.setattr(Database, "connect", refuse)
    async with Told().keeper(Pace(60, 0.02, 0.3)) as keeper:
        keeper.keep(KEY, declared(parse(database_url), entry()))
        await eventually(lambda: len(times) >= 6)
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses[4] >= 0.2
