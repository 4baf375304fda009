"""A workflow function executed, interrupted and replayed, in virtual time and without a database.

The world outside of the function is a set of steps whose delays a seed decides. The journal counts
writes, so that an execution can be interrupted at each of them.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from openworkflow import NonRetryableError, RetryPolicy, Step, current_step, workflow
from openworkflow.engine.execution import Execution
from openworkflow.engine.outcome import Completed, Failed, Lost, Outcome, Parked, Released
from openworkflow.worker.slots import Slots
from tests.memory import MemoryJournal, Run
from tests.virtual_time import Clock

DELAYS = (0, 0, 1, 3, 10, 30)
RETRY = RetryPolicy(max_attempts=3, initial=2, max_delay=8, jitter=0)


def interrupting(execution: Execution, task: asyncio.Task[Any]) -> Callable[[str], None]:
    """What interrupts an execution, in one of the ways of an `Interruption`."""

    def interrupt(how: str) -> None:
        if how == "drain":
            execution.drain()
        elif how == "canceled":
            execution.interrupt(Lost())
        else:
            task.cancel()

    return interrupt


class World:
    """What steps do, and what the workflow's code has seen of it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.calls: Counter[str] = Counter()
        self.seen: list[Any] = []
        self.repeated: list[str] = []
        """Steps that were called although they were recorded."""
        self.recorded: Callable[[], set[str]] = set

    async def effect(self, what: str, result: Any = None) -> Any:
        """A step that takes a while; returns `result`, or its name."""
        await self._take_a_while(what)
        return what if result is None else result

    async def broken(self, what: str) -> Any:
        """A step that takes a while, and fails for good."""
        await self._take_a_while(what)
        raise NonRetryableError(what)

    async def unsteady(self, what: str) -> Any:
        """A step whose first attempt fails."""
        await self._take_a_while(what)
        if self.calls[what] == 1:
            raise ValueError(what)
        return what

    def plain(self, what: str) -> str:
        """A step that takes no time."""
        self._called(what)
        return what

    def note(self, what: Any) -> Any:
        """Something that the workflow's code has come to know; the order counts."""
        self.seen.append(what)
        return what

    def _called(self, what: str) -> None:
        key = current_step().name
        if key in self.recorded():
            self.repeated.append(key)
        self.calls[what] += 1

    async def _take_a_while(self, what: str) -> None:
        self._called(what)
        chance = random.Random(f"{self.seed}/{what}/{self.calls[what]}")
        await asyncio.sleep(chance.choice(DELAYS))


Program = Callable[[Step, World], Awaitable[Any]]


@dataclass(frozen=True)
class Interruption:
    """What happens to the first execution, at write number `at`."""

    at: int
    how: str
    """`stored` and `lost`: the worker dies, that row being durable or not; `drain`; `canceled`."""


class _Journal(MemoryJournal):
    """Makes each write durable by itself, until an interruption."""

    def __init__(self) -> None:
        super().__init__()
        self.flushed = 0
        self.interruption: Interruption | None = None
        self.interrupt: Callable[[str], None] = lambda how: None
        self.dead = False

    def flush(self, count: int | None = None) -> None:
        waiting, self.waiting = self.waiting, []
        for row, written in waiting:
            if self.dead:
                written.settle(False)
                continue
            self.flushed += 1
            at = self.interruption
            if at is None or at.at != self.flushed:
                self._store(row)
                written.settle(True)
                continue
            if at.how in ("stored", "lost"):
                self.dead = True
                if at.how == "stored":
                    self._store(row)
                asyncio.get_running_loop().call_soon(written.settle, False)
            else:
                self._store(row)
                written.settle(True)
            self.interrupt(at.how)


class Trial:
    """One run of a program, executed until it ends."""

    def __init__(
        self, program: Program, seed: int = 0, *, rests: bool = False, stays: bool = False
    ) -> None:
        self.world = world = World(seed)
        self.stays, self.stayed = stays, 0
        """Whether it goes on where it stands once it is claimed again; how often it did."""

        @workflow(name="program")
        async def interpreted(step: Step) -> Any:
            return await program(step, world)

        self.run = Run(interpreted)
        self.journal = self.run.journal = _Journal()
        self.clock = self.journal.clock = Clock()  # type: ignore[assignment]
        if rests:
            self.run.slots = Slots(1, freed=lambda: None)
            self.run.rest_seconds = 5.0
        world.recorded = lambda: {
            row.step_name for row in self.run.steps if row.completion_no is not None
        }
        self.executions = 0

    async def until_it_ends(self, interruption: Interruption | None = None) -> Outcome:
        """Execute until the run ends; the interruption comes once."""
        while True:
            self.world.seen.clear()
            self.journal.interruption = interruption
            outcome = await self.once()
            if outcome is None or self.journal.flushed >= (interruption.at if interruption else 0):
                interruption = None
            assert [] == self.world.repeated
            assert self.executions < 500, "the run does not come to an end"
            match outcome:
                case Completed() | Failed():
                    return outcome
                case Parked(resume_at):
                    assert resume_at is not None
                    self.clock.pass_until(resume_at)
                case None | Released() | Lost():
                    pass
                case _:
                    raise AssertionError(outcome)

    async def once(self) -> Outcome | None:
        """Execute once; None if its worker died."""
        self.executions += 1
        execution = self.run.execution()
        if self.stays:
            object.__setattr__(execution.services, "park", self._park)
        task = self.run.start(execution)
        self.journal.interrupt = interrupting(execution, task)
        await asyncio.wait({task})
        if self.run.slots is not None:
            execution.slot.close()  # type: ignore[attr-defined]
        if self.journal.dead:
            self.journal.dead = False
            return None
        self.journal.flush()
        return task.result()

    def _park(self, execution: Execution, until: datetime | None) -> bool:
        """See Services.park: what the residents of a worker do, without one."""
        assert until is not None
        execution.agenda.go_away()
        self.leaving = asyncio.get_running_loop().create_task(self._claim_again(execution, until))
        return True

    async def _claim_again(self, execution: Execution, until: datetime) -> None:
        await asyncio.sleep(0)  # the journal flushes what is written
        if self.journal.dead or execution.stopped is not None:
            execution.interrupt(Lost())
            return
        self.clock.pass_until(until)
        self.run.claim_no += 1
        execution.claim = run = execution.claim._replace(
            claim_no=self.run.claim_no, claimed_at=self.clock.now()
        )
        execution.recorder.continue_as(run)
        self.stayed += 1
        execution.agenda.come_back(run.claimed_at)

    async def replay(self) -> tuple[Outcome, list[Any], Counter[str]]:
        """Replay the whole history: what it comes to, what it observes, and what it calls."""
        before = Counter(self.world.calls)
        self.world.seen.clear()
        self.journal.interruption = None
        outcome = await self.run.start(self.run.execution())
        return outcome, list(self.world.seen), self.world.calls - before


async def ended(
    program: Program,
    seed: int = 0,
    interruption: Interruption | None = None,
    *,
    rests: bool = False,
    stays: bool = False,
) -> tuple[Outcome, Trial]:
    """How the run of a program ends; its replay is checked against its last execution."""
    trial = Trial(program, seed, rests=rests, stays=stays)
    try:
        outcome = await trial.until_it_ends(interruption)
        seen = list(trial.world.seen)
        again, seen_again, called = await trial.replay()
    finally:
        trial.run.threads.close()
    assert (told(outcome), seen, Counter()) == (told(again), seen_again, called)
    return outcome, trial


def told(outcome: Outcome) -> Any:
    """An outcome without what differs by nature, such as tracebacks."""
    if isinstance(outcome, Failed):
        return (outcome.failure.type, outcome.failure.message, outcome.steps)
    return outcome


async def interruptions(program: Program, seed: int = 0) -> list[Interruption]:
    """Every way to interrupt the run of a program once."""
    _, trial = await ended(program, seed)
    return [
        Interruption(at, how)
        for at in range(1, trial.journal.flushed + 1)
        for how in ("stored", "lost", "drain", "canceled")
    ]
