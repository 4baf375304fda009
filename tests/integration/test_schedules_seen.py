"""What others see of schedules: the autoscaler, the command line, doctor, replay-check, roles."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import pytest
from click.testing import CliRunner, Result

from openworkflow import BackendPostgres, Cron, OpenWorkflow, RunStatus, Step, workflow
from openworkflow.cli.main import cli
from openworkflow_operator.database.answers import Question
from openworkflow_operator.database.connection import Database
from tests.helpers import StartWorker, eventually
from tests.postgres import run_sync

Sql: TypeAlias = "asyncpg.Connection[Any]"
MORNING = Cron("0 9 * * 1-5", tz="Europe/Berlin")


@workflow
async def report(step: Step) -> str:
    return str(step.scheduled_for)


async def test_a_fleet_is_there_before_the_next_run_of_a_schedule_and_not_for_a_stopped_one(
    ow: OpenWorkflow, database: Database, sql: Sql
) -> None:
    """By the operator's own statement: what it wakes for is what is about to be due."""
    await ow.schedules.create("soon", report, MORNING)
    await ow.schedules.create("later", report, MORNING)
    await ow.schedules.create("paused", report, MORNING, paused=True)
    await sql.execute(
        "update workflow_runs set available_at = now() + interval '15 seconds' "
        "where schedule_name = 'soon'"
    )

    seen = (await database.look([Question("default", 100, 100, 20.0)], serial=1))["default"]

    assert (0, 1) == (seen.demand.due, seen.demand.waking)
    assert seen.next_wake_seconds is not None
    assert 10 < seen.next_wake_seconds <= 15


async def test_what_waits_for_an_earlier_occurrence_asks_for_no_pods(
    backend: BackendPostgres,
    ow: OpenWorkflow,
    database: Database,
) -> None:
    await ow.schedules.create("s", report, Cron("0 0 1 * *"))
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)
    assert 5 == await ow.schedules.backfill("s", start, end)

    seen = (await database.look([Question("default", 100, 100, 20.0)], serial=1))["default"]

    assert 1 == seen.demand.due


def openworkflow(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments, "--url", url], catch_exceptions=True)


def test_the_command_line_shows_a_schedule_in_words_and_does_what_is_to_be_done(
    database_url: str,
) -> None:
    async def create() -> None:
        backend = await BackendPostgres.connect(database_url)
        await OpenWorkflow(backend).schedules.create("s", report, MORNING)
        await backend.stop()

    def run(*arguments: str) -> str:
        done = openworkflow(database_url, "schedules", *arguments)
        assert 0 == done.exit_code, done.output
        return done.output

    assert "no schedules: declare one" in run("list")
    run_sync(create)

    assert "at 09:00 on Monday through Friday (Europe/Berlin)" in run("list")
    shown = run("show", "s")
    assert shown.count(" 09:00+0") == 5
    assert "skip" in shown
    assert "schedule s is paused" in run("pause", "s", "--reason", "the warehouse moves")
    assert "the warehouse moves" in run("show", "s")
    assert "paused" in run("list")
    # In the zone of the schedule, as `show` and `list` say when it runs.
    assert re.search(r"schedule s runs next at 20\S+ 09:00\+0", run("resume", "s"))
    assert "1:00:00" in shown, "catch up, which was 3600.0 s"
    run_id = run("trigger", "s").strip().splitlines()[-1]
    assert "2 occurrences" in run("backfill", "s", "--from", "2026-11-23", "--to", "2026-11-25")
    listed = openworkflow(database_url, "runs", "list", "--schedule", "s", "--json").output
    assert 4 == len(json.loads(listed[listed.index("{") :])["runs"])
    assert "schedule" in openworkflow(database_url, "runs", "show", run_id).output
    (told,) = json.loads((said := run("list", "--json"))[said.index("{") :])["schedules"]
    assert "s" == told["name"]
    assert "schedule s is deleted" in run("delete", "s")


async def test_doctor_finds_schedules_that_are_late_gone_or_cannot_be_computed(
    backend: BackendPostgres, ow: OpenWorkflow, sql: Sql
) -> None:
    for name in ("late", "gone", "bad", "paused", "held", "well"):
        await ow.schedules.create(name, report, MORNING)
    await ow.schedules.pause("paused")
    held = (await ow.schedules.get("held")).next_run_id
    assert held is not None
    await ow.pause(held)
    await sql.execute(
        "update workflow_schedules set next_at = now() - interval '5 minutes' "
        "where name in ('late', 'paused', 'held')"
    )
    await sql.execute(
        "update workflow_runs set status = 'canceled', completed_at = now() "
        "where schedule_name = 'gone'"
    )
    await sql.execute("update workflow_schedules set time_zone = 'Mars' where name = 'bad'")

    found = await backend.diagnostics()

    assert ["gone", "late"] == found.late_schedules
    assert 1 == (await backend.schedules.occurrences.late())[0]
    assert ["bad: there is no time zone 'Mars'"] == [each[:33] for each in found.bad_schedules]
    assert [] == found.violations


async def test_a_replay_sees_the_instant_of_the_schedule(
    ow: OpenWorkflow, start_worker: StartWorker, database_url: str, tmp_path: Path
) -> None:
    """From the database and from a file: else the code would fail, or take another path."""
    module = tmp_path / "instants.py"
    module.write_text(
        "from openworkflow import Step, workflow\n"
        "@workflow(name='report')\n"
        "async def report(step: Step) -> None:\n"
        "    await step.run(f'for-{step.scheduled_for.year}', print)\n"
    )

    @workflow(name="report")
    async def recorded(step: Step) -> None:
        assert step.scheduled_for is not None
        await step.run(f"for-{step.scheduled_for.year}", print)

    await ow.schedules.create("s", recorded, MORNING, paused=True)
    await start_worker(recorded)
    await (await ow.schedules.trigger("s")).result(timeout=20)

    file = str(tmp_path / "histories.jsonl")
    exported = await asyncio.to_thread(
        openworkflow, database_url, "runs", "export", "--status", "succeeded", "--output", file
    )
    assert 0 == exported.exit_code, exported.output
    for source in (["--status", "succeeded"], ["--from-file", file]):
        checked = await asyncio.to_thread(
            openworkflow, database_url, "replay-check", str(module), *source
        )
        assert 0 == checked.exit_code, checked.output


async def test_a_drain_hands_an_occurrence_back_and_another_worker_finishes_it(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    release = asyncio.Event()

    @workflow
    async def waits(step: Step) -> str:
        await step.sleep("a-moment", 0.01)
        await step.run("wait", release.wait)
        return str(step.scheduled_for)

    await ow.schedules.create("s", waits, MORNING)
    first = await start_worker(waits, drain=timedelta(0))
    handle = await ow.schedules.trigger("s")

    async def runs() -> bool:
        return (await handle.status()) is RunStatus.RUNNING

    await eventually(runs)
    await first.stop()
    release.set()
    await start_worker(waits)

    run = await handle.run()
    assert str(run.scheduled_for) == await handle.result(timeout=20)


@pytest.mark.parametrize("overlap", ["skip", "queue_all"])
async def test_the_end_of_an_ordinary_run_asks_nothing_about_schedules(
    ow: OpenWorkflow, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch, overlap: Any
) -> None:
    await ow.schedules.create("s", report, Cron("0 0 1 1 *", overlap=overlap))
    worker = await start_worker(report)
    assert worker._parts is not None
    occurrences = worker._parts.executor._occurrences
    assert occurrences is not None

    async def forbidden(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(occurrences, "begin", forbidden)
    monkeypatch.setattr(occurrences, "after", forbidden)

    assert "None" == await (await ow.run_workflow(report)).result(timeout=20)
