"""The loop that workflow functions run on: moved by events, and by nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from openworkflow.core.errors import ConfigurationError
from openworkflow.engine.handles import Timer
from openworkflow.engine.loop import BranchTask, WorkflowLoop
from openworkflow.engine.main_task import MainTask

WHO: ContextVar[str] = ContextVar("who", default="nobody")


class Owner:
    """Takes down what the loop asks of its execution."""

    def __init__(self) -> None:
        self.timers: list[tuple[Timer, float]] = []
        self.moved = 0

    def ask_timer(self, timer: Timer, seconds: float) -> None:
        self.timers.append((timer, seconds))
        timer.on_cancel(lambda: self.timers.remove((timer, seconds)))

    def moved_from_outside(self) -> None:
        self.moved += 1

    def fire(self, loop: WorkflowLoop, seconds: float) -> None:
        (found,) = (each for each in self.timers if each[1] == seconds)
        self.timers.remove(found)
        loop.fire(found[0])


class Program:
    """A coroutine on a loop of its own, driven by hand."""

    def __init__(self, main: Callable[[], Coroutine[Any, Any, Any]], seed: int = 0) -> None:
        self.owner = Owner()
        outer = asyncio.get_running_loop()
        self.loop = WorkflowLoop(self.owner, None, outer, seed)  # type: ignore[abstract]
        with self.running():
            self.main = MainTask(main(), self.loop, copy_context())
            self.main.go_on(None)
        self.turn()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self.loop.enter()
        try:
            yield
        finally:
            self.loop.leave()

    def turn(self, limit: int = 1_000) -> int:
        with self.running():
            return self.loop.run(limit)

    def fire(self, seconds: float) -> None:
        self.owner.fire(self.loop, seconds)
        self.turn()


@pytest.fixture
async def programs() -> AsyncIterator[Callable[..., Program]]:
    made: list[Program] = []

    def make(main: Any, seed: int = 0) -> Program:
        made.append(Program(main, seed))
        return made[-1]

    yield make
    for program in made:
        for task in (program.main, *program.loop.tasks):
            task.cancel()
        program.turn()


async def test_a_timer_is_asked_of_the_execution_and_no_clock_is_looked_at(programs: Any) -> None:
    async def main() -> float:
        await asyncio.sleep(30)
        return asyncio.get_running_loop().time()

    program = programs(main)
    assert [30] == [seconds for _, seconds in program.owner.timers]
    assert not program.main.done()

    program.fire(30)

    assert 30 == program.main.result()


async def test_time_goes_on_by_timers_that_fire_in_the_order_of_events(programs: Any) -> None:
    async def main() -> list[float]:
        times: list[float] = []

        async def after(seconds: float) -> None:
            await asyncio.sleep(seconds)
            times.append(asyncio.get_running_loop().time())

        await asyncio.gather(after(5), after(3))
        return times

    program = programs(main)
    program.fire(5)
    program.fire(3)

    assert [5, 5] == program.main.result()


async def test_a_cancelled_timer_is_withdrawn(programs: Any) -> None:
    async def main() -> str:
        async with asyncio.timeout(10):
            await asyncio.sleep(0)
            return "done"

    program = programs(main)

    assert "done" == program.main.result()
    assert [] == program.owner.timers


async def test_a_timer_in_the_past_is_a_callback_that_is_ready(programs: Any) -> None:
    async def main() -> list[str]:
        called: list[str] = []
        loop = asyncio.get_running_loop()
        loop.call_later(0, called.append, "zero")
        loop.call_at(-5, called.append, "past")
        await asyncio.sleep(0)
        return called

    program = programs(main)

    assert ["zero", "past"] == program.main.result()
    assert [] == program.owner.timers


async def test_callbacks_run_in_the_order_in_which_they_were_made_in_their_context(
    programs: Any,
) -> None:
    async def main() -> list[str]:
        seen: list[str] = []
        loop = asyncio.get_running_loop()
        WHO.set("first")
        loop.call_soon(lambda: seen.append(WHO.get()))
        WHO.set("second")
        loop.call_soon(lambda: seen.append(WHO.get()))
        other = copy_context()
        other.run(WHO.set, "other")
        loop.call_soon(lambda: seen.append(WHO.get()), context=other)
        loop.call_soon(seen.append, "never").cancel()
        await asyncio.sleep(0)
        return seen

    assert ["first", "second", "other"] == programs(main).main.result()


async def test_a_callback_that_raises_ends_nothing_else(
    programs: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> str:
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)
        await asyncio.sleep(0)
        return "on"

    assert "on" == programs(main).main.result()
    assert "ZeroDivisionError" in caplog.text


async def test_a_run_of_callbacks_has_a_limit_so_that_others_have_a_turn(programs: Any) -> None:
    async def main() -> None:
        while True:
            await asyncio.sleep(0)

    program = programs(main)

    assert 10 == program.turn(10)
    assert program.loop.ready


async def test_branches_are_told_by_their_place_in_the_program_not_by_their_speed(
    programs: Any,
) -> None:
    async def main() -> list[str]:
        paths: list[str] = []

        def note() -> None:
            paths.append(asyncio.get_running_loop().branch().path)  # type: ignore[attr-defined]

        async def branch(seconds: float) -> None:
            await asyncio.sleep(seconds)
            note()
            await asyncio.create_task(inner())

        async def inner() -> None:
            note()

        note()
        await asyncio.gather(branch(2), branch(1))
        return paths

    program = programs(main)
    program.fire(1)
    program.fire(2)

    assert ["", "2", "2.1", "1", "1.1"] == program.main.result()


async def test_the_order_of_a_set_of_tasks_is_the_same_in_every_execution(programs: Any) -> None:
    async def main() -> list[str]:
        tasks = {asyncio.create_task(asyncio.sleep(0, str(n))) for n in range(50)}
        done, _ = await asyncio.wait(tasks)
        return [task.result() for task in done]

    results = [programs(main, seed=77).main.result() for _ in range(5)]

    assert all(results[0] == each for each in results)


async def test_the_order_of_a_set_of_futures_is_the_same_in_every_execution(programs: Any) -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in range(20)]
        for number, future in enumerate(futures):
            future.set_result(str(number))
        tasks = [asyncio.create_task(asyncio.sleep(0, f"shielded {n}")) for n in range(20)]
        await asyncio.wait(tasks)
        done, _ = await asyncio.wait([*futures, *map(asyncio.shield, tasks)])
        return [future.result() for future in done]

    others, results = list[Any](), list[Any]()
    for _ in range(5):
        results.append(programs(main, seed=77).main.result())
        others.append([object() for _ in range(7)])  # so that nothing gets its old address

    assert all(results[0] == each for each in results)


async def test_as_completed_makes_its_tasks_in_the_order_given(programs: Any) -> None:
    async def main() -> list[str]:
        async def path() -> str:
            return str(asyncio.get_running_loop().branch().path)  # type: ignore[attr-defined]

        coroutines = [path() for _ in range(20)]
        return [await each for each in asyncio.as_completed(coroutines)]

    assert [str(n) for n in range(1, 21)] == programs(main).main.result()


async def test_a_task_knows_whether_anybody_ever_waited_for_it(programs: Any) -> None:
    async def main() -> list[bool]:
        tasks = [asyncio.create_task(asyncio.sleep(n)) for n in (0, 1, 1, 0)]
        await tasks[3]
        for wait in (asyncio.gather(tasks[1]), asyncio.wait([tasks[2]])):
            waiting = asyncio.ensure_future(wait)
            await asyncio.sleep(0)
            waiting.cancel()
        return [task.waited_for for task in tasks if isinstance(task, BranchTask)]

    assert [False, True, True, True] == programs(main).main.result()


async def test_what_moves_the_function_while_it_does_not_run_is_told_to_the_execution(
    programs: Any,
) -> None:
    events: list[asyncio.Event] = []

    async def main() -> None:
        events.append(asyncio.Event())
        await events[0].wait()

    program = programs(main)
    events[0].set()
    await asyncio.sleep(0.001)

    assert 1 == program.owner.moved
    assert 0 == program.turn()


async def test_a_task_of_the_function_is_not_made_from_outside_of_it(programs: Any) -> None:
    async def main() -> None:
        await asyncio.sleep(1)

    program = programs(main)

    with pytest.raises(ConfigurationError, match="made by the workflow's own code"):
        program.loop.create_task(asyncio.sleep(0))


async def test_a_timer_of_the_function_is_not_made_from_outside_of_it(programs: Any) -> None:
    async def main() -> None:
        await asyncio.sleep(1)

    program = programs(main)
    program.loop.call_later(5, print)
    await asyncio.sleep(0.001)

    assert [1] == [seconds for _, seconds in program.owner.timers]
    assert 1 == program.owner.moved


async def test_a_loop_that_is_forgotten_keeps_nothing_and_does_nothing(programs: Any) -> None:
    async def main() -> None:
        await asyncio.gather(asyncio.sleep(1), asyncio.sleep(2))

    program = programs(main)
    for task in (program.main, *program.loop.tasks):
        task.cancel()
    program.turn()
    program.loop.forget()

    assert program.loop.is_closed()
    assert not program.loop.tasks
    assert 0 == program.turn()


async def test_the_worker_s_loop_and_task_are_the_current_ones_again_afterwards(
    programs: Any,
) -> None:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    async def main() -> bool:
        return asyncio.get_running_loop() is loop

    assert programs(main).main.result() is False
    assert loop is asyncio.get_running_loop()
    assert task is asyncio.current_task()
