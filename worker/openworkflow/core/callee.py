"""What must be known of a user's function to call it as a step. Pure: nothing here calls it."""

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType, GenericAlias, MethodType
from typing import Any, Union

from openworkflow.core.annotations import innermost, return_annotation
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.fingerprint import fingerprint
from openworkflow.core.options import OF_A_STEP, nearest
from openworkflow.core.serialization import Codec, codec_for
from openworkflow.core.shown import shown
from openworkflow.core.workflow import DurableFunction, Workflow

__all__ = [
    "OPTIONS",
    "Callee",
    "callee",
    "check_call",
    "fingerprint",
    "with_option_meant",
    "with_own",
]

OPTIONS = frozenset({"retry", "timeout", "undo", "rate"})
"""Keyword arguments of `step.run` itself."""
CACHED = 4096
"""Functions remembered; when there are more, all are forgotten."""

_OF_A_CALL = {
    **OF_A_STEP,
    "args": "the arguments follow the function: step.run(name, function, 1, 2)",
    "kwargs": "the arguments follow the function: step.run(name, function, amount=1)",
}
"""What other programs call the options of `step.run`."""

_COROUTINE = inspect.CO_COROUTINE
_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")


@dataclass(frozen=True, slots=True)
class Callee:
    """How a function is called as a step, and how its result is stored."""

    is_async: bool
    codec: Codec[Any]
    options: frozenset[str] = frozenset()
    """Which of OPTIONS are parameters of the function too, and not yet bound."""


_known: dict[tuple[Any, ...], tuple[Callee, tuple[Any, ...]]] = {}
"""By what a function's description depends on, with the objects whose id() is part of the key.

Closures and lambdas made anew for each run share one entry, and none of them is kept alive.
"""

_last: dict[int, tuple[Any, Any, Any, Callee]] = {}
"""By id() of the code, for functions without a decorator: the annotation, globals and code that the
last one had, all compared by identity. It spares most calls the making of a key."""
_PLAIN = Callee(False, codec_for(Any))
"""A builtin, which has no annotations."""


def callee(fn: Callable[..., Any]) -> Callee:
    """Describe `fn`. Raises ConfigurationError if it cannot be called."""
    if isinstance(fn, FunctionType):
        code = fn.__code__
        last = _last.get(id(code))
        if (
            last is not None
            and fn.__annotations__.get("return", Any) is last[0]
            and fn.__globals__ is last[1]
            and not fn.__dict__
        ):
            return last[3]
        return _function(fn)
    if isinstance(fn, MethodType):
        return callee(fn.__func__)
    return _other(fn)


def with_own(fn: object, retry: Any, timeout: Any, undo: Any, rate: Any) -> tuple[Any, ...]:
    """These options of a step; what is not given is as `@step` says, of a function that it made.

    Also of one whose arguments are bound.
    """
    while isinstance(fn, functools.partial):
        fn = fn.func
    if not isinstance(fn, DurableFunction):
        return retry, timeout, undo, rate
    given = ((retry, fn.retry), (timeout, fn.timeout), (undo, fn.undo), (rate, fn.rate))
    return tuple(own if said is None else said for said, own in given)


def check_call(
    fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> str | None:
    """Why `fn(*args, **kwargs)` cannot work, however often it is tried; None if it may.

    A decorated function is judged by its decorator's parameters, which may differ from its own.
    """
    if isinstance(fn, DurableFunction | Workflow):
        fn = fn.fn
    try:
        signature = inspect.signature(fn, follow_wrapped=False)
    except Exception:  # builtins without a signature
        return None
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        return f"{_name(fn)}() {error}"
    return None


def with_option_meant(error: Exception) -> Exception:
    """What Python says of a call that cannot work, with the option of `step.run` that was meant."""
    unexpected = _UNEXPECTED.search(str(error))
    if unexpected is None:
        return error
    given = unexpected[1]
    meant = _OF_A_CALL.get(given) or nearest(given, OPTIONS)
    if meant is None:
        return error
    hint = meant if " " in meant else f"did you mean {meant!r}, the option of step.run?"
    return TypeError(f"{error}; {hint}").with_traceback(error.__traceback__)


def _function(fn: FunctionType) -> Callee:
    code, scope, inner = fn.__code__, fn.__globals__, fn.__code__
    is_async = code.co_flags & _COROUTINE != 0
    if fn.__dict__:
        deepest = innermost(fn)
        if type(deepest) is not FunctionType or "registry" in fn.__dict__ or _has_signature(fn):
            return _inspect(fn)
        inner, scope = deepest.__code__, deepest.__globals__
        is_async = inspect.iscoroutinefunction(fn)
    try:
        annotation = fn.__annotations__.get("return", Any)
        # With its repr, since int | str equals str | int, but pydantic tries them in order.
        shown = "" if isinstance(annotation, type | str) else repr(annotation)
        key = id(code), id(inner), id(scope), is_async, annotation, shown
        known = _known.get(key)
    except Exception:  # unhashable, such as Annotated[..., [...]]
        return _inspect(fn)
    if known is None:
        if len(_known) >= CACHED:
            _known.clear()
            _last.clear()
        known = _known[key] = _inspect(fn), (code, inner, scope)
    if not fn.__dict__:
        if len(_last) >= CACHED:
            _last.clear()
        _last[id(code)] = annotation, scope, code, known[0]
    return known[0]


def _other(fn: Any) -> Callee:
    """Describe what is called without being a function of Python."""
    if isinstance(fn, functools.partial):
        return _partial(fn)
    if isinstance(fn, Workflow) and fn.takes_step:
        raise ConfigurationError(
            f"{fn!r} is no step, since it has steps of its own: run it as a child, "
            "step.run_workflow(name, workflow, input)"
        )
    if isinstance(fn, DurableFunction | Workflow):
        return callee(fn.fn)
    if isinstance(fn, staticmethod):
        return callee(fn.__func__)
    if not callable(fn):
        raise _not_callable(fn)
    if inspect.isbuiltin(fn):
        return _PLAIN
    if inspect.isclass(fn) or isinstance(fn, GenericAlias):
        made: Any = fn
        try:
            return _class(made)
        except TypeError:  # its metaclass is unhashable
            return _class.__wrapped__(made)
    if inspect.isroutine(fn) or "__wrapped__" in getattr(fn, "__dict__", {}):
        return _inspect(fn)
    method = type(fn).__call__
    about = callee(method) if type(method) is FunctionType else _inspect(method)
    if not about.is_async and inspect.iscoroutinefunction(fn):  # marked as one, or a mock
        return Callee(True, about.codec, about.options)
    return about


@functools.lru_cache(maxsize=CACHED)
def _class(made: Any) -> Callee:
    """Describe a class, which makes what it is; plain JSON where that is awaited or unstorable."""
    try:
        codec = codec_for(Any if hasattr(made, "__await__") else made)
    except ConfigurationError:
        codec = codec_for(Any)
    return Callee(False, codec, _options(made))


def _partial(fn: functools.partial[Any]) -> Callee:
    about = callee(fn.func)
    if not about.options:
        return about
    return Callee(about.is_async, about.codec, about.options & _options(fn) - fn.keywords.keys())


def _inspect(fn: Callable[..., Any]) -> Callee:
    registered = getattr(fn, "__dict__", {}).get("registry")  # of functools.singledispatch
    if isinstance(registered, Mapping):
        found = [return_annotation(each) for each in registered.values()]
        annotation = Any if Any in found else Union[tuple(found)]  # noqa: UP007
    else:
        annotation = return_annotation(fn)
    return Callee(inspect.iscoroutinefunction(fn), codec_for(annotation), _options(fn))


def _options(fn: Callable[..., Any]) -> frozenset[str]:
    try:
        parameters = inspect.signature(fn).parameters
    except Exception:  # builtins without a signature
        return frozenset()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return frozenset(
        name for name in OPTIONS if name in parameters and parameters[name].kind in named
    )


def _has_signature(fn: Any) -> bool:
    """Whether a decorator says that a function takes other parameters than its code does."""
    while fn is not None:
        if "__signature__" in getattr(fn, "__dict__", {}):
            return True
        fn = getattr(fn, "__dict__", {}).get("__wrapped__")
    return False


def _not_callable(fn: object) -> ConfigurationError:
    if inspect.isawaitable(fn):
        return ConfigurationError(
            f"a step takes a function and its arguments, not a call of it ({shown(fn)}): write "
            "step.run(name, fetch, url) instead of step.run(name, fetch(url))"
        )
    return ConfigurationError(f"a step takes a function to call, not {shown(fn)}")


def _name(fn: Any) -> str:
    while isinstance(fn, functools.partial):
        fn = fn.func
    name = getattr(fn, "__qualname__", None)
    return name if isinstance(name, str) else type(fn).__qualname__
