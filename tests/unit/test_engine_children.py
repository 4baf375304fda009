"""Children in the engine, without a database: what is written together, what a park has seen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import pytest

from openworkflow import ChildFailed, Step, workflow
from openworkflow.backend.records import (
    ChildEnd,
    Completion,
    Delivery,
    Disowned,
    NewChild,
    RunEnd,
    StepWrite,
    Waiting,
)
from openworkflow.core.errors import ChildTimeout, ConfigurationError, NonDeterminism
from openworkflow.core.failure import Failure
from openworkflow.core.ids import DEEPEST, child_id, depth_of, uuid7
from openworkflow.core.recorded import Awaited, ChildState, MapItem
from openworkflow.core.workflow_run import RunStatus
from openworkflow.engine.journal import Written, divisible, separated
from openworkflow.engine.mail import Family, Mail
from openworkflow.engine.outcome import Completed, Lost, Parked
from openworkflow.engine.traits import Traits
from tests.executions import failed, in_virtual_time, moments, prepared, slow, statuses
from tests.memory import Run


@workflow
async def billing(amount: int, step: Step) -> int:
    raise AssertionError("a child is executed by whoever claims it")


MOST_LOOKS = 100


class Relatives:
    """A database with nothing but children; `ends` is what becomes of one."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.states: dict[UUID, ChildState] = {}
        self.wake_no = 0
        self.looks = 0
        self.awaited: list[UUID] = []
        self.foreign: set[UUID] = set()
        self.deleted = False
        """Whether somebody has deleted the run that asks."""

    @property
    def rows(self) -> list[Any]:
        """All that was written, in its order."""
        return self.run.written  # type: ignore[attr-defined,no-any-return]

    @property
    def started(self) -> list[NewChild]:
        return [row for row in self.rows if isinstance(row, NewChild)]

    def ends(self, child: UUID, output: Any = None, error: Exception | None = None) -> None:
        status = "succeeded" if error is None else "failed"
        told = None if error is None else Failure.from_exception(error).to_json()
        self.states[child] = ChildState(status, json.dumps(output), told)
        self.wake_no += 1

    async def read_children(self, pairs: Sequence[tuple[UUID, Awaited]]) -> Family:
        self.looks += 1
        if self.looks > MOST_LOOKS:
            raise AssertionError("it looks again and again")
        if self.deleted:
            return {}
        states = {each: self._state(each) for _, each in pairs}
        return {run_id: (self.wake_no, states) for run_id, _ in pairs}

    def _state(self, awaited: Awaited) -> ChildState:
        if not awaited.is_map:
            return self.states.get(awaited.id, ChildState("pending"))
        started = [row.id for row in self.started if row.step_id == awaited.id]
        ended = [self.states[each] for each in started if each in self.states]
        bad = sum(state.status != "succeeded" for state in ended)
        return ChildState(None, None, None, len(started), len(started) - len(ended), bad)

    async def read_map(self, step_id: UUID, start: int, limit: int) -> list[MapItem]:
        rows = [row for row in self.started if row.step_id == step_id and row.number >= start]
        return [MapItem(row.number, row.id, self.states[row.id]) for row in rows[:limit]]

    async def await_children(self, pairs: Iterable[tuple[UUID, UUID]]) -> set[UUID]:
        self.awaited += [child for _, child in pairs]
        return self.foreign

    async def read_inboxes(self, waiting: Sequence[Waiting]) -> dict[UUID, Delivery]:
        return {each.run_id: Delivery(self.wake_no, []) for each in waiting}

    async def subscribe(self, pairs: Iterable[tuple[UUID, str]]) -> set[str]:
        return set()

    async def read_wakes(self, run_ids: Sequence[UUID]) -> dict[UUID, int]:
        return dict.fromkeys(run_ids, self.wake_no)


def family(function: Any) -> tuple[Run, Relatives]:
    run = prepared(function)
    written: list[Any] = []
    store = run.journal._store

    def noted(row: Any) -> None:
        if not isinstance(row, list):
            written.append(row)
        store(row)

    run.journal._store = noted  # type: ignore[method-assign]
    run.written = written  # type: ignore[attr-defined]
    return run, Relatives(run)


async def outcome(run: Run, relatives: Relatives, **claim: Any) -> Any:
    execution = run.execution(**{"wake_no": relatives.wake_no, **claim})
    mail = Mail(relatives)
    object.__setattr__(execution.services, "mail", mail)
    object.__setattr__(execution.services, "read_map", relatives.read_map)
    ended = await run.start(execution)
    run.journal.flush()
    assert not mail, "nobody waits any more"
    return ended


async def awaits(step: Step) -> Any:
    return await step.run_workflow("bill", billing, 7)


@in_virtual_time
async def test_a_parent_parks_with_the_number_from_before_its_child_was_there() -> None:
    """Its end is later than that, whatever happens first; so nobody has to look for it."""
    run, relatives = family(awaits)

    assert Parked(None, 0) == await outcome(run, relatives)

    (child,) = relatives.started
    (row,) = run.steps
    assert child.id == child.step_id == row.id
    assert (run.id, "billing", "7", 0) == (
        child.run_id,
        child.workflow_name,
        child.input,
        child.wake_at,
    )
    assert 0 == relatives.looks
    relatives.ends(child.id, 8)
    assert Completed("8") == await outcome(run, relatives)
    assert [child] == relatives.started, "a replay starts no other"
    assert {"bill": "succeeded"} == statuses(run)


@in_virtual_time
async def test_a_child_has_the_tags_that_its_parent_has_given_itself_by_then() -> None:
    """It had them or not, as they happened to be stored before it was."""

    async def function(step: Step) -> Any:
        step.tag(stage="one", of="parent")
        await step.start_workflow("first", billing, 1, tags={"of": "child"})
        step.tag(stage="two")
        await step.map("all", billing, [2, 3])

    run, relatives = family(function)

    await outcome(run, relatives)

    assert [
        {"stage": "one", "of": "child"},
        {"stage": "two", "of": "parent"},
        {"stage": "two", "of": "parent"},
    ] == [json.loads(child.tags or "null") for child in relatives.started]


@in_virtual_time
async def test_a_replay_that_finds_the_child_going_on_waits_on() -> None:
    run, relatives = family(awaits)
    first = await outcome(run, relatives)
    relatives.wake_no += 3  # for something else

    again = await outcome(run, relatives)

    assert (Parked(None, 0), Parked(None, 3)) == (first, again)
    assert 1 == len(relatives.started) == len(run.steps)


@in_virtual_time
async def test_a_number_that_another_branch_has_read_does_not_hide_the_end_of_a_child() -> None:
    """A signal's wait reads the number after the child has ended, and before its own wait began."""

    async def function(step: Step) -> Any:
        return await asyncio.gather(
            step.run_workflow("bill", billing, 7), step.wait_for_signal("s", timeout="1d")
        )

    run, relatives = family(function)
    execution = run.execution()
    mail = Mail(relatives)
    object.__setattr__(execution.services, "mail", mail)

    def end_at_once() -> None:
        for child in relatives.started:
            if child.id not in relatives.states:
                relatives.ends(child.id, 8)

    run.journal.on_flush = end_at_once
    ended = await run.start(execution)
    run.journal.flush()

    assert isinstance(ended, Parked)
    told = statuses(run)
    assert ("succeeded", "running") == (told["bill"], told["s"]) or ended.wake_no == 0


async def one_child_in_two_branches(step: Step) -> Any:
    handle = await step.start_workflow("bill", billing, 7)

    async def later() -> Any:
        await step.run("first", slow, 5)
        return await handle.result()

    return await asyncio.gather(handle.result(), later())


async def two_children(step: Step) -> Any:
    async def later() -> Any:
        await step.run("first", slow, 5)
        return await (await step.start_workflow("two", billing, 7)).result()

    one = await step.start_workflow("one", billing, 7)
    return await asyncio.gather(one.result(), later())


async def a_map_and_a_child(step: Step) -> Any:
    async def later() -> Any:
        await step.run("first", slow, 5)
        return await (await step.start_workflow("two", billing, 7)).result()

    return await asyncio.gather(step.map("bills", billing, [1, 2], concurrency=2), later())


@pytest.mark.parametrize("function", [one_child_in_two_branches, two_children, a_map_and_a_child])
@in_virtual_time
async def test_branches_that_wait_for_children_do_not_wake_each_other_for_ever(
    function: Any,
) -> None:
    """Each look woke whoever waited for what it read, which looked too: the run never parked."""
    run, relatives = family(function)

    assert isinstance(await outcome(run, relatives), Parked)

    assert relatives.looks < 10
    for row in relatives.started:
        relatives.ends(row.id, 8)
    assert isinstance(await outcome(run, relatives), Completed)


@in_virtual_time
async def test_a_failure_is_the_same_when_it_happens_and_in_every_replay() -> None:
    seen: list[str] = []

    async def function(step: Step) -> str:
        try:
            await step.run_workflow("bill", billing, 7)
        except ChildFailed as error:
            seen.append(f"{error} / {error.status} / {error.__cause__!r}")
        await step.sleep("on", "1d")
        return "done"

    run, relatives = family(function)
    await outcome(run, relatives)
    relatives.ends(relatives.started[0].id, error=LookupError("nobody"))
    await outcome(run, relatives)
    run.wake()

    assert Completed('"done"') == await outcome(run, relatives)
    assert 2 == len(seen)
    assert 1 == len(set(seen))
    assert "failed: LookupError: nobody / failed / LookupError('nobody')" in seen[0]


@in_virtual_time
async def test_a_child_that_is_too_late_is_disowned_with_the_row_that_says_so() -> None:
    async def function(step: Step) -> Any:
        return await step.run_workflow("bill", billing, 7, timeout="2d")

    run, relatives = family(function)
    await outcome(run, relatives)
    run.wake()

    failed(await outcome(run, relatives), ChildTimeout.__name__, "did not end in time")

    (child,) = relatives.started
    end, disowned = relatives.rows[-2:]
    assert isinstance(end, StepWrite)
    assert Disowned(child.id, run.id, 2) == disowned


@in_virtual_time
async def test_a_result_that_came_in_time_counts_however_late_it_is_looked_at() -> None:
    async def function(step: Step) -> Any:
        return await step.run_workflow("bill", billing, 7, timeout="2d")

    run, relatives = family(function)
    await outcome(run, relatives)
    relatives.ends(relatives.started[0].id, 8)
    run.wake()

    assert Completed("8") == await outcome(run, relatives)


@pytest.mark.parametrize("close", ["cancel", "abandon"])
def test_a_branch_that_is_cancelled_disowns_its_child_unless_it_is_abandoned(close: Any) -> None:
    @in_virtual_time
    async def test() -> None:
        async def function(step: Step) -> None:
            waiting = asyncio.create_task(step.run_workflow("bill", billing, 7, parent_close=close))
            await step.run("slow", slow, 1)
            waiting.cancel()
            await step.sleep("on", "1d")

        run, relatives = family(function)
        assert isinstance(await outcome(run, relatives), Parked)
        disowned = [row for row in relatives.rows if isinstance(row, Disowned)]
        assert (close == "cancel") == bool(disowned)
        assert close == relatives.started[0].on_close

    test()


@in_virtual_time
async def test_a_map_starts_a_window_at_a_time_and_has_one_row() -> None:
    async def function(step: Step) -> Any:
        return await step.map("bills", billing, range(10), concurrency=4)

    run, relatives = family(function)
    counts = []
    while not isinstance(ended := await outcome(run, relatives), Completed):
        counts.append(len(relatives.started))
        open_ = [row for row in relatives.started if row.id not in relatives.states]
        for row in open_[: max(1, len(open_) // 2)]:
            relatives.ends(row.id, 2 * row.number)

    assert [2 * n for n in range(10)] == json.loads(ended.output or "")
    assert [4, 6, 8, 10] == counts[:4]
    assert list(range(10)) == [row.number for row in relatives.started]
    assert {2, 0} == {row.wake_at for row in relatives.started}
    assert {"bills": "succeeded"} == statuses(run)


@in_virtual_time
async def test_a_map_over_other_items_than_were_begun_is_not_deterministic() -> None:
    items = [1, 2, 3]

    async def function(step: Step) -> Any:
        return await step.map("bills", billing, list(items), key=str)

    run, relatives = family(function)
    await outcome(run, relatives)
    items[0] = 9

    failed(await outcome(run, relatives), NonDeterminism.__name__, "map 'bills'", "other items")


@in_virtual_time
async def test_a_map_of_a_run_that_somebody_has_deleted_ends_as_a_lost_claim(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing is wrong with this program, and there is no run to be handed back."""

    async def function(step: Step) -> Any:
        return await step.map("bills", billing, [1, 2])

    run, relatives = family(function)
    await outcome(run, relatives)
    relatives.deleted = True

    assert Lost() == await outcome(run, relatives)
    assert [] == caplog.records


@in_virtual_time
async def test_an_empty_map_is_an_empty_list() -> None:
    async def function(step: Step) -> Any:
        return [*await step.map("a", billing, []), *await step.map("b", slow, [])]

    run, relatives = family(function)

    assert Completed("[]") == await outcome(run, relatives)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda step: step.run_workflow("a", billing, 1, parent_close="kill"), "parent_close"),
        (lambda step: step.run_workflow("a", billing, "text"), "input"),
        (lambda step: step.map("a", billing, [1], concurrency=0), "concurrency"),
        (lambda step: step.map("a", slow, [1, 1], key=str), "two items have the key '1'"),
        (lambda step: step.map("a", slow, [1], min_successful=2), "min_successful"),
        (lambda step: step.map("a", slow, {1}), "sorted(items)"),
        (lambda step: step.map("a", str, frozenset("ab"), key=str), "sorted(items)"),
        (lambda step: step.run_workflow("a", billing, 1, tiemout="1m"), "did you mean 'timeout'"),
        (lambda step: step.run_workflow("a", billing, 1, undo=str), "retry, timeout, parent_close"),
        (
            lambda step: step.start_workflow("a", billing, 1, timeout="1m"),
            "step.start_workflow() has no option 'timeout'; did you mean 'deadline'?",
        ),
        (
            lambda step: step.map("a", billing, [1], retry=None),
            "retry= is of @workflow, and of steps",
        ),
        (
            lambda step: step.map("a", billing, [1], colour="red"),
            "there are concurrency, key, min_succ",
        ),
        (lambda step: step.map("a", str, [1], concurency=2), "did you mean 'concurrency'"),
        (lambda step: step.map("a", str, [1], timout="1m"), "did you mean 'timeout'"),
        (lambda step: step.map("a", str, [1], base=2), "functools.partial"),
    ],
)
def test_what_could_not_be_started_is_refused(ask: Any, said: str) -> None:
    @in_virtual_time
    async def test() -> None:
        async def function(step: Step) -> None:
            await ask(step)

        run, relatives = family(function)
        ended = await outcome(run, relatives)
        failed(ended, "Error", said)
        assert [] == relatives.started

    test()


def test_ids_of_children_tell_their_depth_and_grow() -> None:
    made = [child_id(depth) for depth in (1, 32, DEEPEST)]

    assert [1, 32, DEEPEST] == [depth_of(each) for each in made]
    assert made == sorted(made)
    assert {8} == {each.version for each in made}
    assert 0 == depth_of(uuid7())


@in_virtual_time
async def test_a_batch_that_ends_children_parks_no_parent() -> None:
    """Else two flushes could each hold the row that the other waits for."""
    child, parent, other = child_id(1), uuid7(), uuid7()
    park = RunEnd(parent, 1, RunStatus.PENDING, None, None, None, None, None, True, 0, True)

    together, deferred = separated(
        [
            _entry(Completion(child, 1, None), ChildEnd(child)),
            _entry(park),
            _entry(Completion(other, 1, None)),
        ]
    )

    assert [[Completion, ChildEnd], [Completion]] == [list(map(type, e.rows)) for e in together]
    assert [[RunEnd]] == [list(map(type, e.rows)) for e in deferred]
    assert Traits.of([park]).excludes(Traits.of([ChildEnd(child)]))


@in_virtual_time
async def test_a_child_and_its_step_are_never_sent_apart() -> None:
    run, relatives = family(awaits)
    await outcome(run, relatives)
    row, child = relatives.rows[:2]

    assert not divisible(_entry(row, child))
    assert divisible(_entry(row, Completion(run.id, 1, None)))
    await moments()


def _entry(*rows: Any) -> Written:
    written = Written(loop=asyncio.get_running_loop())
    written.rows = list(rows)
    return written


def test_a_run_may_have_children_up_to_a_depth() -> None:
    @in_virtual_time
    async def test() -> None:
        run, relatives = family(awaits)
        failed(
            await outcome(run, relatives, id=child_id(32)),
            ConfigurationError.__name__,
            "children nest 32 deep at most",
        )

    test()
