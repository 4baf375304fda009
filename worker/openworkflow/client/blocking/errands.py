"""What is done in the thread that waits: the statements on a connection of its own."""

import asyncio
import queue
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from openworkflow.client.blocking.loop_thread import LoopThread

T = TypeVar("T")


class Errands:
    """The errands of one call, for the thread that made it."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = (
            queue.SimpleQueue()
        )

    async def perform(self, function: Callable[[], T], /) -> T:
        """Have a function called in the thread that waits; called from the loop."""
        answer: Future[T] = Future()
        self._asked.put((function, answer))
        return await asyncio.wrap_future(answer)

    def call(self, thread: LoopThread, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop, and what it asks for here, until it has ended."""
        running = asyncio.run_coroutine_threadsafe(self._to_the_end(coroutine), thread.loop)
        try:
            self._until_the_end()
            return running.result()
        except BaseException:
            if not running.done():  # of us, not of it: what it has begun is its to take back
                running.cancel()
                self._until_the_end()
            raise

    async def _to_the_end(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            return await coroutine
        finally:
            self._asked.put(None)

    def _until_the_end(self) -> None:
        while (asked := self._asked.get()) is not None:
            function, answer = asked
            if not answer.set_running_or_notify_cancel():
                continue
            try:
                answer.set_result(function())
            except Exception as error:
                answer.set_exception(error)
            except BaseException:  # of this thread, and not for the loop's
                answer.set_exception(InterruptedError("the call was interrupted"))
                raise
