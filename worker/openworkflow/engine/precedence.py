"""What was first goes first, however late somebody looks.

Of a run that is claimed late, times are over, and what others did before (a signal, the end of a
child) has to be read. So a time that is over has that read, and lets it go first; and what others
did after that time waits until it has ended. All of this is by the database's clock.
"""

import asyncio
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from openworkflow.core.errors import Suspended
from openworkflow.engine.operations.operation import FOR_OTHERS, Operation

if TYPE_CHECKING:
    from openworkflow.engine.execution import Execution


async def over(operation: Operation, moment: datetime) -> None:
    """A time is over that an operation waits for: what others did before goes first.

    Raises Suspended if the execution was stopped meanwhile, or is to be handed back.
    """
    execution = operation.execution
    agenda = execution.agenda
    if len(agenda.operations) > 1 and execution.workflow.is_async:
        agenda.precedence = agenda.precedence or Precedence(execution)
        await agenda.precedence.over(operation, moment)


async def came(operation: Operation, moment: datetime | None) -> None:
    """Others did something at this moment: times that were over before go first."""
    precedence = operation.execution.agenda.precedence
    if precedence is not None and moment is not None:
        await precedence.came(moment)


class Precedence:
    """Which of the ends that one execution has found comes next."""

    __slots__ = ("_execution", "_over", "news")

    def __init__(self, execution: "Execution") -> None:
        self._execution = execution
        self._over: dict[Operation, datetime] = {}
        """The operations whose time is over, and whose end is not recorded yet."""
        self.news: asyncio.Future[None] | None = None
        """What ends once it is worth it to look again."""

    async def over(self, operation: Operation, moment: datetime) -> None:
        """Wait until nothing is left that was before this moment; see `over`."""
        self._over[operation] = moment
        try:
            while any(self._others(operation)):
                await self._execution.mailbox().look()
                self._check()
                earlier = (each.came() for each in self._others(operation))
                if self._first_of_all(moment) and not any(
                    came is not None and came < moment for came in earlier
                ):
                    break
                await self._until_news()
                self._check()
        finally:
            if not self._execution.draining:  # else what came later is left to the next one, too
                del self._over[operation]
            look_again(self)

    async def came(self, moment: datetime) -> None:
        """Wait until no time is left that was over by this moment; see `came`."""
        while any(until <= moment for until in self._over.values()):
            self._check()
            await self._until_news()
        self._execution.check_stopped()

    def _first_of_all(self, moment: datetime) -> bool:
        return all(moment <= each for each in self._over.values())

    def _others(self, operation: Operation) -> Iterator[Operation]:
        """Operations that wait for what others do."""
        for each in self._execution.agenda.operations.values():
            if each.kind in FOR_OTHERS and each is not operation and each.task is not None:
                yield each

    async def _until_news(self) -> None:
        if self.news is None or self.news.done():
            self.news = asyncio.get_running_loop().create_future()
        await asyncio.shield(self.news)

    def _check(self) -> None:
        self._execution.check_stopped()
        if self._execution.draining:
            raise Suspended


def look_again(precedence: Precedence | None) -> None:
    """The function has come to rest, or a time that was over is to be recorded now."""
    if precedence is not None and precedence.news is not None and not precedence.news.done():
        precedence.news.set_result(None)
