"""When to ask for runs: at wake-ups, by polling underneath, and when a timer is due."""

import asyncio
import logging
import random
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from openworkflow.core.errors import BackendError
from openworkflow.engine.journal import DatabaseClock
from openworkflow.worker.claimer import Claimer
from openworkflow.worker.hints import Patience

if TYPE_CHECKING:
    from openworkflow.backend.backend import BackendPostgres

logger = logging.getLogger(__name__)

POLL_SECONDS = 5.0
"""The longest pause between two polls while wake-ups arrive."""
BLIND_POLL_SECONDS = 1.0
"""The longest pause without LISTEN: behind a pooler, or while the listener reconnects."""
FIRST_POLL_SECONDS = 0.1
HINT_SECONDS = 0.005, 0.05
"""Between two claims for wake-ups that lead to nothing: at first, and at most."""
TIMER_SPREAD_SECONDS = 0.005
"""Workers wake for the same timer a little apart."""


class Poller:
    """Makes the `claimer` hungry, and has a flush leave by `kick`."""

    def __init__(
        self,
        backend: "BackendPostgres",
        clock: DatabaseClock,
        claimer: Claimer,
        kick: Callable[[], None],
    ) -> None:
        self._backend, self._clock, self._claimer, self._kick = backend, clock, claimer, kick
        self._patience, self._claimed = Patience(*HINT_SECONDS), 0
        self._heard: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """There may be work now."""
        self._claimer.wake()
        self._kick()

    def hear(self) -> None:
        """Somebody says that there is work, and may be wrong, or say so all the time."""
        if self._heard is not None:
            return
        claimed, self._claimed = self._claimed, self._claimer.claimed
        wait = self._patience.wait(led_to_something=self._claimed > claimed)
        if wait > 0:
            self._heard = asyncio.get_running_loop().call_later(wait, self._follow)
        else:
            self._follow()

    def resume_at(self, when: datetime | None) -> None:
        """A run was parked until `when`: be there in time. None is for no time of its own."""
        if when is not None:
            self.resume_in((when - self._clock.now()).total_seconds())

    def resume_in(self, delay: float) -> None:
        """Wake in `delay` seconds; longer delays are left to the polls."""
        if delay < POLL_SECONDS:
            spread = random.uniform(0.0, TIMER_SPREAD_SECONDS)
            asyncio.get_running_loop().call_later(max(0.0, delay) + spread, self.wake)

    async def run(self, listening: Callable[[], bool]) -> None:
        """Poll until canceled: soon after the last work, then backing off, and for due timers."""
        delay, claimed = FIRST_POLL_SECONDS, self._claimer.claimed
        while True:
            self.wake()
            longest = POLL_SECONDS if listening() else BLIND_POLL_SECONDS
            found, claimed = self._claimer.claimed > claimed, self._claimer.claimed
            delay = FIRST_POLL_SECONDS if found else min(delay * 2, longest)
            if delay == longest:
                await self._watch_next_timer(longest)
            await asyncio.sleep(delay * random.uniform(0.75, 1.0))

    def _follow(self) -> None:
        self._heard = None
        self._patience.looked()
        self.wake()

    async def _watch_next_timer(self, horizon: float) -> None:
        """Wake for the next parked run, if it is due before the next poll.

        The look takes a connection of the pool, which others may use up: the polls go on without.
        """
        try:
            async with asyncio.timeout(horizon):
                due = await self._backend.next_due()
        except (BackendError, TimeoutError):
            return  # the flushes report it
        except Exception:
            logger.exception("could not look for the next timer")
            return
        if due is not None and due < horizon:
            self.resume_in(due)
