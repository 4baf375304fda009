"""Odd but legal asyncio programs, each executed straight, with other delays, and interrupted.

A *durable* program comes to one result whatever the timing. A *race* depends on which branch was
faster: its result may differ between runs, but never between a run and its replay.
"""

from __future__ import annotations

from typing import Any

import pytest

from openworkflow.engine.outcome import Completed
from tests import virtual_time
from tests.trials import Program, ended, interruptions

WAITS: list[dict[str, Any]] = [{}, {"rests": True}, {"stays": True}]
"""What becomes of a run that waits: replayed, resting in memory, or parked and staying there."""


class Programs:
    """The programs of one theme, and what is tried with each of them."""

    def __init__(self) -> None:
        self._every: list[Program] = []
        self._races: list[Program] = []

    def durable(self, program: Program) -> Program:
        """Take in a program that comes to one result."""
        self._every.append(program)
        return program

    def races(self, program: Program) -> Program:
        """Take in a program whose result is that of the faster branch."""
        self._races.append(program)
        return self.durable(program)

    @property
    def each(self) -> pytest.MarkDecorator:
        """Have a test called with each of them; to be asked for once all are taken in."""
        return pytest.mark.parametrize("program", self._every, ids=_name)

    def try_delays(self, program: Program) -> None:
        """It comes to an end and replays, whatever the delays."""
        results = set()
        for seed in range(6):
            for how in WAITS:
                outcome, _ = virtual_time.run(ended(program, seed, **how))
                assert isinstance(outcome, Completed), outcome
                results.add(outcome.output)
        assert program in self._races or len(results) == 1, results

    def try_interruptions(self, program: Program) -> None:
        """It survives an interruption at every write."""
        found = virtual_time.run(_interrupted(program))
        assert program in self._races or len(found) == 1, found


async def _interrupted(program: Program) -> set[Any]:
    found = set()
    for interruption in await interruptions(program):
        how = WAITS[interruption.at % len(WAITS)]
        try:
            outcome, _ = await ended(program, 0, interruption, **how)
        except BaseException as error:
            error.add_note(f"{interruption}, {how}")
            raise
        assert isinstance(outcome, Completed), (interruption, outcome)
        found.add(outcome.output)
    return found


def _name(program: Any) -> str:
    return str(program.__name__)
