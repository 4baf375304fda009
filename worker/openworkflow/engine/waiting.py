"""Writes that the database refuses for now: they wait, apart from all others, until it takes them.

A right that was revoked, a trigger, a constraint, a missing partition or a locked row is no fault
of what is written, and may pass. So the step is not called again and the run does not fail; it
costs time. An end that is refused while those of other runs are taken is given back after a few
tries, since its run can be handed back: that frees its slot.
"""

import asyncio
import logging
import random
from collections.abc import Iterable
from uuid import UUID

from openworkflow.backend.records import (
    Completion,
    Continuation,
    RunEnd,
    StepSuccess,
    StepWrite,
    Write,
)
from openworkflow.engine.journal import Written
from openworkflow.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
END_REFUSALS = 5
"""An end is given back once it was refused so often while ends of other runs were taken."""

MOST_SAID = 20
"""Different refusals that the log tells until all is taken: that of each run may have words of its
own."""


class _Refusal:
    """What is known of an entry that waits."""

    __slots__ = ("alone", "count", "error", "seen")

    def __init__(self, seen: int) -> None:
        self.seen, self.count, self.alone = seen, 0, False
        self.error = ""


class WaitingWrites:
    """The entries that wait, in the order in which they were first refused."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._refusals: dict[Written, _Refusal] = {}
        self._taken = {True: 0, False: 0}
        """Statements that the database has taken since, with steps and with ends."""
        self._some, self._pause = asyncio.Event(), FIRST_PAUSE_SECONDS
        self._said: set[str] = set()

    def __len__(self) -> int:
        return len(self._refusals)

    @property
    def runs(self) -> dict[UUID, None]:
        """The runs that have a step here, and so must not end."""
        rows = (row for written in self._refusals for row in written.rows)
        return {row.run_id: None for row in rows if is_step(row)}

    def took(self, kinds: Iterable[type[Write]]) -> None:
        """The database has taken rows of these types: a refusal is not for all of them."""
        for kind in kinds:
            if issubclass(kind, StepSuccess | StepWrite | Completion | RunEnd | Continuation):
                self._taken[issubclass(kind, StepSuccess | StepWrite)] += 1

    def put_off(self, written: Written, row: Write, error: str) -> None:
        """Have it sent again in a while; `row` is the one that was refused."""
        taken = self._taken[is_step(row)]
        if (refusal := self._refusals.get(written)) is None:
            refusal = self._refusals[written] = _Refusal(taken)
        refusal.alone = taken > refusal.seen
        refusal.count += refusal.alone
        refusal.seen, refusal.error = taken, error
        self._some.set()
        self._metrics.writes_refused(len(self))
        if error not in self._said and len(self._said) < MOST_SAID:
            self._said.add(error)
            logger.error(
                "the database refuses what is written of run %s; it is sent again until the "
                "database takes it, and no step is called again: %s",
                row.run_id,
                error,
            )

    def gives_up(self, written: Written, row: Write) -> bool:
        """Whether this is an end that only its own run is refused."""
        refusal = self._refusals.get(written)
        return refusal is not None and not is_step(row) and refusal.count >= END_REFUSALS

    async def due(self) -> list[Written]:
        """Wait until some are to be sent again."""
        await self._some.wait()
        await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        return list(self._refusals)

    def sort_out(self) -> str | None:
        """Forget those that were taken; returns what is refused for all, if something is."""
        left = {written: r for written, r in self._refusals.items() if not written.done()}
        if len(left) < len(self):
            self._pause = FIRST_PAUSE_SECONDS
        self._refusals = left
        self._metrics.writes_refused(len(self))
        if not left:
            self._some.clear()
            self._said.clear()
            logger.info("the database has taken all that it had refused")
        return next((f"writes are refused: {r.error}" for r in left.values() if not r.alone), None)

    def abandon(self) -> None:
        """Nobody will send these any more."""
        for written in self._refusals:
            written.settle(False)
        self._refusals = {}


def is_step(row: Write) -> bool:
    """Whether this is a row of a step."""
    return isinstance(row, StepSuccess | StepWrite)
