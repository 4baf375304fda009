"""What was first goes first, however late somebody looks.

Of a run that is claimed late, times are over, and others have done something: sent a signal, ended
a child. All of that has a moment, by the database's clock, and is recorded in the order of those,
one after the other: each once the function has come to rest from the one before, since it may ask
then for what has long been there, and was before the next.
"""

import asyncio
import heapq
import itertools
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from openworkflow.core.errors import Suspended
from openworkflow.core.step_attempt import StepKind
from openworkflow.engine.operations.operation import FOR_OTHERS, Operation

if TYPE_CHECKING:
    from openworkflow.engine.execution import Execution

T = TypeVar("T")
_Heap = list[tuple[datetime, int, T]]
_OF_A_MOMENT = FOR_OTHERS | {StepKind.SLEEP}
_NEVER = -1
_MOST_PAST = 64
"""Entries of a heap beyond two for each operation, before what is past is left out."""


async def over(operation: Operation, moment: datetime) -> bool:
    """A time is over that an operation waits for: what was before goes first.

    False if that is what it waits for itself, which has been found meanwhile.

    Raises Suspended if the execution was stopped meanwhile, or is to be handed back.
    """
    if (precedence := _of(operation)) is not None:
        return await precedence.over(operation, moment)
    return True


async def came(operation: Operation) -> None:
    """Others did what it waits for, when it `found`: what was before goes first."""
    if operation.found() is not None and (precedence := _of(operation)) is not None:
        await precedence.came(operation)


def waits(operation: Operation) -> None:
    """An operation knows more of what it waits for."""
    if (precedence := operation.execution.agenda.precedence) is not None:
        precedence.waits(operation)


def begin(precedence: "Precedence | None", operations: Iterable[Operation]) -> None:
    """What was asked for begins, each in a task of its own."""
    if precedence is not None:
        precedence.begin(operations)


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
    """Which of the ends that one execution has found comes next.

    Its heaps are looked through lazily: what an entry says is looked up once it is the first, so
    that a thousand ends cost no more than a thousand times what one does.
    """

    __slots__ = (
        "_beginning",
        "_changes",
        "_comes",
        "_ends",
        "_execution",
        "_looked_at",
        "_numbers",
        "_over",
        "_queue",
        "_told",
        "_until",
    )

    def __init__(self, execution: "Execution") -> None:
        self._execution = execution
        self._numbers = itertools.count()
        self._over: dict[Operation, datetime] = {}
        """The operations whose time is over, until the function has been told."""
        self._until: _Heap[Operation] = []
        """A heap of those, by their time; some of it is past."""
        self._comes: dict[Operation, datetime] = {}
        """When each comes, or came, of what waits: never later than it does."""
        self._ends: _Heap[Operation] = []
        """A heap of those, by that; some of it is past."""
        self._queue: _Heap[asyncio.Future[None]] = []
        """Who waits for what was before."""
        self._looked_at: datetime | None = None
        self._changes = self._told = _NEVER
        self._beginning = 0
        """Tasks of operations were made, and have not taken their first step, so many times."""
        self.begin(())

    async def over(self, operation: Operation, moment: datetime) -> bool:
        """Wait until nothing is left that was before this moment; see `over`."""
        self._over[operation] = moment
        self._push(self._until, moment, operation)
        while True:
            self._check()
            await self._look(operation, moment)
            if (found := operation.found()) is not None and found <= moment:
                self.goes_on(operation)
                return False
            if not self._is_over_before(moment, at=False) and self._is_first(operation, moment):
                return True
            await self._turn(moment)

    async def came(self, operation: Operation) -> None:
        """Wait until nothing is left that was before; see `came`.

        A time that was over at that very moment was before.
        """
        while True:
            self._check()
            await self._look(operation)
            moment = operation.found()  # an earlier one, where somebody else gave that back
            if moment is None or (
                not self._is_over_before(moment, at=True) and self._is_first(operation, moment)
            ):
                return
            await self._turn(moment)

    def waits(self, operation: Operation) -> None:
        """See `waits`."""
        if operation.kind not in _OF_A_MOMENT:
            return
        moment, known = operation.comes(), self._comes.get(operation)
        if moment is None or (known is not None and known <= moment):
            return
        self._comes[operation] = moment
        self._push(self._ends, moment, operation)
        if len(self._ends) > 2 * len(self._execution.agenda.operations) + _MOST_PAST:
            self._look_through()

    def begin(self, operations: Iterable[Operation]) -> None:
        """See `begin`: each may wait for what came long ago, and says so with its first step."""
        self._beginning += 1
        asyncio.get_running_loop().call_soon(self._have_begun)
        for each in operations:
            self.waits(each)

    def goes_on(self, operation: Operation) -> None:
        """See `goes_on`."""
        self._over.pop(operation, None)

    def look_again(self) -> None:
        """Whoever is next may go on, unless something was before that has come in since."""
        told, self._told = self._told, self._changed
        while self._queue:
            _, _, waiting = heapq.heappop(self._queue)
            if not waiting.done():
                waiting.set_result(None)
                if told == self._told:
                    return  # else another may be next

    def _have_begun(self) -> None:
        self._beginning -= 1

    @property
    def _changed(self) -> int:
        inbox = self._execution.inbox
        return _NEVER if inbox is None else inbox.changes

    async def _look(self, operation: Operation, moment: datetime | None = None) -> None:
        """Have read what others did: what is new to be waited for, or all of up to this moment."""
        execution, own = self._execution, int(operation.kind in FOR_OTHERS)
        while True:  # what begins while it is read has to be read too
            inbox, seen = execution.inbox, self._looked_at
            if self._beginning:
                await asyncio.sleep(0)
            elif inbox is None or inbox.waiting <= own:
                return
            elif inbox.unread or (moment and (seen is None or seen < moment)):
                now = execution.now() if moment is None else max(moment, execution.now())
                await inbox.look()
                self._looked_at = now
            else:
                return
            self._check()

    def _is_over_before(self, moment: datetime, *, at: bool) -> bool:
        """Whether a time was over before this moment, or `at` it, that the function awaits."""
        asked, until = self._execution.agenda.operations, self._until
        while until:
            over, _, each = until[0]
            if self._over.get(each) == over:
                if asked.get(each.key) is each:
                    return over <= moment if at else over < moment
                del self._over[each]  # the function was told, or waits no more
            heapq.heappop(until)
        return False

    def _is_first(self, operation: Operation, moment: datetime) -> bool:
        """Whether nothing that others wait for came before this moment."""
        if self._changes != self._changed:
            self._look_through()
        asked, ends, first = self._execution.agenda.operations, self._ends, True
        later: list[Operation] = []
        while first and ends and ends[0][0] < moment:
            known, _, each = heapq.heappop(ends)
            if self._comes.get(each) != known:
                continue  # another entry is as early
            del self._comes[each]
            if asked.get(each.key) is each:
                later.append(each)
                came = None if each is operation else each.came()
                first = came is None or moment <= came
        for each in later:
            self.waits(each)
        return first

    def _look_through(self) -> None:
        """Look at all that waits."""
        self._changes = self._changed
        self._ends.clear()
        self._comes.clear()
        for each in self._execution.agenda.operations.values():
            if each.task is None or each.kind not in _OF_A_MOMENT:
                continue
            if (moment := each.comes()) is not None:
                self._comes[each] = moment
                self._ends.append((moment, next(self._numbers), each))
        heapq.heapify(self._ends)

    def _push(self, heap: "_Heap[T]", moment: datetime, entry: T) -> None:
        heapq.heappush(heap, (moment, next(self._numbers), entry))

    async def _turn(self, moment: datetime) -> None:
        """Wait until the function has come to rest, and nobody else is next."""
        turn = asyncio.get_running_loop().create_future()
        self._push(self._queue, moment, turn)
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
