"""The end of a run whose steps are undone: the function is replayed, and then each undo is called.

An undo is a function, and may be a closure, so the workflow's function has to say which it is. It
is replayed as far as all steps were asked for that are to be undone, and performs nothing. The
undos are then done one after the other, as steps that are recorded like any other.
"""

import logging
from asyncio import CancelledError, current_task
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from openworkflow.core.errors import Suspended, UndoFailed
from openworkflow.core.failure import Failure
from openworkflow.core.step_attempt import StepKind
from openworkflow.engine import ending
from openworkflow.engine.agenda import Agenda
from openworkflow.engine.main_task import MainTask
from openworkflow.engine.operations.operation import Operation
from openworkflow.engine.operations.undo import UndoableCall, UndoOperation
from openworkflow.engine.outcome import (
    Canceled,
    Failed,
    Lost,
    Outcome,
    Parked,
    Released,
    Undoing,
    decided,
    decision,
)
from openworkflow.engine.recorder import Recorder
from openworkflow.engine.services import NO_LIMIT
from openworkflow.engine.undone import Owed, Undone, undo_key

if TYPE_CHECKING:
    from openworkflow.engine.execution import Execution
    from openworkflow.engine.program import AsyncProgram
    from openworkflow.engine.thread_program import ThreadProgram

logger = logging.getLogger(__name__)

NO_UNDO = "the code has no undo for it any more, or does not ask for it"
CUT_SHORT = (
    "it was cut short, so that nobody knows whether it took effect; Undo(uncertain=...) says what "
    "to do then"
)
FAMILY = (StepKind.CHILD, StepKind.CHILD_START, StepKind.MAP)
"""Kinds of steps that start children."""
POISON = "nothing is called of a run that killed its workers"


def begin(recorder: Recorder, outcome: Outcome) -> Outcome:
    """What a run comes to at first that has failed: its steps are undone before it ends."""
    if type(outcome) is not Failed or not recorder.owes:
        return outcome
    recorder.owes = False
    recorder.decide(decision(outcome))
    return Undoing(outcome.failure)


def prepare(execution: "Execution", undone: Undone) -> None:
    """Take in what is owed from before; a poison pill, which is not executed, is not undone."""
    execution.recorder.owes = undone.decision is None
    outcome = execution.stopped
    if not isinstance(outcome, Failed):
        return
    owed = undone.owed(execution.history.recorded)
    done = [each.key for each in owed if undone.is_undone(each.key)]
    left = {each.key: POISON for each in owed if each.key not in done}
    execution.stopped = _told(outcome, done, left)


def program(
    execution: "Execution", function: "AsyncProgram | ThreadProgram"
) -> "AsyncProgram | ThreadProgram | UndoProgram":
    """What is executed: the function, or what stands for it in a run that is to be undone."""
    return UndoProgram(execution, function) if execution.history.is_undoing else function


def lingers(execution: "Execution", main: MainTask) -> bool:
    """Whether the function has failed for good while steps with an undo have not ended.

    These are not cut short: what they do is to be known, if it is to be undone. They are not tried
    again.
    """
    flying = [each for each in execution.owed.values() if each.in_flight]
    error = main.ended()[1]
    if not flying or error is None or type(ending.raised(execution, error)) is not Failed:
        return False
    for each in flying:
        each.given_up = True
    return True


class UndoProgram:
    """Stands for the workflow's function in the execution of a run that is to be undone."""

    def __init__(self, execution: "Execution", replay: "AsyncProgram | ThreadProgram") -> None:
        self._execution = execution
        self._replay: AsyncProgram | ThreadProgram | None = replay
        self._here = False
        self._done: list[str] = []
        self._left: dict[str, str] = {}

    async def run(self) -> Outcome:
        """Undo what is owed; returns how the run ends."""
        execution = self._execution
        undone = execution.history.undo
        assert undone is not None
        assert undone.decision is not None
        execution.recorder.owes = False
        execution.limit = NO_LIMIT  # attempts of undos are not counted against the run
        if (stopped := await self._replayed()) is not None:
            return stopped
        if _may_be_parent(execution):
            execution.recorder.orphan()  # or children would go on for as long as this takes
        for owed in undone.owed(execution.history.recorded):
            await self._undo(undone, owed)
        return self._outcome(decided(undone.decision))

    # -- the replay ------------------------------------------------------------------------------

    async def _replayed(self) -> Outcome | None:
        """Have the function say what undoes its steps; how it comes out is of no interest.

        Returns how the execution ends, if it does.
        """
        execution, replay = self._execution, self._replay
        assert replay is not None
        execution.draining = True  # it begins nothing
        try:
            await replay.run()
        except (CancelledError, Suspended):
            if execution.stopped is None:
                raise
            while (task := current_task()) is not None and task.cancelling():
                task.uncancel()
        await execution.agenda.end_tasks()
        replay.forget()
        self._replay = None
        if isinstance(execution.stopped, Lost):
            return execution.stopped
        if execution.drained:
            return Released()
        execution.agenda.forget()
        execution.agenda = Agenda(execution)
        execution.stopped, execution.draining = None, False
        return None

    # -- the undos -------------------------------------------------------------------------------

    async def _undo(self, undone: Undone, owed: Owed) -> None:
        """Undo one step, unless that is recorded; what goes wrong with it keeps no other back."""
        row = undone.performed.get(undo_key(owed.key))
        if row is not None and row.settled is not None:
            self._tell(owed, row.settled.error and Failure.from_json(row.settled.error).summary)
            return
        step = self._execution.owed.get(owed.key)
        if step is None:
            self._tell(owed, NO_UNDO)
        elif owed.settled is None and step.undo.uncertain is None:
            self._tell(owed, CUT_SHORT)
        else:
            self._tell(owed, await self._performed(step, owed))

    async def _performed(self, step: UndoableCall, owed: Owed) -> str | None:
        """Call the undo of a step; the reason why it could not be undone."""
        execution = self._execution
        try:
            operation = UndoOperation(step, owed)
        except Exception as error:  # the step's result does not fit its annotation any more
            return Failure.from_exception(error).summary
        agenda = execution.agenda
        agenda.operations[operation.key] = operation
        agenda.busy += 1
        self._here = True
        try:
            _, raised = await operation.perform()
        except (CancelledError, Suspended):
            if execution.stopped is None and execution.draining:
                execution.stopped = Released()
            if isinstance(execution.stopped, Parked):
                execution.stopped = replace(execution.stopped, overdue=True)
            raise
        finally:
            self._here = False
            agenda.busy -= 1
            agenda.operations.pop(operation.key, None)
        return None if raised is None else Failure.from_exception(raised).summary

    def _tell(self, owed: Owed, why: str | None) -> None:
        if why is None:
            self._done.append(owed.key)
        else:
            self._left[owed.key] = why
            logger.error("step %s of the run could not be undone: %s", owed.key, why)

    def _outcome(self, end: Failed | Canceled) -> Outcome:
        if isinstance(end, Failed):
            return _told(end, self._done, self._left)
        if not self._left:
            return end
        error = UndoFailed("the run was canceled, and not all that it had done could be undone")
        return _told(Failed(Failure.from_exception(error)), self._done, self._left)

    # -- for the execution -----------------------------------------------------------------------

    @property
    def at_rest(self) -> bool:
        """Whether nothing waits to be handed out."""
        return self._here if self._replay is None else self._replay.at_rest

    def settled(self, operation: Operation, value: Any, error: BaseException | None) -> None:
        """Nothing of a replay is performed, and so nothing ends."""

    def moved(self) -> None:
        """Something is not being done any more."""
        if self._replay is not None:
            self._replay.moved()
        elif self._here:
            self._execution.agenda.consider()

    def stop(self) -> None:
        """The execution was stopped; let its task know, wherever it is."""
        task = self._execution.task
        if self._replay is not None:
            self._replay.stop()
        elif self._here and task is not None and current_task() is not task:
            task.cancel()

    def forget(self) -> None:
        """The execution is over: let go of what holds it in memory."""
        if self._replay is not None:
            self._replay.forget()


def _may_be_parent(execution: "Execution") -> bool:
    """Whether it may have children; those of before it continued as new are in no history."""
    recorded = execution.history.recorded.values()
    return execution.claim.history_from > 0 or any(each.kind in FAMILY for each in recorded)


def _told(failed: Failed, done: Any, left: dict[str, str]) -> Failed:
    """A failure that says what was undone, and in its message what was not."""
    if not done and not left:
        return failed
    failure = failed.failure
    if left:
        named = "; ".join(f"{key!r} ({why})" for key, why in left.items())
        failure = replace(failure, message=f"{failure.message} [not undone: {named}]")
    return replace(failed, failure=failure, undo={"undone": list(done), "not_undone": left})
