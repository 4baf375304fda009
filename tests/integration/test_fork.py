"""Runs that go on from one of their steps: forked as a new run, or retried in place.

What is kept is replayed exactly, whatever branches the program has; what comes after is done anew.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from openworkflow import (
    BackendPostgres,
    OpenWorkflow,
    RetryPolicy,
    RunHandle,
    RunStatus,
    Step,
    WorkflowFailed,
    workflow,
)
from openworkflow.backend.backend import NewRun
from openworkflow.backend.control import Fork
from openworkflow.core.errors import ConfigurationError, InvalidRunState, RunNotFound
from openworkflow.core.ids import uuid7
from tests.flushes import claim_one, end_of, flush, success_of
from tests.helpers import StartWorker

ONCE = RetryPolicy(max_attempts=1)
CALLS: list[str] = []
BROKEN: set[str] = set()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    CALLS.clear()
    BROKEN.clear()


async def work(name: str, seconds: float = 0.0) -> str:
    CALLS.append(name)
    await asyncio.sleep(seconds)
    if name in BROKEN:
        raise ValueError(f"{name} is broken")
    return f"{name}-{CALLS.count(name)}"


@workflow
async def line(tail: str, step: Step) -> str:
    """Steps in a row, and an error of the body after a step that succeeded."""
    results = [await step.run(name, work, name, retry=ONCE) for name in "abc"]
    if "body" in BROKEN:
        raise ValueError("of the body")
    return " ".join([*results, tail])


@workflow
async def asks(step: Step) -> list[Any]:
    return [
        await step.wait_for_signal(name, timeout="10ms", **wish)
        for name, wish in (("quiet", {"default": None}), ("loud", {}))
    ]


@workflow
async def branches(step: Step) -> str:
    """Branches whose results come in another order than they were asked for, a timer, a patch."""

    async def branch(name: str, seconds: float) -> str:
        first = await step.run(name, work, name, seconds, retry=ONCE)
        await step.sleep(f"pause-{name}", seconds)
        return first + await step.run("same", work, f"{name}-same", retry=ONCE)

    new = await step.patched("order")
    found = await asyncio.gather(branch("x", 0.06), branch("y", 0.03), branch("z", 0.0))
    return " ".join([*found, str(new), await step.run("last", work, "last", retry=ONCE)])


async def failed(run: RunHandle[Any]) -> None:
    with pytest.raises(WorkflowFailed):
        await run.result(timeout="20s")


async def events(ow: OpenWorkflow, run_id: UUID, sql: asyncpg.Connection[Any]) -> list[Any]:
    """The steps of a run's events, in their order, with the results."""
    rows = await sql.fetch(
        "select step_name, output from step_attempts where workflow_run_id = $1 "
        "and completion_no is not null and claim_no >= 0 order by completion_no",
        run_id,
    )
    return [tuple(row) for row in rows]


async def test_a_fork_begins_at_the_last_recorded_step_not_at_the_start(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    """A body that fails after a step has no failed step; what it has paid for is not paid again."""
    BROKEN.add("body")
    await start_worker(line)
    run = await ow.run_workflow(line, "end")
    await failed(run)
    BROKEN.clear()

    forked = await ow.fork(run.id)

    assert "a-1 b-1 c-2 end" == await forked.result(timeout="20s")
    assert run.id == (await forked.run()).forked_from
    assert RunStatus.FAILED == await run.status()


@pytest.mark.parametrize(
    ("options", "result", "calls"),
    [
        ({"from_step": "a"}, "a-2 b-2 c-2 end", "abcabc"),
        ({"from_step": "b"}, "a-1 b-2 c-2 end", "abcbc"),
        ({"from_step": "b", "input": "new"}, "a-1 b-2 c-2 new", "abcbc"),
        ({"results": {"b": "given"}}, "a-1 given c-2 end", "abcc"),
        ({"results": {"c": "given", "a": "too"}}, "too b-1 given end", "abc"),
        ({"from_step": "c", "results": {"a": "given"}}, "given b-1 c-2 end", "abcc"),
    ],
)
async def test_what_came_before_a_step_stays_and_the_rest_is_done_anew(
    ow: OpenWorkflow,
    start_worker: StartWorker,
    options: dict[str, Any],
    result: str,
    calls: str,
) -> None:
    await start_worker(line)
    run = await ow.run_workflow(line, "end")
    await run.result(timeout="20s")

    forked = await ow.fork(run.id, **options)

    assert result == await forked.result(timeout="20s")
    assert calls == "".join(CALLS)


async def test_a_result_takes_the_place_of_a_failure(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    """What was done by hand need not be done again."""
    BROKEN.add("b")
    await start_worker(line)
    run = await ow.run_workflow(line, "end")
    await failed(run)

    forked = await ow.fork(run.id, results={"b": "by hand"})

    assert "a-1 by hand c-1 end" == await forked.result(timeout="20s")
    steps = {step.step_name: step for step in (await ow.get_run(forked.id)).steps}
    assert steps["b"].error is None
    assert {"overridden": True} == steps["b"].context


async def test_a_result_takes_the_place_of_a_signal_that_did_not_come(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    """The wait had its default instead, and the result was not heeded."""
    await start_worker(asks)
    run = await ow.run_workflow(asks)
    await failed(run)

    forked = await ow.fork(run.id, results={"quiet": "yes", "loud": "no"})

    assert ["yes", "no"] == await forked.result(timeout="20s")


async def test_a_fork_from_every_step_of_a_program_with_branches_is_replayed_exactly(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    await start_worker(branches)
    run = await ow.run_workflow(branches)
    expected = await run.result(timeout="20s")
    recorded = await events(ow, run.id, sql)
    assert 10 == len(recorded)

    for place, (name, _) in enumerate(recorded):
        CALLS.clear()
        forked = await ow.fork(run.id, from_step=name)
        result = await forked.result(timeout="20s")

        assert recorded[:place] == (await events(ow, forked.id, sql))[:place], name
        # Of those that are called again the count of calls begins again.
        assert expected.replace("-1", "-") == result.replace("-1", "-"), name
        kept = {value.strip('"') for _, value in recorded[:place] if value}
        assert not {call for call in CALLS if f"{call}-1" in kept}, name


async def test_a_fork_of_a_run_that_goes_on_does_not_touch_it(
    backend: BackendPostgres, ow: OpenWorkflow
) -> None:
    session = await backend.open_session(1)
    (created,) = await backend.create_workflow_runs([NewRun("a", deadline_at=None)])
    run = await claim_one(session, "a")
    await flush(session, successes=[success_of(run, "first"), success_of(run, "second", "2", 2)])

    forked = await ow.fork(created.id, build="b1")

    row, source = await forked.run(), await ow.get_workflow_run(created.id)
    steps = (await ow.get_run(forked.id)).steps
    assert (RunStatus.RUNNING, 1) == (source.status, source.claim_no)
    assert (RunStatus.PENDING, 1, "b1", True) == (
        row.status,
        row.claim_no,
        row.build_id,
        row.pinned,
    )
    assert ["first"] == [step.step_name for step in steps]
    await session.close()


async def test_what_cannot_be_forked_says_why(ow: OpenWorkflow, start_worker: StartWorker) -> None:
    await start_worker(line, branches)
    run = await ow.run_workflow(line, "end")
    await run.result(timeout="20s")
    branching = await ow.run_workflow(branches)
    await branching.result(timeout="20s")

    for options, words in (
        ({"from_step": "aa"}, "no step 'aa' was recorded; there is 'a'"),
        ({"results": {"d": 1}}, "no step 'd' was recorded"),
        ({"from_step": "b", "results": {"b": 1}}, "ends before it, from 'b' on; name a later"),
        ({"build": "a build"}, "a build id is"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            await ow.fork(run.id, **options)
    with pytest.raises(ConfigurationError, match="is a sleep, and has no result"):
        await ow.fork(branching.id, results={"pause-x": 1})
    with pytest.raises(RunNotFound):
        await ow.fork(uuid7())


@workflow
async def starts(step: Step) -> None:
    await step.start_workflow("other", line, "end")


async def test_the_start_of_a_run_has_no_other_result(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    """It was taken, and the fork failed, since it names no run."""
    await start_worker(starts, line)
    run = await ow.run_workflow(starts)
    await run.result(timeout="20s")

    with pytest.raises(ConfigurationError, match="such as 'result:other'"):
        await ow.fork(run.id, results={"other": 1})


async def test_a_fork_that_is_asked_for_again_is_one_run(
    backend: BackendPostgres, sql: asyncpg.Connection[Any]
) -> None:
    (created,) = await backend.create_workflow_runs([NewRun("a", input="1")])
    wanted = Fork(
        id=uuid7(),
        history_from=0,
        has_version=False,
        version=None,
        has_input=True,
        input="2",
        build=None,
        rows=(),
        overridden={},
    )

    first = await backend.control.fork(created.id, wanted)
    second = await backend.control.fork(created.id, wanted)
    await sql.execute("update workflow_runs set history_from = 1 where id = $1", created.id)
    changed = await backend.control.fork(
        created.id,
        Fork(**{name: getattr(wanted, name) for name in Fork.__slots__} | {"id": uuid7()}),
    )

    assert first is not None
    assert (first, None) == (second, changed)
    assert 2 == first.input


async def test_a_retry_from_a_step_is_in_place_and_what_was_recorded_stays_to_be_seen(
    ow: OpenWorkflow, backend: BackendPostgres, start_worker: StartWorker
) -> None:
    BROKEN.add("c")
    await start_worker(line)
    run = await ow.run_workflow(line, "end")
    await failed(run)
    with pytest.raises(ConfigurationError, match="no step 'd'"):
        await ow.retry(run.id, from_step="d")
    BROKEN.clear()

    retried = await ow.retry(run.id, from_step="b")

    assert RunStatus.PENDING == retried.status
    assert "a-1 b-2 c-2 end" == await run.result(timeout="20s")
    steps = (await ow.get_run(run.id)).steps
    old = [(step.step_name, step.status) for step in steps if step.claim_no < 0]
    assert [("b", "succeeded"), ("c", "failed")] == old
    assert [] == (await backend.diagnostics()).violations
    with pytest.raises(InvalidRunState, match="succeeded"):
        await ow.retry(run.id, from_step="b")
    # A second time, of a run that has rows of two lives.
    assert "a-1 b-2 c-3 end" == await (await ow.fork(run.id)).result(timeout="20s")


async def test_a_retry_from_a_step_in_a_program_with_branches(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    BROKEN.add("last")
    await start_worker(branches)
    run = await ow.run_workflow(branches)
    await failed(run)
    recorded = await events(ow, run.id, sql)
    BROKEN.clear()
    CALLS.clear()

    await ow.retry(run.id, from_step=recorded[5][0])
    result = await run.result(timeout="20s")

    assert recorded[:5] == (await events(ow, run.id, sql))[:5]
    assert result.endswith("True last-1")


async def test_the_commands_fork_and_retry_from_a_step(
    database_url: str, ow: OpenWorkflow, backend: BackendPostgres
) -> None:
    session = await backend.open_session(1)
    (created,) = await backend.create_workflow_runs([NewRun("a", input="1")])
    run = await claim_one(session, "a")
    await flush(session, successes=[success_of(run, "first"), success_of(run, "second", "2", 2)])
    await flush(session, ends=[end_of(run, RunStatus.FAILED, error="{}")])

    async def command(*arguments: str) -> tuple[int | None, str, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "openworkflow", "runs", *arguments, "--url", database_url),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()

    code, out, _ = await command(
        *("fork", str(created.id), "--input", "7", "--result", 'second={"a": 1}', "--json")
    )
    forked = await ow.get_run(UUID(json.loads(out)["id"]))
    assert (0, 7, [1, {"a": 1}]) == (code, forked.run.input, [s.output for s in forked.steps])
    code, _, err = await command("fork", str(created.id), "--result", "second")
    assert (2, True) == (code, "--result is STEP=JSON" in err)
    code, out, _ = await command("retry", str(created.id), "--from-step", "second")
    assert (0, f"{created.id} is pending\n") == (code, out)
    history = (await session.load_histories([run.id]))[run.id]
    assert ["first"] == [step.step_name for step in history]
    await session.close()
