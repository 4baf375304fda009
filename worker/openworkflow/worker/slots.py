"""Slots: how many runs a worker executes at once, and how many more may rest beside them. Pure.

A run that waits for a moment (a short sleep, a retry) stays in memory without a slot, so that it
needs no replay, and takes one again before it goes on. Such a run costs its memory and its lease,
not a place; there may be `most_resting` of them. A slot that falls free goes to a run that wants
to go on before it goes to a new claim.
"""

import asyncio
from collections import deque
from collections.abc import Callable


class Slots:
    """The accounting of `count` slots; `freed` is called when one falls free for a claim.

    `most_resting` is the number of runs that may rest without a slot, by default `count`.
    """

    def __init__(
        self, count: int, *, most_resting: int | None = None, freed: Callable[[], None]
    ) -> None:
        self.count = count
        self.most_resting = count if most_resting is None else most_resting
        self.used = self.resting = 0
        self._reserved = 0
        self._freed = freed
        self._waiting: deque[tuple[Slot, asyncio.Future[None]]] = deque()

    @property
    def claimable(self) -> int:
        """Slots that a new claim may ask for; none is free while a run waits to go on."""
        return max(0, self._free)

    @property
    def reserved(self) -> int:
        """Slots that claims under way asked for."""
        return self._reserved

    def reserve(self, count: int) -> None:
        """Keep slots for the runs that a claim may bring."""
        self._reserved += count

    def fill(self, reserved: int, runs: int) -> "list[Slot]":
        """A claim that had `reserved` slots is back with `runs` runs: a slot for each."""
        self._reserved -= reserved
        self.used += runs
        slots = [Slot(self) for _ in range(runs)]
        self._serve()
        return slots

    @property
    def _free(self) -> int:
        return self.count - self.used - self._reserved

    def _serve(self) -> None:
        while self._waiting and self._free > 0:
            slot, wanted = self._waiting.popleft()
            if wanted.done():
                continue
            if not slot.occupies and not slot.closed:
                slot.occupies = True
                self.used += 1
                self.resting -= 1
            wanted.set_result(None)

    def _free_one(self, *, tell: bool) -> None:
        self.used -= 1
        if self._waiting:
            self._serve()
        if tell and self.claimable > 0:
            self._freed()


class Slot:
    """The slot of one execution: occupied, released while the run rests, or closed at its end."""

    __slots__ = ("_slots", "closed", "occupies")

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self.closed = False
        self.occupies = True
        """Whether the run counts among those in progress; False while it rests."""

    @property
    def may_rest(self) -> bool:
        """Whether there is room for one more run that rests."""
        return self._slots.resting < self._slots.most_resting

    def release(self) -> None:
        """The run begins to rest: others may use the slot."""
        if self.occupies and not self.closed:
            self.occupies = False
            self._slots.resting += 1
            self._slots._free_one(tell=True)

    async def acquire(self) -> None:
        """Wait for a slot to go on with; returns at once for a run that has one."""
        if self.occupies or self.closed:
            return
        wanted = asyncio.get_running_loop().create_future()
        self._slots._waiting.append((self, wanted))
        self._slots._serve()
        await wanted  # canceled, it is passed over when its turn comes

    def close(self) -> None:
        """The run is about to end; the flush that carries its end may claim for the slot."""
        if self.closed:
            return
        self.closed = True
        if self.occupies:
            self.occupies = False
            self._slots._free_one(tell=False)
        else:
            self._slots.resting -= 1
