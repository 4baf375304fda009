"""Executions share a task as long as none of them waits, and nothing else."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine
from contextvars import ContextVar, copy_context
from types import SimpleNamespace
from typing import Any

import pytest

from openworkflow.worker.turns import Turns

NAME: ContextVar[str] = ContextVar("name", default="nobody")


@pytest.fixture
async def turns() -> Turns:
    return Turns()


def add(turns: Turns, work: Coroutine[Any, Any, None]) -> Any:
    execution: Any = SimpleNamespace(task=None)
    turns.add(execution, work, copy_context())
    return execution


async def turn() -> None:
    """Let the loop run what is ready now, and no more."""
    await asyncio.sleep(0)


async def test_executions_that_do_not_wait_share_a_task_and_no_context(turns: Turns) -> None:
    seen = []

    async def work(name: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        seen.append((NAME.get(), task.get_name()))
        NAME.set(name)

    executions = [add(turns, work(name)) for name in ("ann", "bob", "eve")]
    shared = executions[0].task
    await turn()

    assert seen == [("nobody", shared.get_name())] * 3
    assert [None] * 3 == [each.task for each in executions]
    assert NAME.get() == "nobody"


async def test_one_that_waits_keeps_the_task_and_its_context(turns: Turns) -> None:
    go_on, seen = asyncio.Event(), []

    async def waiting() -> None:
        NAME.set("ann")
        task = asyncio.current_task()
        await go_on.wait()
        seen.append((NAME.get(), task is asyncio.current_task() is execution.task))

    execution = add(turns, waiting())
    await turn()
    go_on.set()
    await asyncio.wait_for(execution.task, 25)

    assert seen == [("ann", True)]


async def test_those_behind_one_that_waits_begin_without_it_all_at_once(turns: Turns) -> None:
    go_on, begun = asyncio.Event(), []

    async def work(name: str) -> None:
        begun.append(name)
        await go_on.wait()

    executions = [add(turns, work(name)) for name in ("ann", "bob", "eve")]
    await turn()
    await turn()

    assert begun == ["ann", "bob", "eve"]
    assert len({each.task for each in executions}) == 3
    executions[1].task.cancel()
    go_on.set()
    done = await asyncio.gather(*(each.task for each in executions), return_exceptions=True)
    assert [None, asyncio.CancelledError, None] == [each and type(each) for each in done]


async def test_a_cancellation_that_one_leaves_behind_reaches_no_other(turns: Turns) -> None:
    ended = []

    async def cancels_itself(*, takes_it_back: bool) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        if takes_it_back:
            task.uncancel()

    async def work(name: str) -> None:
        await asyncio.sleep(0)
        ended.append(name)

    for takes_it_back in (False, True):
        add(turns, cancels_itself(takes_it_back=takes_it_back))
        execution = add(turns, work("ann"))
        await turn()
        await asyncio.wait_for(execution.task, 25)

    assert ended == ["ann", "ann"]


async def test_one_whose_task_is_kept_by_somebody_has_it_alone(turns: Turns) -> None:
    """A step that has its task cancelled later, and has ended by then; or a registry by tasks."""
    kept: list[asyncio.Task[Any]] = []
    ended = []

    async def is_kept() -> None:
        task = asyncio.current_task()
        assert task is not None
        kept.append(task)

    async def work(name: str) -> None:
        await asyncio.sleep(0)
        ended.append(name)

    add(turns, is_kept())
    executions = [add(turns, work(name)) for name in ("ann", "bob")]
    await turn()
    kept[0].cancel()
    await asyncio.wait_for(asyncio.gather(*(each.task for each in executions)), 25)

    assert ended == ["ann", "bob"]


async def test_an_error_of_one_reaches_no_other(turns: Turns) -> None:
    ended = []

    async def fails() -> None:
        raise RuntimeError("a defect of ours")

    async def work() -> None:
        ended.append("ann")

    failed = add(turns, fails())
    add(turns, work())
    with pytest.raises(RuntimeError, match="a defect of ours"):
        await failed.task
    await turn()

    assert ended == ["ann"]


async def test_what_comes_later_gets_a_task_of_its_own(turns: Turns) -> None:
    go_on, ended = asyncio.Event(), []

    async def work(name: str, wait: bool) -> None:
        if wait:
            await go_on.wait()
        ended.append(name)

    first = add(turns, work("ann", True))
    await turn()
    add(turns, work("bob", False))
    await turn()
    go_on.set()
    await asyncio.wait_for(first.task, 25)

    assert ended == ["bob", "ann"]


async def test_those_that_are_canceled_before_their_turn_are_closed(turns: Turns) -> None:
    """Their worker is torn down between a claim and the next turn of its loop."""

    async def work() -> None:
        raise AssertionError("it began")

    works = [work() for _ in range(3)]
    executions = [add(turns, each) for each in works]
    turns.disperse()
    tasks = [each.task for each in executions]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)

    assert len(set(tasks)) == 3
    assert {"CORO_CLOSED"} == {inspect.getcoroutinestate(each) for each in works}


async def test_those_that_come_after_a_dispersal_share_a_task_again(turns: Turns) -> None:
    ended = []

    async def work(name: str) -> None:
        ended.append(name)

    add(turns, work("ann"))
    turns.disperse()
    later = [add(turns, work(name)) for name in ("bob", "eve")]
    assert later[0].task is later[1].task
    await asyncio.wait_for(later[0].task, 25)
    await turn()

    assert sorted(ended) == ["ann", "bob", "eve"]
