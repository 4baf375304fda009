"""Programs that a seed makes come to the same late as in time, whatever interrupts them."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from openworkflow import Step
from openworkflow.backend.records import Delivery, Waiting
from openworkflow.core.recorded import Message
from openworkflow.engine.letters import Letters as Lying
from openworkflow.engine.outcome import Completed
from tests import virtual_time
from tests.executions import in_virtual_time, prepared
from tests.late_programs import in_time, late, program
from tests.trials import Interruption
from tests.unit.test_engine_signals import Letters, begun


@pytest.mark.parametrize("seeds", [range(40 * part, 40 * part + 40) for part in range(8)], ids=str)
def test_programs_come_to_the_same_late_as_in_time(seeds: range) -> None:
    for seed in seeds:
        node, signals = program(seed)
        expected = virtual_time.run(in_time(node, signals))
        found, _ = virtual_time.run(late(node, signals))
        assert expected == found, seed


@pytest.mark.parametrize("seed", range(1000, 1012))
def test_programs_come_to_the_same_late_whatever_interrupts_them(seed: int) -> None:
    node, signals = program(seed)
    expected = virtual_time.run(in_time(node, signals))
    _, writes = virtual_time.run(late(node, signals))
    for at in range(1, writes + 1):
        for how in ("stored", "lost", "drain", "canceled"):
            found, _ = virtual_time.run(late(node, signals, Interruption(at, how)))
            assert expected == found, (at, how)


class Office(Letters):
    """As its base, which compares each name with each message."""

    async def read_inboxes(self, waiting: Sequence[Waiting]) -> dict[UUID, Delivery]:
        (each,) = waiting
        names, had = set(each.names), set(each.had)
        found = [one for _, one in self.messages if one.name in names and one.id not in had]
        return {each.run_id: Delivery(self.wake_no, found)}


async def _called(branches: int) -> int:
    """How many calls of Python it takes to be told of so many signals, late, one by one."""

    async def function(step: Step) -> None:
        async def branch(number: int) -> None:
            await step.wait_for_signal(f"a-{number}", timeout="9d")
            await step.sleep(f"nap-{number}", 0)

        await asyncio.gather(*map(branch, range(branches)))

    run, letters = prepared(function), Office()
    await run.start(begun(run, letters)[0])
    run.journal.flush()
    begins = run.journal.clock.now()
    for number in range(branches):
        letters.send(run, f"a-{number}", sent_at=begins + timedelta(seconds=number))
    execution, calls = begun(run, letters)[0], Counter[str]()
    sys.setprofile(lambda frame, event, _: calls.update([event]))
    try:
        outcome = await run.start(execution)
    finally:
        sys.setprofile(None)
    assert isinstance(outcome, Completed), outcome
    return calls["call"]


@in_virtual_time
async def test_an_end_costs_the_same_however_many_there_are() -> None:
    """Each looked at all the others: a thousand cost a million looks."""
    few, many = await _called(100), await _called(400)

    assert many < 4.4 * few


class _Waits:
    def __init__(self, latest: float = 9) -> None:
        self.message: Message | None = None
        self.latest = latest

    def may_take(self, message: Message) -> bool:
        return float(message.payload or 0) <= self.latest


def _letters(*values: int) -> Lying:
    letters = Lying()
    for value in values:
        letters.come(Message(UUID(int=value), "a", str(value)))
    return letters


def _has(*waits: _Waits) -> list[Any]:
    return [None if each.message is None else int(each.message.payload or 0) for each in waits]


def test_whoever_asked_later_moves_up_where_another_waits_no_more() -> None:
    letters, waits = _letters(1, 2, 3, 4), [_Waits() for _ in range(3)]
    for each in waits:
        letters.hand("a", each)
    assert [1, 2, 3] == _has(*waits)
    letters.give_back("a", waits[0])
    letters.take("a", waits[0])
    assert [None, 1, 2] == _has(*waits)
    letters.take("a", waits[1])  # for good
    letters.give_back("a", waits[1])
    letters.take("a", waits[1])
    assert [None, None, 1] == _has(*waits)
    letters.give_back("a", waits[2])
    letters.take("a", waits[2])
    last = [_Waits() for _ in range(4)]
    for each in last:
        letters.hand("a", each)
    assert [1, 2, 3, 4] == _has(*last)


def test_one_that_is_given_back_goes_to_who_has_none_and_may_take_it() -> None:
    letters, first, too_late, hungry = _letters(5), _Waits(), _Waits(4), _Waits()
    for each in (first, too_late, hungry):
        letters.hand("a", each)
    letters.give_back("a", first)
    assert [None, None, 5] == _has(first, too_late, hungry)
