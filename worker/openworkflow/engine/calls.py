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
from typing import Any

from openworkflow.core.duration import Duration, parse_duration
from openworkflow.core.errors import StepTimeout
from openworkflow.core.serialization import Codec, codec_for
from openworkflow.core.workflow import current_run
from openworkflow.telemetry.logs import log_context

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
        return _inspect(fn)
    key = (getattr(fn, "__module__", None) or "", code)
    known = _callees.get(key)
    if known is None:
        known = _callees[key] = _inspect(fn)
    return known


def as_replayed(codec: Codec[Any], value: Any, output: str | None) -> Any:
    """`value` as a replay will see it, so that the first execution goes on with the same."""
    return value if type(value) in PLAIN else codec.decode(output)


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
    log_context.set({**log_context.get({}), "step": key})
    if timeout is None:
        return _call(fn, args, kwargs, is_async, threads)
    seconds = parse_duration(timeout).total_seconds()
    return _limited(_call(fn, args, kwargs, is_async, threads), seconds)


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
) -> Any:
    # Inside a step, functions decorated with @step are just functions.
    token = current_run.set(None)
    try:
        if is_async:
            return await fn(*args, **kwargs)
        work = functools.partial(copy_context().run, fn, *args, **kwargs)
        value = await asyncio.get_running_loop().run_in_executor(threads, work)
        # `lambda: fetch(x)` is a sync function that returns a coroutine.
        return await value if inspect.isawaitable(value) else value
    except SystemExit as error:
        raise RuntimeError(f"the step called sys.exit({error.code!r})") from error
    finally:
        current_run.reset(token)
