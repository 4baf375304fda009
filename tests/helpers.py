"""What tests of many topics need: waiting for something to become true, never for luck."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    from openworkflow import Worker

T = TypeVar("T")

StartWorker = Callable[..., Awaitable["Worker"]]
"""The fixture `start_worker`: workflows and the options of Worker in, a started worker out."""

#: Seconds between two looks. Short: the tests wait for milliseconds, not for people.
LOOK_EVERY = 0.01
#: Seconds until what is waited for is taken for what never comes. Long: a machine that is busy with
#: other things is no fault, and what comes is not waited for any longer. Less than a lease, which
#: would mend what has to be seen mended at once.
NEVER = 25.0


@overload
async def eventually(
    predicate: Callable[[], Coroutine[Any, Any, T]], deadline: float = ...
) -> T: ...
@overload
async def eventually(predicate: Callable[[], T], deadline: float = ...) -> T: ...


async def eventually(predicate: Callable[[], Any], deadline: float = NEVER) -> Any:
    """Look until `predicate` (sync or async) is truthy and return what it gave.

    Fails after `deadline` seconds with the last value seen.
    """
    give_up = time.monotonic() + deadline
    while True:
        seen = predicate()
        value = await seen if inspect.isawaitable(seen) else seen
        if value:
            return value
        if time.monotonic() > give_up:
            raise _never_true(deadline, value)
        await asyncio.sleep(LOOK_EVERY)


def eventually_sync(predicate: Callable[[], T], deadline: float = NEVER) -> T:
    """`eventually` for tests that watch other processes and have no event loop."""
    give_up = time.monotonic() + deadline
    while True:
        if value := predicate():
            return value
        if time.monotonic() > give_up:
            raise _never_true(deadline, value)
        time.sleep(LOOK_EVERY)


def _never_true(deadline: float, value: object) -> AssertionError:
    return AssertionError(f"not true within {deadline:g} s; the last value was {value!r}")
