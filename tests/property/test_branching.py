"""Programs with branches take the same course in every replay, whatever the timing.

Hypothesis makes up workflow functions from steps, sleeps, gather, TaskGroup, as_completed, wait,
timeout, shield, cancellation, events, queues, locks, generators, context variables and steps that
are asked for early. Each is executed in virtual time with delays at random, killed at any point
with any part of its last writes lost, drained, interrupted while it rests, retried by hand where it
failed, and executed again with other delays, until it has a result. Then:

- no execution ever fails but by an error of a step, and none finds that its history does not match;
- no step that was recorded is called again, and each step sees the context of its branch;
- what was emitted is what the last execution observed, each once and in its order;
- a replay of the whole history observes what the last execution observed, in the same order,
  returns the same, and calls nothing.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openworkflow import Step, workflow
from openworkflow.backend.records import ProgressWrite
from openworkflow.engine.execution import Execution
from openworkflow.engine.outcome import Completed, Failed, Lost, Outcome, Parked, Released
from openworkflow.worker.slots import Slots
from tests import virtual_time
from tests.branching import PROGRAMS, Program, World
from tests.memory import Run
from tests.virtual_time import Clock

EXAMPLES = int(os.environ.get("BRANCHING_EXAMPLES", "400"))
TRIED: Counter[str] = Counter()
"""How many programs, executions, kills and replays a run of these tests has tried."""
if "BRANCHING_FIGURES" in os.environ:
    atexit.register(lambda: print(f"\nbranching programs: {dict(TRIED)}"))


@dataclass
class Trial:
    """A program, executed until it has a result."""

    node: Any
    world: World
    run: Run = field(init=False)
    retried: bool = False
    arrived: bool = False
    """Some writes were late, as those of older workers: a result may then give way to another."""
    late: list[Any] = field(default_factory=list)
    """Writes of a claim that is lost, which the next execution does not know of."""

    def __post_init__(self) -> None:
        node, world = self.node, self.world

        @workflow(name="program")
        async def program(step: Step) -> Any:
            return str(await Program(world, step).run(node))

        self.run = Run(program)
        self.run.journal.clock = Clock()  # type: ignore[assignment]
        if world.chance.random() < 0.5:
            self.run.slots = Slots(1, freed=lambda: None)
            self.run.rest_seconds = 5.0

    async def until_it_ends(self) -> Completed:
        """Execute, kill, retry and execute again; checks that nothing recorded is called again."""
        chance = self.world.chance
        for _ in range(1_000):
            self.world.seen.clear()
            at = chance.choice([None, chance.randrange(1, 20), chance.randrange(1, 100)])
            outcome = await self.once(at)
            assert [] == self.world.wrong
            TRIED["executions"] += 1
            match outcome:
                case Completed():
                    return outcome
                case Failed():
                    self.retry(outcome)
                case Parked(resume_at):
                    assert resume_at is not None
                    self.run.journal.clock.pass_until(resume_at)  # type: ignore[attr-defined]
                    self.run.journal.clock.ahead += chance.choice([0, 0.5, 100])  # type: ignore[attr-defined]
                case None | Released() | Lost():
                    pass
                case _:
                    raise AssertionError(outcome)
        raise AssertionError("the run does not come to an end")

    def retry(self, failed: Failed) -> None:
        """Retry by hand: what failed is tried afresh, and the rest stays as it is recorded."""
        assert failed.failure.type.endswith(":Fatal"), failed
        assert failed.steps
        TRIED["retries by hand"] += 1
        rows, reopened_at = self.run.journal.rows, self.run.claim_no
        for row in self.run.steps:
            if row.final and row.step_name in failed.steps:
                told = json.loads(row.context or "{}")
                del told["final"]
                told |= {"reopened": True, "reopened_at": reopened_at}
                rows[row.id] = row._replace(final=False, reopened=True, context=json.dumps(told))
        if (told := self.run.journal.told) is not None:
            self.run.journal.told = told._replace(retried=True)
        self.retried = True
        self.world.kind = self.world.chance.random() < 0.5

    async def once(self, interrupted_at: int | None) -> Outcome | None:
        """One execution, which dies at some point, or has to hand the run back."""
        journal, chance = self.run.journal, self.world.chance
        journal.held, journal.at_once = True, chance.random() < 0.5
        execution = self.run.execution()
        self.know(self.run)
        self.arrive()
        task = self.run.start(execution)
        ticks = 0
        while not task.done():
            await asyncio.wait({task}, timeout=chance.choice([0, 0.001, 2]))
            ticks += 1
            dies = not task.done() and (ticks == interrupted_at or self.is_amid_writes())
            if dies and await self.interrupt(execution, task):
                return None
            if journal.waiting:
                journal.flush(chance.randint(0, len(journal.waiting)))
        journal.flush()
        self.close(execution)
        return task.result()

    def is_amid_writes(self) -> bool:
        """Several writes are under way, and something happens to them."""
        return len(self.run.journal.waiting) > 1 and self.world.chance.random() < 0.1

    def know(self, run: Run) -> None:
        """What this execution knows to be recorded must not be called again.

        A retry by hand has a step called again that failed in the claim it retries, though a lost
        claim before that may have recorded a success, too late to be seen.
        """
        known, claim_no = set(run.journal.rows), run.claim_no
        reopened = {row.step_name: row.claim_no for row in run.steps if row.reopened}
        self.world.recorded = lambda: {
            row.step_name
            for row in run.steps
            if row.completion_no is not None
            and row.claim_no > reopened.get(row.step_name, 0)
            and (row.id in known or row.claim_no == claim_no)
        }

    def arrive(self) -> None:
        """What a lost claim had sent becomes durable after the next has read the history.

        Or after the one after that, and so on.
        """
        journal = self.run.journal
        if self.late and self.world.chance.random() < 0.7:
            TRIED["late writes"] += len(self.late)
            self.arrived = True
            journal.waiting, self.late = self.late + journal.waiting, []
            journal.flush()

    async def interrupt(self, execution: Execution, task: asyncio.Task[Outcome]) -> bool:
        """Drain it, take its claim away, or kill it; whether it was killed."""
        if self.run.slots is not None and self.run.slots.resting:
            TRIED["interrupted at rest"] += 1
        match self.world.chance.choice(["drain", "lost", "kill", "kill"]):
            case "drain":
                TRIED["drains"] += 1
                execution.drain()
                return False
            case "lost":
                TRIED["claims lost"] += 1
                execution.interrupt(Lost())
                return False
        TRIED["kills"] += 1
        await self.kill(task)
        self.close(execution)
        return True

    async def kill(self, task: asyncio.Task[Outcome]) -> None:
        """What was being written is durable, lost or late, each write by itself.

        Late is what is durable once the next claim has read the history, which may have what was
        written after it: two flushes are under way at once.
        """
        journal, chance = self.run.journal, self.world.chance
        sent, journal.waiting = journal.waiting, []
        for row, written in sent:
            match chance.choice(["durable", "late", "lost", "lost"]):
                case "durable":
                    journal.waiting = [(row, written)]
                    journal.flush()
                case "late" if not _is_told(row):  # those are fenced by a lock, which claims take
                    self.late.append((row, written))
        journal.held = False
        journal.at_once = True
        for _, written in sent:
            written.settle(False)
        task.cancel()
        await asyncio.wait({task})
        journal.flush()
        journal.waiting.clear()

    def close(self, execution: Execution) -> None:
        """Give back the slot."""
        if self.run.slots is not None:
            execution.slot.close()  # type: ignore[attr-defined]

    async def replay(self) -> tuple[Outcome, list[Any], Counter[str]]:
        """Replay the whole history: what it comes to, what it observes, and what it calls."""
        before = Counter(self.world.calls)
        self.world.seen.clear()
        self.run.journal.at_once = True
        execution = self.run.execution()
        outcome = await self.run.start(execution)
        self.close(execution)
        TRIED["replays"] += 1
        return outcome, list(self.world.seen), self.world.calls - before


def _is_told(row: Any) -> bool:
    return isinstance(row, list) and isinstance(row[-1], ProgressWrite)


def told_by(run: Run) -> list[str]:
    """What was emitted, in order: without a gap, and each number once."""
    events = run.journal.events
    assert list(range(len(events))) == sorted(events)
    return [json.loads(events[number].value or "") for number in sorted(events)]


async def _try(node: Any, seed: int) -> None:
    trial = Trial(node, World(random.Random(seed)))
    outcome = await trial.until_it_ends()
    seen = list(trial.world.seen)
    again = await trial.replay()
    assert (outcome, seen, Counter()) == again
    wanted, told = [str(what) for what in seen], told_by(trial.run)
    if trial.arrived:
        TRIED["not compared, what was told"] += 1
    elif trial.retried:  # from where the replay of a retry by hand ends, it is told anew
        assert Counter(wanted) <= Counter(told)
    else:
        assert wanted == told
    TRIED["programs"] += 1


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(node=PROGRAMS, seed=st.integers(0, 2**32))
def test_a_program_takes_the_same_course_in_every_replay(node: Any, seed: int) -> None:
    virtual_time.run(_try(node, seed))
