"""Where a connection that blocks is used: in its owner's thread, or in one of its own.

Never in threads that calls share: one that waits for a lock would keep the one that holds it from
being committed.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Perform(Protocol):
    """Has a function called in a thread that may block."""

    def __call__(self, function: Callable[[], T], /) -> Awaitable[T]:
        """What the function returns, or raises."""


@dataclass(frozen=True, slots=True)
class OfThread:
    """What was given as `connection`, with a way to the thread that gave it and waits."""

    given: Any
    perform: Perform


@asynccontextmanager
async def own_thread() -> AsyncIterator[Perform]:
    """A thread for the length of a block."""
    executor = ThreadPoolExecutor(1, thread_name_prefix="openworkflow connection")
    loop = asyncio.get_running_loop()

    async def perform(function: Callable[[], T]) -> T:
        future = loop.run_in_executor(executor, function)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait({future})  # else what comes next would meet it on the connection
            raise

    try:
        yield perform
    finally:
        executor.shutdown(wait=False)
