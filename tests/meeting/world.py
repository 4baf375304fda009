"""What is outside of the database for one try of a program, and what the try came to."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from openworkflow import NonRetryableError, OpenWorkflow, Workflow, current_step
from openworkflow.testing import Environment, Run

NAP = 0.004


class World:
    """What steps do; which of them were called, by run and step."""

    def __init__(self, delayed: bool = False) -> None:
        self.delayed = delayed
        """Whether the steps that are quick by nature are the slow ones."""
        self.calls: Counter[tuple[str, str]] = Counter()
        self.undone: list[Any] = []
        self.ow: OpenWorkflow
        self.facts: dict[str, Any] = {}

    def _note(self) -> None:
        me = current_step()
        self.calls[str(me.run_id), me.name] += 1

    async def quick(self, what: Any = None) -> Any:
        """A step that takes no time, or some if the world is delayed."""
        self._note()
        if self.delayed:
            await asyncio.sleep(NAP)
        return what

    async def slow(self, what: Any = None) -> Any:
        """A step that takes some time, or none if the world is delayed."""
        self._note()
        if not self.delayed:
            await asyncio.sleep(NAP)
        return what

    def plain(self, what: Any = None) -> Any:
        """A step in a thread."""
        self._note()
        return what

    async def fails(self, what: Any = None) -> Any:
        """A step that fails for good."""
        self._note()
        raise NonRetryableError(str(what))

    async def unsteady(self, what: Any = None) -> Any:
        """A step whose first attempt fails."""
        self._note()
        if current_step().attempt == 1:
            raise ValueError(str(what))
        return what

    async def once_broken(self, what: Any = None) -> Any:
        """A step that fails for good until somebody has set `mended`."""
        self._note()
        if not self.facts.get("mended"):
            raise NonRetryableError(str(what))
        return what

    async def undo(self, what: Any = None) -> None:
        """What takes a step back; that may happen more than once, in order all the same."""
        self._note()
        if what not in self.undone:
            self.undone.append(what)

    async def tells(self, what: Any) -> Any:
        """A step that emits."""
        self._note()
        current_step().emit("from-step", what)
        return what

    async def sends(self, name: str, value: Any = None) -> Any:
        """A step that sends its own run a signal, by a client."""
        self._note()
        me = current_step()
        await self.ow.signal(me.run_id, name, value, idempotency_key=me.key)
        return value


Drive = Callable[[Environment, Run[Any], World], Awaitable[Any]]
Make = Callable[[World], Any]


async def nothing(env: Environment, run: Run[Any], world: World) -> None:
    """Nothing comes from outside."""


@dataclass(frozen=True)
class Program:
    """A workflow with its children, and what happens to its run from outside."""

    name: str
    make: Make
    drive: Drive = nothing
    races: bool = False
    """Whether its result is that of the faster branch."""
    threads: bool = False
    """Whether what it tells has an order within each topic only."""
    input: Any = None
    again: bool = False
    """Whether steps are meant to be called again: it is retried, or begins afresh."""

    def workflows(self, world: World) -> list[Workflow[Any, Any]]:
        made = self.make(world)
        return list(made) if isinstance(made, tuple) else [made]


PROGRAMS: list[Program] = []


def odd(drive: Drive = nothing, **options: Any) -> Callable[[Make], Make]:
    """Take in a program."""

    def take(make: Make) -> Make:
        PROGRAMS.append(Program(make.__name__, make, drive, **options))
        return make

    return take
