"""The way from code that blocks to an async client, which lives in a thread with an event loop.

A forked child has neither its parent's thread nor a right to its parent's connections: it opens its
own with the first call.
"""

import asyncio
import atexit
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any, Self, TypeVar
from weakref import WeakSet

from openworkflow.backend.backend import BackendPostgres
from openworkflow.backend.callers import OfThread
from openworkflow.client.blocking.errands import Errands
from openworkflow.client.blocking.loop_thread import LoopThread
from openworkflow.client.client import OpenWorkflow
from openworkflow.codecs.payloads import Codecs
from openworkflow.core.errors import ConfigurationError

T = TypeVar("T")
Connect = Callable[[], Awaitable[BackendPostgres]]

_LINES: "WeakSet[Line]" = WeakSet()
_OF_PARENTS: list[Any] = []
"""What a forked child has of its parent. To close it would be to close the parent's."""
_NOTHING: Any = object()


class Line:
    """Calls methods of an async client, from any thread but one in which an event loop runs."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[BackendPostgres]],
        payload_limit: int,
        codec: Codecs | None = None,
    ) -> None:
        self._connect, self._payload_limit, self._codec = connect, payload_limit, codec
        self._lock = threading.Lock()
        self._open: tuple[LoopThread, BackendPostgres, OpenWorkflow] | None = None
        self._stopped = False
        _LINES.add(self)

    def open(self) -> Self:
        """Connect, unless connected. Raises BackendError or ConfigurationError."""
        self._opened()
        return self

    def call(self, make: Callable[[OpenWorkflow], Awaitable[T]], options: Any = None) -> T:
        """Await what `make` makes, in the loop; a `connection` of `options` is used here."""
        thread, _, ow = self._opened()
        if options is None or options.get("connection") is None:
            return thread.call(_awaited(make, ow))
        errands = Errands()
        options["connection"] = OfThread(options["connection"], errands.perform)
        return errands.call(thread, _awaited(make, ow))

    def get(self, make: Callable[[OpenWorkflow], T]) -> T:
        """What needs no waiting."""
        return make(self._opened()[2])

    def each(self, make: Callable[[OpenWorkflow], AsyncIterator[T]]) -> Iterator[T]:
        """What `make` yields, one at a time; its arguments are checked at once."""
        return self._each(self.get(make))

    def stop(self) -> None:
        """Disconnect, and end the loop and its thread."""
        with self._lock:
            there, self._open, self._stopped = self._open, None, True
        if there is not None:
            _close(*there)

    def forget(self) -> None:
        """In a forked child: what was open is the parent's."""
        self._lock = threading.Lock()  # a thread that is not here may have held it
        if self._open is not None:
            _OF_PARENTS.append(self._open)
            self._open = None

    def _opened(self) -> tuple[LoopThread, BackendPostgres, OpenWorkflow]:
        _refuse_in_a_loop()
        with self._lock:
            if self._stopped:
                raise ConfigurationError(
                    "this client was stopped; call OpenWorkflow.sync for another"
                )
            if self._open is None:
                self._open = self._new()
            return self._open

    def _new(self) -> tuple[LoopThread, BackendPostgres, OpenWorkflow]:
        thread = LoopThread("openworkflow client")
        try:
            backend = thread.call(_awaited(lambda _: self._connect(), None))
        except BaseException:
            thread.close()
            raise
        ow = OpenWorkflow(backend, payload_limit=self._payload_limit, codec=self._codec)
        return thread, backend, ow

    def _each(self, found: AsyncIterator[T]) -> Iterator[T]:
        following = aiter(found)
        try:
            while (one := self.call(lambda _: anext(following, _NOTHING))) is not _NOTHING:
                yield one
        finally:
            if (close := getattr(following, "aclose", None)) is not None:
                with suppress(ConfigurationError):  # it went with the client, or its loop does
                    self.call(lambda _: close())


async def _awaited(make: Callable[[Any], Awaitable[T]], ow: Any) -> T:
    return await make(ow)


def _refuse_in_a_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ConfigurationError(
        "the client of OpenWorkflow.sync blocks, and an event loop runs in this thread: use "
        "`await OpenWorkflow(backend).run_workflow(...)` there, or call it in asyncio.to_thread"
    )


def _close(thread: LoopThread, backend: BackendPostgres, ow: OpenWorkflow) -> None:
    async def stop() -> None:
        await ow.stop()
        await backend.stop()

    try:
        thread.call(stop())
    finally:
        thread.close()


def _forget_all() -> None:
    for line in list(_LINES):
        line.forget()


@atexit.register
def _stop_all() -> None:
    """A wake-up that is still to be sent leaves."""
    for line in list(_LINES):
        line.stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
