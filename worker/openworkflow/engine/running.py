"""`step.run`: a call of a function as a step, typed so that checkers see its arguments.

A checker compares the arguments with the function's parameters where no option is given. Beside an
option it cannot: a `ParamSpec` allows no keyword between the two halves of itself.
"""

from collections.abc import Awaitable, Callable, Coroutine
from types import FunctionType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from openworkflow.core.duration import Duration
from openworkflow.core.limits import Rate
from openworkflow.core.retry import RetryPolicy
from openworkflow.core.undo import Undo
from openworkflow.engine.operations.call import CallOperation
from openworkflow.engine.operations.undo import call_operation

if TYPE_CHECKING:
    from openworkflow.engine.execution import Execution
    from openworkflow.engine.program import AsyncProgram
    from openworkflow.engine.thread_program import ThreadProgram

P = ParamSpec("P")
T = TypeVar("T")


class AsyncRuns:
    """The part of Step that calls functions.

    `async def` in the overloads, since of a written Coroutine mypy makes Any within a `gather`.
    """

    __slots__ = ()

    if TYPE_CHECKING:
        _execution: Execution
        _program: AsyncProgram

    @overload
    async def run(
        self,
        name: str,
        fn: Callable[..., Awaitable[T]],
        /,
        *args: Any,
        retry: RetryPolicy | None,
        timeout: Duration | None = None,
        undo: Callable[[T], Any] | Undo[T] | None = None,
        rate: str | Rate | None = None,
        **kwargs: Any,
    ) -> T: ...

    @overload
    async def run(
        self,
        name: str,
        fn: Callable[..., T],
        /,
        *args: Any,
        retry: RetryPolicy | None,
        timeout: Duration | None = None,
        undo: Callable[[T], Any] | Undo[T] | None = None,
        rate: str | Rate | None = None,
        **kwargs: Any,
    ) -> T: ...

    @overload
    async def run(
        self,
        name: str,
        fn: Callable[..., Awaitable[T]],
        /,
        *args: Any,
        timeout: Duration | None,
        undo: Callable[[T], Any] | Undo[T] | None = None,
        rate: str | Rate | None = None,
        **kwargs: Any,
    ) -> T: ...

    @overload
    async def run(
        self,
        name: str,
        fn: Callable[..., T],
        /,
        *args: Any,
        timeout: Duration | None,
        undo: Callable[[T], Any] | Undo[T] | None = None,
        rate: str | Rate | None = None,
        **kwargs: Any,
    ) -> T: ...

    @overload
    async def run(
        self,
        name: str,
        fn: Callable[..., Awaitable[T]],
        /,
        *args: Any,
        undo: Callable[[T], Any] | Undo[T] | None,
        rate: str | Rate | None = None,
        **kwargs: Any,
    ) -> T: ...

    @overload
    async def run(
        self,
        name: str,
        fn: Callable[..., T],
        /,
        *args: Any,
        undo: Callable[[T], Any] | Undo[T] | None,
        rate: str | Rate | None = None,
        **kwargs: Any,
    ) -> T: ...

    @overload
    async def run(
        self,
        name: str,
        fn: Callable[..., Awaitable[T]],
        /,
        *args: Any,
        rate: str | Rate | None,
        **kwargs: Any,
    ) -> T: ...

    @overload
    async def run(
        self, name: str, fn: Callable[..., T], /, *args: Any, rate: str | Rate | None, **kwargs: Any
    ) -> T: ...

    @overload
    async def run(
        self,
        name: str,
        fn: Callable[P, Awaitable[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T: ...

    @overload
    async def run(
        self, name: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...

    def run(  # type: ignore[misc]  # of functions whose own `retry` it refuses
        self,
        name: str,
        fn: Callable[..., Any],
        /,
        *args: Any,
        retry: RetryPolicy | None = None,
        timeout: Duration | None = None,
        undo: Any = None,
        rate: str | Rate | None = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, Any]:
        """Call `fn(*args, **kwargs)` once and for all, and return its recorded result.

        A sync `fn` runs in a thread. A failed attempt is repeated as `retry` says (by default 10
        attempts, from 1 s apart to 100 s); an attempt longer than `timeout` (seconds, timedelta or
        text such as "30s") fails. When no attempt is left the last error is raised, in its own
        type where that type is known, else as StepFailed. With `rate`, the name of a limit or a
        named Rate, attempts begin no faster than that in all runs together: see docs/limits.md. If
        the run fails or is canceled after the step, `undo` is called with its result: see
        docs/sagas.md. A function decorated with `@step` brings those options that are not given.
        """
        execution = self._execution
        if undo is None and type(fn) is FunctionType:
            operation = CallOperation(execution, name, fn, args, kwargs, retry, timeout, rate)
        else:
            operation = call_operation(
                execution, name, fn, args, kwargs, retry, timeout, undo, rate
            )
        execution.agenda.unawaited[operation] = coroutine = self._program.ask(operation)
        return coroutine


class ThreadRuns:
    """The part of SyncStep that calls functions."""

    __slots__ = ()

    if TYPE_CHECKING:
        _execution: Execution
        _program: ThreadProgram

    @overload
    def run(
        self,
        name: str,
        fn: Callable[..., T],
        /,
        *args: Any,
        retry: RetryPolicy | None,
        timeout: Duration | None = None,
        undo: Callable[[T], Any] | Undo[T] | None = None,
        rate: str | Rate | None = None,
        **kwargs: Any,
    ) -> T: ...

    @overload
    def run(
        self,
        name: str,
        fn: Callable[..., T],
        /,
        *args: Any,
        timeout: Duration | None,
        undo: Callable[[T], Any] | Undo[T] | None = None,
        rate: str | Rate | None = None,
        **kwargs: Any,
    ) -> T: ...

    @overload
    def run(
        self,
        name: str,
        fn: Callable[..., T],
        /,
        *args: Any,
        undo: Callable[[T], Any] | Undo[T] | None,
        rate: str | Rate | None = None,
        **kwargs: Any,
    ) -> T: ...

    @overload
    def run(
        self, name: str, fn: Callable[..., T], /, *args: Any, rate: str | Rate | None, **kwargs: Any
    ) -> T: ...

    @overload
    def run(self, name: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...

    def run(  # type: ignore[misc]  # of functions whose own `retry` it refuses
        self,
        name: str,
        fn: Callable[..., Any],
        /,
        *args: Any,
        retry: RetryPolicy | None = None,
        timeout: Duration | None = None,
        undo: Any = None,
        rate: str | Rate | None = None,
        **kwargs: Any,
    ) -> Any:
        """See Step.run."""
        return self._program.ask(
            call_operation(self._execution, name, fn, args, kwargs, retry, timeout, undo, rate)
        )
