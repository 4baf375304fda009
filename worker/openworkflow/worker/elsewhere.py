"""A worker finds itself on another server: what its runs have recorded may not be there.

What is under way goes on where all that it rests on is there, as after a restart. A run that lacks
some of it is replayed from what there is. See backend/incarnation.py.
"""

import logging
import time
from collections.abc import Callable, Iterator, Set
from typing import TYPE_CHECKING, Self

from openworkflow.backend.incarnation import Compared, Held
from openworkflow.worker.claimer import Claim, Claimer
from openworkflow.worker.executor import Executor

if TYPE_CHECKING:
    from openworkflow.backend.backend import WorkerSession

logger = logging.getLogger(__name__)

LOST_SECONDS = 60.0
"""How long a claim is known that a heartbeat found gone: the connections that write come to where
the heartbeat was within seconds."""


class Elsewhere:
    """`doubt` has what this worker is taken to hold, and does not, handed back."""

    def __init__(self, claimer: Claimer, executor: Executor, doubt: Callable[[], None]) -> None:
        self._claimer, self._executor, self._doubt = claimer, executor, doubt
        self._asked: list[Claim] = []
        self._lost: dict[Claim, float] = {}
        """Claims that a heartbeat found gone, and when."""

    def watch(self, session: "WorkerSession", worker_id: str) -> Self:
        """Be asked by the connections of this session."""
        session.when_elsewhere(worker_id, self._held, self._settle)
        return self

    def lose(self, claims: Set[Claim]) -> None:
        """A heartbeat found that these do not stand: it may be the first on another server.

        What was written under them may be on its way, so their numbers are not to be given again.
        """
        now = time.monotonic()
        self._lost = {claim: at for claim, at in self._lost.items() if now - at < LOST_SECONDS}
        self._lost.update(dict.fromkeys(claims, now))
        self._executor.lose(claims)

    def _held(self) -> Iterator[Held]:
        since = time.monotonic() - LOST_SECONDS
        lost = [claim for claim, at in self._lost.items() if at > since]
        self._asked = list(dict.fromkeys([*self._claimer.claims(), *lost]))
        for claim in self._asked:
            if (execution := self._executor.executions.get(claim)) is None:
                yield Held(*claim, None, 0, (), ())  # the claim is the last that was recorded
                continue
            teller, deadline = execution.teller, execution.claim.deadline_at
            told = 0 if teller is None else teller.told
            yield Held(*claim, deadline, told, *execution.recorder.witnesses())

    def _settle(self, found: Compared) -> None:
        if found.lacking:
            logger.error(
                "the database has lost commits: %d of %d runs in progress lack what was recorded "
                "of them, and are replayed from what is there. Was a standby promoted that was "
                "not waited for, or a backup restored? Runs and results of the last moments may be "
                "gone: see synchronous_standby_names",
                found.lacking,
                len(self._asked),
            )
        else:
            logger.info("the database was started anew, or is another: no run lacks anything")
        self._executor.residents.forget()
        self._executor.lose(claim for claim in self._asked if claim not in found.standing)
        for claim in found.standing:
            execution = self._executor.executions.get(claim)
            if execution is not None and execution.inbox is not None:
                execution.inbox.begin_anew()
        self._doubt()
