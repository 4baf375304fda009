"""`openworkflow signal`, and what `runs show` and `doctor` say of runs that wait."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest

from openworkflow import OpenWorkflow, Step, workflow
from openworkflow.backend.backend import BackendPostgres
from openworkflow.core.step_attempt import StepStatus
from openworkflow.core.workflow_run import RunStatus
from tests.database_roles import command
from tests.helpers import StartWorker, eventually


@workflow
async def waiting(step: Step) -> list[Any]:
    return [
        await step.wait_for_signal("approval", timeout="7d"),
        await step.wait_for_signal("topic"),
    ]


async def test_the_command_sends_to_a_run_and_to_a_topic_and_show_says_who_waits(
    ow: OpenWorkflow, start_worker: StartWorker, database_url: str
) -> None:
    await start_worker(waiting)
    run = await ow.run_workflow(waiting)

    async def shown(text: str) -> bool:
        return text in (await command(database_url, "runs", "show", str(run.id)))[1]

    await eventually(lambda: shown("signal 'approval' since 20"), deadline=60)
    for _ in range(2):
        code, said = await command(
            database_url, "signal", str(run.id), "approval", "-v", '{"by": "ann"}', "--key", "k"
        )
        assert 0 == code, said
    await eventually(lambda: shown("signal 'topic' since 20"), deadline=60)
    code, said = await command(database_url, "signal", "topic", "-v", "7", "--json")
    assert (0, ["id"]) == (code, list(json.loads(said)))

    assert [{"by": "ann"}, 7] == await run.result(timeout=20)
    assert not await shown("waits for")
    code, said = await command(database_url, "signal", str(run.id), "approval")
    assert (1, True) == (code, "is succeeded and cannot be signaled" in said)


@workflow
async def waiting_twice(step: Step) -> list[Any]:
    return [await step.wait_for_signal("approval") for _ in range(2)]


async def test_a_name_that_the_run_does_not_wait_for_is_told_and_kept(
    ow: OpenWorkflow, start_worker: StartWorker, database_url: str
) -> None:
    await start_worker(waiting_twice)
    run = await ow.run_workflow(waiting_twice)

    async def sent(name: str, waits: int) -> str:
        async def waits_for_it() -> bool:
            rows = (await ow.get_run(run.id)).steps
            return waits == len(rows) and rows[-1].status == StepStatus.RUNNING

        await eventually(waits_for_it, deadline=60)
        code, said = await command(database_url, "signal", str(run.id), name)
        assert 0 == code, said
        return said

    told = "the run waits for 'approval' now, not for 'aproval', which is kept until it does"
    assert told in await sent("aproval", 1)
    assert "waits for" not in await sent("approval", 1)
    assert told in await sent("aproval", 2)
    assert "waits for" not in await sent("approval", 2)
    assert [None, None] == await run.result(timeout=60)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["a", "b"], "is no run's id; for a topic leave out"),
        (["0197a5be-7b3c-7c1e-9d59-6d5e8b1c2f3a"], "give the NAME of the signal after it"),
        (["a", "b", "c"], "give RUN_ID and NAME, or a TOPIC"),
        (["a", "-v", "{"], "--value is not JSON"),
        ([], "Missing argument"),
    ],
)
async def test_a_wrong_usage_is_told(database_url: str, args: list[str], said: str) -> None:
    code, output = await command(database_url, "signal", *args)

    assert (2, True) == (code, said in output), output


async def test_doctor_finds_signals_that_belong_to_nobody_or_were_taken_twice(
    ow: OpenWorkflow, backend: BackendPostgres, sql: asyncpg.Connection[Any]
) -> None:
    run = await ow.run_workflow("w")
    await run.signal("n", 1)
    assert not (await backend.diagnostics()).violations
    await sql.execute("update workflow_messages set namespace_id = 'b'")
    await sql.execute(
        "insert into step_attempts"
        " (workflow_run_id, step_name, kind, status, context, completed_at)"
        " select $1, name, 'signal', 'succeeded', '{\"message\": \"m\"}', now()"
        " from unnest(array['a', 'b']) name",
        run.id,
    )

    found = {each.invariant for each in (await backend.diagnostics()).violations}

    assert {"one claim takes a signal once", "a signal is kept as long as its run"} <= found
    assert RunStatus.PENDING is await run.status()
