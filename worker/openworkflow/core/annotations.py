"""Annotations of functions as types, where they are text or mention types as text."""

import typing
from collections.abc import Callable, Mapping
from typing import Any


def return_annotation(fn: Callable[..., Any], names: Mapping[str, Any] | None = None) -> Any:
    """The type a function returns; Any where nothing is annotated, or nothing that resolves."""
    try:
        annotation = fn.__annotations__.get("return", Any)
    except Exception:  # some callables have none, and Python 3.14 evaluates them only here
        return Any
    found = resolve(annotation, fn, names or {})
    return Any if isinstance(found, str) else found


def resolve(annotation: Any, fn: Callable[..., Any], names: Mapping[str, Any]) -> Any:
    """`annotation` of `fn` as a type; the annotation itself if a name in it is unknown.

    `names` are visible besides the globals of the function, or of the one it wraps.
    """
    if annotation is Any or isinstance(annotation, type):
        return annotation
    scope: dict[str, Any] = {**getattr(innermost(fn), "__globals__", {}), **names}
    holder = type("_Holder", (), {"__annotations__": {"it": annotation}})
    try:
        return typing.get_type_hints(holder, scope, scope, include_extras=True)["it"]
    except Exception:  # evaluating text may raise anything
        return annotation


def innermost(fn: Any) -> Any:
    """The function that decorators such as functools.wraps wrapped, whose annotations they copy."""
    seen = 0
    while seen < 100 and (wrapped := getattr(fn, "__dict__", {}).get("__wrapped__")) is not None:
        fn, seen = wrapped, seen + 1
    return fn
