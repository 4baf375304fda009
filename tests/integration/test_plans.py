"""A worker's statements walk the same indexes whatever PostgreSQL knows of the tables.

A plan is made once for a connection, from what the planner knows at that moment, and kept until the
table is analysed again. One that was made for three rows and walks them all would walk a hundred
thousand an hour later.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import asyncpg
import pytest

from openworkflow.backend import flush, queries
from openworkflow.backend.connection import WORKER_SETTINGS
from openworkflow.backend.flush import PARTS, Shape
from openworkflow.backend.records import Completion, StepSuccess, StepWrite

STATEMENTS = queries.load("public")
SHAPES = {
    **{kind.__name__: Shape((kind,), kind is StepWrite, claim=False) for kind in PARTS},
    "claim": Shape((), updates=False, claim=True),
    "claim of all sorts": Shape((), False, True, True, True, True, True),
    "last step and end": Shape((StepSuccess, Completion), updates=False, claim=False),
    "step, end and claim": Shape((StepSuccess, Completion), updates=False, claim=True),
    "everything": Shape(tuple(PARTS), updates=True, claim=True),
}
OTHERS = (
    "extend_leases",
    "take_back_crashes",
    "load_histories",
    "list_unknown_runs",
    "release_workflow_runs",
)
"""What else a worker sends over its own connections."""

FILL = """
insert into workflow_runs
       (id, namespace_id, workflow_name, status, input, available_at, completed_at, worker_id,
        claim_no)
select gen_random_uuid(), 'default', 'w' || n % 3, status, '1', now() - n * interval '1 s',
       case when status = 'succeeded' then now() end,
       case when status = 'running' then 'w' end,
       case when status = 'pending' then 0 else 1 end
  from generate_series(1, {runs}) n,
       lateral (select (array['pending', 'succeeded', 'running'])[1 + n % 3] as status) had;
insert into step_attempts (workflow_run_id, claim_no, step_name, kind, status, output, completed_at)
select id, 1, 's', 'run', 'succeeded', '1', now() from workflow_runs where status <> 'pending';
"""
FEW, MANY = FILL.replace("{runs}", "3"), FILL.replace("{runs}", "5000")
DELETE, ANALYZE = "delete from step_attempts; delete from workflow_runs", "vacuum analyze"
STATES: dict[str, tuple[str, ...]] = {
    "new": (),
    "analysed when empty": (ANALYZE,),
    "analysed with three rows": (FEW, ANALYZE),
    "grown since it was analysed": (FEW, ANALYZE, MANY),
    "large and never analysed": (MANY,),
    "large and analysed": (MANY, ANALYZE),
    "pruned": (MANY, DELETE, ANALYZE),
}


INDEXES = {
    "workflow_runs": {
        "workflow_runs_pkey",
        "idx_workflow_runs_claim",
        "idx_workflow_runs_lease",
        "idx_workflow_runs_priority",
    },
    "step_attempts": {"step_attempts_pkey", "idx_step_attempts_workflow_run"},
    "workflow_events": {"workflow_events_pkey"},
    "workflow_messages": {
        "workflow_messages_pkey",
        "idx_workflow_messages_run",
        "idx_workflow_messages_topic",
    },
    "workflow_children": {"idx_workflow_children_step", "idx_workflow_children_parent"},
    "workflow_builds": {"workflow_builds_pkey"},
    "workflow_pauses": {"workflow_pauses_pkey"},
    "workflow_limit_runs": {"workflow_limit_runs_pkey"},
}
"""By which a worker reads its tables, and by no others."""


class Access(NamedTuple):
    """How a statement reads a table."""

    statement: str
    table: str
    walked: str
    keys: bool
    """Whether it looks up keys, and does not walk the index from end to end."""


@pytest.mark.parametrize("state", STATES)
async def test_what_is_read_by_which_index_does_not_depend_on_statistics(
    database_url: str, state: str
) -> None:
    owner = await asyncpg.connect(database_url)
    for statement in STATES[state]:
        await owner.execute(statement)
    worker = await asyncpg.connect(database_url, server_settings=dict(WORKER_SETTINGS))

    read = await _accesses(worker)

    assert [] == [access for access in read if not access.keys]
    assert INDEXES == {
        table: {access.walked for access in read if access.table == table}
        for table in {access.table for access in read}
    }
    by_id = [access for access in read if access.statement in ("StepWrite", "Leftover")]
    assert {"workflow_runs_pkey", "step_attempts_pkey"} == {access.walked for access in by_id}
    await worker.close()
    await owner.close()


async def _accesses(connection: asyncpg.Connection[Any]) -> list[Access]:
    read = []
    statements = {name: flush.statement(STATEMENTS, shape) for name, shape in SHAPES.items()} | {
        name: STATEMENTS[name] for name in OTHERS
    }
    for name, statement in statements.items():
        prepared = await connection.prepare(statement)
        wanted = ["null"] * len(prepared.get_parameters())
        await connection.execute(f"prepare explained as {statement}")
        plan = await connection.fetchval(
            f"explain (format json) execute explained ({', '.join(wanted)})"
        )
        await connection.execute("deallocate explained")
        for node in _nodes(json.loads(plan)[0]["Plan"]):
            if "Relation Name" in node and node["Node Type"] != "ModifyTable":
                index = node.get("Index Name", node["Node Type"])
                read.append(Access(name, node["Relation Name"], index, "Index Cond" in node))
    return read


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)
