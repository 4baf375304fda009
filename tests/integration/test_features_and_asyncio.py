"""Odd but legal programs in which the features meet asyncio, interrupted at any write.

Each is executed on a real worker, in a database whose time passes at once. Whatever interrupts it,
it comes to what it comes to else: how its runs end, what is undone and in which order, what it
tells, each once. A step that was recorded is not called again, no row is left open, and every
history replays.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.meeting import children, ends, others, signals
from tests.meeting.trial import HOWS, Trial
from tests.meeting.world import PROGRAMS, Program

assert all((children, ends, others, signals))  # which have the programs
POINTS = int(os.environ.get("MEETING_POINTS", "1"))
"""At how many writes each program is interrupted; 0 is every write, in every way."""


def _points(program: Program, writes: int) -> list[tuple[int, str]]:
    """Where and how it is interrupted: others for each program, and the same each time."""
    every = [(at, how) for at in range(1, writes + 1) for how in HOWS]
    if not POINTS:
        return every
    first = PROGRAMS.index(program) * 7
    return [every[(first + n * 11) % len(every)] for n in range(POINTS)]


def _told(found: dict[str, Any]) -> str:
    return repr(found)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: str(program.name))
async def test_a_program_comes_to_the_same_whatever_interrupts_it(program: Program) -> None:
    plain = Trial(program)
    expected = await plain.came_to()

    for at, how in _points(program, plain.flushed):
        found = await Trial(program, at, how, delayed=at % 2 == 0).came_to()

        assert program.races or _told(expected) == _told(found), (at, how)
