"""What workflow code may not do: refused where it happens first, with what to write instead."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from openworkflow import Step, workflow
from openworkflow.engine.outcome import Failed
from tests import virtual_time
from tests.memory import Run


async def quick(value: Any = None) -> Any:
    return value


F = TypeVar("F", bound=Callable[..., Any])

REACHES_OUTSIDE: list[Any] = []
REFUSED: list[Any] = []


def reaches_outside(function: F) -> F:
    REACHES_OUTSIDE.append(pytest.param(function, id=function.__name__))
    return function


def refused(*said: str) -> Callable[[F], F]:
    def take(function: F) -> F:
        REFUSED.append(pytest.param(function, said, id=function.__name__))
        return function

    return take


@reaches_outside
async def a_thread_of_the_executor(step: Step) -> None:
    await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0)


@reaches_outside
async def to_thread(step: Step) -> None:
    await asyncio.to_thread(time.sleep, 0)


@reaches_outside
async def a_connection(step: Step) -> None:
    await asyncio.open_connection("127.0.0.1", 1)


@reaches_outside
async def a_server(step: Step) -> None:
    await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)


@reaches_outside
async def a_subprocess(step: Step) -> None:
    await asyncio.create_subprocess_exec("true")


@reaches_outside
async def a_shell(step: Step) -> None:
    await asyncio.create_subprocess_shell("true")


@reaches_outside
async def a_signal_handler(step: Step) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)


@reaches_outside
async def a_name_of_the_network(step: Step) -> None:
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)


@reaches_outside
async def a_file_descriptor(step: Step) -> None:
    asyncio.get_running_loop().add_reader(0, print)


@refused("set up, run or close the loop", "run_forever")
async def another_turn_of_the_loop(step: Step) -> None:
    asyncio.get_running_loop().run_forever()


@refused("set up, run or close the loop", "set_task_factory", "leave it out")
async def tasks_of_another_kind(step: Step) -> None:
    asyncio.get_running_loop().set_task_factory(lambda loop, coro: asyncio.Task(coro, loop=loop))


@refused("asyncio.Task(...) makes no branch", "asyncio.create_task")
async def a_task_that_is_made_without_the_loop(step: Step) -> None:
    await asyncio.Task(step.run("a", quick), loop=asyncio.get_running_loop())


@refused("asyncio.Task(...) makes no branch", "asyncio.create_task")
async def a_timer_of_a_task_that_is_made_without_the_loop(step: Step) -> None:
    await asyncio.Task(asyncio.sleep(9), loop=asyncio.get_running_loop())


@refused("asyncio.Task(...) makes no branch", "asyncio.create_task")
async def a_branch_of_a_task_that_is_made_without_the_loop(step: Step) -> None:
    async def branches() -> None:
        await asyncio.create_task(step.run("a", quick))

    await asyncio.Task(branches(), loop=asyncio.get_running_loop())


if sys.version_info >= (3, 12):

    @refused("step 'a' in a task with eager_start")
    async def an_eager_task(step: Step) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.Task(step.run("a", quick), loop=loop, eager_start=True)


@refused("set up, run or close the loop", "stop")
async def the_end_of_the_loop(step: Step) -> None:
    asyncio.get_running_loop().stop()


@refused("outside of the workflow function has moved it")
async def an_event_that_a_step_sets(step: Step) -> None:
    event = asyncio.Event()

    async def effect() -> None:
        event.set()

    await asyncio.gather(event.wait(), step.run("a", effect))


@refused("outside of the workflow function has moved it")
async def a_queue_that_a_step_fills(step: Step) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()

    async def effect() -> None:
        queue.put_nowait(1)

    await asyncio.gather(queue.get(), step.run("a", effect))


@refused("step")
async def a_future_that_a_thread_resolves(step: Step) -> None:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(future.set_result, 1))
    thread.start()
    thread.join()
    await future


@refused("was made outside of it")
async def a_task_of_the_worker_s_own_loop(step: Step) -> None:
    await OUTER[0].create_future()


@refused("cannot reuse already awaited coroutine")
async def one_step_awaited_twice(step: Step) -> None:
    once = step.run("a", quick)
    await once
    await once


@refused("as_completed", "give it a list")
async def as_completed_over_a_set_of_coroutines(step: Step) -> None:
    for each in asyncio.as_completed({step.run(name, quick) for name in "abc"}):
        await each


@refused("asyncio.Future()", "create_future")
async def a_wait_for_futures_that_no_loop_has_made(step: Step) -> None:
    made: list[asyncio.Future[int]] = [asyncio.Future() for _ in range(2)]
    for each in made:
        each.set_result(1)
    await asyncio.wait(made)


@refused("time must be a datetime with a time zone")
async def a_time_without_a_zone(step: Step) -> None:
    from datetime import datetime

    await step.sleep_until("a", datetime(2030, 1, 1))


@refused("is not a duration")
async def a_sleep_of_less_than_nothing(step: Step) -> None:
    await step.sleep("a", -1)


@refused("a step's name must be text")
async def a_step_without_a_name(step: Step) -> None:
    await step.run("", quick)


@refused("is asked for inside a step")
async def a_sleep_inside_a_step(step: Step) -> None:
    async def effect() -> None:
        await step.sleep("inner", 1)

    await step.run("outer", effect)


@refused("is asked for inside a step")
async def a_patch_inside_a_step(step: Step) -> None:
    async def effect() -> None:
        await step.patched("inner")

    await step.run("outer", effect)


@refused("step 'inner' is asked for inside a step")
async def a_map_inside_a_step(step: Step) -> None:
    """It failed item by item: ten attempts of the outer step, over minutes, for a MapFailed."""

    async def effect() -> None:
        await step.map("inner", quick, [1, 2])

    await step.run("outer", effect)


@refused("is asked for outside of its workflow function, in another thread or event loop")
async def a_step_asked_for_by_a_thread(step: Step) -> None:
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            asyncio.run(step.run("inner", quick))
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    raise failed[0]


@refused("is asked for inside a step")
async def a_step_of_a_task_that_a_step_has_made(step: Step) -> None:
    async def effect() -> None:
        await asyncio.gather(step.run("inner", quick), quick())

    await step.run("outer", effect)


@refused("'a' never ran")
async def a_step_that_is_returned_unawaited(step: Step) -> Any:
    return step.run("a", quick)


@refused("'continue_as_new' never ran", "has to be awaited")
async def a_new_beginning_that_nobody_awaits(step: Step) -> None:
    step.continue_as_new(1)  # type: ignore[unused-coroutine]


@refused("'ship' never ran", "has to be awaited")
async def a_map_that_nobody_awaits(step: Step) -> None:
    step.map("ship", quick, [1, 2])  # type: ignore[unused-coroutine]


@refused("'patched:tax' never ran", "has to be awaited")
async def a_patch_that_nobody_awaits(step: Step) -> None:
    step.patched("tax")  # type: ignore[unused-coroutine]


@refused("'patched:tax' has no answer before it is awaited")
async def a_patch_that_is_taken_for_its_answer(step: Step) -> None:
    """Every run would take the new path, those of the old one too."""
    if step.patched("tax"):  # type: ignore[truthy-bool]
        await step.sleep("forever", "30d")


@refused("waits for something that is no step")
async def a_lock_taken_twice(step: Step) -> None:
    lock = asyncio.Lock()
    await lock.acquire()
    await lock.acquire()


@refused("waits for something that is no step")
async def a_queue_that_nobody_fills(step: Step) -> None:
    await step.run("a", quick)
    await asyncio.gather(asyncio.Queue[int]().get(), step.run("b", quick))


OUTER: list[asyncio.AbstractEventLoop] = []


async def _ended(function: Any) -> tuple[Failed, Run]:
    OUTER[:] = [asyncio.get_running_loop()]
    run = Run(workflow(name="w")(function))
    outcome = await run.execute()
    run.threads.close()
    assert isinstance(outcome, Failed), outcome
    return outcome, run


@pytest.mark.parametrize("function", REACHES_OUTSIDE)
def test_what_reaches_outside_is_refused_and_told_to_be_a_step(function: Any) -> None:
    outcome, run = virtual_time.run(_ended(function))

    assert outcome.failure.type.endswith(":ConfigurationError")
    assert "may not reach outside" in outcome.failure.message
    assert "await step.run(name, function)" in outcome.failure.message
    assert [] == run.steps


@pytest.mark.parametrize(("function", "said"), REFUSED)
def test_what_no_replay_could_repeat_is_refused_where_it_happens(
    function: Any, said: tuple[str, ...]
) -> None:
    outcome, _ = virtual_time.run(_ended(function))

    for each in said:
        assert each in outcome.failure.message


@pytest.mark.parametrize(
    "name",
    sorted(name for name in dir(asyncio.AbstractEventLoop) if not name.startswith("_")),
)
def test_every_method_of_a_loop_either_works_or_says_what_to_do(name: str) -> None:
    async def function(step: Step) -> None:
        method = getattr(asyncio.get_running_loop(), name)
        try:
            found = method(*[print] * _ARGUMENTS.get(name, 0))
            if asyncio.iscoroutine(found):
                await found
        except (TypeError, ValueError):
            pass  # it is implemented, and this is not how to call it

    async def outcome() -> Any:
        run = Run(workflow(name="w")(function))
        return await run.execute()

    ended = virtual_time.run(outcome())
    assert not isinstance(ended, Failed) or "NotImplementedError" not in ended.failure.type, name


_ARGUMENTS = {
    "set_debug": 1,
    "set_exception_handler": 1,
    "set_task_factory": 1,
    "set_default_executor": 1,
    "remove_reader": 1,
    "remove_writer": 1,
    "remove_signal_handler": 1,
    "default_exception_handler": 1,
    "sock_accept": 1,
}
