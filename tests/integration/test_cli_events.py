"""`openworkflow runs events`, and what `runs show` and `runs list` say of what runs tell."""

from __future__ import annotations

import asyncio
import json
from uuid import uuid4

from openworkflow import OpenWorkflow, Step, workflow
from tests.database_roles import command
from tests.helpers import StartWorker

GO = asyncio.Event()


async def gate() -> None:
    await GO.wait()


@workflow
async def tells(step: Step) -> None:
    step.emit("stage", "begins")
    step.emit("count", {"n": 1})
    step.set_status({"percent": 50})
    await step.run("gate", gate)
    step.emit("stage", "ends\x1b[2J")


async def test_events_are_shown_and_followed_and_the_status_is_told(
    ow: OpenWorkflow, start_worker: StartWorker, database_url: str
) -> None:
    GO.clear()
    await start_worker(tells)
    run = await ow.run_workflow(tells)
    async with asyncio.timeout(60):
        async for event in run.events("count"):
            assert {"n": 1} == event.value
            break

    code, said = await command(database_url, "runs", "events", str(run.id))
    assert 0 == code, said
    first, second = said.splitlines()
    assert first.split()[0] == "0"
    assert first.endswith("stage  begins")
    assert second.endswith('count  {"n": 1}')
    code, said = await command(database_url, "runs", "show", str(run.id))
    assert '{"percent": 50}' in said, said
    code, said = await command(database_url, "runs", "explain", str(run.id))
    assert said.endswith('it says {"percent": 50}\n'), said
    code, said = await command(database_url, "runs", "list")
    assert "SAYS" in said
    assert '{"percent": 50}' in said

    following = asyncio.create_task(
        command(database_url, "runs", "events", str(run.id), "--topic", "stage", "-f", "--json")
    )
    await asyncio.sleep(1)
    GO.set()
    code, said = await following
    assert 0 == code, said
    events = [json.loads(line) for line in said.splitlines()]
    assert [(0, "begins"), (2, "ends\x1b[2J")] == [(e["offset"], e["value"]) for e in events]
    code, said = await command(database_url, "runs", "events", str(run.id), "--from-offset", "2")
    assert "\x1b" not in said
    assert 1 == len(said.splitlines())


async def test_a_run_that_there_is_not_is_told(database_url: str) -> None:
    for follow in ([], ["--follow"]):
        code, said = await command(database_url, "runs", "events", str(uuid4()), *follow)
        assert (1, True) == (code, "there is no" in said or "not" in said), said
