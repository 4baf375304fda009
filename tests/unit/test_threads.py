"""Functions that never return cost the pool nothing, up to a bound that is known."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar

import pytest

from openworkflow.core.errors import ConfigurationError
from openworkflow.engine.threads import LimitPassed, Threads
from tests.helpers import eventually

NAME = "openworkflow-test"


class Hanging:
    """Functions that return once the test lets them."""

    def __init__(self) -> None:
        self._end = threading.Event()
        self.began = 0

    def __call__(self) -> str:
        self.began += 1
        self._end.wait(60)
        return "late"

    def end(self) -> None:
        self._end.set()


@pytest.fixture
async def hanging() -> AsyncIterator[Hanging]:
    function = Hanging()
    yield function
    function.end()


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    made = Threads(2, NAME)
    yield made
    made.close()
    await eventually(lambda: not alive())


def alive() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(NAME)]


async def leave_behind(threads: Threads, hanging: Hanging, count: int) -> None:
    results = await asyncio.gather(
        *(threads.call(hanging, 0.02) for _ in range(count)), return_exceptions=True
    )
    assert [LimitPassed] * count == [type(result) for result in results]


async def test_a_function_is_called_in_another_thread(threads: Threads) -> None:
    assert threading.get_ident() != await threads.call(threading.get_ident)


async def test_an_idle_thread_is_used_again(threads: Threads) -> None:
    for _ in range(5):
        await threads.call(time.perf_counter)

    assert len(alive()) <= 2


async def test_the_context_of_the_caller_is_there_and_is_not_changed(threads: Threads) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="none")
    variable.set("of the caller")

    def look() -> str:
        before = variable.get()
        variable.set("of the thread")
        return before

    assert "of the caller" == await threads.call(look)
    assert "of the caller" == variable.get()


@pytest.mark.parametrize("raised", [ValueError, SystemExit])
async def test_what_the_function_raises_is_raised(
    threads: Threads, raised: type[BaseException]
) -> None:
    def fail() -> None:
        raise raised("so")

    with pytest.raises(raised, match="so"):
        await threads.call(fail)


@pytest.mark.parametrize(
    "raised", [StopIteration, GeneratorExit, KeyboardInterrupt, asyncio.CancelledError]
)
async def test_what_no_future_may_carry_becomes_a_runtime_error(
    threads: Threads, raised: type[BaseException]
) -> None:
    def fail() -> None:
        raise raised

    with pytest.raises(RuntimeError, match=f"the function raised {raised.__name__}"):
        await asyncio.wait_for(threads.call(fail), 25)


async def test_a_function_that_passes_its_limit_is_left_behind_and_its_result_dropped(
    threads: Threads, hanging: Hanging
) -> None:
    await leave_behind(threads, hanging, 1)
    assert 1 == threads.left_behind

    hanging.end()

    await eventually(lambda: threads.left_behind == 0)


async def test_a_timeout_of_the_functions_own_is_not_the_limit(threads: Threads) -> None:
    def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own") as raised:
        await threads.call(fail, 30)
    assert not isinstance(raised.value, LimitPassed)


async def test_the_limit_does_not_count_the_time_in_the_queue(threads: Threads) -> None:
    """Two threads, each busy for three limits: who waits for them is not timed out."""
    limit = 0.3
    busy = [asyncio.ensure_future(threads.call(lambda: time.sleep(3 * limit))) for _ in range(2)]
    await asyncio.sleep(0)

    assert "called" == await threads.call(lambda: "called", limit)

    await asyncio.gather(*busy)


async def test_the_limit_counts_from_the_start_in_the_thread(
    threads: Threads, hanging: Hanging
) -> None:
    limit = 0.1
    busy = [asyncio.ensure_future(threads.call(lambda: time.sleep(0.15))) for _ in range(2)]
    await asyncio.sleep(0)
    began: list[float] = []

    def hang() -> None:
        began.append(time.monotonic())
        hanging()

    with pytest.raises(LimitPassed):
        await threads.call(hang, limit)

    assert time.monotonic() - began[0] > limit / 2
    await asyncio.gather(*busy)


async def test_hanging_functions_do_not_use_up_the_threads_of_others(
    threads: Threads, hanging: Hanging
) -> None:
    await leave_behind(threads, hanging, 2)

    assert "called" == await asyncio.wait_for(threads.call(lambda: "called"), 25)


async def test_a_call_that_waits_gets_the_replacement_of_a_thread_left_behind(
    hanging: Hanging,
) -> None:
    threads = Threads(1, NAME)
    first = asyncio.ensure_future(threads.call(hanging, 0.05))
    await eventually(lambda: hanging.began)
    second = asyncio.ensure_future(threads.call(lambda: "called"))

    assert "called" == await asyncio.wait_for(second, 25)
    with contextlib.suppress(LimitPassed):
        await first
    threads.close()


async def test_replacements_are_bounded_and_the_bound_is_told(
    threads: Threads, hanging: Hanging
) -> None:
    await leave_behind(threads, hanging, 1)
    assert not threads.exhausted

    await leave_behind(threads, hanging, 1)
    assert (True, False) == (threads.exhausted, threads.starved)
    await leave_behind(threads, hanging, 2)
    assert (True, True) == (threads.exhausted, threads.starved)

    assert 4 == len(alive())


async def test_the_pool_is_whole_again_when_the_functions_return(
    threads: Threads, hanging: Hanging
) -> None:
    await leave_behind(threads, hanging, 4)

    hanging.end()

    await eventually(lambda: threads.left_behind == 0)
    assert not threads.exhausted
    assert "called" == await threads.call(lambda: "called")
    await eventually(lambda: len(alive()) == 2)


async def test_a_call_that_is_cancelled_leaves_its_thread_behind(
    threads: Threads, hanging: Hanging
) -> None:
    call = asyncio.ensure_future(threads.call(hanging))
    await eventually(lambda: hanging.began)

    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call
    assert 1 == threads.left_behind


async def test_a_call_that_is_cancelled_in_the_queue_never_begins(hanging: Hanging) -> None:
    threads = Threads(1, NAME, spare=0)
    busy = asyncio.ensure_future(threads.call(hanging))
    await eventually(lambda: hanging.began)
    called: list[str] = []
    waiting = asyncio.ensure_future(threads.call(lambda: called.append("called")))
    await asyncio.sleep(0)

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    hanging.end()

    assert "late" == await busy
    assert "next" == await threads.call(lambda: "next")
    assert [] == called
    assert 0 == threads.left_behind
    threads.close()


async def test_closing_ends_idle_threads_and_refuses_calls(hanging: Hanging) -> None:
    threads = Threads(1, NAME)
    await leave_behind(threads, hanging, 1)
    await threads.call(lambda: None)
    threads.close()
    threads.close()

    with pytest.raises(ConfigurationError):
        await threads.call(lambda: None)
    await eventually(lambda: len(alive()) == 1)
    hanging.end()
    await eventually(lambda: not alive())


async def test_closing_cancels_what_waits(hanging: Hanging) -> None:
    threads = Threads(1, NAME)
    busy = asyncio.ensure_future(threads.call(hanging))
    await eventually(lambda: hanging.began)
    waiting = asyncio.ensure_future(threads.call(lambda: None))
    await asyncio.sleep(0)

    threads.close()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    hanging.end()
    assert "late" == await busy


async def test_an_idle_thread_does_not_keep_the_last_result(threads: Threads) -> None:
    class Large:
        pass

    seen = weakref.ref(await threads.call(Large))

    def gone() -> bool:
        gc.collect()
        return seen() is None

    await eventually(gone)


def test_a_process_does_not_wait_for_a_thread_left_behind() -> None:
    program = """
import asyncio, time
from openworkflow.engine.threads import LimitPassed, Threads
async def main():
    threads = Threads(1, "hanging")
    try:
        await threads.call(lambda: time.sleep(600), 0.01)
    except LimitPassed:
        print("left behind")
asyncio.run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )

    assert "left behind" == ended.stdout.strip()


async def test_a_result_for_a_loop_that_was_closed_meanwhile_is_dropped() -> None:
    """The worker has ended, its left-behind thread returns to nobody."""
    end = threading.Event()
    made: list[Threads] = []

    def other_loop(body: Callable[[], None]) -> None:
        thread = threading.Thread(target=body)
        thread.start()
        thread.join()

    async def leave() -> None:
        threads = Threads(1, NAME)
        made.append(threads)
        with contextlib.suppress(LimitPassed):
            await threads.call(lambda: end.wait(60), 0.01)
        threads.close()

    other_loop(lambda: asyncio.run(leave()))
    end.set()

    await eventually(lambda: not alive())
    assert 0 == made[0].left_behind
