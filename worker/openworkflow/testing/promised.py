"""Calls of the kit that have to be awaited: one that is not does nothing, and fails no test."""

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])


class Promised:
    """The calls of one environment that nobody has awaited so far."""

    def __init__(self) -> None:
        self._calls: list[tuple[str, Coroutine[Any, Any, Any]]] = []

    def add(self, name: str, call: Coroutine[Any, Any, Any]) -> None:
        """Take in a call."""
        self._calls = [*self._left(), (name, call)]

    def forgotten(self) -> str | None:
        """Which were never awaited, as a text; None if there is none. They are closed by that."""
        left, self._calls = self._left(), []
        for _, call in left:
            call.close()
        if not left:
            return None
        names = ", ".join(dict.fromkeys(f"{name}(...)" for name, _ in left))
        return (
            f"{names} was never awaited, and so did nothing: write `await` before the call, or in "
            "a plain test use env.sync"
        )

    def _left(self) -> list[tuple[str, Coroutine[Any, Any, Any]]]:
        return [each for each in self._calls if _is_untouched(each[1])]


def promised(of: str) -> Callable[[F], F]:
    """Have calls of a method known to its object's `_promised`; `of` is what that is called."""

    def decorate(method: F) -> F:
        @functools.wraps(method)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            coroutine = method(self, *args, **kwargs)
            self._promised.add(f"{of}.{method.__name__}", coroutine)
            return coroutine

        return cast(F, call)

    return decorate


def _is_untouched(call: Coroutine[Any, Any, Any]) -> bool:
    return inspect.getcoroutinestate(call) == inspect.CORO_CREATED
