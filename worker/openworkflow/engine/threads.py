"""Threads for sync functions: a pool that outlives the functions which never return.

A thread cannot be stopped. When its function passes the time limit, or whoever waits for it is
cancelled, the thread is *left behind*: its result will be dropped, and another thread takes its
place, so that one hanging function does not take the pool away from everybody else. The number of
replacements is bounded. The threads are daemons: a process does not wait for them when it exits.
"""

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeVar

from openworkflow.core.errors import ConfigurationError, StepAborted

T = TypeVar("T")

logger = logging.getLogger(__name__)

_NEVER_IN_A_FUTURE = (StopIteration, GeneratorExit, KeyboardInterrupt, asyncio.CancelledError)
"""A future that carries the first never resolves; the others would end or cancel its reader."""


class LimitPassed(TimeoutError):
    """The function did not return within its time limit; a TimeoutError of its own is another."""


class _Call:
    """One call on its way through the pool; what several threads change is under the pool's lock.

    `began` is the monotonic time of its start in a thread, None while it waits for one.
    """

    __slots__ = ("abandoned", "began", "context", "done", "fn", "loop", "result")

    def __init__(self, fn: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.fn: Callable[[], Any] | None = fn
        self.loop, self.context = loop, copy_context()
        self.result: asyncio.Future[Any] = loop.create_future()
        self.began: float | None = None
        self.done = self.abandoned = False

    def run(self) -> tuple[Any, BaseException | None]:
        """Call the function, in its caller's context; gives its value or what it raised."""
        fn, self.fn = self.fn, None
        assert fn is not None
        try:
            return self.context.run(fn), None
        except _NEVER_IN_A_FUTURE as error:
            kind = RuntimeError if isinstance(error, StopIteration) else StepAborted
            replaced = kind(f"the function raised {type(error).__name__}")
            replaced.__cause__ = error
            return None, replaced
        except BaseException as error:
            return None, error

    def resolve(self, value: Any, error: BaseException | None) -> None:
        """Hand the outcome to whoever still waits; runs in the caller's event loop."""
        if self.result.done():
            return
        if error is None:
            self.result.set_result(value)
        else:
            self.result.set_exception(error)


class Threads:
    """Up to `limit` functions at once, and up to `spare` more threads for those left behind.

    All methods belong to the event loop; the numbers may be read from any thread. Threads are
    started when they are needed, and kept.
    """

    def __init__(self, limit: int, name: str, spare: int | None = None) -> None:
        self._limit, self._name = limit, name
        self.spare = limit if spare is None else spare
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._threads = self._idle = self._waiting = self._started = 0
        self._closed = False
        self.left_behind = 0
        """Threads inside a function that nobody waits for any more."""

    @property
    def exhausted(self) -> bool:
        """Whether the bound is reached: the next thread left behind will not be replaced."""
        return 0 < self.left_behind >= self.spare

    @property
    def starved(self) -> bool:
        """Whether every thread there may be is left behind: what is called now never starts."""
        return self.left_behind >= self._limit + self.spare

    async def call(self, fn: Callable[[], T], seconds: float | None = None) -> T:
        """Call `fn` in a thread, with a copy of the context, and return what it returns.

        Raises what `fn` raises, but a RuntimeError for StopIteration, as coroutines do, and
        StepAborted for GeneratorExit, KeyboardInterrupt and CancelledError; LimitPassed once it has
        run for `seconds`, which do not count the time before a thread was free; ConfigurationError
        after `close`.
        """
        if self._closed:
            raise ConfigurationError("the threads of this worker were closed")
        call = _Call(fn, asyncio.get_running_loop())
        self._enqueue(call)
        timer = None if seconds is None else _Limit(self, call, seconds)
        try:
            result: T = await call.result
            return result
        finally:
            if timer is not None:
                timer.cancel()
            self._abandon(call)

    def close(self) -> None:
        """End the idle threads, and the others when their functions return; may be called again."""
        self._closed = True
        with contextlib.suppress(queue.Empty):
            while True:
                if (call := self._queue.get_nowait()) is not None:
                    call.result.cancel()
        for _ in range(self._threads):
            self._queue.put(None)

    def _enqueue(self, call: _Call) -> None:
        with self._lock:
            self._waiting += 1
        self._queue.put(call)
        self._grow()

    def _grow(self) -> None:
        """Start a thread if a call waits that no idle one will take, and there may be one more."""
        with self._lock:
            if self._closed or self._waiting <= self._idle or self._threads >= self._most:
                return
            self._threads += 1
            self._started += 1
        thread = threading.Thread(
            target=self._work, name=f"{self._name}-{self._started}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # the system has none left: the threads there are serve what waits
            logger.exception("could not start a thread")
            with self._lock:
                self._threads -= 1

    @property
    def _most(self) -> int:
        return self._limit + min(self.left_behind, self.spare)

    def _abandon(self, call: _Call) -> None:
        """Nobody waits for this call any more; no effect on one that has returned."""
        with self._lock:
            if call.done or call.abandoned:
                return
            call.abandoned = True
            if call.began is None:
                call.fn = None  # the thread that takes the call will drop it
                return
            self.left_behind += 1
        self._grow()

    # -- in the threads ----------------------------------------------------------------------

    def _work(self) -> None:
        while (call := self._next()) is not None:
            value, error = call.run()
            again = self._finished(call)
            # The loop may be closed: its worker has ended.
            with contextlib.suppress(RuntimeError):
                call.loop.call_soon_threadsafe(call.resolve, value, error)
            # An idle thread must not keep the last result alive.
            del call, value, error
            if not again:
                return

    def _next(self) -> _Call | None:
        while True:
            with self._lock:
                self._idle += 1
            call = self._queue.get()
            with self._lock:
                self._idle -= 1
                if call is None:
                    self._threads -= 1
                    return None
                self._waiting -= 1
                if not call.abandoned:
                    call.began = time.monotonic()
                    return call

    def _finished(self, call: _Call) -> bool:
        """Take note of the end; False if this thread has been replaced meanwhile."""
        with self._lock:
            call.done = True
            if call.abandoned:
                self.left_behind -= 1
            surplus = self._threads > self._most
            if surplus:
                self._threads -= 1
            return not surplus


class _Limit:
    """The time limit of one call. It starts with the call in its thread, not in the queue.

    The timer looks again after `seconds` while the call waits for a thread: a call that begins
    between two looks is not yet due at the second one, and then it is known when it will be.
    """

    __slots__ = ("_call", "_seconds", "_threads", "_timer")

    def __init__(self, threads: Threads, call: _Call, seconds: float) -> None:
        self._threads, self._call, self._seconds = threads, call, seconds
        self._timer = call.loop.call_later(seconds, self._look)

    def cancel(self) -> None:
        """The call has ended."""
        self._timer.cancel()

    def _look(self) -> None:
        call = self._call
        passed = 0.0 if call.began is None else time.monotonic() - call.began
        if passed < self._seconds:
            self._timer = call.loop.call_later(self._seconds - passed, self._look)
        elif not call.done:
            call.resolve(None, LimitPassed(f"not done within {self._seconds:g} s"))
