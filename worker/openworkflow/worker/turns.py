"""One task for many executions, as long as none of them has to wait.

To make a task and to see it out is a tenth of a short run, whose function waits for nothing. So the
runs that are ready are executed one after the other in a shared task, each in its own context. The
first one that waits keeps that task to itself, and those behind it get tasks of their own. So do
those behind one that leaves something in the task: a cancellation, or somebody who refers to it,
and may yet cancel it or look up by it what belongs to that run.
"""

import asyncio
import types
from collections import deque
from collections.abc import Collection, Coroutine, Generator
from contextvars import Context
from sys import getrefcount
from typing import Any

from openworkflow.engine.execution import Execution

Ready = deque[tuple[Execution, Coroutine[Any, Any, None], Context]]


class Turns:
    """Begins executions; each has the `task` that executes it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ready: Ready = deque()
        self._shared: asyncio.Task[None] | None = None
        """The task that is about to take what is ready; None if nothing is."""

    def add(self, execution: Execution, work: Coroutine[Any, Any, None], context: Context) -> None:
        """Have `work` done soon, which executes `execution` to its end, in `context`."""
        if self._shared is None:
            self._ready = deque()
            self._shared = self._loop.create_task(self._shared_by(self._ready))
        execution.task = self._shared
        self._ready.append((execution, work, context))

    def disperse(self) -> None:
        """Have each that has not begun executed in a task of its own.

        Whoever cancels the shared task before it begins would take all of them with it, unclosed.
        """
        self._shared = None
        self._part(self._ready)

    async def _shared_by(self, ready: Ready) -> None:
        """What the shared task executes; since Python 3.12 that may be no generator."""
        await self._take(ready)

    @types.coroutine
    def _take(self, ready: Ready) -> Generator[Any, Any, None]:
        task = asyncio.current_task()
        assert task is not None
        if task is self._shared:
            self._shared = None
        others = getrefcount(task) - len(ready)
        try:
            while ready and not _is_marked(task) and getrefcount(task) - len(ready) <= others:
                execution, work, context = ready.popleft()
                run = context.run
                try:
                    awaited = run(work.send, None)
                except StopIteration:
                    execution.task = None
                    continue
                self._part(ready)
                while True:
                    try:
                        answer = yield awaited
                    except BaseException as error:
                        awaited = run(work.throw, error)
                    else:
                        awaited = run(work.send, answer)
        except StopIteration:
            pass
        finally:
            self._part(ready)

    def _part(self, ready: Ready) -> None:
        """Give those that are left a task each."""
        while ready:
            execution, work, context = ready.popleft()
            execution.task = self._loop.create_task(work, context=context)


async def canceled(tasks: Collection[asyncio.Task[Any]], seconds: float) -> int:
    """Cancel these; how many do not let themselves be canceled within `seconds`."""
    for task in tasks:
        task.cancel()
    return len((await asyncio.wait(tasks, timeout=seconds))[1]) if tasks else 0


def _is_marked(task: asyncio.Task[Any]) -> bool:
    """Whether an execution that is over has left a cancellation behind, as user code can."""
    return bool(task._must_cancel) or task.cancelling() > 0  # type: ignore[attr-defined]
