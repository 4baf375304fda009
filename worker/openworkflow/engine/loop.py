"""The event loop that a workflow function runs on: deterministic, and moved by nothing but events.

asyncio decides what runs next by what happens to be ready, so a program with branches takes another
course when it is called again under other timing. Here nothing becomes ready by itself: the
execution delivers one event (the end of a step, a timer) and then runs this loop until it is quiet.
The order of the events is recorded, so a replay takes the same course, whatever the timing.

Everything of asyncio that needs no outside world works: tasks, gather, wait, TaskGroup, shield,
locks, queues, cancellation. Timers (`asyncio.sleep`, `timeout`, `wait_for`) become durable ones.
What would reach outside (sockets, threads, subprocesses) is refused: it belongs into a step.
"""

import asyncio
import logging
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, Protocol

from openworkflow.core.errors import ConfigurationError, Suspended
from openworkflow.engine.as_completed import of_as_completed
from openworkflow.engine.handles import Handle, Timer
from openworkflow.engine.keys import Branch
from openworkflow.engine.refusals import refusal
from openworkflow.engine.sets import NumberedFuture, check_waiting

logger = logging.getLogger(__name__)

_EMPTY = Context()
UNWIND_CALLBACKS_PER_TASK = 100
UNWIND_CALLBACKS = 10_000
"""What a function that was stopped may still do: `finally` blocks, not another life."""
ONE_TASK_PER_THREAD = sys.version_info >= (3, 14)
"""Since then a thread has one current task; before, each loop has its own."""


class BranchTask(asyncio.Task[Any]):
    """A task of a workflow function, which knows its branch, and whether anybody waits for it."""

    def __init__(
        self, branch: Branch, number: int, coro: Coroutine[Any, Any, Any], **options: Any
    ) -> None:
        self.branch = branch
        self.waited_for = False
        """Whether it was ever awaited, gathered or otherwise waited for."""
        self._number = number
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        """A number that is the same in every execution: the order of a set of tasks is seen."""
        return self._number

    def add_done_callback(self, callback: Any, /, *, context: Context | None = None) -> None:
        """See asyncio.Future; whoever waits for a task does it by this."""
        self.waited_for = True
        super().add_done_callback(callback, context=context)

    def on_done(self, callback: Callable[[Any], object]) -> None:
        """Call back at the end, without counting as somebody who waits."""
        super().add_done_callback(callback, context=_EMPTY)


class Owner(Protocol):
    """The execution whose function runs on the loop."""

    def ask_timer(self, timer: Timer, seconds: float) -> None:
        """Wait `seconds`, durably, and then deliver the timer."""

    def moved_from_outside(self) -> None:
        """Something that is no event of the run made its function ready."""


_NOTHING: deque[Handle] = deque(maxlen=0)
_NO_TASKS: set[BranchTask] = set()


class WorkflowLoop(asyncio.AbstractEventLoop):
    """The loop of one execution; `home` is the context that the execution itself runs in.

    It is driven in the midst of a task of the loop `outer`. `seed` is a number of the run's own:
    tasks are numbered from there on.
    """

    is_of_workflow = True  # the backend asks for it, whose connections belong to another loop
    # Each run makes a loop: what changes with its first branch or timer is the class's until then.
    quiet = False
    """Whether the function was stopped: that is its outcome, whatever its tasks still raise."""
    running = False
    """Whether this loop is the one that executes just now."""
    ready: deque[Handle] = _NOTHING
    """What is to run next; empty while the function waits for an event, or has ended."""
    tasks: set[BranchTask] = _NO_TASKS
    """Tasks that the function made and that have not ended."""
    unawaited: dict[Any, Coroutine[Any, Any, Any]] = {}  # noqa: RUF012 (replaced, never changed)
    """Operations that the function has called, and not awaited so far."""
    _time = 0.0
    _tasks_made = _futures_made = 0
    _outer_task: asyncio.Task[Any] | None = None
    _made: dict[int, BranchTask] = {}  # noqa: RUF012 (replaced, never changed)

    def __init__(
        self, owner: Owner, home: Context | None, outer: asyncio.AbstractEventLoop, seed: int = 0
    ) -> None:
        self._owner: Owner | None = owner
        self._home, self.outer, self.seed = home, outer, seed
        self.trunk = Branch()
        """The branch of the function itself."""

    # -- what the execution does ---------------------------------------------------------------

    def enter(self) -> None:
        """Make this the running loop, in the midst of a task of the loop that it was made in."""
        if ONE_TASK_PER_THREAD:
            self._outer_task = asyncio.current_task()
            if self._outer_task is not None:
                asyncio.tasks._leave_task(self.outer, self._outer_task)
        asyncio._set_running_loop(self)
        self.running = True

    def leave(self) -> None:
        """Let the outer loop go on."""
        self.running = False
        asyncio._set_running_loop(self.outer)
        if ONE_TASK_PER_THREAD and self._outer_task is not None:
            asyncio.tasks._enter_task(self.outer, self._outer_task)
            self._outer_task = None

    def run(self, limit: int) -> int:
        """Run what is ready, and what that makes ready, up to `limit` callbacks; how many ran."""
        ready, home, ran = self.ready, self._home, 0
        while ready and ran < limit:
            handle = ready.popleft()
            callback = handle.callback
            if callback is None:
                continue
            ran += 1
            try:
                if handle.context is home:
                    callback(*handle.args)
                else:
                    handle.context.run(callback, *handle.args)
            except (SystemExit, KeyboardInterrupt):
                pass  # asyncio.Task keeps it too, and that is where it is looked at
            except BaseException as error:
                told = "a callback of the workflow failed"
                self.call_exception_handler({"message": told, "exception": error})
        return ran

    def fire(self, timer: Timer) -> None:
        """A timer's time has come."""
        timer.on_cancel(None)
        self._time = max(self._time, timer.when())
        self._soon(Handle(timer.callback, timer.args, timer.context))

    def branch(self) -> Branch:
        """The branch whose code is executing. Raises ConfigurationError for what is none."""
        task = asyncio.current_task(self)
        if isinstance(task, BranchTask):
            return task.branch
        if isinstance(task, asyncio.Task):
            raise ConfigurationError(
                "asyncio.Task(...) makes no branch of the workflow; write asyncio.create_task"
            )
        return self.trunk

    def cancel(self, main: asyncio.Future[Any]) -> None:
        """Cancel the function, and every task of it that has not ended."""
        for task in (main, *self.tasks):
            try:
                task.cancel()
            except RecursionError:
                # It waits for itself, by way of others; or at the head of a long row of tasks, and
                # what is cancelled at the far end comes up to it.
                continue
            except Exception as error:  # of a future that the workflow's own code has made
                told = "a task does not let itself be cancelled"
                self.call_exception_handler({"message": told, "exception": error})

    def unwind(self, main: asyncio.Future[Any]) -> None:
        """Cancel what is left of the function; what it still asks for is refused."""
        self.quiet = self.quiet or not main.done()
        self.enter()
        try:
            self.cancel(main)
            most = UNWIND_CALLBACKS + UNWIND_CALLBACKS_PER_TASK * len(self.tasks)
            if self.run(most) == most:
                logger.error("a workflow does not let itself be stopped; what is left is dropped")
        finally:
            self.leave()

    def forget(self) -> None:
        """The execution is over: nothing moves any more, and nothing keeps it in memory."""
        self._owner = self._home = None
        if self.ready or self.tasks:
            self.ready.clear()
            self.tasks.clear()

    # -- what asyncio asks of a loop -----------------------------------------------------------

    get_debug = bool
    """Part of asyncio, which asks it for each future: `bool()` says no without a frame."""

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        """Part of asyncio."""
        if not self.running:
            return self._from_outside()
        handle = Handle(callback, args, context or copy_context())
        self._soon(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        """Part of asyncio; a thread that was not made by a step is no event of the run."""
        return self._from_outside()

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Timer | Handle:
        """Part of asyncio; the timer is recorded, and survives the worker."""
        return self.call_at(self._time + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Timer | Handle:
        """Part of asyncio."""
        if not self.running:
            return self._from_outside()
        timer = Timer(when, callback, args, context or copy_context())
        if when <= self._time or self._owner is None:
            timer.on_cancel(self.call_soon(callback, *args, context=timer.context).cancel)
        else:
            self._owner.ask_timer(timer, when - self._time)
        return timer

    def time(self) -> float:
        """Part of asyncio: seconds by the timers of this run that have fired, not by a clock."""
        return self._time

    def create_future(self) -> asyncio.Future[Any]:
        """Part of asyncio."""
        check_waiting()
        return NumberedFuture(self.number(), loop=self)

    def number(self) -> int:
        """By which the next future hashes that is no task."""
        self._futures_made += 1
        return self.seed + self._futures_made

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        context: Context | None = None,
        **options: Any,
    ) -> asyncio.Task[Any]:
        """Part of asyncio: a new branch."""
        if not self.running:
            coro.close()
            raise ConfigurationError(
                "a task of a workflow is made by the workflow's own code, not from outside of it"
            )
        if self._made and (made := self._made.pop(id(coro), None)) is not None:
            return made
        if (siblings := of_as_completed(sys._getframe(1))) is not None:
            self._made = {id(each): self._new_task(each, None, None) for each in siblings}
            return self._made.pop(id(coro))
        return self._new_task(coro, name, context)

    def _new_task(
        self, coro: Coroutine[Any, Any, Any], name: str | None, context: Context | None
    ) -> BranchTask:
        if self.tasks is _NO_TASKS:
            self.tasks = set()
            if (main := asyncio.current_task(self)) is not None:
                asyncio._register_task(main)  # `asyncio.all_tasks` then answers it too
        branch = self.branch().child()
        name, number = name or f"branch-{branch.path}", self.seed + self._tasks_made
        self._tasks_made += 1
        task = BranchTask(branch, number, coro, loop=self, name=name, context=context)
        self.tasks.add(task)
        task.on_done(self.tasks.discard)
        return task

    def close_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        """An async generator was left before its end: what it still has to do is a branch."""
        self.create_task(generator.aclose())

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Part of asyncio: say what went wrong in the background, while somebody listens.

        A task that was turned away when its run ended has done nothing wrong.
        """
        error = context.get("exception")
        forgotten = self._owner is None  # a task that failed may be freed later than its loop
        if self.quiet or isinstance(error, Suspended) or (forgotten and error is None):
            return
        logger.warning("in a workflow: %s", context.get("message"), exc_info=error)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Part of asyncio."""
        self.call_exception_handler(context)

    def is_running(self) -> bool:
        """Part of asyncio."""
        return self.running

    def is_closed(self) -> bool:
        """Part of asyncio."""
        return self._owner is None

    def get_task_factory(self) -> None:
        """Part of asyncio."""

    def get_exception_handler(self) -> None:
        """Part of asyncio."""

    def _soon(self, handle: Handle) -> None:
        if self.ready is _NOTHING:
            self.ready = deque()
        self.ready.append(handle)

    def _from_outside(self) -> Handle:
        """Nothing runs: from whatever thread this comes, the execution hears of it in its own."""
        if self._owner is not None and not self.outer.is_closed():
            self.outer.call_soon_threadsafe(self._owner.moved_from_outside)
        return Handle(None, (), _EMPTY)


for _name, _member in vars(asyncio.AbstractEventLoop).items():
    if callable(_member) and not _name.startswith("_") and _name not in vars(WorkflowLoop):
        setattr(WorkflowLoop, _name, refusal(_name))
