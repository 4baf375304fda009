"""What a run tells, in the engine and without a database: once, in order, whatever is cut short."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from openworkflow import NonRetryableError, Step, SyncStep, current_step
from openworkflow.core.errors import BackendError, ConfigurationError, ConnectionLost, Fault
from openworkflow.core.progress import EVENT_LIMIT, Told
from openworkflow.engine import telling
from openworkflow.engine.library import Library
from openworkflow.engine.outcome import Completed, Lost, Parked, Released
from tests.executions import failed, in_virtual_time, moments, prepared, quick, slow
from tests.memory import Run


def told(run: Run, topic: str = "t") -> list[Any]:
    """The values of a topic, in their order; the numbers of all events have no gap."""
    events = run.journal.events
    assert list(range(len(events))) == sorted(events)
    rows = [events[number] for number in sorted(events)]
    return [json.loads(row.value or "null") for row in rows if row.topic == topic]


async def three(step: Step) -> str:
    step.emit("t", 1)
    await step.run("a", quick)
    step.emit("t", 2)
    step.set_status({"percent": 50})
    await step.run("b", quick)
    step.tag(stage="end")
    step.emit("t", 3)
    return "done"


async def branches(step: Step) -> None:
    async def branch(name: str, seconds: float) -> None:
        for number in range(3):
            step.emit("t", f"{name}{number}")
            await step.run(f"{name}-{number}", slow, seconds)
        step.emit("t", f"{name} ends")

    async with asyncio.TaskGroup() as group:
        group.create_task(branch("x", 3))
        group.create_task(branch("y", 2))
    step.emit("t", "end")


def plain(step: SyncStep) -> None:
    for number in range(3):
        step.emit("t", number)
        step.run(f"step-{number}", str, number)
    step.set_status("done")
    step.tag(stage="end")


@in_virtual_time
async def test_what_is_told_is_stored_before_the_run_ends() -> None:
    run = prepared(three)

    assert isinstance(await run.execute(), Completed)

    assert [1, 2, 3] == told(run)
    assert ['{"percent":50}'] == run.journal.statuses
    assert {"stage": "end"} == run.journal.tags


@in_virtual_time
async def test_a_replay_tells_nothing_again() -> None:
    run = prepared(three)
    await run.execute()

    assert isinstance(await run.execute(), Completed)

    assert [1, 2, 3] == told(run)
    assert ['{"percent":50}'] == run.journal.statuses


@pytest.mark.parametrize("function", [three, branches, plain])
@in_virtual_time
async def test_a_worker_that_dies_after_any_write_takes_no_event_along_and_none_comes_twice(
    function: Any,
) -> None:
    whole = prepared(function)
    await whole.execute()
    wanted = told(whole)

    for survived in range(whole.journal.writes + 1):
        for writes_overtake in (False, True):
            run = prepared(function)
            await killed_after(run, survived, writes_overtake=writes_overtake)
            before = told(run)
            run.journal.at_once, run.journal.on_flush = True, lambda: None
            assert isinstance(await run.execute(), Completed)

            after = told(run)
            assert before == after[: len(before)]
            for branch in "xy":  # which of them comes first may differ, since a step is made again
                assert of_branch(wanted, branch) == of_branch(after, branch), (survived, before)
            assert sorted(map(str, wanted)) == sorted(map(str, after))
            assert isinstance(await run.execute(), Completed)
            assert after == told(run)
            assert whole.journal.statuses[-1:] == run.journal.statuses[-1:]
            assert whole.journal.tags == run.journal.tags


def of_branch(events: list[Any], branch: str) -> list[Any]:
    return [event for event in events if str(event).startswith(branch)]


async def killed_after(run: Run, writes: int, *, writes_overtake: bool) -> None:
    """Execute until so many writes are durable; `writes_overtake` makes the newest the first."""
    run.journal.at_once = False
    execution = run.execution()
    task = run.start(execution)
    for _ in range(writes):
        for _ in range(100):
            await moments(10)
            if run.journal.waiting or task.done():
                break
            await asyncio.sleep(1)
        if writes_overtake:
            run.journal.waiting.reverse()
        run.journal.flush(1)
    run.journal.held = False  # whatever it still writes finds its claim lost
    execution.interrupt(Lost())
    for _ in range(100):
        run.journal.flush()
        await moments(10)
        if task.done():
            break
    with contextlib.suppress(asyncio.CancelledError):
        await task
    run.journal.held = True


@in_virtual_time
async def test_an_event_is_not_stored_before_what_was_recorded_before_it() -> None:
    async def function(step: Step) -> None:
        await step.run("a", quick)
        step.emit("t", "after a")
        await step.run("b", slow)

    run = prepared(function)
    run.journal.at_once = False
    task = run.start(run.execution())
    await moments()
    assert ["a"] == [row.step_name for row, _ in run.journal.waiting]

    run.journal.flush()
    await moments()
    assert [2] == [len(row) for row, _ in run.journal.waiting]

    run.journal.at_once = True
    run.journal.flush()
    assert isinstance(await task, Completed)
    assert ["after a"] == told(run)


@in_virtual_time
async def test_a_step_does_not_wait_for_what_was_told_before_it() -> None:
    async def function(step: Step) -> None:
        step.emit("t", 1)
        await step.run("a", quick)

    run = prepared(function)
    run.journal.at_once = False
    task = run.start(run.execution())
    await moments()

    assert 2 == len(run.journal.waiting)
    run.journal.at_once = True
    run.journal.flush()
    await task


@in_virtual_time
async def test_of_statuses_that_gather_only_the_last_is_written() -> None:
    async def function(step: Step) -> None:
        for number in range(100):
            step.set_status(number)
        await step.run("a", quick)

    run = prepared(function)
    await run.execute()

    assert ["99"] == run.journal.statuses


@in_virtual_time
async def test_what_a_step_tells_is_stored_before_its_result_and_says_which_attempt_it_is() -> None:
    async def work() -> None:
        me = current_step()
        me.emit("t", "begins")
        me.set_status("works")
        await asyncio.sleep(1)
        me.emit("t", "ends")
        if me.attempt == 1:
            raise ValueError("once")

    async def function(step: Step) -> None:
        await step.run("work", work)

    run = prepared(function)
    order: list[str] = []
    run.journal.on_flush = lambda: order.append(f"{len(run.journal.events)} {len(run.steps)}")
    assert isinstance(await run.execute(), Parked)
    run.wake()
    run.journal.clock.ahead += 10  # type: ignore[attr-defined]
    assert isinstance(await run.execute(), Completed)

    assert ["begins", "ends"] * 2 == told(run)
    rows = [(row.step_name, row.attempt) for row in run.journal.events.values()]
    assert [("work", 1)] * 2 + [("work", 2)] * 2 == rows
    assert "2 0" in order
    assert "4 1" in order


@in_virtual_time
async def test_a_step_in_a_thread_tells_too() -> None:
    def work() -> None:
        for number in range(20):
            current_step().emit("t", number)
        current_step().set_status("done")

    async def function(step: Step) -> None:
        await step.run("work", work)

    run = prepared(function)
    assert isinstance(await run.execute(), Completed)

    assert list(range(20)) == told(run)
    assert ['"done"'] == run.journal.statuses


@in_virtual_time
async def test_an_attempt_that_is_over_tells_nothing_more() -> None:
    kept: list[Any] = []

    async def work() -> None:
        kept.append(current_step())

    async def function(step: Step) -> None:
        await step.run("work", work)
        await step.run("wait", slow)

    run = prepared(function)
    task = run.start(run.execution())
    await moments()
    with pytest.raises(ConfigurationError, match="attempt of the step is over"):
        kept[0].emit("t", "too late")
    await task

    assert not run.journal.events


@in_virtual_time
async def test_a_run_that_waits_has_told_everything_before() -> None:
    async def function(step: Step) -> None:
        step.emit("t", 1)
        await step.sleep("night", "8h")

    run = prepared(function)
    run.journal.at_once = False
    task = run.start(run.execution())
    while not task.done():
        await moments()
        run.journal.flush()

    assert isinstance(await task, Parked)
    assert [1] == told(run)


@in_virtual_time
async def test_so_has_one_that_a_drain_hands_back() -> None:
    async def function(step: Step) -> None:
        await step.run("a", quick)
        step.emit("t", 1)
        step.emit("t", 2)
        await step.run("b", quick)

    run = prepared(function)
    run.journal.at_once = False
    execution = run.execution()
    task = run.start(execution)
    await moments()
    execution.drain()
    while not task.done():
        await moments()
        run.journal.flush()

    assert isinstance(await task, Released | Completed)
    assert [1, 2] == told(run)


@in_virtual_time
async def test_a_run_that_has_lost_its_claim_tells_nothing_and_does_not_hang() -> None:
    run = prepared(three)
    run.journal.held = False

    assert isinstance(await run.execute(), Lost)

    assert not run.journal.events


def retry_by_hand(run: Run) -> None:
    """What retry_workflow_run does."""
    for row in run.steps:
        if row.final:
            context = json.loads(row.context or "{}") | {"reopened": True}
            del context["final"]
            reopened = row._replace(final=False, reopened=True, context=json.dumps(context))
            run.journal.rows[row.id] = reopened
    before = run.journal.told
    assert before is not None
    counts = {**before.counts, telling.RETRIED: run.claim_no}
    run.journal.told = before._replace(retried=True, counts=counts)


@in_virtual_time
async def test_what_a_retry_tells_is_told_though_its_worker_dies_first() -> None:
    """The next worker found the step that came after it, and took it for told before the retry."""
    broken = [True]

    async def fails() -> None:
        if broken[0]:
            raise NonRetryableError("away")

    async def function(step: Step) -> None:
        await step.run("a", quick)
        step.emit("t", "before")
        await step.run("b", fails)
        step.emit("t", "worked")
        await step.sleep("nap", 60)

    run = prepared(function)
    await run.execute()
    assert ["before"] == told(run)
    broken[0] = False
    retry_by_hand(run)

    run.journal.at_once = False
    execution = run.execution()
    task = run.start(execution)
    lost = []
    for _ in range(3):
        await moments()
        lost += [written for row, written in run.journal.waiting if isinstance(row, list)]
        run.journal.waiting = [each for each in run.journal.waiting if each[1] not in lost]
        run.journal.flush()
    assert "b" in {row.step_name for row in run.steps if row.status == "succeeded"}
    execution.interrupt(Lost())
    for written in lost:
        written.settle(False)
    assert Lost() == await task
    assert ["before"] == told(run)
    run.journal.waiting.clear()
    run.journal.at_once = True

    for _ in range(2):
        await run.execute()
        assert ["before", "before", "worked"] == told(run)


@in_virtual_time
async def test_a_retry_by_hand_tells_anew_from_where_its_replay_ends() -> None:
    broken = [True]

    async def fails() -> None:
        if broken[0]:
            raise KeyError("away")

    async def function(step: Step) -> None:
        step.emit("t", "first")
        await step.run("a", quick)
        step.emit("t", "before")
        try:
            await step.run("b", fails, retry=None)
        except KeyError:
            step.emit("t", "failed")
            step.set_status("failed")
            raise
        step.emit("t", "worked")
        step.set_status("worked")
        await step.run("c", quick)
        step.emit("t", "end")

    run = prepared(function)
    for _ in range(10):
        await run.execute()
        run.wake()
        run.journal.clock.ahead += 200  # type: ignore[attr-defined]
    assert ["first", "before", "failed"] == told(run)

    broken[0] = False
    retry_by_hand(run)
    assert isinstance(await run.execute(), Completed)
    assert ["first", "before", "failed", "before", "worked", "end"] == told(run)
    assert '"worked"' == run.journal.statuses[-1]

    assert isinstance(await run.execute(), Completed)
    assert ["first", "before", "failed", "before", "worked", "end"] == told(run)


@in_virtual_time
async def test_a_run_that_continues_as_new_goes_on_with_its_numbers_and_counts_afresh() -> None:
    async def function(step: Step) -> None:
        step.emit("t", "x")
        await step.run("a", quick)

    run = prepared(function)
    run.max_events = 2
    for claim in range(1, 6):
        run.journal.rows.clear()
        outcome = await run.execute(history_from=claim if claim > 1 else 0)
        assert isinstance(outcome, Completed), outcome

    assert ["x"] * 5 == told(run)


@in_virtual_time
async def test_too_many_events_fail_the_run() -> None:
    async def function(step: Step) -> None:
        for number in range(5):
            step.emit("t", number)
            await step.run("a", quick)

    run = prepared(function)
    run.max_events = 3
    failed(await run.execute(), "TooManyEvents", "3 events", "continue_as_new")

    async def at_the_end(step: Step) -> None:
        for number in range(5):
            step.emit("t", number)

    run = prepared(at_the_end)
    run.max_events = 3
    failed(await run.execute(), "TooManyEvents")


@in_virtual_time
async def test_a_run_that_tells_without_end_costs_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "MOST_WAITING", 100)

    async def function(step: Step) -> None:
        while True:
            step.set_status("more")

    failed(await prepared(function).execute(), "TooManyEvents", "await")

    async def many(step: Step) -> None:
        for number in range(2000):
            step.emit(f"t{number}")
            await asyncio.sleep(0)

    monkeypatch.setattr(telling, "MOST_WAITING", 10_000)
    failed(await prepared(many).execute(), "TooManyEvents", "topics")


@in_virtual_time
async def test_a_step_that_tells_faster_than_is_stored_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(telling, "MOST_WAITING", 10)

    async def work() -> None:
        for number in range(100):
            current_step().emit("t", number)

    async def function(step: Step) -> None:
        from openworkflow import RetryPolicy

        await step.run("work", work, retry=RetryPolicy(max_attempts=1))

    failed(await prepared(function).execute(), "TooManyEvents", "not stored")


@in_virtual_time
async def test_values_are_checked_where_they_are_told() -> None:
    caught: list[str] = []

    async def function(step: Step) -> None:
        wrongs: tuple[Callable[[], None], ...] = (
            lambda: step.emit("", 1),
            lambda: step.emit("t" * 201, 1),
            lambda: step.emit("t", object()),
            lambda: step.emit("t", "\0"),
            lambda: step.emit("t", "x" * EVENT_LIMIT),
            lambda: step.set_status("x" * 5000),
            lambda: step.tag(**{"no name": "x"}),
            lambda: step.tag(stage=1),  # type: ignore[arg-type]
        )
        for wrong in wrongs:
            try:
                wrong()
            except Exception as error:
                caught.append(type(error).__name__)
        for number in range(51):
            try:
                step.tag(**{f"t{number}": "x"})
            except ConfigurationError as error:
                caught.append(str(error))

    run = prepared(function)
    assert isinstance(await run.execute(), Completed)

    assert caught == [
        *["ConfigurationError"] * 2,
        *["SerializationError"] * 2,
        *["PayloadTooLarge"] * 2,
        *["ConfigurationError"] * 2,
        "a run tags itself with at most 50 names",
    ]
    assert 50 == len(run.journal.tags)


@pytest.mark.parametrize("what", ["emit", "set_status", "tag"])
@in_virtual_time
async def test_a_step_function_tells_by_current_step(what: str) -> None:
    async def function(step: Step) -> None:
        async def work() -> None:
            if what == "tag":
                step.tag(a="b")
            else:
                getattr(step, what)("x")

        await step.run("work", work)

    failed(await prepared(function).execute(), "ConfigurationError", f"step.{what}")

    def plain(step: SyncStep) -> None:
        def work() -> None:
            if what == "tag":
                step.tag(a="b")
            else:
                getattr(step, what)("x")

        step.run("work", work)

    failed(await prepared(plain).execute(), "ConfigurationError", f"step.{what}")


@in_virtual_time
async def test_a_topic_belongs_to_one_thread_of_a_plain_function() -> None:
    def function(step: SyncStep) -> None:
        step.emit("t", 1)
        caught: list[Exception] = []

        def other() -> None:
            try:
                step.emit("t", 2)
            except ConfigurationError as error:
                caught.append(error)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        raise caught[0]

    failed(await prepared(function).execute(), "ConfigurationError", "two threads")


async def _ended_with(library: Library, run: Run) -> Any:
    run.claim_no = 1
    execution = run.execution()
    object.__setattr__(execution.services, "library", library)
    return await run.start(execution)


@pytest.mark.parametrize("fault", [Fault.MOMENT, Fault.SIZE])
@in_virtual_time
async def test_whoever_was_in_the_way_of_reading_what_was_told_costs_a_moment(fault: Fault) -> None:
    """The run was handed back for half a minute."""
    reads: list[int] = []

    async def read(run_ids: Any) -> dict[Any, Told]:
        reads.append(len(run_ids))
        if len(reads) < 3:
            raise BackendError("somebody holds the table").of(fault)
        return {}

    run = prepared(three)

    assert isinstance(await _ended_with(Library(read), run), Completed)
    assert [1, 1, 1] == reads
    assert [1, 2, 3] == told(run)


@in_virtual_time
async def test_what_was_told_and_makes_no_sense_leaves_no_run_waiting_for_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever reading it raises is a mistake of ours: its run is handed back, and does not fail.

    The next one is read for.
    """

    async def read(run_ids: Any) -> dict[Any, Told]:
        if bad.id in run_ids:
            raise ValueError("no JSON")
        return {}

    library = Library(read)
    bad, good = prepared(three), prepared(three)
    async with asyncio.timeout(60):
        ended = await asyncio.gather(_ended_with(library, bad), _ended_with(library, good))

    assert [Released, Completed] == [type(each) for each in ended]
    assert [1, 2, 3] == told(good)
    assert "no JSON" in caplog.text


@in_virtual_time
async def test_what_cannot_be_read_of_one_run_fails_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked: list[int] = []

    async def read(run_ids: Any) -> dict[Any, Told]:
        asked.append(len(run_ids))
        if len(asked) == 1:
            raise ConnectionLost("away")
        if bad.id in run_ids:
            raise BackendError("refused").of(Fault.TABLE)
        return {}

    library = Library(read)
    bad, good = prepared(three), prepared(three)
    outcomes = []
    for run in (bad, good):
        run.claim_no = 1
        execution = run.execution()
        object.__setattr__(execution.services, "library", library)
        outcomes.append(run.start(execution))

    assert isinstance(await outcomes[0], Released)
    assert isinstance(await outcomes[1], Completed)
    assert [2, 2, 1, 1] == asked
    assert [1, 2, 3] == told(good)
    assert not bad.journal.events
    assert "could not read what 2 runs have told" in caplog.text
