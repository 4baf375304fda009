"""What the dashboard reads costs no more as the tables grow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from openworkflow import BackendPostgres, OpenWorkflow
from openworkflow.backend import queries
from openworkflow.backend.filtering import Filtering
from openworkflow.backend.records import RunFilter
from openworkflow.core.errors import BackendError, Fault
from openworkflow.core.filters import parse_filter

STATEMENTS = queries.load("public")
RUN = UUID(int=7)
ASKED: dict[str, tuple[object, ...]] = {
    "board_counts": ("default",),
    "board_newest": ("default",),
    "board_runs": ("default", None, None, None, None, 51),
    "board_ids": ("default", None, None, None, None, 204),
    "board_failures": ("default",),
    "board_steps": ("default", RUN, None, None, 100),
    "board_children": ("default", RUN, 20),
    "board_fleet": ("default",),
}
_RUNS = """
insert into workflow_runs (id, namespace_id, workflow_name, status, worker_id, available_at,
                           created_at, completed_at)
select gen_random_uuid(), (array['default', 'other'])[1 + n / 8 % 2], 'w' || n % 5, status,
       case when status = 'running' then 'w' end,
       now() + case when n % 2 = 0 then interval '1 h' else interval '-1 h' end,
       now() - n * interval '1 s', case when status in ('failed', 'succeeded') then now() end
  from generate_series(1, $1::int) n,
       lateral (select (array['failed', 'succeeded', 'pending', 'running'])[1 + n / 2 % 4]
                    as status) as chosen
"""
_OF_ONE_RUN = """
with run as (
    insert into workflow_runs (id, namespace_id, workflow_name, status, available_at)
    values ($1, 'default', 'w', 'pending', now())
    on conflict do nothing
), steps as (
    insert into step_attempts (id, workflow_run_id, step_name, kind, status, created_at)
    select gen_random_uuid(), run.id, 's' || n, 'run', 'running', now() + n * interval '1 s'
      from generate_series(1, $2::int) n
     cross join lateral (select $1::uuid as id
                         union all
                         (select id from workflow_runs order by id limit 10)) run
)
insert into workflow_children (id, namespace_id, parent_run_id, step_id, on_close)
select gen_random_uuid(), 'default', $1, gen_random_uuid(), 'cancel'
  from generate_series(1, $2::int) n
"""


def looked_at(plan: dict[str, Any]) -> Iterator[float]:
    """The rows that each scan of a plan has met."""
    if "Scan" in plan["Node Type"] and plan.get("Relation Name"):
        met = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
        yield met * plan["Actual Loops"]
    for part in plan.get("Plans", []):
        yield from looked_at(part)


async def rows_met(sql: asyncpg.Connection[Any], text: str, *arguments: object) -> float:
    text = f"explain (analyze, format json) {text.replace('{most}', '20')}"
    (plan,) = json.loads(await sql.fetchval(text, *arguments))
    return sum(looked_at(plan["Plan"]))


async def grow(sql: asyncpg.Connection[Any], runs: int, steps: int) -> None:
    await sql.execute(_RUNS, runs)
    await sql.execute(_OF_ONE_RUN, RUN, steps)
    await sql.execute("analyze workflow_runs, step_attempts, workflow_children")


@pytest.mark.parametrize("statement", ASKED)
async def test_a_look_meets_as_many_rows_however_many_there_are(
    sql: asyncpg.Connection[Any], statement: str
) -> None:
    await sql.execute("set plan_cache_mode = force_generic_plan")
    await grow(sql, 4000, 500)
    few = await rows_met(sql, STATEMENTS[statement], *ASKED[statement])
    await grow(sql, 16_000, 2000)

    assert await rows_met(sql, STATEMENTS[statement], *ASKED[statement]) <= 1.1 * few + 10


async def test_a_page_of_a_workflow_is_read_from_its_index_and_not_sorted_out_of_all(
    backend: BackendPostgres, sql: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both were ordered by the column as it is shown, and met all runs of the workflow."""
    await grow(sql, 20_000, 1)
    listed = STATEMENTS["list_workflow_runs"]
    asked = [(listed, ("default", *4 * [None], 51, None, "w1", *5 * [None]))]
    compose = Filtering._composed

    def seen(self: Filtering, *given: Any) -> tuple[str, list[Any]]:
        text, arguments = compose(self, *given)
        asked.append((text, tuple(arguments)))
        return text, arguments

    monkeypatch.setattr(Filtering, "_composed", seen)
    by_filter = await backend.filtering.page(parse_filter("workflow:w1"), 50, None)

    assert by_filter == await backend.list_workflow_runs(RunFilter(workflow_name="w1"), 50)
    assert 2 == len(asked)
    for text, arguments in asked:
        assert await rows_met(sql, text, *arguments) < 200


@pytest.mark.parametrize("where", ["-workflow:w1", "priority:0 paused:no", "-status:canceled"])
async def test_a_page_of_what_most_runs_are_is_found_among_the_newest(
    backend: BackendPostgres,
    sql: asyncpg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    """All runs were read and sorted: a "succeeded" that is clicked on cost more each day."""
    terms, compose = parse_filter(where), Filtering._composed
    asked: list[tuple[str, list[Any]]] = []

    def seen(self: Filtering, *given: Any) -> tuple[str, list[Any]]:
        asked.append(compose(self, *given))
        return asked[-1]

    async def cost() -> float:
        asked.clear()
        assert 20 == len((await backend.filtering.brief(terms, 20, None, 60)).runs)
        text, arguments = asked[-1]  # the one before is asked where this does not do
        return await rows_met(sql, text, *arguments)

    monkeypatch.setattr(Filtering, "_composed", seen)
    await grow(sql, 4000, 1)
    few = await cost()
    await grow(sql, 16_000, 1)
    assert await cost() <= 1.1 * few + 10
    first = await backend.filtering.brief(terms, 20, None, 60)
    second = await backend.filtering.brief(terms, 20, first.next_cursor, 60)
    expected = (await backend.filtering.page(terms, 40, None)).runs
    assert [run.id for run in expected] == [run.id for run in first.runs + second.runs]


async def test_a_list_has_no_inputs_and_outputs_which_may_be_large(
    backend: BackendPostgres, ow: OpenWorkflow
) -> None:
    run = await ow.run_workflow("w", "x" * 10_000)

    for page in (
        await backend.board.runs(50),
        await backend.filtering.brief(parse_filter("workflow:w"), 50, None, 60),
    ):
        assert [(run.id, None)] == [(each.id, each.input) for each in page.runs]
    (whole,) = (await backend.filtering.page(parse_filter("workflow:w"), 50, None)).runs
    assert "x" * 10_000 == whole.input


async def test_every_statement_of_the_board_is_looked_at() -> None:
    assert ASKED.keys() == {name for name in STATEMENTS if name.startswith("board_")}


async def test_a_filter_that_takes_too_long_is_given_up_and_the_connection_is_kept(
    backend: BackendPostgres, sql: asyncpg.Connection[Any]
) -> None:
    await grow(sql, 4000, 1)
    slow = parse_filter(" ".join(f"input.a{n}~nothing" for n in range(40)))

    with pytest.raises(BackendError) as refused:
        await backend.filtering.brief(slow, 50, None, 0.001)

    assert Fault.SIZE == refused.value.fault
    assert [] == (await backend.filtering.brief(slow, 50, None, 60)).runs
    assert 50 == len((await backend.filtering.page(parse_filter("workflow:w1"), 50, None)).runs)
