"""Settings that somebody made for a role or a database: none of them changes what a run does.

A worker, a client and the operator do the same work in a session of each, with texts, times and
patterns that such a setting would have read or written otherwise.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from openworkflow import (
    BackendPostgres,
    Cron,
    Limit,
    NonRetryableError,
    OpenWorkflow,
    Step,
    workflow,
)
from openworkflow_operator.database.answers import Question
from openworkflow_operator.database.connection import ConnectOptions, Database
from openworkflow_operator.database.dsn import parse

#: What would be read otherwise: as a pattern, an escape, an array's NULL, a comment, a date.
ODD = "NULL \\' \" {,} \\x41 -- $1 %s 01/02/2026 ä\t"
FLOAT = 0.1 + 0.2

SETTINGS = {
    "dates": "DateStyle = 'German'; IntervalStyle = 'sql_standard'; TimeZone = 'Asia/Kathmandu'",
    "intervals": "IntervalStyle = 'iso_8601'; DateStyle = 'SQL, DMY'; TimeZone = 'UTC'",
    "texts": "standard_conforming_strings = off; bytea_output = 'escape'; array_nulls = off",
    "numbers": "extra_float_digits = -15; transform_null_equals = on",
    "names": "search_path = 'nowhere'; quote_all_identifiers = on; xmloption = 'document'",
    "plans": "plan_cache_mode = 'force_custom_plan'; jit = on; jit_above_cost = 0;"
    " enable_indexscan = off; enable_nestloop = off; work_mem = '64kB'",
    "parallel": "parallel_setup_cost = 0; parallel_tuple_cost = 0;"
    " min_parallel_table_scan_size = 0; max_parallel_workers_per_gather = 2",
    "transactions": "default_transaction_isolation = 'serializable';"
    " default_transaction_deferrable = on; row_security = off",
    "timeouts": "statement_timeout = '3s'; lock_timeout = '500ms';"
    " idle_in_transaction_session_timeout = '500ms'; idle_session_timeout = '300ms'",
    "logs": "log_statement = 'all'; log_duration = on; client_min_messages = 'debug1'",
}


async def echo(value: Any) -> Any:
    return value


async def refuse(value: str) -> None:
    raise NonRetryableError(value)


async def take_back(result: Any) -> None:
    pass


@workflow(limits=[Limit(2, key=lambda value: str(value))])
async def child(value: str, step: Step) -> str:
    return str(await step.run("echo", echo, value))


@workflow(schedule=Cron("0 0 1 1 *"))
async def yearly(step: Step) -> None: ...


@workflow
async def everything(value: str, step: Step) -> list[Any]:
    step.set_status(value)
    step.emit("topic", value)
    first = await step.run(
        "echo", echo, {"text": value, "float": FLOAT, "none": None}, undo=take_back
    )
    await step.sleep("pause", 0.3)
    signal = await step.wait_for_signal("go", timeout="30s", type=str)
    children = await step.map("children", child, [value, "plain"], concurrency=1)
    return [first, signal, list(children)]


@workflow
async def refused(value: str, step: Step) -> None:
    await step.run("echo", echo, value, undo=take_back)
    await step.run("refuse", refuse, value)


@pytest.mark.parametrize("kind", SETTINGS)
async def test_a_setting_of_the_database_changes_nothing(
    kind: str, database_url: str, sql: asyncpg.Connection[Any]
) -> None:
    version = sql.get_server_version().major
    for each in SETTINGS[kind].split(";"):
        name = each.split("=")[0].strip()
        if not await sql.fetchval("SELECT count(*) FROM pg_settings WHERE name = $1", name):
            assert name == "idle_session_timeout", name
            assert version < 14
            continue
        database = await sql.fetchval("SELECT current_database()")
        await sql.execute(f"ALTER DATABASE {database} SET {each}")

    async with await BackendPostgres.connect(database_url) as backend:
        ow = OpenWorkflow(backend)
        served: list[Any] = [everything, refused, child, yearly]
        async with ow.new_worker(workflows=served, concurrency=10):
            tags = {"odd": ODD.strip()}
            run = await ow.run_workflow(everything, ODD, tags=tags, idempotency_key=ODD)
            bad = await ow.run_workflow(refused, ODD)
            later = await ow.run_workflow(child, ODD, available_at=timedelta(days=2))
            await ow.signal(run.id, "go", ODD)
            result = await run.result(timeout=60)
            await _looks_around(ow, later.id)
            with pytest.raises(Exception, match="NULL"):
                await bad.result(timeout=60)

    assert result == [{"text": ODD, "float": FLOAT, "none": None}, ODD, [ODD, "plain"]]
    await _operator_looks(database_url)


async def _looks_around(ow: OpenWorkflow, later: Any) -> None:
    """What people and pages ask."""
    page = await ow.list_runs(where=f'tag.odd:"{_escaped(ODD.strip())}" workflow:everything')
    assert len(page.runs) == 1
    failed = await ow.list_runs(where='status:failed error~"01/02/2026" created<1h')
    assert len(failed.runs) <= 1
    run, told = await ow.get_workflow_run(later), await ow.explain(later)
    assert told.until == run.available_at
    assert timedelta(hours=47) < run.available_at - run.created_at < timedelta(hours=49)
    (schedule,) = await ow.schedules.list()
    assert schedule.next_at is not None
    assert (schedule.next_at.month, schedule.next_at.day) == (1, 1)


async def _operator_looks(url: str) -> None:
    database = await Database.connect(parse(url), "public", ConnectOptions(allow_loopback=True))
    try:
        seen = await database.look([Question("default", 100, 100, 20)], serial=1)
        assert seen["default"].demand.running == 0
    finally:
        database.terminate()


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
