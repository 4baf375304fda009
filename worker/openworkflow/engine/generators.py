"""Async generators that a workflow function leaves before their end are closed as a branch of it.

Python tells the running loop of each generator when it is first iterated, by hooks of the thread;
those of the worker's loop would close it there, where no step can be asked for. Setting the hooks
at each turn of a function costs more than asking, at the end of a generator, who is running.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator
from typing import Any

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


def watch() -> None:
    """Begin to look after the generators of this thread; the end of its loop ends that."""
    hooks = sys.get_asyncgen_hooks()
    if not isinstance(hooks.finalizer, _Finalizer):
        sys.set_asyncgen_hooks(hooks.firstiter, _Finalizer(hooks.finalizer))
