"""What a workflow function is handed: `step.run`, `step.sleep`, `step.sleep_until`.

Also what makes a function decorated with `@step` durable while a workflow runs.
"""

import asyncio
import concurrent.futures
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, overload

from openworkflow.core.duration import Duration
from openworkflow.core.errors import Suspended
from openworkflow.core.retry import RetryPolicy
from openworkflow.core.workflow import DurableFunction

if TYPE_CHECKING:
    from openworkflow.engine.execution import Execution

T = TypeVar("T")


class Step:
    """The durable operations of one run.

    Each is recorded before the workflow proceeds past it, and is not repeated by a replay. Await
    nothing but steps in a workflow function: whatever else it waits for is not durable.
    """

    __slots__ = ("_execution",)

    def __init__(self, execution: "Execution") -> None:
        self._execution = execution

    @overload
    async def run(
        self,
        name: str,
        fn: Callable[..., Awaitable[T]],
        /,
        *args: Any,
        retry: RetryPolicy | None = None,
        timeout: Duration | None = None,
        **kwargs: Any,
    ) -> T: ...

    @overload
    async def run(
        self,
        name: str,
        fn: Callable[..., T],
        /,
        *args: Any,
        retry: RetryPolicy | None = None,
        timeout: Duration | None = None,
        **kwargs: Any,
    ) -> T: ...

    def run(
        self,
        name: str,
        fn: Callable[..., Any],
        /,
        *args: Any,
        retry: RetryPolicy | None = None,
        timeout: Duration | None = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, Any]:
        """Call `fn(*args, **kwargs)` once and for all, and return its recorded result.

        A sync `fn` runs in a thread. A failed attempt is repeated as `retry` says (by default 10
        attempts, from 1 s apart to 100 s); an attempt longer than `timeout` (seconds, timedelta or
        text such as "30s") fails. When no attempt is left the last error is raised, in its own
        type where that type is known, else as StepFailed.
        """
        return self._execution.run_step(name, fn, args, kwargs, retry, timeout)

    async def sleep(self, name: str, duration: Duration) -> None:
        """Wait for `duration` (seconds, timedelta or text such as "24h"); costs no worker."""
        await self._execution.sleep(name, duration)

    async def sleep_until(self, name: str, when: datetime) -> None:
        """Wait until `when`, which must carry a time zone; in the past it is no wait."""
        await self._execution.sleep_until(name, when)

    async def patched(self, name: str) -> bool:
        """Whether this run takes the path that came with the patch `name`.

        True for runs that had not come to this point when the code was deployed; it is recorded.
        False, for good, for runs that had gone past it.
        """
        return await self._execution.patched(name)

    def call(self, fn: DurableFunction[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        """Run a function decorated with `@step`; what its plain call inside a workflow does."""
        return self._execution.run_step(fn.name, fn.fn, args, kwargs, fn.retry, fn.timeout)


class SyncStep:
    """The same for a workflow that is a plain `def`, which runs in a thread of its own."""

    __slots__ = ("_calls", "_execution", "_loop")

    def __init__(self, execution: "Execution", loop: asyncio.AbstractEventLoop) -> None:
        self._execution, self._loop = execution, loop
        self._calls: set[concurrent.futures.Future[Any]] = set()

    def run(
        self,
        name: str,
        fn: Callable[..., T],
        /,
        *args: Any,
        retry: RetryPolicy | None = None,
        timeout: Duration | None = None,
        **kwargs: Any,
    ) -> T:
        """See Step.run."""
        result: T = self._wait(self._execution.run_step(name, fn, args, kwargs, retry, timeout))
        return result

    def sleep(self, name: str, duration: Duration) -> None:
        """See Step.sleep."""
        self._wait(self._execution.sleep(name, duration))

    def sleep_until(self, name: str, when: datetime) -> None:
        """See Step.sleep_until."""
        self._wait(self._execution.sleep_until(name, when))

    def patched(self, name: str) -> bool:
        """See Step.patched."""
        return bool(self._wait(self._execution.patched(name)))

    def call(self, fn: DurableFunction[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        """See Step.call."""
        return self._wait(
            self._execution.run_step(fn.name, fn.fn, args, kwargs, fn.retry, fn.timeout)
        )

    def interrupt(self) -> None:
        """Let the thread leave the step it waits for, by Suspended."""
        for call in list(self._calls):
            call.cancel()

    def _wait(self, operation: Coroutine[Any, Any, Any]) -> Any:
        call = asyncio.run_coroutine_threadsafe(operation, self._loop)
        self._calls.add(call)
        try:
            return call.result()
        except concurrent.futures.CancelledError:
            raise Suspended from None
        finally:
            self._calls.discard(call)
