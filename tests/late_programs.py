"""Programs of waits and times that a seed makes: executed late, and what they come to in time.

What they come to is told by asyncio itself, in virtual time: there, every signal comes when it was
sent. But a time that begins while nobody executes the run begins when somebody does.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from openworkflow.engine.outcome import Completed, Lost, Outcome, Parked, Released
from tests.executions import prepared
from tests.trials import Interruption, _Journal, interrupting
from tests.unit.test_engine_signals import Letters, begun
from tests.virtual_time import Clock

HOUR = 3600
LATE = 5 * HOUR
"""When somebody looks again."""
NEVER, END = "never", "end"
_MOMENT = 1e-5
"""Less than what is between any two times."""


@dataclass
class Node:
    """A part of a program."""

    kind: str
    number: int
    name: str = ""
    hours: float = 0.0
    parts: list[Node] = field(default_factory=list)


def program(seed: int) -> tuple[Node, list[tuple[str, float]]]:
    """A program, and which signals are sent to it, after how many hours."""
    chance, numbers = random.Random(seed), itertools.count()
    parts = [_part(chance, chance.randint(1, 3), numbers) for _ in range(chance.randint(1, 3))]
    times = {round(chance.uniform(0.02, 4.9), 4) for _ in range(chance.randint(2, 6))}
    signals = [(chance.choice("abc"), hours) for hours in sorted(times)]
    return Node("gather", next(numbers), parts=parts), signals


def _part(chance: random.Random, depth: int, numbers: Iterator[int]) -> Node:
    leaves = ["wait", "wait", "wait", "sleep", "sleep"]
    others = ["row", "row", "gather", "gather", "timeout", "first", "wait", "wait until"]
    kind = chance.choice(others if depth else leaves)
    node = Node(kind, next(numbers), chance.choice("abc"), round(chance.uniform(0.05, 5), 4))
    if kind in ("row", "gather", "first", "timeout"):
        count = 1 if kind == "timeout" else chance.randint(2, 3)
        node.parts = [_part(chance, depth - 1, numbers) for _ in range(count)]
    return node


async def perform(node: Node, step: Any, found: list[Any]) -> None:
    """Do it; what the code comes to know is put into `found`."""
    number, name, seconds = node.number, node.name, node.hours * HOUR
    if node.kind == "wait":
        found.append([number, await step.wait_for_signal(name)])
    elif node.kind == "wait until":
        found.append([number, await step.wait_for_signal(name, timeout=seconds, default="none")])
    elif node.kind == "sleep":
        await step.sleep(f"s{number}", seconds)
        found.append([number, "slept"])
    elif node.kind == "row":
        for each in node.parts:
            await perform(each, step, found)
    elif node.kind == "gather":
        async with asyncio.TaskGroup() as group:
            for each in node.parts:
                group.create_task(perform(each, step, found))
    elif node.kind == "timeout":
        try:
            async with asyncio.timeout(step.delay(seconds)):
                await perform(node.parts[0], step, found)
        except TimeoutError:
            found.append([number, "late"])
    else:
        tasks = [asyncio.create_task(perform(each, step, found)) for each in node.parts]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        found.append([number, [task in done for task in tasks]])


@dataclass
class _Hand:
    """A signal that is here, and for whom; one goes at a time, the first that was sent."""

    sent: float
    value: str
    reply: asyncio.Future[Any]


class InTime:
    """The steps of a run that is executed in time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._letters: dict[str, deque[tuple[float, str]]] = {name: deque() for name in "abc"}
        self._waiting: dict[str, list[asyncio.Future[Any]]] = {name: [] for name in "abc"}
        self._hands: dict[str, list[_Hand]] = {name: [] for name in "abc"}
        self._pump: asyncio.TimerHandle | None = None

    def delay(self, seconds: float) -> float:
        """How long a time of this length is from now on."""
        now = self._loop.time()
        return seconds if now < 0.01 or now >= LATE else LATE - now + seconds

    def send(self, name: str, hours: float) -> None:
        """A signal comes."""
        value = f"{name}@{hours}"
        for reply in self._waiting[name]:
            if not reply.done():
                reply.set_result(value)
                return
        self._letters[name].append((hours, value))

    async def sleep(self, name: str, seconds: float) -> None:
        """See Step.sleep."""
        await asyncio.sleep(self.delay(seconds))

    async def wait_for_signal(
        self, name: str, timeout: float | None = None, default: Any = None
    ) -> Any:
        """See Step.wait_for_signal."""
        reply = self._loop.create_future()
        if self._letters[name]:
            hand = _Hand(*self._letters[name].popleft(), reply)
            self._hands[name].append(hand)
            self._soon()
            try:
                return await reply
            except asyncio.CancelledError:
                self._give_back(name, hand)
                raise
        self._waiting[name].append(reply)
        if timeout is not None:
            self._loop.call_later(self.delay(timeout), _resolve, reply, default)
        try:
            return await reply
        finally:
            self._waiting[name].remove(reply)

    def _soon(self) -> None:
        if self._pump is None:
            self._pump = self._loop.call_later(_MOMENT, self._next)

    def _next(self) -> None:
        """The function has come to rest: the first of what is here goes."""
        self._pump = None
        here = [(each.sent, hands, each) for hands in self._hands.values() for each in hands]
        if here:
            _, hands, hand = min(here, key=lambda each: each[0])
            hands.remove(hand)
            _resolve(hand.reply, hand.value)
            self._soon()

    def _give_back(self, name: str, hand: _Hand) -> None:
        if hand not in self._hands[name]:
            return
        self._hands[name].remove(hand)
        left = hand.sent, hand.value
        for other in self._hands[name]:
            if other.sent > left[0]:
                left, (other.sent, other.value) = (other.sent, other.value), left
        self._letters[name].appendleft(left)


class _Late:
    """The steps of an execution, whose times are as long as the code says."""

    def __init__(self, step: Any) -> None:
        self.sleep, self.wait_for_signal = step.sleep, step.wait_for_signal

    def delay(self, seconds: float) -> float:
        """See InTime.delay."""
        return seconds


def _resolve(reply: asyncio.Future[Any], value: Any) -> None:
    if not reply.done():
        reply.set_result(value)


async def in_time(node: Node, signals: list[tuple[str, float]]) -> list[Any]:
    """What the program comes to know, in its order, where each signal comes in time."""
    loop, step, found = asyncio.get_running_loop(), InTime(), list[Any]()
    for name, hours in signals:
        loop.call_later(hours * HOUR, step.send, name, hours)
    try:
        async with asyncio.timeout(100 * LATE):
            await perform(node, step, found)
    except TimeoutError:
        return [*found, NEVER]
    return [*found, END]


class LateRun:
    """A run that is parked at once, and claimed again when all has been sent."""

    def __init__(self, node: Node) -> None:
        self.found: list[Any] = []

        async def function(step: Any) -> Any:
            self.found = []
            await perform(node, _Late(step), self.found)

        self.run, self.letters = prepared(function), Letters()
        self.run.journal = self.journal = _Journal()
        self.journal.clock = self.clock = Clock()  # type: ignore[assignment]

    async def execute(self) -> Outcome | None:
        """Execute once; None if its worker died."""
        execution, _ = begun(self.run, self.letters)
        task = self.run.start(execution)
        self.journal.interrupt = interrupting(execution, task)
        async with asyncio.timeout(10):  # in virtual time: all is there
            await asyncio.wait({task})
        if self.journal.dead:
            self.journal.dead = False
            return None
        self.journal.flush()
        return task.result()


async def late(
    node: Node, signals: list[tuple[str, float]], interruption: Interruption | None = None
) -> tuple[list[Any], int]:
    """What the program comes to know on a late claim; how many writes that took."""
    late_run = LateRun(node)
    journal, clock = late_run.journal, late_run.clock
    outcome = await late_run.execute()
    begins, before = clock.now(), journal.flushed
    for name, hours in signals:
        moment = begins + timedelta(hours=hours)
        late_run.letters.send(late_run.run, name, f"{name}@{hours}", sent_at=moment)
    clock.pass_until(begins + timedelta(seconds=LATE))
    if interruption is not None:
        journal.interruption = Interruption(interruption.at + before, interruption.how)
    for _ in range(60):
        if isinstance(outcome, Completed):
            return [*late_run.found, END], journal.flushed - before
        outcome = await late_run.execute()
        if journal.interruption is not None and journal.flushed >= journal.interruption.at:
            journal.interruption = None
        if isinstance(outcome, Parked):
            if outcome.resume_at is None:
                return [*late_run.found, NEVER], journal.flushed - before
            clock.pass_until(outcome.resume_at)
        else:
            assert outcome is None or isinstance(outcome, Completed | Released | Lost), outcome
    raise AssertionError("it does not come to an end")


def as_json(found: list[Any]) -> Any:
    """As it is compared."""
    return json.loads(json.dumps(found))
