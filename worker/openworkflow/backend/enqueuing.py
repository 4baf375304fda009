"""Starts runs: how they share commits, and how the workers hear of them."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from datetime import timedelta

from openworkflow.backend.callers import Callers, Foreign
from openworkflow.backend.connection import Connection
from openworkflow.backend.creation import CHUNK, Creation
from openworkflow.backend.failures import is_of_messages
from openworkflow.backend.gathering import Gathering, can_gather
from openworkflow.backend.namespace import Namespace
from openworkflow.backend.notifications import Waker
from openworkflow.backend.records import CreatedRun, NewRun
from openworkflow.backend.requests import MAY_PASS, Requests
from openworkflow.backend.unique import UniqueStart
from openworkflow.backend.url import Dsn
from openworkflow.core.errors import BackendError, Fault
from openworkflow.core.ids import uuid7
from openworkflow.core.unique import UniqueRule

IDEMPOTENCY_PERIOD = timedelta(hours=24)
RELIABLE_PERIOD = timedelta(minutes=5)
"""A key that is honoured for less may be free again before a lost answer was asked for again."""
CHARACTERS_PER_SECOND = 1_000_000
"""What a slow way to the server carries: a large batch has that much longer."""


class Enqueuing:
    """Creates the runs of a namespace and wakes its workers."""

    def __init__(
        self, requests: Requests, dsn: Dsn, queries: Mapping[str, str], namespace: Namespace
    ) -> None:
        self._requests, self._sql, self._namespace = requests, queries, namespace
        self._callers = Callers(requests, dsn, queries)
        self._wake_up = self._sql["notify_work"], namespace.work_channel
        self._waker = Waker(self._notify)
        self._creating = 0
        self._gathering = Gathering(self._create_gathered)

    async def create(
        self,
        runs: Sequence[NewRun],
        connection: Connection | None,
        period: timedelta,
        unique: UniqueRule | None = None,
    ) -> list[CreatedRun]:
        """See BackendPostgres.create_workflow_runs."""
        self._requests.check_usable()
        if connection is not None:
            async with self._callers.lent(connection) as lent:
                return await self._create_for_caller(lent, runs, period, unique)
        if unique is not None:
            (run,) = runs
            return [await self._create_unique(run, unique)]
        if not runs:
            return []
        if len(runs) == 1 and can_gather(runs[0]):
            return [await self._gathering.create(runs[0])]
        if period >= RELIABLE_PERIOD and all(run.idempotency_key is not None for run in runs):
            return await self._create_surely(runs, period)
        return await self._create(runs, period)

    async def stop(self) -> None:
        """Let the last wake-up leave."""
        await self._waker.stop()

    async def _create_unique(self, run: NewRun, rule: UniqueRule) -> CreatedRun:
        run, start = run._replace(id=run.id or uuid7()), UniqueStart(self._sql, self._namespace)

        async def attempt() -> CreatedRun:
            async with self._requests.borrow() as own, own.transaction():
                return await start.start(own, run, rule)

        # A try whose answer was lost has left its id with the key.
        created = await self._requests.repeat(attempt, safe=True)
        self._waker.wake()
        return created

    async def _create_surely(self, runs: Sequence[NewRun], period: timedelta) -> list[CreatedRun]:
        """Ask again also where an answer was lost: a run that was stored is found by its key."""
        runs = [run._replace(id=run.id or uuid7()) for run in runs]
        found = await self._requests.repeat(lambda: self._create_once(runs, period), safe=True)
        # One with the id of ours was made by the try whose answer was lost.
        return [
            replace(each, created=each.created or each.id == run.id)
            for each, run in zip(found, runs, strict=True)
        ]

    async def _create(
        self, runs: Sequence[NewRun], period: timedelta, may_pass: Set[Fault] = MAY_PASS
    ) -> list[CreatedRun]:
        """Ask again where nothing was stored for sure."""
        return await self._requests.repeat(
            lambda: self._create_once(runs, period), safe=False, may_pass=may_pass
        )

    async def _create_gathered(self, runs: Sequence[NewRun]) -> list[CreatedRun]:
        """What is too much for one statement is gathered in smaller parts, at once."""
        may_pass = MAY_PASS if len(runs) == 1 else MAY_PASS - {Fault.SIZE}
        return await self._create(runs, IDEMPOTENCY_PERIOD, may_pass)

    async def _create_once(self, runs: Sequence[NewRun], period: timedelta) -> list[CreatedRun]:
        # Alone, the NOTIFY rides along; among others it would make their commits take turns.
        alone = not self._creating and not self._waker.busy and len(runs) <= CHUNK
        characters = sum(len(run.input or "") for run in runs)
        more = characters / CHARACTERS_PER_SECOND
        self._creating += 1
        try:
            channel = self._namespace.work_channel if alone else None
            created = await self._create_or_untold(runs, period, more, channel)
        finally:
            self._creating -= 1
        if not alone:
            self._waker.wake()
        return created

    async def _create_or_untold(
        self, runs: Sequence[NewRun], period: timedelta, more: float, channel: str | None
    ) -> list[CreatedRun]:
        """A server that has no room for messages takes runs: the workers poll."""
        try:
            return await self._create_over(channel, runs, period, more)
        except BackendError as error:
            if channel is None or not is_of_messages(error):
                raise
            return await self._create_over(None, runs, period, more)

    async def _create_over(
        self, channel: str | None, runs: Sequence[NewRun], period: timedelta, more: float
    ) -> list[CreatedRun]:
        async with self._requests.borrow(more=more) as connection:
            return await self._creation(period).create(connection, runs, channel)

    async def _create_for_caller(
        self,
        connection: Connection,
        runs: Sequence[NewRun],
        period: timedelta,
        unique: UniqueRule | None,
    ) -> list[CreatedRun]:
        if unique is not None:
            (run,) = runs
            start = UniqueStart(self._sql, self._namespace)
            async with connection.transaction():
                new = run._replace(id=run.id or uuid7())
                created = [await start.start(connection, new, unique)]
        else:
            created = await self._creation(period).create(connection, runs, None) if runs else []
        await self._tell(connection)
        return created

    async def _tell(self, connection: Connection) -> None:
        """A NOTIFY in the caller's transaction holds up the commits of others: it is sent after.

        Where the driver does not say when that has committed, PostgreSQL sends it then.
        """
        if isinstance(connection, Foreign):
            await connection.fetch(*self._wake_up)
        else:
            self._waker.wake_after_commit(connection)

    def _creation(self, period: timedelta) -> Creation:
        return Creation(self._sql, self._namespace.id, period)

    async def _notify(self) -> None:
        await self._requests.fetch(*self._wake_up)
