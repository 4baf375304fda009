"""Calling a user's function as one attempt of a step: async on the loop, sync in a thread."""

import asyncio
import contextlib
import functools
import inspect
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import copy_context
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from openworkflow.core.errors import StepAborted, StepTimeout, Suspended
from openworkflow.core.shown import shown
from openworkflow.core.workflow import INSIDE_STEP, current_run
from openworkflow.engine.threads import LimitPassed, Threads
from openworkflow.telemetry.logs import log_step

if TYPE_CHECKING:
    from openworkflow.engine.operations.call import CallOperation
    from openworkflow.engine.operations.operation import Operation


def is_cancelled(error: BaseException) -> bool:
    """Whether somebody cancelled this task; else a CancelledError comes from what it awaited."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def is_stray(operation: "Operation") -> bool:
    """Whether a cancellation of the operation's own task is nobody's of ours, such as a watchdog's.

    We cancel it where the run is stopped, or its code has cancelled the step; and whoever tears the
    worker down cancels the run's task too. Of what is done in the run's task nobody can tell.
    """
    execution = operation.execution
    return (
        operation.task is not None
        and execution.stopped is None
        and execution.agenda.operations.get(operation.key) is operation
        and execution.task is not None
        and not execution.task.cancelling()
    )


def as_error(step: "CallOperation", raised: BaseException) -> Exception | None:
    """What an attempt has raised, if that is an error of the step; else it is for the engine.

    Whoever observes is told in both cases.
    """
    if (observer := step.execution.services.observer) is not None and step.attempt is not None:
        observer.step_ends(step.attempt.id, raised)
    if isinstance(raised, asyncio.CancelledError) and is_stray(step):
        task = step.task
        while task is not None and task.cancelling():
            task.uncancel()
        return _as_exception(raised)
    return raised if isinstance(raised, Exception) else None


async def call_within(step: "CallOperation", threads: Threads) -> Any:
    """Run one attempt within the step's time. Raises StepTimeout, or as `call` does.

    A sync function's time is measured in its thread, not in the queue. A thread cannot be stopped:
    it is left to end, and what it returns is dropped.
    """
    limit = asyncio.timeout(step.seconds if step.about.is_async else None)
    try:
        async with limit:
            return await call(step, threads)
    except LimitPassed:
        raise _timed_out(step) from None
    except TimeoutError:
        if limit.expired():
            raise _timed_out(step) from None
        raise


def _timed_out(step: "CallOperation") -> StepTimeout:
    return StepTimeout(f"the step did not end within {step.seconds:g} s")


@types.coroutine
def call(step: "CallOperation", threads: Threads) -> Generator[Any, Any, Any]:
    """Run one attempt of the step, in a context of its own: what it sets stays there.

    A replay would not set it for the workflow. Raises whatever the function raises, as an
    Exception.
    """
    run = copy_context().run
    task: Any = step.task or step.execution.task
    try:
        coroutine = run(_called, step, threads)
        try:
            awaited = run(coroutine.send, None)
        except StopIteration as stop:
            value = stop.value
        else:
            value = yield from _to_its_end(coroutine, awaited, run)
    except BaseException as error:
        if task._must_cancel:
            yield from _take_back(task)
        if isinstance(error, Exception | Suspended) or is_cancelled(error):
            raise
        raise _as_exception(error) from error
    if task._must_cancel:
        yield from _take_back(task)
    return value


def _take_back(task: asyncio.Task[Any]) -> Generator[Any, Any, None]:
    """Undo what a function did that cancelled its task, and ended before it could learn of that.

    Else it would be thrown into what comes next, the recording of the step.
    """
    while task.cancelling():
        task.uncancel()
    if task._must_cancel:  # type: ignore[attr-defined]  # Python before 3.13 throws it all the same
        with contextlib.suppress(asyncio.CancelledError):
            yield
        if task.cancelling():
            raise asyncio.CancelledError  # meanwhile the worker is torn down


def _to_its_end(
    coroutine: Coroutine[Any, Any, Any], awaited: Any, run: Callable[..., Any]
) -> Generator[Any, Any, Any]:
    """Go on with a function that waits, and leave its task as it was.

    A function may cancel the task that it is executed in, and task groups that fail do, of which
    Python before 3.13 takes nothing back. That is no word of ours that the worker is torn down.
    """
    task = asyncio.current_task()
    assert task is not None
    own = before = task.cancelling()
    send, throw, torn_down = coroutine.send, coroutine.throw, False
    try:
        while True:
            try:
                answer = yield awaited
            except BaseException as error:
                before = task.cancelling()
                awaited = run(throw, error)
            else:
                before = task.cancelling()
                awaited = run(send, answer)
            own += task.cancelling() - before
    except StopIteration as stop:
        return stop.value
    except (asyncio.CancelledError, GeneratorExit):
        torn_down = before > own
        raise
    finally:
        while task.cancelling() and not torn_down:
            task.uncancel()


def _called(step: "CallOperation", threads: Threads) -> Coroutine[Any, Any, Any]:
    # Inside a step, functions decorated with @step are plain functions.
    current_run.set(INSIDE_STEP)
    log_step.set(step)
    if (observer := step.execution.services.observer) is not None and step.attempt is not None:
        run, attempt = step.execution.claim, step.attempt
        observer.step_begins(run, attempt.id, step.key, step.kind, attempt.attempt)
    if not step.about.is_async:
        return _in_thread(step, threads)
    made = step.fn(*step.args, **step.kwargs)
    return made if type(made) is CoroutineType else _of(made)


async def _of(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


async def _in_thread(step: "CallOperation", threads: Threads) -> Any:
    work = functools.partial(step.fn, *step.args, **step.kwargs)
    value = await threads.call(work, step.seconds)
    # `lambda: fetch(x)` is a sync function that returns a coroutine.
    return await _awaited(value, step.seconds) if inspect.isawaitable(value) else value


def _as_exception(error: BaseException) -> StepAborted:
    """What may end a run, and no more, in the place of what would end a program."""
    if isinstance(error, asyncio.CancelledError):
        return StepAborted("the step awaited something that was cancelled")
    if isinstance(error, SystemExit):
        return StepAborted(
            f"the step called sys.exit({shown(error.code)}), which ends no worker; "
            "let it return, or raise an exception"
        )
    # KeyboardInterrupt, the panic of an extension: not our end
    told = f": {error}" if str(error) else ""
    return StepAborted(f"the function raised {type(error).__name__}{told}")


async def _awaited(value: Awaitable[Any], seconds: float | None) -> Any:
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await value
    except TimeoutError as error:
        raise (LimitPassed() if limit.expired() else error) from None
