"""Every SQL statement is one PostgreSQL accepts, and every one is used."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import openworkflow.backend
from openworkflow import BackendPostgres
from openworkflow.backend import flush, queries
from openworkflow.backend.connection import WORKER_SETTINGS
from openworkflow.backend.flush import PARTS, Shape
from openworkflow.backend.link import Link
from openworkflow.backend.records import RecordedStep, RunFilter, StepWrite
from openworkflow.backend.requests import Requests
from openworkflow.backend.url import parse as parse_url
from openworkflow.core.filters import parse_filter
from openworkflow.core.workflow_run import RunStatus

MODIFIES = re.compile(r"\b(Update|Insert) on")
PACKAGE = Path(openworkflow.backend.__file__).parent
STATEMENTS = queries.load("public")
PARTIAL = [name for name in STATEMENTS if name.startswith(("flush_", "claim_", "where_"))]
INCLUDED = {
    match[1]
    for block in queries.read().values()
    for match in re.finditer(r"\{(\w+)\}", block)
    if match[1] in STATEMENTS
}


@pytest.mark.parametrize("name", [name for name in STATEMENTS if name not in (*PARTIAL, *INCLUDED)])
async def test_every_named_statement_prepares_against_the_schema(
    sql: asyncpg.Connection[Any], name: str
) -> None:
    await sql.prepare(STATEMENTS[name].replace("{most}", "10"))


@pytest.mark.parametrize("claim", [False, True])
async def test_every_combination_of_flush_parts_prepares_against_the_schema(
    sql: asyncpg.Connection[Any], claim: bool
) -> None:
    for chosen in itertools.product((False, True), repeat=len(PARTS)):
        kinds = tuple(kind for kind, is_chosen in zip(PARTS, chosen, strict=True) if is_chosen)
        for updates in {False, StepWrite in kinds}:
            for more in {False, claim and not kinds}:
                shape = Shape(kinds, updates, claim, spares=more, urgent=more, traced=more)
                prepared = await sql.prepare(flush.statement(STATEMENTS, shape))
                assert len(shape.parameters) == len(prepared.get_parameters())


async def test_a_flush_finds_the_runs_it_writes_by_their_primary_key(database_url: str) -> None:
    """Also on a table that was never analysed, of which the planner knows nothing."""
    connection = await asyncpg.connect(database_url, server_settings=dict(WORKER_SETTINGS))
    shape = Shape(tuple(PARTS), updates=True, claim=False)
    given = {"namespace_id": "default", "worker_id": "host/1"}
    values = [given.get(name) for name in shape.parameters]
    statement = flush.statement(STATEMENTS, shape)

    plan = [row[0] for row in await connection.fetch(f"explain {statement}", *values)]

    scans = [line for line in plan if " on workflow_runs " in line and not MODIFIES.search(line)]
    assert len(scans) >= 4
    assert [] == [line for line in scans if "using workflow_runs_pkey" not in line]
    await connection.close()


async def test_failed_runs_are_found_beside_any_number_that_did_not_fail(
    backend: BackendPostgres, sql: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their index, also in a plan that was made for any arguments."""
    await sql.execute(_MANY_RUNS)
    listed = STATEMENTS["list_failed_runs"]
    asked = [(listed, ("default", *4 * [None], 21, "failed", *6 * [None]))]
    fetch = Requests.fetch

    async def seen(self: Requests, text: str, *arguments: Any, **options: Any) -> list[Any]:
        asked.append((text, arguments))
        return await fetch(self, text, *arguments, **options)

    monkeypatch.setattr(Requests, "fetch", seen)
    pages = [
        await backend.list_workflow_runs(RunFilter(status=RunStatus.FAILED), 20),
        await backend.filtering.page(parse_filter("status:failed"), 20, None),
    ]

    assert 2 == len(asked)
    assert [20, 20] == [len(page.runs) for page in pages]
    await sql.execute("set plan_cache_mode = force_generic_plan")
    for text, arguments in asked:
        plan = [row[0] for row in await sql.fetch(f"explain {text}", *arguments)]
        assert any("using idx_workflow_runs_failed" in line for line in plan), plan


_MANY_RUNS = """
insert into workflow_runs (id, namespace_id, workflow_name, status, available_at, created_at,
                           completed_at)
select gen_random_uuid(), 'default', 'w' || n % 7,
       case when n % 100 = 0 then 'failed' else 'succeeded' end,
       now(), now() - n * interval '1 s', now()
  from generate_series(1, 5000) n;
analyze workflow_runs
"""


async def test_the_longest_flush_is_planned_once_for_a_connection(
    database_url: str, sql: asyncpg.Connection[Any]
) -> None:
    """A driver that does not keep a long statement has the server parse and plan it each time."""
    if sql.get_server_version() < (14, 0):
        pytest.skip("PostgreSQL counts the plans of a statement since 14")
    shape = Shape(tuple(PARTS), updates=True, claim=True)
    given = {"namespace_id": "default", "worker_id": "host/1"}
    values = [given.get(name) for name in shape.parameters]
    statement = flush.statement(STATEMENTS, shape)
    link = Link(parse_url(database_url), application_name="test", pooled=False)

    for _ in range(2):
        await link.fetch(statement, values)

    kept = "select generic_plans from pg_prepared_statements where statement = $1"
    assert [row[0] for row in await link.fetch(kept, [statement])] == [2]
    await link.close()


@pytest.mark.parametrize("name", STATEMENTS)
def test_every_named_statement_is_used_exactly_once(name: str) -> None:
    """A block that others include may be included by several, and named by the code as well."""
    code = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))

    used = len(re.findall(rf'(?:_sql|queries)\["{name}"\]', code))
    if name in PARTIAL:
        used = len(re.findall(rf'"{name}"', code))

    assert used in ((0, 1) if name in INCLUDED else (1,))


async def test_a_history_has_the_columns_of_a_recorded_step(sql: asyncpg.Connection[Any]) -> None:
    prepared = await sql.prepare(STATEMENTS["load_histories"])

    names = [attribute.name for attribute in prepared.get_attributes()]

    assert ["workflow_run_id", "created_at", *RecordedStep._fields] == names


def test_statements_name_their_tables_with_the_schema() -> None:
    for name, statement in queries.load('my "own" schema').items():
        code = re.sub(r"--.*|'[^']*'", "", statement)

        assert not re.search(r"(?<![._])\b(workflow_runs|step_attempts)\b", code), name
