"""What a workflow function has asked for: looked up, started, waited for, withdrawn.

An operation begins once everything recorded has reached the function. Where nothing is left to do
but wait, that is known, not guessed: nothing of the function is ready, nothing is being done, and
no event is left. The run is then parked, or rests in memory for a moment.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from datetime import datetime
from typing import TYPE_CHECKING, Any

from openworkflow.core.errors import NonDeterminism, SerializationError, Suspended
from openworkflow.engine import calls, precedence
from openworkflow.engine.asked import Asked
from openworkflow.engine.keys import Branch
from openworkflow.engine.operations.operation import FOR_OTHERS, Operation, sleeps_until
from openworkflow.engine.outcome import Parked, Released
from openworkflow.engine.waits import Waits

if TYPE_CHECKING:
    from openworkflow.engine.execution import Execution

logger = logging.getLogger(__name__)

CANCEL_SECONDS = 3.0
"""How long an execution waits for step functions that were cancelled; less than a worker has to
hand its runs back."""

_EMPTY = Context()  # a cancelled timer keeps its own, and with it the run, until it would be due
_NO_WAITS: Waits[Operation] = Waits()
"""What most executions have: nothing is ever put into it."""


class Agenda:
    """The operations of one execution."""

    __slots__ = (
        "_execution",
        "_resting",
        "_timed",
        "_waits",
        "asked",
        "away",
        "busy",
        "operations",
        "precedence",
        "stayed",
        "tasks",
        "unawaited",
    )

    def __init__(self, execution: "Execution") -> None:
        self._execution = execution
        self.operations: dict[str, Operation] = {}
        """What the function has asked for, and has not been answered, by key."""
        self.unawaited: dict[Operation | Asked[Any], Coroutine[Any, Any, Any]] = {}
        """What it has called, and not awaited so far."""
        self.asked: list[Operation] = []
        """What is to be begun once the function is quiet."""
        self.busy = 0
        """Operations that are being performed, those that wait included."""
        self.tasks: set[asyncio.Task[None]] | None = None
        """Where they are performed, unless in the execution's own task."""
        self._waits: Waits[Operation] = _NO_WAITS
        self._resting: asyncio.Lock | None = None
        self.precedence: precedence.Precedence | None = None
        self.away: asyncio.Event | None = None
        """Set when the run, which is parked, is claimed again."""
        self.stayed = False
        """Whether the execution has outlasted a claim."""
        self._timed: dict[asyncio.Future[None], tuple[datetime, asyncio.TimerHandle]] | None = None

    def register(self, operation: Operation, branch: Branch) -> None:
        """Take in what the function asks for. Raises ConfigurationError, or stops the run."""
        execution = self._execution
        history = execution.history
        key = operation.key = history.keys.request(operation.name, branch)
        try:
            if history.recorded:
                operation.recorded = history.request(key, operation.kind)
            operation.check()
        except NonDeterminism as error:
            execution.fail(error)
            raise Suspended from None
        if history.keys.requested[key] is not None:
            operation.path = branch.path
            if told := operation.tells():
                operation.context = json.dumps(told)
            self._tell_first(history.keys.comes_again(key))
        # What the function had seen; what others record meanwhile is no reason to wait.
        if pending := execution.recorder.pending:
            operation.after = next(reversed(pending))
        self.operations[key] = operation
        if operation.recorded is None or operation.recorded.settled is None:
            self.asked.append(operation)

    def _tell_first(self, key: str | None) -> None:
        """Have the first call of a name say which it is, too, where nothing of it is recorded yet.

        Branches that begin in another order in a replay would each have the other's result.
        """
        first = None if key is None else self.operations.get(key)
        if first is None or first not in self.asked:
            return
        if first.path and (told := first.tells()):
            first.context = json.dumps(told)

    def withdraw(self, operation: Operation) -> None:
        """The workflow has cancelled the branch that waits for it."""
        if type(operation.key) is not str:
            return  # it was refused for that
        # A coroutine may be freed, and cancel its timer, after the execution was forgotten.
        if operation.key not in self.operations or self._execution.stopped is not None:
            return
        del self.operations[operation.key]
        self._waits.end(operation)
        if operation in self.asked:
            self.asked.remove(operation)
            if operation.recorded is None or self._execution.draining:
                return
            operation.take_up()  # the claim that began it did not live to end it
        operation.withdraw()
        if operation.task is not None:
            operation.task.cancel()

    def start_asked(self, *, here: bool, all_asked: bool = True) -> Operation | None:
        """Start what was asked for, if the function has come as far as the history.

        With `here`, a single operation is returned instead, for the caller to perform. Where
        `all_asked`, the function can ask for nothing more before something of this has ended.
        """
        execution = self._execution
        if all_asked and execution.history.unfinished:
            execution.fail(execution.history.mismatch(self.operations))
            return None
        if execution.draining or not self.asked:
            return None
        asked, self.asked = self.asked, []
        if len(asked) > 1 and execution.history.recorded:
            asked.sort(key=sleeps_until)  # no timeout before what was over before it
        self.busy += len(asked)
        if here and len(self.operations) == 1 and asked[0].environment is None:
            return asked[0]
        loop = asyncio.get_running_loop()
        self.tasks = set() if self.tasks is None else self.tasks
        for operation in asked:
            task = operation.task = loop.create_task(
                self._perform(operation), context=operation.environment or copy_context()
            )
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        precedence.begin(self.precedence, asked)
        return None

    async def _perform(self, operation: Operation) -> None:
        """Do what was asked for, in a task of its own."""
        try:
            answer = await operation.perform()
        except BaseException as error:
            self.performed(operation, error)
        else:
            self.settle(operation, *answer)
            self.performed(operation)

    def performed(self, operation: Operation, error: BaseException | None = None) -> None:
        """An operation is not being done any more; what went wrong with it ends this run only.

        Raises CancelledError if the worker is torn down.
        """
        execution = self._execution
        self.busy -= 1
        self._waits.end(operation)
        try:
            if error is not None and not isinstance(error, Suspended):
                self._went_wrong(operation, error)
        finally:
            if execution.program is not None:
                execution.program.moved()

    def _went_wrong(self, operation: Operation, error: BaseException) -> None:
        execution = self._execution
        if isinstance(error, SerializationError):
            execution.fail(error)  # the database refused what another step has recorded
        elif not calls.is_cancelled(error):
            execution.interrupt(execution.defect(error))
        elif calls.is_stray(operation):
            logger.warning("step %s: something cancelled its task; handed back", operation.key)
            execution.interrupt(Released())
        elif execution.stopped is None and self.operations.get(operation.key) is operation:
            raise error  # not withdrawn by the workflow, not stopped: the worker is torn down

    def settle(self, operation: Operation, value: Any, error: BaseException | None = None) -> None:
        """An operation has ended, and its end is recorded: the next event of the run."""
        execution = self._execution
        asked = self.operations.get(operation.key) is operation  # else withdrawn meanwhile
        if asked and execution.program is not None and execution.stopped is None:
            execution.program.settled(operation, value, error)

    async def wait(
        self,
        operation: Operation,
        until: datetime | None,
        on_wake: Callable[[Callable[[], None]], Callable[[], None]] | None = None,
    ) -> None:
        """Wait until then in memory, as long as the run is not parked for it; None is forever.

        `on_wake` is told what ends the wait before, and returns what takes that back.
        """
        execution = self._execution
        seconds = None if until is None else (until - execution.now()).total_seconds()
        if seconds is not None and seconds <= 0:
            return
        loop = asyncio.get_running_loop()
        wait: asyncio.Future[None] = loop.create_future()
        self._waits = Waits() if self._waits is _NO_WAITS else self._waits
        self._waits.begin(operation, until)
        if until is not None and seconds is not None:
            self._timed = {} if self._timed is None else self._timed
            self._timed[wait] = until, loop.call_later(seconds, _resolve, wait, context=_EMPTY)

        def wake() -> None:
            # Not parked from here on: what it waited for is here, and perhaps only here.
            self._waits.end(operation)
            _resolve(wait)

        forget = None if on_wake is None else on_wake(wake)
        try:
            if execution.program is not None and execution.program.at_rest:
                self.consider()
            execution.check_stopped()
            await wait
        finally:
            if forget is not None:
                forget()
            self._waits.end(operation)
            if self._timed and (timed := self._timed.pop(wait, None)) is not None:
                timed[1].cancel()
        await self._may_go_on()

    async def _may_go_on(self) -> None:
        """Wait until the run is claimed again, if it is parked, and has a slot, if it rests.

        Raises Suspended if the execution was stopped meanwhile.
        """
        if self.away is not None:
            await self.away.wait()
        if self._resting is not None:
            async with self._resting:
                await self._execution.slot.acquire()
        self._execution.check_stopped()

    def consider(self) -> None:
        """Park the run, let it rest or hand it back, if nothing of it can move.

        Called while the function is quiet and no event waits for it.
        """
        execution = self._execution
        precedence.look_again(self.precedence)
        if execution.stopped is not None or self.away or self.busy > len(self._waits):
            return
        all_wait = 0 < len(self._waits) == len(self.operations)
        if not all_wait:
            if execution.draining:
                execution.interrupt(Released())
            return
        until = self._waits.earliest
        if execution.draining:
            execution.interrupt(Parked(until, execution.wake_no))
        else:
            self._rest_or_park(until)

    def _rest_or_park(self, until: datetime | None) -> None:
        """A short wait is cheaper in memory than a replay: it costs a lease and no slot.

        But a run with limits keeps what it has of them, which those may need that it waits for.
        """
        execution = self._execution
        short = until is not None and (
            (until - execution.now()).total_seconds() <= execution.services.rest_seconds
        )
        if execution.workflow.limits and any(each.kind in FOR_OTHERS for each in self._waits):
            short = False
        if short and not execution.slot.occupies:
            return
        if short and execution.slot.may_rest:
            self._resting = self._resting or asyncio.Lock()
            execution.slot.release()
        elif any(each.kind in FOR_OTHERS for each in self._waits) or not (
            execution.services.park(execution, until)
        ):
            execution.interrupt(Parked(until, execution.wake_no))

    def go_away(self) -> None:
        """The run is parked, and its execution stays: nothing goes on before `come_back`.

        Nor does time pass for it: clocks part over days, and one of a machine that sleeps stands.
        """
        self.away, self.stayed = asyncio.Event(), True
        for _, timer in (self._timed or {}).values():
            timer.cancel()

    def come_back(self, now: datetime) -> None:
        """The run is claimed again, at this time of the database: what is due goes on.

        In the order in which it fell due; the rest waits for as long as the database says.
        """
        timed, loop = self._timed or {}, asyncio.get_running_loop()
        for wait, (until, _) in sorted(timed.items(), key=_falls_due):
            if until <= now:
                _resolve(wait)
            else:
                seconds = (until - self._execution.now()).total_seconds()
                timed[wait] = until, loop.call_later(seconds, _resolve, wait, context=_EMPTY)
        if self.away is not None:
            self.away.set()
            self.away = None

    async def end_tasks(self) -> None:
        """Cancel the step functions still running, and see them out for a moment."""
        execution = self._execution
        left = [task for task in self.tasks or () if not task.done()]
        for task in left:
            task.cancel()
        if left and execution.stopped is not None:
            await asyncio.wait(left, timeout=CANCEL_SECONDS)

    def forget(self) -> None:
        """The execution is over: let go of what holds it in memory."""
        if self.unawaited or self.operations:
            for coroutine in self.unawaited.values():
                coroutine.close()
            self.unawaited.clear()
            self.operations.clear()
            self.asked.clear()
        self.precedence = None
        if not self.tasks:  # what does not let itself be cancelled still asks of it
            del self._execution


def _falls_due(timed: tuple[Any, tuple[datetime, Any]]) -> datetime:
    return timed[1][0]


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
