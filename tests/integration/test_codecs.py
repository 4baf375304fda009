"""Runs of workers and clients with codecs: what is stored, who can read it, and what goes on."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import pytest

from openworkflow import (
    BackendPostgres,
    ConfigurationError,
    Cron,
    Limit,
    OpenWorkflow,
    PayloadTooLarge,
    PayloadUnreadable,
    RetryPolicy,
    Step,
    SyncStep,
    Undo,
    Worker,
    Workflow,
    WorkflowFailed,
    current_step,
    workflow,
)
from openworkflow.codecs import (
    Compression,
    DirectoryStore,
    Encoded,
    Encryption,
    Offload,
    Place,
    payloads,
)
from openworkflow.core.envelope import described
from openworkflow.core.workflow_run import RunStatus
from openworkflow.testing import environment
from tests.helpers import eventually

SECRET = "hunter2"
"""Is part of every value, and nowhere to be seen in the database."""
DEFAULTS: dict[str, Any] = {"concurrency": 10, "rest": timedelta(0)}
"""Every wait parks its run, so that what comes after it is a replay."""
OLD, NEW = Encryption.new_key(), Encryption.new_key()


class Open(Protocol):
    """A client with a codec, and a started worker with the same for these workflows."""

    async def __call__(
        self, codec: Any, *workflows: Workflow[Any, Any], **options: Any
    ) -> OpenWorkflow: ...


@pytest.fixture
async def opened(backend: BackendPostgres) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def opened(
            codec: Any, *workflows: Workflow[Any, Any], **options: Any
        ) -> OpenWorkflow:
            ow = OpenWorkflow(backend, codec=codec)
            if workflows:
                worker = ow.new_worker(workflows=list(workflows), **DEFAULTS | options)
                await worker.start()
                stack.push_async_callback(worker.stop)
            return ow

        yield opened


@asynccontextmanager
async def working(ow: OpenWorkflow, *workflows: Workflow[Any, Any]) -> AsyncIterator[Worker]:
    """A worker for the length of a block."""
    worker = ow.new_worker(workflows=list(workflows), **DEFAULTS)
    await worker.start()
    try:
        yield worker
    finally:
        await worker.stop()


def encrypted(*keys: str) -> Encryption:
    return Encryption({key_id: {"old": OLD, "new": NEW}[key_id] for key_id in keys})


async def stored(sql: asyncpg.Connection[Any]) -> str:
    """Everything that the database holds of the values of runs."""
    tables = await sql.fetch(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        " AND tablename <> 'openworkflow_migrations'"
    )
    found = []
    for each in tables:
        rows = await sql.fetch(f'SELECT to_jsonb(t)::text AS row FROM "{each["tablename"]}" t')
        found += [row["row"] for row in rows]
    return "\n".join(found)


# -- every way that a value takes ----------------------------------------------------------------


async def told(value: str) -> str:
    current_step().emit("of a step", value)
    current_step().set_status(value)
    return f"told {value}"


@workflow
async def child(value: str, step: Step) -> str:
    return await step.run("in-child", told, value)


@workflow
def child_in_a_thread(value: str, step: SyncStep) -> str:
    told_again: str = step.run("in-child", told, value)  # type: ignore[assignment]
    return told_again


@workflow
async def everything(value: str, step: Step) -> list[str]:
    step.emit("of the run", value)
    step.set_status(value)
    first = await step.run("first", told, value)
    await step.sleep("nap", 0.01)
    signal = await step.wait_for_signal("go", type=str)
    one = await step.run_workflow("child", child, value)
    handle = await step.start_workflow("started", child_in_a_thread, value)
    two = await handle.result()
    mapped = await step.map("each", child, [f"{value} {number}" for number in range(3)])
    functions = await step.map("functions", told, [f"{value} {number}" for number in range(3)])
    again = await asyncio.gather(*(step.run("again", told, value) for _ in range(2)))
    return [first, signal, one, two, *mapped, *functions, *again]


EXPECTED = [
    f"told {SECRET}",
    f"go {SECRET}",
    *[f"told {SECRET}"] * 2,
    *[f"told {SECRET} {number}" for number in range(3)] * 2,
    *[f"told {SECRET}"] * 2,
]


def stacks(folder: Path) -> dict[str, Callable[[], Any]]:
    store = DirectoryStore(folder)
    return {
        "encryption": lambda: encrypted("old"),
        "compression": lambda: Compression(over=0),
        "a store": lambda: Offload(store, over=0),
        "all": lambda: [Compression(over=0), encrypted("old"), Offload(store, over=50)],
    }


@pytest.mark.parametrize("stack", ["encryption", "compression", "a store", "all"])
async def test_every_way_that_a_value_takes_leads_through_the_codecs(
    opened: Open, sql: asyncpg.Connection[Any], tmp_path: Path, stack: str
) -> None:
    codec = stacks(tmp_path)[stack]()
    ow = await opened(codec, everything, child, child_in_a_thread)

    run = await ow.run_workflow(everything, SECRET)
    events = [event.value async for event in _until_ended(ow, run)]

    assert await run.result("30s") == EXPECTED
    assert set(events) >= {SECRET}
    assert (await run.progress()).status == SECRET
    details = await ow.get_run(run.id)
    assert details.run.input == SECRET
    assert details.run.output == EXPECTED
    assert [step.output for step in details.steps if step.step_name == "first"] == [EXPECTED[0]]
    if stack != "compression":  # which leaves what it would make larger
        assert SECRET not in await stored(sql)
    page = (Path(__file__).parents[2] / "docs" / "codecs.md").read_text()
    (query,) = re.findall(r"```sql\n(SELECT place, by AS key.*?)```", page, re.DOTALL)
    await sql.execute("""UPDATE step_attempts SET output = '{"$ow": {"by": "me"}}'
                         WHERE step_name = 'nap'""")  # a value of other programs
    counted = {(row["place"], row["key"]): row["count"] for row in await sql.fetch(query)}
    found = len(re.findall(r'"aes-gcm:old"', await stored(sql)))
    assert sum(counted.values()) == found, "the page counts all that a key has encrypted"
    assert bool(found) == (stack in ("encryption", "all"))


async def _until_ended(ow: OpenWorkflow, run: Any) -> AsyncIterator[Any]:
    await eventually(lambda: _parked(run))
    await ow.signal(run.id, "go", f"go {SECRET}")
    async for event in run.events():
        yield event


async def _parked(run: Any) -> bool:
    row = await run.run()
    return row.status is RunStatus.PENDING and row.claim_no > 0 and row.available_at.year > 9000


async def test_a_run_whose_worker_is_lost_is_replayed_from_what_was_encoded() -> None:
    """The second worker records again what the first one had, as it was stored."""
    async with environment(codec=[Compression(over=0), encrypted("old")]) as env:
        env.crash_after("first")
        env.crash_after("in-child")
        await env.serve(everything, child, child_in_a_thread)
        run = await env.start(everything, SECRET)
        await env.signal(run, "go", f"go {SECRET}")

        assert await run.result() == EXPECTED


# -- keys ----------------------------------------------------------------------------------------


@workflow
async def waits(value: str, step: Step) -> str:
    first = await step.run("first", told, value)
    signal = await step.wait_for_signal("go", type=str)
    return f"{first}, {signal}"


async def test_a_run_goes_on_after_a_rotation_and_mixes_keys_and_plain_values(
    opened: Open, sql: asyncpg.Connection[Any], backend: BackendPostgres
) -> None:
    plain = OpenWorkflow(backend)
    old = await opened(encrypted("old"))
    run = await plain.run_workflow(waits, SECRET)
    async with working(old, waits):
        await eventually(lambda: _parked(run))
    rotated = await opened(encrypted("new", "old"), waits)

    await rotated.signal(run.id, "go", "go")

    assert await rotated.handle(run.id, waits).result("20s") == f"told {SECRET}, go"
    labels = await sql.fetch(
        "SELECT step_name, output #>> '{$ow,by,0}' AS by FROM step_attempts ORDER BY created_at"
    )
    assert [tuple(each) for each in labels] == [("first", "aes-gcm:old"), ("go", "aes-gcm:new")]
    assert await sql.fetchval("SELECT output #>> '{$ow,by,0}' FROM workflow_runs") == "aes-gcm:new"
    assert await sql.fetchval("SELECT input FROM workflow_runs") == f'"{SECRET}"'
    # As docs/codecs.md has it: what is left of a key.
    left = "SELECT count(*) FROM step_attempts WHERE output #> '{$ow,by}' ? $1"
    assert [await sql.fetchval(left, f"aes-gcm:{key}") for key in ("old", "new")] == [1, 1]


@pytest.mark.parametrize("lacking", ["the key", "any codec"])
@pytest.mark.parametrize("of", ["the input", "a result", "a signal", "a child's result"])
async def test_a_run_whose_key_is_missing_is_handed_back_and_goes_on_once_it_is_there(
    opened: Open,
    sql: asyncpg.Connection[Any],
    backend: BackendPostgres,
    caplog: pytest.LogCaptureFixture,
    lacking: str,
    of: str,
) -> None:
    old = OpenWorkflow(backend, codec=encrypted("old"))
    poor = OpenWorkflow(backend, codec=encrypted("new") if lacking == "the key" else None)
    run = await _begun(OpenWorkflow(backend), old, of)

    async with working(poor, waits, parent, child):
        await eventually(lambda: _handed_back(sql))

    # It says which key, waits for somebody who has it, and counts nothing against the run.
    assert "'old'" in caplog.text
    assert "Traceback" not in caplog.text
    row = await run.run()
    assert (row.status, row.crashes, row.attempts) == (RunStatus.PENDING, 0, 0)
    await sql.execute("UPDATE workflow_runs SET available_at = now() WHERE status = 'pending'")
    rich = await opened(encrypted("new", "old"), waits, parent, child)
    assert SECRET in await rich.handle(run.id, waits).result("20s")


@workflow
async def parent(value: str, step: Step) -> str:
    handle = await step.start_workflow("started", child, value)
    await step.wait_for_signal("go")
    return await handle.result()


async def _begun(plain: OpenWorkflow, old: OpenWorkflow, of: str) -> Any:
    """A run that comes next to what only the old key opens."""
    if of == "the input":
        run = await old.run_workflow(waits, SECRET)
        await plain.signal(run.id, "go", "go")
        return run
    if of == "a signal":
        run = await plain.run_workflow(waits, SECRET)
        await old.signal(run.id, "go", "go")
        return run
    flow = waits if of == "a result" else parent
    run = await plain.run_workflow(flow, SECRET)
    async with working(old, waits, parent, child):
        await eventually(lambda: _parked(run))
        if of != "a result":
            await eventually(lambda: _child_ended(old))
    await plain.signal(run.id, "go", "go")
    return run


async def _child_ended(ow: OpenWorkflow) -> bool:
    page = await ow.list_runs(where="workflow:child")
    return bool(page.runs) and page.runs[0].status is RunStatus.SUCCEEDED


async def _handed_back(sql: asyncpg.Connection[Any]) -> bool:
    return bool(
        await sql.fetchval(
            "SELECT EXISTS (SELECT FROM workflow_runs WHERE status = 'pending' AND claim_no > 0"
            " AND available_at BETWEEN now() + '5 s' AND now() + '31 s')"
        )
    )


async def test_a_client_without_the_key_shows_what_it_cannot_read_and_says_why(
    opened: Open, backend: BackendPostgres
) -> None:
    old = await opened(encrypted("old"), waits)
    run = await old.run_workflow(waits, SECRET)
    await old.signal(run.id, "go", "go")
    assert await run.result("20s") == f"told {SECRET}, go"

    for codec, why in ((None, "no codec 'aes-gcm'"), (encrypted("new"), "it has 'new'")):
        other = OpenWorkflow(backend, codec=codec)
        with pytest.raises(PayloadUnreadable, match="encrypted with key 'old'") as raised:
            await other.handle(run.id, waits).result("5s")
        assert why in str(raised.value)
        found = await other.get_run(run.id)
        page = await other.list_runs()
        values = [found.run.input, found.run.output, found.steps[0].output, page.runs[0].output]
        values += [found.progress.status]
        assert [described(value) for value in values] == ["encrypted with key 'old'"] * 5
        with pytest.raises(PayloadUnreadable, match="an event of topic 'of a step'"):
            await anext(other.events(run.id))


async def test_a_value_that_was_put_in_another_place_is_not_taken_for_one_of_that_place(
    opened: Open, sql: asyncpg.Connection[Any], backend: BackendPostgres
) -> None:
    ow = await opened(encrypted("old"), waits, child)
    victim = await ow.run_workflow(waits, "theirs", available_at="1h")
    mine = await ow.run_workflow(child, "mine")
    await mine.result("20s")

    await sql.execute(
        "UPDATE workflow_runs SET input = (SELECT input FROM workflow_runs WHERE id = $1)"
        " WHERE id = $2",
        *(mine.id, victim.id),
    )

    assert described((await victim.run()).input) == "encrypted with key 'old'"
    with pytest.raises(PayloadUnreadable, match="written to another place"):
        await ow._payloads.open_value((await victim.run()).input, "input", "waits")


# -- what else is done with runs -----------------------------------------------------------------


async def lost(value: str) -> str:
    raise ValueError(f"no {value}")


UNDONE: list[str] = []


async def undo(result: str) -> None:
    UNDONE.append(result)


@workflow
async def saga(value: str, step: Step) -> str:
    await step.run("done", told, value, undo=Undo(undo))
    await step.sleep("nap", 0.01)
    return await step.run("lost", lost, "luck", retry=RetryPolicy(max_attempts=1))


async def test_an_undo_is_given_the_result_in_plain(
    opened: Open, sql: asyncpg.Connection[Any]
) -> None:
    UNDONE.clear()
    ow = await opened(encrypted("old"), saga)

    with pytest.raises(WorkflowFailed, match="no luck"):
        await (await ow.run_workflow(saga, SECRET)).result("20s")

    assert [f"told {SECRET}"] == UNDONE
    assert SECRET not in await stored(sql)


@workflow
async def counts(value: list[str], step: Step) -> list[str]:
    if len(value) < 3:
        await step.continue_as_new([*value, await step.run("next", told, value[-1])])
    return value


async def test_the_next_input_of_a_run_that_continues_as_new_is_encoded(
    opened: Open, sql: asyncpg.Connection[Any]
) -> None:
    ow = await opened(encrypted("old"), counts)

    run = await ow.run_workflow(counts, [SECRET])

    assert (await run.result("20s"))[-1] == f"told told {SECRET}"
    assert SECRET not in await stored(sql)


FAILS = [True]


@workflow
async def fails_once(value: str, step: Step) -> str:
    first = await step.run("first", told, value)
    second = await step.run("second", told, first)
    if FAILS:
        raise ValueError("once")
    return second


async def test_runs_are_forked_and_retried_with_encoded_values(
    opened: Open, sql: asyncpg.Connection[Any]
) -> None:
    FAILS[:] = [True]
    ow = await opened(encrypted("old"), fails_once)
    run = await ow.run_workflow(fails_once, SECRET)
    with pytest.raises(WorkflowFailed):
        await run.result("20s")
    FAILS.clear()

    forked = await ow.fork(run.id, from_step="second")
    other = await ow.fork(run.id, input=f"other {SECRET}", from_step="first")
    given = await ow.fork(run.id, results={"first": f"given {SECRET}"})

    await ow.retry(run.id, from_step="second")
    results = [await each.result("20s") for each in (run, forked, other, given)]
    assert results == [
        *[f"told told {SECRET}"] * 2,
        f"told told other {SECRET}",
        f"told given {SECRET}",
    ]
    assert SECRET not in await stored(sql)


@workflow(schedule=Cron("0 0 1 1 *", input=SECRET))
async def yearly(value: str) -> str:
    return value


async def test_inputs_of_schedules_are_encoded_and_written_only_when_keys_change(
    opened: Open, sql: asyncpg.Connection[Any], backend: BackendPostgres
) -> None:
    old = await opened(encrypted("old"))
    kept: list[Any] = []
    for codec in (encrypted("old"), encrypted("old"), encrypted("new", "old")):
        async with working(OpenWorkflow(backend, codec=codec), yearly):
            await eventually(lambda codec=codec: _by(sql, codec))  # type: ignore[misc]
        kept.append(await sql.fetchval("SELECT input FROM workflow_schedules"))
    await old.schedules.create("mine", yearly, Cron("0 0 1 1 *", input=f"my {SECRET}"))

    assert kept[0] == kept[1] != kept[2]
    rotated = await opened(encrypted("new", "old"), yearly)
    inputs = {each.name: each.input for each in await rotated.schedules.list()}
    assert inputs == {"yearly": f'"{SECRET}"', "mine": f'"my {SECRET}"'}
    results = [await (await rotated.schedules.trigger(name)).result("20s") for name in inputs]
    assert sorted(results) == [SECRET, f"my {SECRET}"]
    assert SECRET not in await stored(sql)


async def _by(sql: asyncpg.Connection[Any], codec: Encryption) -> bool:
    found = await sql.fetchval("SELECT input #>> '{$ow,by,0}' FROM workflow_schedules")
    return bool(found) and found == f"aes-gcm:{codec._current}"


@workflow(limits=[Limit(1, key=lambda value: value[:3], name="one-each")])
async def limited(value: str) -> str:
    return value


async def test_a_worker_finds_the_limits_of_a_run_that_was_started_by_name(opened: Open) -> None:
    ow = await opened(encrypted("old"), limited)

    run = await ow.run_workflow("limited", SECRET)

    assert await run.result("20s") == SECRET
    assert (await run.run()).limits


# -- what goes wrong -----------------------------------------------------------------------------


class Moody:
    """A codec that fails as often as it is told to."""

    name = "moody"

    def __init__(self, error: Exception) -> None:
        self.error, self.failures, self.asked = error, 0, 0

    def encode(self, data: bytes, place: Place) -> Encoded:
        self.asked += 1
        self._fail()
        return Encoded(data[::-1])

    def decode(self, data: bytes, note: str, place: Place) -> bytes:
        self._fail()
        return data[::-1]

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise self.error


async def test_a_store_that_is_away_for_a_moment_is_waited_for(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payloads, "PAUSES_SECONDS", (0.0, 0.0))
    codec = Moody(ConnectionError("away"))
    ow = await opened(codec, child)
    codec.failures = 2

    assert await (await ow.run_workflow(child, "x")).result("20s") == "told x"


async def test_a_run_whose_result_cannot_be_encoded_is_handed_back_and_does_not_fail(
    opened: Open,
    sql: asyncpg.Connection[Any],
    backend: BackendPostgres,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(payloads, "PAUSES_SECONDS", (0.0,))
    codec = Moody(ConnectionError("away"))
    ow = OpenWorkflow(backend, codec=codec)
    run = await ow.run_workflow(counts, ["a", "b", "c"])
    other = await ow.run_workflow(child, "x")
    plain = codec.encode

    def refuse(data: bytes, place: Place) -> Encoded:
        raise ConnectionError("away")

    monkeypatch.setattr(codec, "encode", refuse)
    async with working(ow, counts, child):
        for each in (run, other):
            await eventually(lambda each=each: _given_back(each))  # type: ignore[misc]
    assert "a codec does not let a run go on; it is handed back" in caplog.text
    assert "Traceback" not in caplog.text

    monkeypatch.setattr(codec, "encode", plain)
    await sql.execute("UPDATE workflow_runs SET available_at = now() WHERE status = 'pending'")
    async with working(ow, counts, child):
        assert await run.result("20s") == ["a", "b", "c"]
        assert await other.result("20s") == "told x"
    assert [(await each.run()).attempts for each in (run, other)] == [0, 0]


async def _given_back(run: Any) -> bool:
    row = await run.run()
    return row.status is RunStatus.PENDING and row.claim_no > 0


@workflow
async def large(size: int, step: Step) -> str:
    return await step.run("made", _made, size)


async def _made(size: int) -> str:
    return "x" * size


async def test_the_limit_is_for_what_is_stored_so_a_store_takes_what_is_larger(
    opened: Open, tmp_path: Path
) -> None:
    ow = await opened([Compression(), Offload(DirectoryStore(tmp_path), over=10_000)], large)

    assert len(await (await ow.run_workflow(large, 3_000_000)).result("30s")) == 3_000_000


async def test_what_is_too_large_after_encoding_fails_as_it_does_without(
    opened: Open, backend: BackendPostgres
) -> None:
    ow = await opened(encrypted("old"), large, child)

    with pytest.raises(WorkflowFailed, match="the result of step 'made' is 1,"):
        await (await ow.run_workflow(large, 1_000_000)).result("30s")
    with pytest.raises(PayloadTooLarge, match="the input of workflow 'child'"):
        await ow.run_workflow(child, "x" * 1_000_000)


@workflow
async def tells(size: int, step: Step) -> None:
    step.emit("large", "x" * size)
    step.set_status("y" * (size // 2))


async def test_events_and_statuses_have_their_own_limits_with_codecs_too(
    opened: Open,
) -> None:
    ow = await opened(encrypted("old"), tells, payload_limit=1000)
    run = await ow.run_workflow(tells, 8000)

    await run.result("20s")
    assert [len(event.value) async for event in run.events()] == [8000]


async def test_an_object_that_is_gone_hands_the_run_back_and_is_named(
    opened: Open,
    backend: BackendPostgres,
    sql: asyncpg.Connection[Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ow = OpenWorkflow(backend, codec=Offload(DirectoryStore(tmp_path), over=0))
    run = await ow.run_workflow(child, SECRET)
    (kept,) = (tmp_path / "default").iterdir()
    moved = kept.rename(tmp_path / "elsewhere")

    async with working(ow, child):
        await eventually(lambda: _handed_back(sql))
    assert f"its object 'default/{kept.name}' is not in the store" in caplog.text

    moved.rename(kept)
    await sql.execute("UPDATE workflow_runs SET available_at = now() WHERE status = 'pending'")
    async with working(ow, child):
        assert await run.result("20s") == f"told {SECRET}"


def test_a_client_that_blocks_has_codecs_too(database_url: str) -> None:
    with OpenWorkflow.sync(database_url, codec=encrypted("old")) as ow:
        run = ow.run_workflow("child", SECRET)

        assert ow.get_workflow_run(run.id).input == SECRET


@pytest.mark.parametrize(
    ("codec", "says"),
    [
        ("zlib", "codec is a codec or a list of them"),
        ([Compression(), Compression()], "two codecs are called 'zlib'"),
        ([Offload(DirectoryStore("x")), Compression()], "'object' has to be the last codec"),
    ],
    ids=["text", "twice", "after a store"],
)
async def test_a_codec_that_is_none_is_refused(
    backend: BackendPostgres, codec: Any, says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        OpenWorkflow(backend, codec=codec)
    with pytest.raises(ConfigurationError, match=says):
        OpenWorkflow(backend).new_worker(workflows=[child], codec=codec)
