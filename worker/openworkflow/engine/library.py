"""What runs have told in earlier claims, read when one of them tells something again.

Those that are asked about at one time share a statement. A run in its first claim is not asked
about, and one that tells nothing never.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from uuid import UUID

from openworkflow.core.errors import BackendError, Fault
from openworkflow.core.progress import Told

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 200
"""Runs that are asked about by one statement."""
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.2, 10.0

Read = Callable[[Sequence[UUID]], Awaitable[dict[UUID, Told]]]


class Library:
    """What the runs of one worker have told before; `read` asks the database."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._asked: list[tuple[UUID, asyncio.Future[Told | None]]] = []
        self._reading: asyncio.Task[None] | None = None

    async def told(self, run_id: UUID) -> Told | None:
        """What the run has told; None if nothing. Raises what keeps that from being read.

        A database that is silent for now is asked again, and so is one where somebody was in the
        way.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Told | None] = loop.create_future()
        self._asked.append((run_id, answer))
        if self._reading is None:
            self._reading = loop.create_task(
                self._read_all(), name="openworkflow library", context=Context()
            )
        return await answer

    async def _read_all(self) -> None:
        try:
            while self._asked:
                batch, self._asked = self._asked[:MOST_AT_ONCE], self._asked[MOST_AT_ONCE:]
                await self._answer(batch)
        finally:
            self._reading = None

    async def _answer(self, batch: list[tuple[UUID, "asyncio.Future[Told | None]"]]) -> None:
        delay = FIRST_RETRY_SECONDS
        while batch := [(run_id, answer) for run_id, answer in batch if not answer.done()]:
            try:
                found = await self._read([run_id for run_id, _ in batch])
            except Exception as error:  # a mistake of ours too: those who wait have to hear of it
                if _passes(error, len(batch)):
                    logger.warning("could not read what %d runs have told: %s", len(batch), error)
                    await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                    delay = min(delay * 2, LONGEST_RETRY_SECONDS)
                elif len(batch) > 1:  # whatever is wrong with one run costs that one only
                    for each in batch:
                        await self._answer([each])
                else:
                    batch[0][1].set_exception(error)
                continue
            for run_id, answer in batch:
                if not answer.done():
                    answer.set_result(found.get(run_id))


def _passes(error: Exception, runs: int) -> bool:
    """Whether no run is at fault: the same may be read as it is, somewhat later."""
    if not isinstance(error, BackendError):
        return False
    return error.fault in (Fault.SERVER, Fault.MOMENT) or (error.fault is Fault.SIZE and runs == 1)


async def nothing_told(_run_ids: Sequence[UUID]) -> dict[UUID, Told]:
    """For replays, which read nothing."""
    return {}
