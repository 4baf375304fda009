"""What a run pays that uses steps alone: counted, not timed, so that it is the same on any machine.

A feature may cost those who use it. That the others do not pay for it is said by budgets, which are
what the code takes now: whoever adds a call to each run, a value to each flush, an index or a
trigger to the table of runs has to find another one to take away, or a reason to raise a budget.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import asyncpg
import pytest

import openworkflow
from openworkflow import OpenWorkflow, Step, Workflow, workflow
from openworkflow.backend import flush as flushes
from openworkflow.backend import queries
from openworkflow.backend.flush import Shape
from openworkflow.backend.link import Link
from openworkflow.backend.records import Completion, Flush, StepSuccess, Write
from openworkflow.core.ids import uuid7
from openworkflow.engine.recorder import Recorder
from openworkflow_contract.statements import numbered
from tests.flushes import LEASE, wanted
from tests.helpers import StartWorker, eventually

RUNS = 400
CALLS_OF_A_RUN = 75
"""Of one step, in Python 3.11; later ones make no list within a frame of its own."""
CALLS_OF_A_STEP = 31
CODE = str(Path(openworkflow.__file__).parent)
BY_THE_CLOCK = {
    Recorder.announce.__code__,
    *(each for each in numbered.__code__.co_consts if isinstance(each, CodeType)),
}
"""Called for each run in progress, now and then, or once for each statement that is made, of which
the machine decides how many there are."""
STATEMENTS = queries.load("public")
ENDS: tuple[type[Write], ...] = (StepSuccess, Completion)
PLAIN = {
    "a claim": Shape((), updates=False, claim=True),
    "a step": Shape((StepSuccess,), updates=False, claim=False),
    "the last step and the end": Shape(ENDS, updates=False, claim=False),
    "all three": Shape(ENDS, updates=False, claim=True),
}
VALUES = {"a claim": 16, "a step": 10, "the last step and the end": 16, "all three": 31}
"""How many parameters these statements have: each costs driver and server. One of a claim says the
priorities of what is served."""


async def trivial(number: int) -> int:
    return number


@workflow
async def one_step(input: int, step: Step) -> int:
    return await step.run("step", trivial, input)


@workflow
async def eleven_steps(input: int, step: Step) -> int:
    for number in range(11):
        input = await step.run(f"step-{number}", trivial, input)
    return input


async def test_a_run_of_one_step_makes_no_more_python_calls_than_its_budget(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    calls = await _calls_of_each(one_step, ow, start_worker, sql)

    assert calls[trivial.__code__] == 1
    assert calls[Recorder.succeeded.__code__] == 1
    assert _ours(calls) <= CALLS_OF_A_RUN, _listed(calls)


async def test_a_further_step_makes_no_more_python_calls_than_its_budget(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    one = await _calls_of_each(one_step, ow, start_worker, sql)
    eleven = await _calls_of_each(eleven_steps, ow, start_worker, sql)

    assert eleven[trivial.__code__] == 11
    assert _ours(eleven) - _ours(one) <= 10 * CALLS_OF_A_STEP, _listed(eleven - one)


async def test_runs_share_their_statements_and_ask_for_nothing_else(
    ow: OpenWorkflow,
    start_worker: StartWorker,
    sql: asyncpg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody asks for each of them whether it has signals, children, limits or a schedule."""
    sent = await _sent(ow, start_worker, sql, monkeypatch)

    flushed = {statement for statement in sent if _tables(statement) & {"step_attempts"}}
    assert flushed
    assert sum(sent.values()) <= RUNS / 4, sent.most_common(5)


@pytest.mark.parametrize("what", PLAIN)
def test_statements_of_plain_runs_name_no_table_of_a_feature(what: str) -> None:
    """But for the pauses and the builds, which every claim heeds."""
    statement = flushes.statement(STATEMENTS, PLAIN[what])

    heeded = {"workflow_pauses", "workflow_builds"} if PLAIN[what].claim else set()
    assert _tables(statement) - heeded <= {"workflow_runs", "step_attempts"}
    assert len(PLAIN[what].parameters) <= VALUES[what]


async def test_no_trigger_of_ours_fires_for_a_plain_run(sql: asyncpg.Connection[Any]) -> None:
    """Each that looks at rows says in its WHEN whom it is for, or is for a column of its own.

    `openworkflow_limits_late` is for `config`, which only the triggers of limits write.
    """
    fired = [each["Constraint Name"] for plan in await _drain(sql, 3) for each in plan["Triggers"]]
    always = await sql.fetch(
        "SELECT tgname FROM pg_trigger"
        " WHERE tgrelid IN ('workflow_runs'::regclass, 'step_attempts'::regclass)"
        "   AND NOT tgisinternal AND tgtype & 1 = 1 AND tgqual IS NULL"
        "   AND tgname <> 'openworkflow_limits_late'"
    )

    assert fired == ["step_attempts_workflow_run_id_fkey"]
    assert [each["tgname"] for each in always] == []


async def test_a_plain_run_writes_no_more_to_the_log_than_its_budget(
    sql: asyncpg.Connection[Any],
) -> None:
    """A record for each version of a row, each lock, and each index that it enters."""
    if sql.get_server_version().major < 13:
        pytest.skip("PostgreSQL 12 does not say what a statement writes to its log")

    claim, step, end = [_records(plan["Plan"]) / RUNS for plan in await _drain(sql, RUNS)]

    assert round(claim) <= 6
    assert round(step) <= 4
    assert round(end) <= 4


@contextmanager
def _profiled() -> Iterator[Counter[CodeType]]:
    """Counts the calls of functions, and the turns of generators."""
    calls: Counter[CodeType] = Counter()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            calls[frame.f_code] += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(before)


async def _calls_of_each(
    served: Workflow[int, int],
    ow: OpenWorkflow,
    start_worker: StartWorker,
    sql: asyncpg.Connection[Any],
) -> Counter[CodeType]:
    """How often each function is called for one run; what serves many runs at once is less."""
    await ow.run_workflows(served, [1] * RUNS)
    with _profiled() as calls:
        worker = await start_worker(served, concurrency=RUNS)
        await eventually(lambda: _none_is_left(sql), 120)
        await worker.stop()  # it has heard of the last ends only then
    each = {code: round(count / RUNS) for code, count in calls.items() if code not in BY_THE_CLOCK}
    return Counter({code: count for code, count in each.items() if count})


async def _sent(
    ow: OpenWorkflow,
    start_worker: StartWorker,
    sql: asyncpg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Counter[str]:
    """How often a worker sends each statement for runs of one step."""
    sent: Counter[str] = Counter()
    fetch = Link.fetch

    async def noted(link: Link, statement: str, arguments: Sequence[Any]) -> Any:
        sent[statement] += 1
        return await fetch(link, statement, arguments)

    await ow.run_workflows(one_step, [1] * RUNS)
    monkeypatch.setattr(Link, "fetch", noted)
    worker = await start_worker(one_step, concurrency=RUNS)
    await eventually(lambda: _none_is_left(sql), 120)
    await worker.stop()
    return sent


async def _none_is_left(sql: asyncpg.Connection[Any]) -> bool:
    return not await sql.fetchval(
        "SELECT EXISTS (SELECT FROM workflow_runs WHERE completed_at IS NULL)"
    )


def _ours(calls: Counter[CodeType]) -> int:
    return sum(count for code, count in calls.items() if code.co_filename.startswith(CODE))


def _listed(calls: Counter[CodeType]) -> str:
    return "\n".join(f"{count:4} {code.co_qualname}" for code, count in calls.most_common())


def _tables(statement: str) -> set[str]:
    return set(re.findall(r'"public"\.(\w+)', statement))


async def _drain(sql: asyncpg.Connection[Any], runs: int) -> list[dict[str, Any]]:
    """The plans, as they were executed, by which so many runs are claimed, record a step, end."""
    await sql.execute(
        "INSERT INTO workflow_runs (id, namespace_id, workflow_name, status, available_at)"
        " SELECT unnest($1::uuid[]), 'default', 'order', 'pending', now() - interval '1 minute'",
        ids := [uuid7() for _ in range(runs)],
    )
    steps = [StepSuccess(uuid7(), each, 1, "step", "1", 0.001, 1) for each in ids]
    return [
        await _explained(sql, Flush("host/1", LEASE, claim=wanted(runs, "order"))),
        await _explained(sql, Flush("host/1", LEASE, {StepSuccess: steps})),
        await _explained(
            sql, Flush("host/1", LEASE, {Completion: [Completion(each, 1, "1") for each in ids]})
        ),
    ]


async def _explained(sql: asyncpg.Connection[Any], flush: Flush) -> dict[str, Any]:
    shape = flushes.shape_of(flush)
    place = {"namespace_id": "default", "work_channel": "work", "done_channel": "done"}
    values = {**place, **flushes.values(flush, shape)}
    wal = ", wal" if sql.get_server_version().major >= 13 else ""
    explain = f"EXPLAIN (ANALYZE{wal}, FORMAT JSON) {flushes.statement(STATEMENTS, shape)}"
    (told,) = json.loads(await sql.fetchval(explain, *[values[each] for each in shape.parameters]))
    plan: dict[str, Any] = told
    return plan


def _records(plan: dict[str, Any]) -> int:
    """Of the log, by the part of a plan that writes most."""
    own = plan["WAL Records"] if plan["Node Type"] == "ModifyTable" else 0
    return max([own, *map(_records, plan.get("Plans", []))])
