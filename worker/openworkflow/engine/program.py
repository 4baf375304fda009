"""How a workflow function is executed: an async one on a loop of its own, a plain one in a thread.

A program moves by events only. It asks its execution for operations, and is told of their ends one
at a time: those that are recorded in their recorded order, then new ones in the order in which they
were recorded. After each the function runs until it is quiet.
"""

import asyncio
from asyncio import CancelledError
from collections import deque
from collections.abc import Coroutine
from contextvars import copy_context
from datetime import timedelta
from threading import get_ident
from typing import TYPE_CHECKING, Any, NoReturn

from openworkflow.core.duration import LONGEST
from openworkflow.core.errors import Suspended
from openworkflow.core.workflow import current_run
from openworkflow.engine import ending
from openworkflow.engine.handles import Timer
from openworkflow.engine.loop import WorkflowLoop
from openworkflow.engine.main_task import MainTask
from openworkflow.engine.operations.operation import Operation
from openworkflow.engine.operations.sleep import TimerOperation
from openworkflow.engine.outcome import Lost, Outcome
from openworkflow.engine.step import Step
from openworkflow.engine.undoing import lingers

if TYPE_CHECKING:
    from openworkflow.engine.execution import Execution

CALLBACKS_AT_ONCE = 1_000
"""After so many callbacks without a rest, other runs have their turn."""
MOST_CALLBACKS = 1_000_000
"""A function that has not come to rest after so many will not."""
_SEED_BITS = (1 << 60) - 1


class AsyncProgram:
    """An async workflow function; its loop is driven by the task of its execution.

    As long as the function does one thing after the other it is stepped by hand. With its first
    branch, timer or future it becomes a task of its loop.
    """

    __slots__ = (
        "_callbacks",
        "_direct",
        "_execution",
        "_here",
        "_inbox",
        "_last_failed",
        "_main",
        "_moved",
        "_outer",
        "loop",
    )

    def __init__(self, execution: "Execution") -> None:
        self._execution = execution
        assert execution.task is not None
        self._outer = outer = execution.task.get_loop()
        self._inbox: deque[tuple[Operation, Any, BaseException | None]] | None = None
        self._moved: asyncio.Future[None] | None = None
        self._here = False
        self._callbacks = 0
        self._last_failed: str | None = None
        self._direct = True
        self._main: MainTask | None = None
        seed = execution.claim.id.int & _SEED_BITS
        self.loop = WorkflowLoop(self, execution.context, outer, seed)  # type: ignore[abstract]
        self.loop.unawaited = execution.agenda.unawaited

    async def run(self) -> Outcome:
        """Execute the function; returns how it ended, or was stopped."""
        execution, loop = self._execution, self.loop
        agenda, history = execution.agenda, execution.history
        operations, recorded = agenda.operations, history.recorded
        error: BaseException | None = None
        try:
            self._main = main = MainTask(self._call(), loop, execution.context or copy_context())
        except Exception as raised:
            return ending.raised(execution, raised)
        # One thing after the other, until the function has to be a task.
        while (asked := main.step_alone(error)) is not None or not main.done():
            if (
                not isinstance(asked, Operation)
                or asked.environment is not None
                or len(operations) > 1
                or execution.stopped is not None
                or loop.ready
                or main.cancel_requests
            ):
                return await self._run_as_task(asked)
            if not recorded or not history.pending:
                if execution.draining:
                    return await self._run_as_task(asked)
                agenda.asked.clear()
                agenda.busy += 1
                self._here = True
                try:
                    asked.answer, error = await asked.perform()
                except BaseException as failure:
                    return await self._run_as_task(asked, failure)
                self._here = False
                agenda.busy -= 1
            elif (row := history.take_next(asked.key)) is not None:
                asked.answer, error = execution.recall(asked, row)
            else:
                return await self._run_as_task(asked)
            del operations[asked.key]
            self._last_failed = None if error is None else asked.key
        return self._ended(main)

    async def _run_as_task(self, asked: Any, failure: BaseException | None = None) -> Outcome:
        """Go on as a task of the loop, like the function's branches.

        It waits for what it has `asked` for, and that has ended with a `failure` to perform it.
        """
        execution, main = self._execution, self._main
        assert main is not None
        try:
            self._become_task(main, asked)
            if failure is not None:
                self._here = False
                execution.agenda.performed(asked, failure)
            while execution.stopped is None and not main.done():
                await self._round(main)
            while execution.owed and execution.stopped is None and lingers(execution, main):
                await self._until_moved()
        except CancelledError:
            execution.interrupt(Lost())  # the worker is torn down
            self.loop.unwind(main)
            raise
        return self._ended(main)

    def _ended(self, main: MainTask) -> Outcome:
        execution = self._execution
        if (outcome := execution.stopped) is None:
            outcome = self._outcome(*main.ended())
            if execution.agenda.busy:
                execution.interrupt(outcome)
            else:
                execution.stopped = outcome
        else:
            self.loop.quiet = True
        if self.loop.tasks or not main.done():
            self.loop.unwind(main)
        return outcome

    def _become_task(self, main: MainTask, asked: Any) -> None:
        """From here on the function is a task of its loop, like its branches."""
        self._direct = False
        asyncio._register_task(main)  # type: ignore[arg-type]
        for each in (*self._execution.agenda.operations.values(), asked):
            if isinstance(each, Operation):
                each.future = asyncio.Future(loop=self.loop)
        self.loop.enter()
        try:
            main.go_on(asked)
        finally:
            self.loop.leave()

    async def _round(self, main: MainTask) -> None:
        """One round: hand out events until the function is quiet, then do what it asked for."""
        execution = self._execution
        if not self._turn(main):
            await asyncio.sleep(0)  # others have a turn
        elif execution.stopped is not None or main.done():
            return
        elif not execution.agenda.operations:
            execution.fail(ending.stalled(main, *self.loop.tasks))
        elif (operation := execution.agenda.start_asked(here=True)) is not None:
            if (answer := await self._perform_here(operation)) is not None:
                execution.agenda.settle(operation, *answer)
        elif not self._inbox:
            execution.agenda.consider()
            if execution.stopped is None:
                await self._until_moved()

    # -- for the execution -----------------------------------------------------------------------

    @property
    def at_rest(self) -> bool:
        """Whether the function is quiet, and no event waits to be handed out."""
        waiting = self._moved is not None and not self._moved.done()
        return (self._here or waiting) and not self._inbox

    def settled(self, operation: Operation, value: Any, error: BaseException | None) -> None:
        """An operation has ended: that is handed out after what ended before it."""
        if self._inbox is None:
            self._inbox = deque()
        self._inbox.append((operation, value, error))
        self.moved()

    def moved(self) -> None:
        """Have a look: something was settled, or is not being done any more."""
        if self._here and not self._inbox:
            self._execution.agenda.consider()
        elif self._moved is not None and not self._moved.done():
            self._moved.set_result(None)

    def stop(self) -> None:
        """The execution was stopped; let its task know, wherever it is."""
        task = self._execution.task
        # One that cancels itself would be cancelled where its outcome is recorded.
        if self._here and task is not None and asyncio.current_task() is not task:
            task.cancel()
        self.moved()

    def forget(self) -> None:
        """The execution is over: let go of what holds it in memory."""
        self.loop.forget()
        self._main = None  # whose context leads back to here

    # -- for the function ------------------------------------------------------------------------

    async def ask(self, operation: Operation) -> Any:
        """Ask for an operation, and wait until its end is handed out."""
        execution, loop = self._execution, self.loop
        execution.agenda.unawaited.pop(operation, None)
        if execution.stopped is not None:
            await self._turn_away(Suspended())
        # Cheaper than to ask asyncio for the running loop, which asks the system for the process.
        if not loop.running or get_ident() != execution.services.thread:
            await self._turn_away(ending.inside_a_step(operation.name))
        try:
            if self._direct:
                if execution.context is None:
                    operation.environment = copy_context()
                execution.agenda.register(operation, loop.trunk)
                await operation
                return operation.answer
            return await self._asked_by_branch(operation)
        except BaseException:  # cancelled, closed by hand, or what it came to
            execution.agenda.withdraw(operation)
            raise

    def _asked_by_branch(self, operation: Operation) -> "asyncio.Future[Any]":
        """Register what a task of the function asks for; what it awaits."""
        loop, execution = self.loop, self._execution
        branch = loop.branch()
        future: asyncio.Future[Any] = asyncio.Future(loop=loop)
        operation.future = future
        if branch is not loop.trunk or execution.context is None:
            operation.environment = copy_context()
        execution.agenda.register(operation, branch)
        return future

    def check_asking(self, name: str) -> None:
        """Refuse what is asked for by anything but the workflow's own code."""
        if asyncio._get_running_loop() is not self.loop:
            raise ending.inside_a_step(name)

    def ask_timer(self, timer: Timer, seconds: float) -> None:
        """See loop.Owner."""
        execution = self._execution
        if execution.stopped is not None:
            return
        delay = timedelta(seconds=min(seconds, LONGEST.total_seconds()))
        operation = TimerOperation(execution, self.loop, timer, lambda: execution.now() + delay)
        operation.environment = copy_context()
        execution.agenda.register(operation, self.loop.branch())
        timer.on_cancel(lambda: execution.agenda.withdraw(operation))

    def moved_from_outside(self) -> None:
        """See loop.Owner."""
        self._execution.fail(ending.moved_from_outside())

    async def _turn_away(self, error: BaseException) -> NoReturn:
        """Refuse what is asked for, after a turn: one that asks again forever blocks nobody."""
        await asyncio.sleep(0)
        raise error

    # -- the turns of the loop -------------------------------------------------------------------

    def _call(self) -> Coroutine[Any, Any, Any]:
        execution = self._execution
        step = Step(execution, self)
        arguments = ending.decoded_input(execution)
        current_run.set(step)
        return execution.workflow._invoke(arguments, step)  # type: ignore[no-any-return]

    def _turn(self, main: MainTask) -> bool:
        """Hand out events until none is left and the function is quiet; False if it is not yet."""
        execution, loop = self._execution, self.loop
        loop.enter()
        try:
            while True:
                self._callbacks += loop.run(CALLBACKS_AT_ONCE)
                if execution.stopped is not None:
                    return True
                if loop.ready:
                    if self._callbacks >= MOST_CALLBACKS:
                        execution.fail(ending.never_rests(MOST_CALLBACKS))
                    return False
                self._callbacks = 0
                if main.done() or not self._hand_out():
                    return True
        finally:
            loop.leave()

    def _hand_out(self) -> bool:
        """Give the function the next event; False if there is none that it waits for."""
        execution = self._execution
        history = execution.history
        if history.pending:
            if (row := history.next_event()) is not None:
                operation = execution.agenda.operations.pop(row.step_name, None)
                if operation is not None:
                    self._last_failed = None if row.error is None else operation.key
                    operation.deliver(*execution.recall(operation, row))
                return True
            if history.unfinished:
                return False
        if not self._inbox:
            return False
        operation, value, error = self._inbox.popleft()
        if execution.agenda.operations.pop(operation.key, None) is operation:  # else withdrawn
            self._last_failed = None if error is None else operation.key
            operation.deliver(value, error)
        return True

    async def _perform_here(self, operation: Operation) -> tuple[Any, BaseException | None] | None:
        """Do the only thing there is to do in the execution's own task; None if it did not end."""
        self._here = True
        try:
            answer = await operation.perform()
        except BaseException as error:
            self._here = False
            self._execution.agenda.performed(operation, error)
            return None
        self._here = False
        self._execution.agenda.busy -= 1
        return answer

    async def _until_moved(self) -> None:
        self._moved = self._outer.create_future()
        try:
            await self._moved
        finally:
            self._moved = None

    def _outcome(self, value: Any, error: BaseException | None) -> Outcome:
        if error is not None:
            return ending.raised(self._execution, error, self._last_failed)
        tasks = self.loop.tasks
        alone = [t.branch.path for t in tasks if not (t.done() or t.waited_for)] if tasks else ()
        return ending.returned(self._execution, value, alone)
