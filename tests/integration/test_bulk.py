"""Tags and filters of runs, and one action on all that a filter means."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from openworkflow import BackendPostgres, OpenWorkflow, RunStatus, Step, workflow
from openworkflow.backend.backend import NewRun, RunFilter
from openworkflow.core.errors import BackendError, ConfigurationError
from openworkflow.core.limits import LimitRule
from tests.flushes import claim, end_of, flush
from tests.helpers import StartWorker
from tests.refusing import refusing

HOUR = timedelta(hours=1)


@workflow
async def greet(name: str, step: Step) -> str:
    return f"hello {name}"


async def ended(backend: BackendPostgres, name: str, count: int, error: str | None = None) -> None:
    """Runs of this workflow that failed, or succeeded."""
    session = await backend.open_session(1)
    await backend.create_workflow_runs([NewRun(name, input='{"n": {"id": 42}}')] * count)
    status = RunStatus.SUCCEEDED if error is None else RunStatus.FAILED
    runs = await claim(session, name, limit=1000)
    await flush(session, ends=[end_of(run, status, error=error) for run in runs])
    await session.close()


async def test_tags_are_given_at_the_start_and_found_by(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(greet)
    tagged = await ow.run_workflow(greet, "a", tags={"customer": "acme", "tier": 'g"o%ld'})
    many = await ow.run_workflows(greet, ["b", "c"], tags={"customer": "other"})
    plain = await ow.run_workflow(greet, "d")
    await asyncio.gather(*(run.result(timeout="20s") for run in [tagged, *many, plain]))

    async def found(where: str) -> set[Any]:
        return {run.id for run in (await ow.list_runs(where=where)).runs}

    assert {tagged.id} == await found("tag.customer:acme")
    assert {tagged.id} == await found(r'tag.tier:"g\"o%ld"')
    assert {tagged.id} == await found('tag.tier~"o%l"')
    assert set() == await found('tag.tier~"o%%l"')
    assert {run.id for run in [tagged, *many]} == await found("tag.customer:acme,other")
    assert {run.id for run in [plain, *many]} == await found("-tag.customer:acme")
    assert {"customer": "other"} == (await many[0].run()).tags
    assert None is (await plain.run()).tags
    forked = await ow.fork(tagged.id)
    assert {"customer": "acme", "tier": 'g"o%ld'} == (await forked.run()).tags


@pytest.mark.parametrize(
    "tags",
    [{"a b": "x"}, {"": "x"}, {"a": ""}, {"a": 1}, {"a": "\0"}, {str(n): "x" for n in range(51)}],
)
async def test_tags_that_no_filter_could_say_are_refused(
    ow: OpenWorkflow, tags: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match="tag"):
        await ow.run_workflow("a", tags=tags)


async def test_each_field_means_what_it_says(
    backend: BackendPostgres, ow: OpenWorkflow, sql: asyncpg.Connection[Any]
) -> None:
    await ended(backend, "failed", 1, '{"type": "shop:CardDeclined", "message": "Timeout of 5_s"}')
    await ended(backend, "fine", 1)
    await backend.create_workflow_runs(
        [NewRun("later", version="2", delay=HOUR, idempotency_key="k"), NewRun("held")]
    )
    runs = {run.workflow_name: run for run in (await ow.list_runs()).runs}
    await ow.pause(runs["held"].id)
    await sql.execute(
        "update workflow_runs set started_at = now() - interval '3 h', attempts = 4, "
        "worker_id = null, build_id = 'b1' where workflow_name = 'failed'"
    )
    everything = set(runs)
    expected = {
        "status:failed": {"failed"},
        "status:failed,succeeded": {"failed", "fine"},
        "-status:pending": {"failed", "fine"},
        "workflow:fine": {"fine"},
        "workflow~f": {"failed", "fine"},
        "version:2": {"later"},
        "-version:2": everything - {"later"},
        "build:b1": {"failed"},
        "key:k": {"later"},
        "error:CardDeclined": {"failed"},
        "error~timeout": {"failed"},
        "error~5_s": {"failed"},
        "error~5xs": set(),
        'error~"CardDeclined: Time"': {"failed"},
        "-error~timeout": everything - {"failed"},
        f"id:{runs['fine'].id}": {"fine"},
        f"forked:{runs['fine'].id}": set(),
        "started>2h": {"failed"},
        "started<2h": {"fine"},
        "-started>2h": everything - {"failed"},
        "created<1h": everything,
        "created>2020-01-01": everything,
        "ended>2020-01-01T00:00:00+02:00": {"failed", "fine"},
        "due>2h": set(),
        "attempts:4": {"failed"},
        "attempts>3": {"failed"},
        "attempts<1": everything - {"failed"},
        "paused:yes": {"held"},
        "-paused:yes": everything - {"held"},
        "input.n.id:42": {"failed", "fine"},
        "input.n.id:42 -workflow:fine": {"failed"},
        "output.a:1": set(),
        "": everything,
    }

    found = {
        where: {run.workflow_name for run in (await ow.list_runs(where=where)).runs}
        for where in expected
    }

    assert expected == found
    assert 2 == await ow.count_runs("status:failed,succeeded")
    assert 1 == await ow.count_runs("status:failed,succeeded", "retry")


async def test_runs_with_limits_are_found_as_paused_while_somebody_holds_them(
    backend: BackendPostgres, ow: OpenWorkflow
) -> None:
    """What waits for a slot is set aside as well, and is not paused."""
    await backend.limits.ensure([LimitRule(name="a/key", slots=1)])
    begun, waits, held = await backend.create_workflow_runs([NewRun("a", limits="a/key")] * 3)
    await ow.pause(held.id)
    assert {held.id} == await _paused(ow)

    await ow.pause(workflow="a")
    assert {begun.id, waits.id, held.id} == await _paused(ow)
    assert 3 == await ow.count_runs("paused:yes", "cancel")
    resumed = [each.done async for each in ow.bulk("resume", "paused:yes")]

    assert [1] == resumed  # the one that was paused by itself; the workflow holds all three
    assert {begun.id, waits.id, held.id} == await _paused(ow)
    await ow.resume(workflow="a")
    assert set() == await _paused(ow)
    await ow.pause(everything=True)
    assert {begun.id, waits.id, held.id} == await _paused(ow)


async def _paused(ow: OpenWorkflow) -> set[UUID]:
    return {run.id for run in (await ow.list_runs(where="paused:yes")).runs}


async def test_every_term_beside_every_other_is_a_statement_that_runs(ow: OpenWorkflow) -> None:
    terms = [
        *("status:failed", "workflow~%", "tag.a:b,c", "-tag.a~_", "input.a.b:1", "output.x~y"),
        *("error:E", "-error~x", "started>2h,3h", "due<2026-01-01", "attempts:1,2", "crashes<1"),
        *("paused:no", f"id:{'0' * 32}", "key:a", "build:b", "worker~w", "version:1"),
    ]
    for start in range(len(terms)):
        where = " ".join(terms[start:] + terms[:start])
        assert [] == (await ow.list_runs(where=where)).runs
        assert 0 == await ow.count_runs(where, "cancel")


async def test_a_filter_s_pages_follow_each_other(
    backend: BackendPostgres, ow: OpenWorkflow
) -> None:
    await backend.create_workflow_runs([NewRun("a")] * 25 + [NewRun("b")] * 5)

    seen, cursor = [], None
    while True:
        page = await ow.list_runs(where="workflow:a", limit=10, cursor=cursor)
        seen += [run.id for run in page.runs]
        if (cursor := page.next_cursor) is None:
            break

    assert 25 == len(seen) == len(set(seen))
    with pytest.raises(ConfigurationError, match="not both"):
        await ow.list_runs(RunFilter(), where="workflow:a")


async def test_all_runs_of_a_filter_are_retried_once_and_no_others(
    backend: BackendPostgres, ow: OpenWorkflow
) -> None:
    await ended(backend, "a", 450, '{"type": "m:E"}')
    await ended(backend, "b", 5, '{"type": "m:E"}')
    await ended(backend, "a", 3)

    progress = [each async for each in ow.bulk("retry", "workflow:a")]

    assert [200, 400, 450] == [each.done for each in progress]
    counts = await backend.count_runs()
    assert (450, 5, 3) == (
        counts[RunStatus.PENDING],
        counts[RunStatus.FAILED],
        counts[RunStatus.SUCCEEDED],
    )
    assert [] == [each async for each in ow.bulk("retry", "workflow:a")]


async def test_one_that_was_cut_short_goes_on_where_it_ended(
    backend: BackendPostgres, ow: OpenWorkflow
) -> None:
    await backend.create_workflow_runs([NewRun("a")] * 300)
    first = await anext(aiter(ow.bulk("cancel", "workflow:a")))
    await backend.create_workflow_runs([NewRun("a")])  # since it began

    rest = [each async for each in ow.bulk("cancel", "workflow:a", cursor=first.cursor)]

    assert (200, [100]) == (first.done, [each.done for each in rest])
    assert 1 == (await backend.count_runs())[RunStatus.PENDING]
    with pytest.raises(ConfigurationError, match="no cursor"):
        await anext(aiter(ow.bulk("cancel", "workflow:a", cursor="x")))


async def test_a_run_that_failed_again_meanwhile_is_not_retried_twice(
    backend: BackendPostgres, ow: OpenWorkflow
) -> None:
    await ended(backend, "a", 250, '{"type": "m:E"}')
    operation = aiter(ow.bulk("retry", "status:failed"))
    first = await anext(operation)
    session = await backend.open_session(1)
    again = await claim(session, "a", limit=200)
    await flush(session, ends=[end_of(run, RunStatus.FAILED, error="{}") for run in again])
    await session.close()

    rest = [each async for each in operation]
    resumed = [each async for each in ow.bulk("retry", "status:failed", cursor=first.cursor)]

    assert ([250], []) == ([each.done for each in rest], resumed)
    assert 200 == (await backend.count_runs())[RunStatus.FAILED]


async def test_pause_resume_and_delete_in_bulk(
    backend: BackendPostgres, ow: OpenWorkflow, sql: asyncpg.Connection[Any]
) -> None:
    await backend.create_workflow_runs([NewRun("a")] * 3)
    await ended(backend, "b", 2)

    async def done(action: Any, **options: Any) -> int:
        return sum([each.done async for each in ow.bulk(action, "workflow:a,b", **options)])

    assert 3 == await done("pause", reason="r", by="ann")
    assert 0 == await done("pause")
    due = "select count(*) from workflow_runs where status = 'pending' and available_at <= now()"
    assert 0 == await sql.fetchval(due)
    assert 3 == await done("resume")
    assert 3 == await sql.fetchval(due)
    assert 2 == await done("delete")
    assert 3 == await sql.fetchval("select count(*) from workflow_runs")


async def test_it_is_no_faster_than_asked(backend: BackendPostgres, ow: OpenWorkflow) -> None:
    await backend.create_workflow_runs([NewRun("a")] * 30)
    started = time.monotonic()

    progress = [each async for each in ow.bulk("cancel", "workflow:a", per_second=20)]

    assert [20, 30] == [each.done for each in progress]
    assert time.monotonic() - started >= 0.95  # the second chunk is for the second second


async def test_what_makes_no_sense_is_refused(ow: OpenWorkflow) -> None:
    for action, where, options in (
        ("retry", "", {}),
        ("frob", "status:failed", {}),
        ("retry", "status:failed", {"per_second": 0}),
        ("pause", "status:pending", {"reason": "\0"}),
    ):
        with pytest.raises(ConfigurationError):
            await anext(aiter(ow.bulk(action, where, **options)))  # type: ignore[arg-type]


async def test_what_the_database_refuses_of_single_runs_is_told_as_by_any_other_call(
    backend: BackendPostgres, ow: OpenWorkflow, sql: asyncpg.Connection[Any]
) -> None:
    """It was a group of errors, which nobody catches who catches ours."""
    await ended(backend, "a", 3, '{"type": "m:E"}')

    async with refusing(sql, "workflow_runs", "P0001"):
        with pytest.raises(BackendError, match="refused by a test"):
            await anext(aiter(ow.bulk("retry", "workflow:a")))

    assert [3] == [each.done async for each in ow.bulk("retry", "workflow:a")]


async def test_a_role_that_may_not_is_told_so(
    backend: BackendPostgres, ow: OpenWorkflow, sql: asyncpg.Connection[Any]
) -> None:
    await ended(backend, "a", 1)
    await sql.execute("alter table workflow_runs rename to gone")

    with pytest.raises(BackendError):
        await anext(aiter(ow.bulk("delete", "workflow:a")))


async def test_the_commands(database_url: str, backend: BackendPostgres) -> None:
    await ended(backend, "a", 3, '{"type": "m:E", "message": "no"}')

    async def command(*arguments: str) -> tuple[int | None, str, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "openworkflow", *arguments, "--url", database_url),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()

    code, out, _ = await command("run", "b", "--tag", "customer=acme")
    listed = await command("runs", "list", "--where", "tag.customer:acme", "--json")
    assert (0, [out.strip()]) == (code, [run["id"] for run in json.loads(listed[1])["runs"]])
    dry = await command("runs", "retry", "--where", "error:E", "--dry-run")
    assert (0, "3 runs would be meant by retry\n") == dry[:2]
    assert 3 == (await backend.count_runs())[RunStatus.FAILED]
    assert "retry: 3 runs\n" == (await command("runs", "retry", "--where", "error:E"))[1]
    held = await command("runs", "pause", "--where", "workflow:a", "--reason", "r", "--json")
    assert {"found": 3, "done": 3, "left": 0, "next": None} == json.loads(held[1])
    assert "cancel: 3 runs\n" == (await command("runs", "cancel", "--where", "paused:yes"))[1]
    assert "delete: 3 runs\n" == (await command("runs", "delete", "--where", "workflow:a"))[1]
    for wrong in (
        ("runs", "retry"),
        ("runs", "retry", "--dry-run", "0197a5be-7b3c-7c1e-9d59-6d5e8b1c2f3a"),
        ("runs", "list", "--where", "workflow:a", "--status", "failed"),
    ):
        assert 2 == (await command(*wrong))[0], wrong
    code, _, err = await command("runs", "cancel", "--where", "statsu:failed")
    assert (1, True) == (code, "did you mean 'status'?" in err)
