"""The workflow function as a task of its loop, which its execution may also step by hand.

asyncio.Task could do the second half only. A function that does one thing after the other awaits
bare operations: whoever steps it performs them, without a future, a callback or a turn of the loop
for each. Once the function awaits anything else, it goes on as any task does.
"""

import asyncio
import sys
from asyncio import CancelledError
from collections.abc import Coroutine
from contextvars import Context
from types import FrameType
from typing import Any, TextIO

from openworkflow.core.shown import shown
from openworkflow.engine.loop import ONE_TASK_PER_THREAD, WorkflowLoop
from openworkflow.engine.operations.operation import Operation

UNCANCEL_TAKES_BACK = sys.version_info >= (3, 13)
"""Since then a cancellation that is taken back before the next await does not come."""
_base_tasks: Any = asyncio.tasks.base_tasks  # type: ignore[attr-defined]
_set_running_loop = asyncio._set_running_loop
_enter_task: Any = asyncio.tasks._enter_task
_leave_task: Any = asyncio.tasks._leave_task


class MainTask(asyncio.Future[Any]):
    """What `asyncio.current_task()` answers in the workflow function, outside of its branches."""

    __slots__ = (
        "_asked",
        "_context",
        "_coro",
        "_fut_waiter",
        "_must_cancel",
        "_name",
        "_on",
        "cancel_requests",
    )

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], loop: WorkflowLoop, context: Context
    ) -> None:
        super().__init__(loop=loop)
        self._coro, self._context, self._on = coroutine, context, loop
        self._asked: Operation | None = None
        self._fut_waiter: Any = None
        self._must_cancel: CancelledError | None = None
        self.cancel_requests = 0
        """How often it was asked to be cancelled, less what it has taken back."""
        self._name = "workflow"

    def __hash__(self) -> int:
        """See BranchTask: `asyncio.all_tasks` answers a set."""
        return self._on.seed - 1

    # -- for the execution -----------------------------------------------------------------------

    def step(self, error: BaseException | None = None) -> Any:
        """Let the function go on; returns what it awaits next, if it goes on."""
        loop, coroutine = self._on, self._coro
        if self._must_cancel:
            error = error if isinstance(error, CancelledError) else self._must_cancel
            self._must_cancel = None
        _enter_task(loop, self)
        try:
            return coroutine.send(None) if error is None else coroutine.throw(error)
        except StopIteration as stop:
            self.set_result(stop.value)
        except BaseException as raised:
            self._fail(raised)
        finally:
            _leave_task(loop, self)
        return None

    def step_alone(self, error: BaseException | None) -> Any:
        """Step from outside of the loop, which is the running one meanwhile."""
        loop, coroutine = self._on, self._coro
        if ONE_TASK_PER_THREAD:
            loop.enter()
        else:  # the same without a call, and likewise below
            loop.running = True
            _set_running_loop(loop)
        try:
            if self._must_cancel:
                return self.step(error)
            _enter_task(loop, self)
            try:
                return coroutine.send(None) if error is None else coroutine.throw(error)
            finally:
                _leave_task(loop, self)
        except StopIteration as stop:
            self.set_result(stop.value)
        except BaseException as raised:
            self._fail(raised)
        finally:
            if ONE_TASK_PER_THREAD:
                loop.leave()
            else:
                loop.running = False
                _set_running_loop(loop.outer)
        return None

    def _fail(self, error: BaseException) -> None:
        self.set_exception(Canceled(error) if isinstance(error, CancelledError) else error)

    def go_on(self, awaited: Any) -> None:
        """From here on, be a task: wait for what the function awaits, and let it go on then."""
        if self.done():
            return
        future = awaited
        if isinstance(awaited, Operation):
            self._asked, future = awaited, awaited.future
        elif awaited is None:  # asyncio.sleep(0)
            self._on.call_soon(self._proceed, context=self._context)
            return
        elif not getattr(awaited, "_asyncio_future_blocking", False):
            self._proceed(RuntimeError(f"the workflow awaits {shown(awaited)}, which is no future"))
            return
        else:
            awaited._asyncio_future_blocking = False
        if asyncio.futures._get_loop(future) is not self._on:  # type: ignore[attr-defined]
            self._proceed(
                RuntimeError(
                    f"the workflow awaits {shown(future)}, which was made outside of it; whatever "
                    "comes from outside has to come as the result of a step"
                )
            )
            return
        self._fut_waiter = future
        future.add_done_callback(self._wake_up, context=self._context)
        if self._must_cancel and future.cancel(*self._must_cancel.args):
            self._must_cancel = None

    def _wake_up(self, future: "asyncio.Future[Any]") -> None:
        self._fut_waiter, asked, self._asked = None, self._asked, None
        try:
            value = future.result()
        except BaseException as error:
            self._proceed(error)
        else:
            if asked is not None:
                asked.answer = value
            self.go_on(self.step())

    def _proceed(self, error: BaseException | None = None) -> None:
        self.go_on(self.step(error))

    def ended(self) -> tuple[Any, BaseException | None]:
        """What the function returned or raised."""
        error = self.exception()
        if isinstance(error, Canceled):
            error = error.error
        return (None, error) if error is not None else (self.result(), None)

    # -- what asyncio asks of a task -------------------------------------------------------------

    def cancel(self, msg: Any = None) -> bool:
        """See asyncio.Task."""
        if self.done():
            return False
        self.cancel_requests += 1
        if self._fut_waiter is None or not self._fut_waiter.cancel(msg):
            self._must_cancel = CancelledError() if msg is None else CancelledError(msg)
        return True

    def cancelling(self) -> int:
        """See asyncio.Task."""
        return self.cancel_requests

    def uncancel(self) -> int:
        """See asyncio.Task."""
        self.cancel_requests = max(0, self.cancel_requests - 1)
        if UNCANCEL_TAKES_BACK and not self.cancel_requests:
            self._must_cancel = None
        return self.cancel_requests

    def get_stack(self, *, limit: int | None = None) -> list[FrameType]:
        """See asyncio.Task."""
        return _base_tasks._task_get_stack(self, limit)  # type: ignore[no-any-return]

    def print_stack(self, *, limit: int | None = None, file: TextIO | None = None) -> None:
        """See asyncio.Task."""
        _base_tasks._task_print_stack(self, limit, file)

    def get_coro(self) -> Coroutine[Any, Any, Any]:
        """See asyncio.Task."""
        return self._coro

    def get_context(self) -> Context:
        """See asyncio.Task."""
        return self._context

    def get_name(self) -> str:
        """See asyncio.Task."""
        return self._name

    def set_name(self, value: object) -> None:
        """See asyncio.Task."""
        self._name = str(value)


class Canceled(Exception):
    """Holds a CancelledError that left the function: a future takes it for its own."""

    def __init__(self, error: CancelledError) -> None:
        super().__init__()
        self.error = error
