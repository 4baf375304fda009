"""Generators that a workflow function leaves before their end.

Async generators that a workflow function leaves before their end are closed as a branch of it, if
the function itself lets go of them. When Python collects garbage is no event of a run: what is
freed by that, or while another run or the worker executes, does at once what it can, and no more.

Python tells the running loop of each generator when it is first iterated, by hooks of the thread;
those of the worker's loop would close it there, where no step can be asked for. Setting the hooks
at each turn of a function costs more than remembering who began a generator.

A plain generator in a plain workflow function is closed by Python itself. What its `finally` asks
for once the run was parked is turned away, and there is nobody to raise that to. So it is with
what a thread asks for that such a function has started.
"""

import asyncio
import gc
import sys
import threading
from collections.abc import AsyncGenerator
from contextvars import Context
from threading import get_ident
from typing import Any
from weakref import WeakValueDictionary

from openworkflow.core.errors import Suspended
from openworkflow.engine.loop import WorkflowLoop

_begun: WeakValueDictionary[int, WorkflowLoop] = WeakValueDictionary()
"""The workflow that began a generator, by the generator's id.

Python clears weak references to a generator before it asks for its end. The id of one that came to
its end by itself stays until its run is over, or another generator of that id is begun.
"""


class _FirstIteration:
    """Remembers who begins a generator, or tells whoever was there before."""

    def __init__(self, before: Any) -> None:
        self._before = before

    def __call__(self, generator: AsyncGenerator[Any, Any]) -> None:
        loop = asyncio._get_running_loop()
        if isinstance(loop, WorkflowLoop):
            _begun[id(generator)] = loop
            return
        if _begun:
            _begun.pop(id(generator), None)
        if self._before is not None:
            self._before(generator)


class _Finalizer:
    """Hands a generator to the workflow that began it, or to whoever was there before."""

    def __init__(self, before: Any) -> None:
        self._before = before

    def __call__(self, generator: AsyncGenerator[Any, Any]) -> None:
        loop = _begun.pop(id(generator), None)
        if loop is None:
            if self._before is not None:
                self._before(generator)
        elif asyncio._get_running_loop() is loop and _collector.thread != get_ident():
            loop.close_generator(generator)
        else:
            _drop(generator, loop)


def _drop(generator: AsyncGenerator[Any, Any], loop: WorkflowLoop) -> None:
    """Close a generator that was freed at a time that no replay repeats: it is no branch.

    What it asks for is refused, and what it waits for does not come.
    """
    executing, running, called = asyncio._get_running_loop(), loop.running, set(loop.unawaited)
    loop.running, error = False, None
    asyncio._set_running_loop(None)
    closing = generator.aclose()
    try:
        Context().run(closing.send, None)
        closing.close()
    except StopIteration:
        return
    except BaseException as raised:
        error = raised
    finally:
        loop.running = running
        asyncio._set_running_loop(executing)
        for operation in loop.unawaited.keys() - called:
            loop.unawaited.pop(operation).close()
    told = "an async generator was left with something to do, and not by contextlib.aclosing"
    loop.call_exception_handler({"message": told, "exception": error})


class _Collector:
    """Knows which thread collects garbage just now, if any does."""

    thread: int | None = None

    def __call__(self, phase: str, _info: Any) -> None:
        self.thread = get_ident() if phase == "start" else None


_collector = _Collector()


class _Unraisable:
    """Tells whoever was there before of what nobody could catch, unless a run was parked."""

    def __init__(self, before: Any) -> None:
        self._before = before

    def __call__(self, ignored: Any) -> None:
        if not isinstance(ignored.exc_value, Suspended):
            self._before(ignored)


class _InThread:
    """Tells whoever was there before of what ended a thread, unless a run was parked.

    A thread that a plain workflow function has started leaves what it asks for by that.
    """

    def __init__(self, before: Any) -> None:
        self._before = before

    def __call__(self, ended: Any) -> None:
        if not isinstance(ended.exc_value, Suspended):
            self._before(ended)


def watch() -> None:
    """Begin to look after the generators of this thread; the end of its loop ends that."""
    hooks = sys.get_asyncgen_hooks()
    if not isinstance(hooks.finalizer, _Finalizer):
        sys.set_asyncgen_hooks(_FirstIteration(hooks.firstiter), _Finalizer(hooks.finalizer))
    if _collector not in gc.callbacks:
        gc.callbacks.append(_collector)
    if not isinstance(sys.unraisablehook, _Unraisable):
        sys.unraisablehook = _Unraisable(sys.unraisablehook)
    if not isinstance(threading.excepthook, _InThread):
        threading.excepthook = _InThread(threading.excepthook)
