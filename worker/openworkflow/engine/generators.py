"""Generators that a workflow function leaves before their end.

Async generators that a workflow function leaves before their end are closed as a branch of it.

Python tells the running loop of each generator when it is first iterated, by hooks of the thread;
those of the worker's loop would close it there, where no step can be asked for. Setting the hooks
at each turn of a function costs more than asking, at the end of a generator, who is running.

A plain generator in a plain workflow function is closed by Python itself. What its `finally` asks
for once the run was parked is turned away, and there is nobody to raise that to.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator
from typing import Any

from openworkflow.core.errors import Suspended
from openworkflow.engine.loop import WorkflowLoop


class _Finalizer:
    """Hands a generator to the workflow that leaves it, or to whoever was there before."""

    def __init__(self, before: Any) -> None:
        self._before = before

    def __call__(self, generator: AsyncGenerator[Any, Any]) -> None:
        loop = asyncio._get_running_loop()
        if isinstance(loop, WorkflowLoop):
            loop.close_generator(generator)
        elif self._before is not None:
            self._before(generator)


class _Unraisable:
    """Tells whoever was there before of what nobody could catch, unless a run was parked."""

    def __init__(self, before: Any) -> None:
        self._before = before

    def __call__(self, ignored: Any) -> None:
        if not isinstance(ignored.exc_value, Suspended):
            self._before(ignored)


def watch() -> None:
    """Begin to look after the generators of this thread; the end of its loop ends that."""
    hooks = sys.get_asyncgen_hooks()
    if not isinstance(hooks.finalizer, _Finalizer):
        sys.set_asyncgen_hooks(hooks.firstiter, _Finalizer(hooks.finalizer))
    if not isinstance(sys.unraisablehook, _Unraisable):
        sys.unraisablehook = _Unraisable(sys.unraisablehook)
