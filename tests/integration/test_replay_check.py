"""`replay-check` on histories that real workers recorded, against code that changed."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openworkflow import OpenWorkflow, RetryPolicy, Step, Workflow, workflow
from openworkflow.backend.backend import BackendPostgres
from openworkflow.cli import histories
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.workflow_run import RunStatus
from openworkflow.engine.replay import RecordedRun, Replayer
from tests.helpers import StartWorker, eventually

Code = Workflow[Any, Any]


GOLDEN = Path(__file__).parents[1] / "golden"


def as_text(number: int) -> str:
    return f"text {number}"


def as_number(number: int) -> int:
    return number


def code(*names: str, pause_after: int | None = None, call: Callable[[int], Any] = as_text) -> Code:
    """A workflow of these steps, one after the other; it sleeps after so many."""

    @workflow(name="w")
    async def run(step: Step) -> list[str]:
        done = []
        for number, name in enumerate(names):
            if number == pause_after:
                await step.sleep("pause", "1h")
            done.append(await step.run(name, call, number))
        if pause_after == len(names):
            await step.sleep("pause", "1h")
        return done

    return run


async def record(
    ow: OpenWorkflow, backend: BackendPostgres, start_worker: StartWorker, *codes: Code
) -> list[RecordedRun]:
    """What a worker records of one run of each code, until it ends or sleeps."""
    for each in codes:
        worker = await start_worker(each)
        run = await ow.run_workflow(each)
        await eventually(lambda run=run: _rests(ow, run.id))  # type: ignore[misc]
        await worker.stop()
    return await _read(backend)


async def _read(backend: BackendPostgres) -> list[RecordedRun]:
    found = histories.recorded(backend, workflow=None, statuses=list(RunStatus), limit=100)
    return [run async for run in found]


async def _rests(ow: OpenWorkflow, run_id: Any) -> bool:
    details = await ow.get_run(run_id)
    asleep = "pause" in {each.step_name for each in details.steps}
    return details.run.status.finished or (details.run.status == "pending" and asleep)


async def check(run: RecordedRun, against: Code) -> str | None:
    """The message of what breaks."""
    with Replayer() as replayer:
        found = (await replayer.replay(run, against)).found
    return None if found is None else f"{found.cause}: {found.message}"


async def test_the_code_that_recorded_it_can_go_on_with_it(
    ow: OpenWorkflow, backend: BackendPostgres, start_worker: StartWorker
) -> None:
    finished, asleep = code("a", "b"), code("a", "b", pause_after=1)
    runs = await record(ow, backend, start_worker, finished, asleep)

    assert [None, None] == [
        await check(run, asleep if run.status is RunStatus.PENDING else finished) for run in runs
    ]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (code("a", "x", "c"), "has step 'b' next, but the code asks for step 'x'"),
        (code("a", "c"), "has step 'b' next, but the code asks for step 'c'"),
        (code("a", "b"), "has step 'c' next, but the code returned"),
        (code("a", "b", "c", call=as_number), "does not fit"),
        (code("a", "b", "c", "d"), None),
        (code("a", "b", "c", pause_after=3), None),
    ],
)
async def test_a_change_is_reported_at_the_step_that_differs(
    ow: OpenWorkflow,
    backend: BackendPostgres,
    start_worker: StartWorker,
    changed: Code,
    message: str | None,
) -> None:
    (run,) = await record(ow, backend, start_worker, code("a", "b", "c"))

    found = await check(run, changed)

    assert (message is None) == (found is None)
    assert message is None or message in (found or "")


async def test_no_step_is_executed_and_nothing_is_written(
    ow: OpenWorkflow, backend: BackendPostgres, start_worker: StartWorker
) -> None:
    calls: list[str] = []

    def longer() -> Code:
        @workflow(name="w")
        async def run(step: Step) -> None:
            await step.run("a", lambda: 1)
            await step.run("b", calls.append, "b")

        return run

    (run,) = await record(ow, backend, start_worker, code("a", pause_after=1))
    unslept = RecordedRun(run.run, run.status, run.steps[:1])

    assert await check(unslept, longer()) is None
    assert [] == calls
    assert [len(run.steps)] == [len(each.steps) for each in await _read(backend)]


async def test_waiting_outside_a_step_and_raising_are_findings(
    ow: OpenWorkflow, backend: BackendPostgres, start_worker: StartWorker
) -> None:
    (run,) = await record(ow, backend, start_worker, code("a"))

    @workflow(name="w")
    async def waits(step: Step) -> None:
        await asyncio.Event().wait()

    @workflow(name="w")
    async def raises(step: Step) -> None:
        raise LookupError("no such rate")

    from datetime import timedelta

    with Replayer(timedelta(seconds=0.1)) as replayer:
        blocked = (await replayer.replay(run, waits)).found
    assert blocked is not None
    assert "Blocked" == blocked.cause
    assert "LookupError: no such rate" in (await check(run, raises) or "")


NAMES = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6, unique=True)


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(names=NAMES, at=st.integers(0, 5), pause=st.integers(0, 6))
async def test_any_history_fits_its_own_code_and_not_one_that_renames_a_step(
    ow: OpenWorkflow,
    backend: BackendPostgres,
    start_worker: StartWorker,
    names: list[str],
    at: int,
    pause: int,
) -> None:
    own = code(*names, pause_after=min(pause, len(names)))
    await record(ow, backend, start_worker, own)
    run = (await _read(backend))[0]
    at %= len(names)
    renamed = [*names[:at], "other", *names[at + 1 :]]

    assert await check(run, own) is None
    found = await check(run, code(*renamed, pause_after=min(pause, len(names))))
    recorded = any(step.step_name == names[at] for step in run.steps)
    assert recorded == (found is not None and f"has step '{names[at]}' next" in found)
    await ow.cancel(run.run.id)
    _ = [deleted async for deleted in _emptied(backend)]


async def _emptied(backend: BackendPostgres) -> Any:
    from datetime import timedelta

    async for number in backend.prune([RunStatus.CANCELED, RunStatus.SUCCEEDED], timedelta(0)):
        yield number


MODULE = """
from openworkflow import Step, workflow

@workflow(name="w")
async def run(step: Step) -> list[str]:
    if await step.patched("more"):
        pass
    return [await step.run({name!r}, lambda: "0")]
"""


def command(folder: Path, url: str, *args: str) -> subprocess.CompletedProcess[str]:
    """`openworkflow` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "openworkflow", *args],
        cwd=folder,
        env={"DATABASE_URL": url, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )


async def test_the_command_for_ci(
    ow: OpenWorkflow,
    backend: BackendPostgres,
    start_worker: StartWorker,
    database_url: str,
    tmp_path: Path,
) -> None:
    await record(ow, backend, start_worker, code("a", pause_after=1), code("a"))
    (tmp_path / "same.py").write_text(MODULE.format(name="a"))
    (tmp_path / "changed.py").write_text(MODULE.format(name="z"))
    (tmp_path / "other.py").write_text(MODULE.format(name="a").replace('"w"', '"v"'))

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return command(tmp_path, database_url, *args)

    same = await asyncio.to_thread(run, "replay-check", "same", "--status", "succeeded")
    assert (0, "") == (same.returncode, same.stderr)
    assert "1 run replayed, 0 would break" in same.stdout
    assert "it may be taken out" in same.stdout

    changed = await asyncio.to_thread(run, "replay-check", "changed", "--json")
    found = json.loads(changed.stdout)
    assert (3, 2) == (changed.returncode, found["replayed"])
    assert {1, 0} == {finding["unfinished"] for finding in found["findings"]} or [(2, 1)] == [
        (f["runs"], f["unfinished"]) for f in found["findings"]
    ]

    missing = await asyncio.to_thread(run, "replay-check", "other")
    assert 3 == missing.returncode
    assert "the module has no workflow 'w'" in missing.stdout

    exported = await asyncio.to_thread(run, "runs", "export", "--output", "histories.jsonl")
    assert "2 histories written" in exported.stderr
    again = await asyncio.to_thread(
        run, "replay-check", "changed", "--from-file", "histories.jsonl", "--json"
    )
    assert (3, found) == (again.returncode, json.loads(again.stdout))


async def test_a_run_is_replayed_in_the_attempt_that_it_had_come_to(
    ow: OpenWorkflow, backend: BackendPostgres, start_worker: StartWorker, tmp_path: Path
) -> None:
    """It was replayed as its first one, and so broke by the error that this had ended with."""

    @workflow(name="again", retry=RetryPolicy(max_attempts=3, initial="1ms", jitter=0))
    async def again(step: Step) -> int:
        await step.run("one", as_text, 1)
        if step.attempt < 3:
            raise RuntimeError("not yet")
        return step.attempt

    await start_worker(again)
    assert 3 == await (await ow.run_workflow(again)).result(timeout=20)
    (stored,) = [
        each
        async for each in histories.recorded(
            backend, workflow="again", statuses=[RunStatus.SUCCEEDED], limit=1
        )
    ]
    line, older = json.loads(histories.line_of(stored)), tmp_path / "older.jsonl"
    (tmp_path / "now.jsonl").write_text(json.dumps(line))
    del line["attempts"]
    older.write_text(json.dumps(line))
    (read,), (read_older,) = histories.read(tmp_path / "now.jsonl"), histories.read(older)

    with Replayer() as replayer:
        for each in (stored, read):
            assert (await replayer.replay(each, again)).found is None

    assert (2, 0) == (read.run.attempts, read_older.run.attempts)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("same",), "no history was found, so nothing was checked"),
        (("nowhere",), "nowhere"),
        (("same", "--from-file", "broken.jsonl"), "broken.jsonl, line 1: this is no history"),
        (("same", "--from-file", "packed.jsonl"), "packed.jsonl, line 1: this is no history"),
    ],
)
async def test_what_cannot_be_checked_is_an_error_and_no_success(
    database_url: str, tmp_path: Path, args: tuple[str, ...], message: str
) -> None:
    (tmp_path / "same.py").write_text(MODULE.format(name="a"))
    (tmp_path / "broken.jsonl").write_text('{"format": "other"}\n')
    (tmp_path / "packed.jsonl").write_bytes(b"\x1f\x8b\x08\0\xff")

    done = await asyncio.to_thread(command, tmp_path, database_url, "replay-check", *args)

    assert 1 == done.returncode
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_file_that_the_version_before_wrote_is_still_read_and_replayed() -> None:
    """It knows no order of completion, no branches, and nothing of the arguments of a call."""

    def kept(*names: str) -> Code:
        @workflow(name="kept")
        async def run(step: Step) -> list[str]:
            first = await step.run("one", as_text, 1)
            both = await asyncio.gather(*(step.run(name, as_text, 2) for name in names))
            again = await step.run("again", as_text, 4)
            again = await step.run("one", as_text, 5)
            await step.sleep("pause", "1h")
            return [first, *both, again]

        return run

    (recorded,) = histories.read(GOLDEN / "history-1.jsonl")

    assert (RunStatus.PENDING, 7) == (recorded.status, len(recorded.steps))
    with Replayer() as replayer:
        same = await replayer.replay(recorded, kept("left", "right"))
        other = await replayer.replay(recorded, kept("left"))
    assert None is same.found
    assert other.found is not None
    assert "right" in other.found.message
    assert other.found.cause.endswith("NonDeterminism")


def test_a_file_is_of_one_of_the_formats_that_this_program_knows(tmp_path: Path) -> None:
    line = (GOLDEN / "history-1.jsonl").read_text()
    newer = tmp_path / "newer.jsonl"
    newer.write_text(line.replace("openworkflow-history/1", "openworkflow-history/3"))

    with pytest.raises(ConfigurationError, match="the format is 'openworkflow-history/3'"):
        list(histories.read(newer))

    (old,) = histories.read(GOLDEN / "history-1.jsonl")
    newer.write_text(histories.line_of(old))
    assert json.loads(newer.read_text())["format"] == histories.FORMAT
    assert [old.steps] == [each.steps for each in histories.read(newer)]
