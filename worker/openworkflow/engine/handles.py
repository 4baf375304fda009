"""What a workflow's loop gives for a callback: asyncio's Handle and TimerHandle, as far as used."""

from collections.abc import Callable
from contextvars import Context
from typing import Any


class Handle:
    """A callback that is ready; asyncio's own Handle costs three times as much to make."""

    __slots__ = ("args", "callback", "context")

    def __init__(self, callback: Callable[..., object] | None, args: Any, context: Context) -> None:
        self.callback, self.args, self.context = callback, args, context

    def cancel(self) -> None:
        """Part of asyncio's Handle."""
        self.callback = None

    def cancelled(self) -> bool:
        """Part of asyncio's Handle."""
        return self.callback is None


class Timer:
    """A wait for a time that asyncio code asked for; it can be cancelled, like any TimerHandle."""

    __slots__ = ("_cancelled", "_when", "_withdraw", "args", "callback", "context")

    def __init__(
        self, when: float, callback: Callable[..., object], args: Any, context: Context
    ) -> None:
        self._when, self.callback, self.args, self.context = when, callback, args, context
        self._withdraw: Callable[[], None] | None = None
        self._cancelled = False

    def on_cancel(self, withdraw: Callable[[], None] | None) -> None:
        """Have `withdraw` called when the workflow cancels this; None once it is over."""
        self._withdraw = withdraw

    def cancel(self) -> None:
        """Part of asyncio's TimerHandle."""
        self._cancelled = True
        if (withdraw := self._withdraw) is not None:
            self._withdraw = None
            withdraw()

    def cancelled(self) -> bool:
        """Part of asyncio's TimerHandle."""
        return self._cancelled

    def when(self) -> float:
        """Part of asyncio's TimerHandle."""
        return self._when
