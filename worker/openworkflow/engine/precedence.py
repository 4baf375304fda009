"""What was first goes first, however late somebody looks.

Of a run that is claimed late, times are over, and others have done something: sent a signal, ended
a child. All of that has a moment, by the database's clock, and is recorded in the order of those,
one after the other: each once the function has come to rest from the one before, since it may ask
then for what has long been there, and was before the next.
"""

import asyncio
import heapq
import itertools
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from openworkflow.core.errors import Suspended
from openworkflow.core.step_attempt import StepKind
from openworkflow.engine.operations.operation import FOR_OTHERS, Operation

if TYPE_CHECKING:
    from openworkflow.engine.execution import Execution

_OF_A_MOMENT = FOR_OTHERS | {StepKind.SLEEP}


async def over(operation: Operation, moment: datetime) -> None:
    """A time is over that an operation waits for: what was before goes first.

    Raises Suspended if the execution was stopped meanwhile, or is to be handed back.
    """
    if (precedence := _of(operation)) is not None:
        await precedence.over(operation, moment)


async def came(operation: Operation, moment: datetime | None) -> None:
    """Others did something at this moment: what was before goes first."""
    if moment is not None and (precedence := _of(operation)) is not None:
        await precedence.came(operation, moment)


def goes_on(operation: Operation) -> None:
    """A time was over, and the operation does not end by that."""
    if (precedence := operation.execution.agenda.precedence) is not None:
        precedence.goes_on(operation)


def _of(operation: Operation) -> "Precedence | None":
    execution = operation.execution
    agenda = execution.agenda
    if len(agenda.operations) > 1 and execution.workflow.is_async:
        agenda.precedence = agenda.precedence or Precedence(execution)
    return agenda.precedence


class Precedence:
    """Which of the ends that one execution has found comes next."""

    __slots__ = ("_execution", "_looked_at", "_numbers", "_over", "_queue")

    def __init__(self, execution: "Execution") -> None:
        self._execution = execution
        self._over: dict[Operation, datetime] = {}
        """The operations whose time is over, until the function has been told."""
        self._queue: list[tuple[datetime, int, asyncio.Future[None]]] = []
        """A heap of those that wait for what was before them."""
        self._numbers = itertools.count()
        self._looked_at: datetime | None = None

    async def over(self, operation: Operation, moment: datetime) -> None:
        """Wait until nothing is left that was before this moment; see `over`."""
        if not self._over and not any(self._others(operation)):
            return  # a run of many sleeps pays nothing
        self._over[operation] = moment
        while True:
            self._check()
            await self._look(operation, moment)
            if self._is_first(operation, moment, moment):
                return
            await self._turn(moment)

    async def came(self, operation: Operation, moment: datetime) -> None:
        """Wait until nothing is left that was before this moment; see `came`.

        A time that was over at that very moment was before.
        """
        while True:
            self._check()
            await self._look(operation)
            if self._is_first(operation, moment):
                return
            await self._turn(moment)

    def goes_on(self, operation: Operation) -> None:
        """See `goes_on`."""
        self._over.pop(operation, None)

    def look_again(self) -> None:
        """Whoever is next may go on, unless something was before that has come in since."""
        while self._queue:
            _, _, waiting = heapq.heappop(self._queue)
            if not waiting.done():
                waiting.set_result(None)
                return

    async def _look(self, operation: Operation, moment: datetime | None = None) -> None:
        """Have read what others did: what is new to be waited for, or all of up to this moment."""
        execution = self._execution
        if not any(self._others(operation)):
            return
        inbox, seen = execution.mailbox(), self._looked_at
        # What begins while it is read has to be read too.
        while inbox.unread or (moment and (seen is None or seen < moment)):
            now = execution.now() if moment is None else max(moment, execution.now())
            await inbox.look()
            self._looked_at = seen = now
            self._check()

    def _is_first(
        self, operation: Operation, moment: datetime, before: datetime | None = None
    ) -> bool:
        """Whether nothing is left that was before; of times that are over, before that."""
        asked = self._execution.agenda.operations
        for each in [each for each in self._over if asked.get(each.key) is not each]:
            del self._over[each]  # the function was told, or waits no more
        for each, until in self._over.items():
            if each is not operation and (until < before if before else until <= moment):
                return False
        others = (each for each in asked.values() if each.kind in _OF_A_MOMENT and each.task)
        found = (each.came() for each in others if each is not operation)
        return all(came is None or moment <= came for came in found)

    def _others(self, operation: Operation) -> Iterator[Operation]:
        """Operations that wait for what others do."""
        for each in self._execution.agenda.operations.values():
            if each.kind in FOR_OTHERS and each is not operation and each.task is not None:
                yield each

    async def _turn(self, moment: datetime) -> None:
        """Wait until the function has come to rest, and nobody else is next."""
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (moment, next(self._numbers), turn))
        await turn

    def _check(self) -> None:
        """Leave it to the next execution where nothing new begins that may have been before."""
        self._execution.check_stopped()
        if self._execution.draining:
            raise Suspended


def look_again(precedence: Precedence | None) -> None:
    """The function has come to rest."""
    if precedence is not None:
        precedence.look_again()
