"""A plain workflow function, in a thread of its own.

A thread cannot be made to wait for its turn, so what it asks for is answered at once where it is
recorded. A function that uses no other threads asks for one thing after the other: then order is
given, and a replay that asks for something else is found at once. Steps asked for by threads of the
function's own are told apart by their names alone, so a name belongs to one thread.
"""

import asyncio
import functools
import inspect
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from openworkflow.core.errors import ConfigurationError, Suspended
from openworkflow.core.shown import shown
from openworkflow.core.workflow import INSIDE_STEP, current_run
from openworkflow.engine import calls, ending
from openworkflow.engine.keys import Branch
from openworkflow.engine.operations.operation import Operation
from openworkflow.engine.outcome import Lost, Outcome
from openworkflow.engine.step import SyncStep

if TYPE_CHECKING:
    from openworkflow.engine.execution import Execution


GIVE_WAY_SECONDS = 0.01
OTHERS_SECONDS = 5.0
"""How long the replay of a run that is to be undone waits for other threads to ask."""


class ThreadProgram:
    """A plain workflow function; `ask` and `answer` are called in its threads."""

    def __init__(self, execution: "Execution") -> None:
        self._execution = execution
        self._loop = asyncio.get_running_loop()
        self._threads: dict[str, int] = {}
        self._trunk, self._others = Branch(), Branch(ending.OTHER_THREADS)
        self._main: int | None = None
        self._last_failed: str | None = None

    async def run(self) -> Outcome:
        """Execute the function; returns how it ended, or was stopped."""
        execution = self._execution
        try:
            arguments = ending.decoded_input(execution)
            step = SyncStep(execution, self)
            current_run.set(step)
            work = functools.partial(self._in_thread, arguments, step)
            output = await execution.services.workflow_threads.call(work, None)
        except Suspended:
            raise
        except BaseException as error:  # a panic, KeyboardInterrupt, a CancelledError of its own
            if calls.is_cancelled(error):
                execution.interrupt(Lost())  # the worker is torn down; no thread goes on, or waits
                raise
            return execution.stopped or ending.raised(execution, error, self._last_failed)
        return execution.stopped or ending.returned(execution, output, [ending.OTHER_THREADS])

    def _in_thread(self, arguments: tuple[Any, ...], step: SyncStep) -> Any:
        self._main = threading.get_ident()
        workflow = self._execution.workflow
        result = workflow._invoke(arguments, step)
        if inspect.iscoroutine(result):
            result.close()
            raise ConfigurationError(
                f"workflow {workflow.name!r} is a plain function, and returned a coroutine that "
                "nobody awaits; make it an async def, or decorate the function that it calls"
            )
        return result

    # -- for the execution -----------------------------------------------------------------------

    @property
    def at_rest(self) -> bool:
        """Whether the function waits for what it has asked for, as far as one can know."""
        return True

    def settled(self, operation: Operation, value: Any, error: BaseException | None) -> None:
        """Answer the thread that asked."""
        self._execution.agenda.operations.pop(operation.key, None)
        self._last_failed = None if error is None else operation.key
        operation.deliver(value, error)

    def moved(self) -> None:
        """Something is not being done any more: a drain may be over."""
        if self._execution.draining:
            self._execution.agenda.consider()

    def stop(self) -> None:
        """Let the threads leave what they wait for, and the execution's task go on."""
        for operation in self._execution.agenda.operations.values():
            operation.deliver(None, Suspended())
        task = self._execution.task
        if task is not None and asyncio.current_task() is not task:
            task.cancel()

    def forget(self) -> None:
        """The execution is over."""

    # -- for the function's threads --------------------------------------------------------------

    def ask(self, operation: Operation) -> Any:
        """Ask for an operation, and wait for its end."""
        answer: Future[Any] = Future()
        operation.future = answer
        if current_run.get() is INSIDE_STEP:
            raise ending.inside_a_step(operation.name)
        self._loop.call_soon_threadsafe(self._take, operation, answer, threading.get_ident())
        try:
            return answer.result()
        except Suspended:
            time.sleep(GIVE_WAY_SECONDS)  # one that catches everything, and asks again forever
            raise

    def answer(self, question: Callable[[], Any]) -> Any:
        """Have a question answered in the event loop."""
        answer: Future[Any] = Future()
        self._loop.call_soon_threadsafe(_resolve, answer, question)
        return answer.result()

    def _take(self, operation: Operation, answer: "Future[Any]", thread: int) -> None:
        execution = self._execution
        try:
            execution.check_stopped()
            branch = self._trunk if thread == self._main else self._others
            self.check_thread(operation.name, thread)
            execution.agenda.register(operation, branch)
        except BaseException as error:
            answer.set_exception(error)
            return
        history = execution.history
        if operation.recorded is not None and operation.recorded.settled is not None:
            execution.agenda.operations.pop(operation.key, None)
            row = history.take(operation.key)
            self._last_failed = None if row.error is None else operation.key
            operation.deliver(*execution.recall(operation, row))
        else:
            # Another thread may yet ask for what is recorded; the end of the function will tell.
            alone = branch is self._trunk and not history.has_branches
            execution.agenda.start_asked(here=False, all_asked=alone)
            if execution.draining and history.is_undoing and not alone:
                # Other threads may yet ask for what is to be undone; nothing says that none will.
                self._loop.call_later(OTHERS_SECONDS, self._over)
            elif execution.draining and (history.is_undoing or not history.pending):
                execution.agenda.consider()  # it was not begun, and nothing else will move

    def _over(self) -> None:
        if self._execution.stopped is None and self._execution.draining:
            self._execution.agenda.consider()

    def check_thread(self, name: str, thread: int) -> None:
        """Refuse a name that another thread has used. Raises ConfigurationError."""
        if self._threads.setdefault(name, thread) != thread:
            raise ConfigurationError(
                f"step {shown(name)} is asked for by two threads, and a replay could not tell "
                "which is which; give the steps of each thread names of their own"
            )


def _resolve(answer: "Future[Any]", question: Callable[[], Any]) -> None:
    try:
        answer.set_result(question())
    except BaseException as error:
        answer.set_exception(error)
