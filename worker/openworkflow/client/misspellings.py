"""Warns of names that no worker serves, where a run is started or a pause begun. Refuses none."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from openworkflow.core.errors import BackendError
from openworkflow.core.served import Served

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 2.0
MOST_NAMES = 1000
"""Names that are remembered; a program that starts runs of more is asked about them again."""


class Misspellings:
    """Looks up each name once: who starts a thousand runs of it pays for one look.

    A worker that serves it may come later, so that a warning is all there is; and nothing here
    fails the caller, whose run is stored.
    """

    def __init__(self, look: Callable[[], Awaitable[Served]]) -> None:
        self._look = look
        self._looked: set[tuple[str, str | None]] = set()

    async def warn(self, name: str, version: str | None) -> None:
        """Warn if no worker serves this, unless it was looked up before."""
        wanted = (name, version)
        if wanted in self._looked:
            return
        if len(self._looked) >= MOST_NAMES:
            self._looked.clear()
        self._looked.add(wanted)
        if complaint := (await self._served()).complaint(name, version):
            logger.warning("%s; the run waits for a worker that does", complaint)

    async def warn_of_pause(self, name: str) -> None:
        """Warn if no worker serves any version of what was paused, and of which no run is held."""
        if complaint := (await self._served()).stranger(name):
            logger.warning("%s; is this the name that was meant?", complaint)

    async def _served(self) -> Served:
        """What workers say; nothing, if that is not known."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._look()
        except (BackendError, TimeoutError) as error:
            # A role that only starts runs may not see it.
            logger.debug("what workers serve is not known: %s", error)
            return Served()
