"""One execution of one claimed run, from its claim to how it ends.

The workflow function itself moves in a program (program.py), by events alone. What it asks for are
operations, which the agenda (agenda.py) starts once everything recorded has reached the function.
"""

import asyncio
import logging
from asyncio import CancelledError
from contextvars import Context
from datetime import datetime
from time import perf_counter
from typing import Any, NoReturn

from openworkflow.core.errors import (
    BackendError,
    CodecError,
    DeadlineExceeded,
    Fault,
    Suspended,
    TooManySteps,
)
from openworkflow.core.failure import Failure
from openworkflow.core.recorded import ClaimedRun, RecordedStep
from openworkflow.core.step_attempt import StepStatus
from openworkflow.core.workflow import Workflow
from openworkflow.engine import ending, sealing, undoing
from openworkflow.engine.agenda import Agenda
from openworkflow.engine.history import History
from openworkflow.engine.inbox import Inbox
from openworkflow.engine.operations.operation import Operation
from openworkflow.engine.operations.patch import Patches
from openworkflow.engine.operations.undo import UndoableCall
from openworkflow.engine.outcome import (
    Canceled,
    Completed,
    Failed,
    Lost,
    Outcome,
    Released,
)
from openworkflow.engine.program import AsyncProgram
from openworkflow.engine.recorder import Recorder
from openworkflow.engine.services import NO_LIMIT, Services
from openworkflow.engine.slot import NO_SLOT, Slot
from openworkflow.engine.step_call import StepCall
from openworkflow.engine.telling import Teller
from openworkflow.engine.thread_program import ThreadProgram

logger = logging.getLogger(__name__)

UNREADABLE_SECONDS = 30.0
"""When a run is offered again whose history a newer program wrote, or that met a defect of ours."""
Program = AsyncProgram | ThreadProgram | undoing.UndoProgram
_CUT_SHORT = "the run was interrupted"
_NOTHING_OWED: dict[str, UndoableCall] = {}


class Execution:
    """Runs the function of one claimed run; make one per claim.

    `context` is the context that the task of `run` is executed in, where the caller knows it: steps
    of the function's own branch then need no task of their own.
    """

    __slots__ = (
        "_guard",
        "agenda",
        "claim",
        "context",
        "drained",
        "draining",
        "history",
        "inbox",
        "limit",
        "owed",
        "patches",
        "program",
        "recorder",
        "services",
        "slot",
        "started",
        "stopped",
        "task",
        "teller",
        "workflow",
    )

    def __init__(
        self,
        run: ClaimedRun,
        workflow: Workflow[Any, Any],
        history: History,
        services: Services,
        slot: Slot = NO_SLOT,
        context: Context | None = None,
    ) -> None:
        self.claim, self.workflow, self.history = run, workflow, history
        self.services, self.slot, self.context = services, slot, context
        self._guard = services.guard
        self.limit = services.limits.max_attempts or NO_LIMIT
        """Most step attempts that the run may make."""
        self.recorder = Recorder(
            run,
            services.journal,
            self._lose,
            history.completions,
            history.attempts,
        )
        self.patches: Patches | None = None
        self.inbox: Inbox | None = None
        """Inbox of a run that has waited for a signal or a child."""
        self.teller: Teller | None = None
        """Teller of a run that has told something in this execution."""
        self.program: Program | None = None
        self.task: asyncio.Task[Any] | None = None
        self.agenda = Agenda(self)
        self.stopped: Outcome | None = None
        """How the execution ends; None while it goes on."""
        self.drained = self.draining = False
        """Whether it is to be handed back; whether nothing new is to begin, as in a replay."""
        self.owed = _NOTHING_OWED
        """The steps with an undo that the function has asked for."""
        self.started = perf_counter()

    # -- the life of the execution -------------------------------------------------------------

    async def run(self) -> Outcome:
        """Execute to an outcome; whatever user code raises becomes one."""
        history = self.history
        if (undo := history.undo) is not None:
            undoing.prepare(self, undo)
        if self.stopped is None and (self.claim.deadline_at or history.unreadable):
            self.stopped = self._refusal()
        if self.stopped is not None:
            self._close_rows(self.stopped)
            return self.stopped
        self.task = self.task or asyncio.current_task()
        if history.overtook:
            self.recorder.record_again(history.overtook)
        deadline = None if self.claim.deadline_at is None else self._watch_deadline()
        function = (AsyncProgram if self.workflow.is_async else ThreadProgram)(self)
        self.program = program = function if undo is None else undoing.program(self, function)
        try:
            # Until its end is recorded, whoever drains or loses it finds an execution that is over.
            outcome = self.stopped = await program.run()
        except (CancelledError, Suspended) as error:
            if self.stopped is None and not isinstance(error, Suspended):
                raise
            outcome = self.stopped = self.stopped or self.defect(error)
        finally:
            if deadline is not None:
                deadline.cancel()
            if self.agenda.tasks:
                await self.agenda.end_tasks()
            if self.teller is not None:
                await self.teller.rest()
            program.forget()
            self._forget()
        if self.teller is not None:
            outcome = self.teller.end(outcome)
        if self.services.payloads is not None:
            outcome = await sealing.of_end(self, self.services.payloads, outcome)
        if self.recorder.owes:
            outcome = undoing.begin(self.recorder, outcome)
        if self.recorder.open or history.recorded:
            self._close_rows(outcome)
        return outcome

    def interrupt(self, outcome: Outcome) -> None:
        """Stop the function where it is; the run ends with `outcome`, unless it already has one."""
        if self.stopped is not None:
            return
        self.stopped = outcome
        if self.agenda.busy and not isinstance(outcome, Lost):
            self.recorder.close_calls(_CUT_SHORT)
        if self.program is not None:
            self.program.stop()

    def drain(self) -> None:
        """Let running steps end and be recorded, then hand the run back."""
        self.drained = self.draining = True
        if self.stopped is None and (self.program is None or self.program.at_rest):
            self.agenda.consider()

    def check_stopped(self) -> None:
        """Raise Suspended if the execution was stopped."""
        if self.stopped is not None:
            raise Suspended

    def fail(self, error: BaseException) -> None:
        """End the run with an error that is not for the function to catch."""
        self.interrupt(Failed(Failure.from_exception(error)))

    def continue_as_new(self, value: Any) -> NoReturn:
        """See Step.continue_as_new."""
        self.interrupt(ending.continued(self, value))
        raise Suspended

    # -- what operations ask -------------------------------------------------------------------

    @property
    def is_clear(self) -> bool:
        """Whether something new may begin, as far as is known without waiting."""
        return (
            self.stopped is None
            and not self.draining
            and self._guard.now() < self._guard.until
            and not self._guard.lost
            and self.recorder.attempts < self.limit
        )

    async def gate(self, operation: Operation) -> None:
        """Wait until an operation may begin: what was seen before is durable, the claim good.

        Raises Suspended if nothing may begin any more.
        """
        if operation.after is not None:
            await self.recorder.durable(operation.after)
            operation.after = None
        if not self.services.guard.stands:
            await self.services.guard.renewed()
        if (self.claim.id, self.claim.claim_no) in self.services.guard.lost:
            self._lose()
        if self.recorder.attempts >= self.limit:
            self.fail(TooManySteps(self.limit))
        if self.stopped is not None or self.draining:
            raise Suspended

    def recall(self, operation: Operation, row: RecordedStep) -> tuple[Any, BaseException | None]:
        """What was recorded of an operation, whose turn has come."""
        if row.step_name in self.history.late:
            self.recorder.record_again((row,))
        return operation.recall(row)

    async def announced(self, step: StepCall) -> None:
        """Wait until what it has told is durable, and the row is, which its end updates."""
        if self.teller is not None:
            await self.teller.stored(step)
            self.check_stopped()
        if step.announced is not None:
            await step.announced
            self.check_stopped()

    def mailbox(self) -> Inbox:
        """The inbox, made by the first who waits for a signal or a child."""
        if self.inbox is None:
            run, mail = self.claim, self.services.mail
            self.inbox = Inbox(mail, run.id, run.wake_no, self.history.messages)
        return self.inbox

    def telling(self) -> Teller:
        """The teller, made by the first who tells something."""
        if self.teller is None:
            self.teller = Teller(self)
        return self.teller

    @property
    def wake_no(self) -> int:
        """What the run was woken for up to here it has seen; a park carries this back."""
        return self.claim.wake_no if self.inbox is None else self.inbox.wake_no

    def now(self) -> datetime:
        """The database's time."""
        return self.services.journal.clock.now()

    def is_past_deadline(self, when: datetime) -> bool:
        """Whether the run is to be over by then; to undo its steps it has the time it takes."""
        deadline = self.claim.deadline_at
        return deadline is not None and when >= deadline and not self.history.is_undoing

    def report_step(self, status: StepStatus, seconds: float) -> None:
        """Count a step attempt that has ended."""
        self.services.metrics.step_finished(self.workflow.name, status, seconds)

    def waits(self, kind: str, key: str, until: datetime | None = None) -> None:
        """Count a wait that begins, and tell who observes; `kind` is one of WAIT_KINDS."""
        self.services.metrics.wait_begun(self.workflow.name, kind)
        if self.services.observer is not None:
            self.services.observer.wait_begins(self.claim, kind, key, until)

    def patched(self, name: str) -> bool:
        """See Step.patched."""
        self.check_stopped()
        if self.patches is None:
            self.patches = Patches(self.history, self.recorder)
        return self.patches.ask(name)

    # -- how it begins and ends ----------------------------------------------------------------

    def _refusal(self) -> Outcome | None:
        if self.history.unreadable is not None:
            logger.error("cannot read the history of a run: %s", self.history.unreadable)
            return Released(UNREADABLE_SECONDS)
        deadline = self.claim.deadline_at
        if deadline is not None and self.is_past_deadline(max(self.claim.claimed_at, self.now())):
            failed = Failed(Failure.from_exception(_exceeded(deadline)))
            return undoing.begin(self.recorder, failed)
        return None

    def _watch_deadline(self) -> asyncio.TimerHandle | None:
        deadline = self.claim.deadline_at
        if deadline is None or self.history.is_undoing:
            return None
        seconds = (deadline - self.now()).total_seconds()
        loop = asyncio.get_running_loop()
        return loop.call_later(max(0.0, seconds), self.fail, _exceeded(deadline))

    def _close_rows(self, outcome: Outcome) -> None:
        """A run that has ended leaves no row that says it is running."""
        if not isinstance(outcome, Completed | Failed | Canceled):
            return
        if self.recorder.open:
            self.recorder.close_all("the run ended")
        if self.history.recorded:
            calls, waits = self.history.leftovers()
            self.recorder.close(calls, "its worker died, and the run ended")
            self.recorder.close(waits, "the run ended")

    def _forget(self) -> None:
        """Let go of what holds this execution: it is then freed without the garbage collector."""
        self.agenda.forget()
        self.recorder.lost = _nobody
        while self.stopped is not None and self.task is not None and self.task.cancelling():
            self.task.uncancel()
        self.program = self.context = None

    def defect(self, error: BaseException) -> Released:
        """No mistake of the run's, but of what is around it: it is offered again. Loud."""
        of_codec = isinstance(error, CodecError)
        if of_codec or (isinstance(error, BackendError) and error.fault is not Fault.OURS):
            who = "a codec" if of_codec else "the database"
            logger.error("%s does not let a run go on; it is handed back: %s", who, error)
            return Released(UNREADABLE_SECONDS)
        logger.error("internal error while executing a run; it is handed back", exc_info=error)
        return Released(UNREADABLE_SECONDS)

    def _lose(self) -> None:
        self.interrupt(Lost())


def _exceeded(deadline: datetime) -> DeadlineExceeded:
    return DeadlineExceeded(f"the run did not end by its deadline, {deadline.isoformat()}")


def _nobody() -> None:
    """The run is over."""
