"""Calling a user's function as a step: async on the loop, sync in a thread, with its annotation."""

import asyncio
import functools
import inspect
import typing
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import copy_context
from dataclasses import dataclass
from types import CodeType
from typing import Any, NoReturn

from openworkflow.core.duration import Duration, parse_duration
from openworkflow.core.errors import ConfigurationError, StepTimeout, Suspended
from openworkflow.core.retry import RetryPolicy, check_policy
from openworkflow.core.serialization import Codec, codec_for
from openworkflow.core.workflow import current_run
from openworkflow.telemetry.logs import log_context

GIVE_WAY_SECONDS = 0.01
PLAIN = frozenset({type(None), bool, int, float, str})
"""Types whose values come back from JSON as they went in."""


@dataclass(frozen=True, slots=True)
class Callee:
    """What must be known of a function to run it as a step."""

    is_async: bool
    codec: Codec[Any]


_callees: dict[tuple[str, CodeType], Callee] = {}
"""By code object, so that closures and lambdas made anew for each run share one entry."""


def callee(fn: Callable[..., Any]) -> Callee:
    """Whether `fn` is async, and the codec of its return annotation."""
    code = getattr(fn, "__code__", None)
    if code is None:
        return _inspect(_called(fn))
    key = (getattr(fn, "__module__", None) or "", code)
    known = _callees.get(key)
    if known is None:
        known = _callees[key] = _inspect(fn)
    return known


def check_request(name: str, retry: RetryPolicy | None, *, own_threads: bool) -> None:
    """Refuse what would show late: at the step's first failure, or in the run's first replay.

    A sync workflow may ask from `own_threads`, which know of no run.
    """
    if retry is not None:
        check_policy(f"step {name!r:.80}", retry)
    if not own_threads and current_run.get() is None:
        raise ConfigurationError(
            f"step {name!r:.80} is asked for inside a step, which a replay would not call; "
            "call the function directly there, or ask for the step in the workflow"
        )


def as_replayed(codec: Codec[Any], value: Any, output: str | None) -> Any:
    """`value` as a replay will see it, so that the first execution goes on with the same."""
    return value if type(value) in PLAIN else codec.decode(output)


def in_thread(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call `fn` in a thread.

    No future carries a StopIteration: whoever awaits it would wait for ever. The other two would
    end the worker's event loop, and Ctrl-C never reaches this thread.
    """
    try:
        return fn(*args, **kwargs)
    except (StopIteration, GeneratorExit, KeyboardInterrupt) as error:
        raise RuntimeError(f"the function raised {type(error).__name__}") from error


def _called(fn: Any) -> Any:
    """`fn`, which can be called: another attempt would not help where it cannot."""
    if callable(fn):
        return fn
    if inspect.isawaitable(fn):
        raise ConfigurationError(
            f"a step takes a function and its arguments, not a call of it ({fn!r:.80}): write "
            "step.run(name, fetch, url) instead of step.run(name, fetch(url))"
        )
    raise ConfigurationError(f"a step takes a function to call, not {fn!r:.80}")


def _inspect(fn: Callable[..., Any]) -> Callee:
    while isinstance(fn, functools.partial):
        fn = fn.func
    if not inspect.isroutine(fn) and not inspect.isclass(fn):
        fn = getattr(fn, "fn", None) or type(fn).__call__
    try:
        annotation = typing.get_type_hints(fn, include_extras=True).get("return", Any)
    except Exception:  # an annotation that cannot be resolved is none: the value goes as plain JSON
        annotation = Any
    return Callee(inspect.iscoroutinefunction(fn), codec_for(annotation))


def call(
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    is_async: bool,
    threads: Executor,
    timeout: Duration | None,
    key: str,
) -> Coroutine[Any, Any, Any]:
    """Run one attempt of the step `key`, whose name is in the logs of what it calls.

    A thread cannot be stopped: after a timeout or a cancellation it is left to end, and what it
    returns is dropped. Raises StepTimeout, or whatever `fn` raises.
    """
    seconds = None if timeout is None else parse_duration(timeout).total_seconds()
    attempt = _call(fn, args, kwargs, is_async, threads, key)
    return attempt if seconds is None else _limited(attempt, seconds)


def is_cancelled(error: BaseException) -> bool:
    """Whether somebody cancelled this task; else a CancelledError comes from what it awaited."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


async def turn_away() -> NoReturn:
    """Refuse a step to a function that was stopped, and leave the loop to others meanwhile.

    One that catches everything and asks again for ever would otherwise block them all.
    """
    await asyncio.sleep(GIVE_WAY_SECONDS)
    raise Suspended


async def _limited(attempt: Coroutine[Any, Any, Any], seconds: float) -> Any:
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await attempt
    except TimeoutError:
        if limit.expired():
            raise StepTimeout(f"the step did not end within {seconds:g} s") from None
        raise


async def _call(
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    is_async: bool,
    threads: Executor,
    key: str,
) -> Any:
    # Inside a step, functions decorated with @step are just functions.
    token = current_run.set(None)
    logged = log_context.set({**log_context.get({}), "step": key})
    try:
        if is_async:
            return await fn(*args, **kwargs)
        work = functools.partial(copy_context().run, in_thread, fn, *args, **kwargs)
        value = await asyncio.get_running_loop().run_in_executor(threads, work)
        # `lambda: fetch(x)` is a sync function that returns a coroutine.
        return await value if inspect.isawaitable(value) else value
    except SystemExit as error:
        raise RuntimeError(f"the step called sys.exit({error.code!r})") from error
    except asyncio.CancelledError as error:
        if is_cancelled(error):
            raise
        raise RuntimeError("the step awaited something that was cancelled") from error
    finally:
        current_run.reset(token)
        log_context.reset(logged)
