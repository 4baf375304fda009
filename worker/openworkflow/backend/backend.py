"""BackendPostgres: the tables of one namespace, a method for each thing that is done with them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Self
from uuid import UUID

from openworkflow.backend import flush, migrations, queries
from openworkflow.backend.board import Board
from openworkflow.backend.builds import Builds
from openworkflow.backend.children import Families
from openworkflow.backend.connection import Connection, connect, connected, probe
from openworkflow.backend.control import Control
from openworkflow.backend.diagnostics import Diagnostics, diagnose
from openworkflow.backend.enqueuing import IDEMPOTENCY_PERIOD, Enqueuing
from openworkflow.backend.failures import DRIVER_ERRORS, ConnectionLost, as_backend_error
from openworkflow.backend.filtering import Filtering
from openworkflow.backend.heartbeat import HeartbeatSession
from openworkflow.backend.incarnation import Incarnation
from openworkflow.backend.ledger import Ledger, Loss, MigrationState, look
from openworkflow.backend.limits import LimitTable
from openworkflow.backend.link import Link
from openworkflow.backend.liveness import SCAN_SECONDS
from openworkflow.backend.messages import Messages
from openworkflow.backend.namespace import Namespace
from openworkflow.backend.notifications import Listener
from openworkflow.backend.pausing import Pauses
from openworkflow.backend.pool import close_pool, open_pool
from openworkflow.backend.progress import Progress
from openworkflow.backend.pruning import pruned
from openworkflow.backend.records import (
    ClaimedRun,
    ClaimRequest,
    CreatedRun,
    NewRun,
    Page,
    RecordedStep,
    RunFilter,
    Wake,
)
from openworkflow.backend.requests import Requests
from openworkflow.backend.rows import as_member, as_run, as_step, page_of
from openworkflow.backend.schedules import Schedules
from openworkflow.backend.session import WorkerSession
from openworkflow.backend.url import Dsn, parse
from openworkflow.core.asked import page_size
from openworkflow.core.cursor import read_cursor
from openworkflow.core.errors import ConfigurationError, InvalidRunState, RunNotFound
from openworkflow.core.guesses import AnswersGuesses
from openworkflow.core.step_attempt import StepAttempt
from openworkflow.core.stopping import StopsAtExit
from openworkflow.core.unique import UniqueRule
from openworkflow.core.workflow_run import RunStatus, WorkflowRun

__all__ = [
    "BackendPostgres",
    "ClaimRequest",
    "ClaimedRun",
    "ConnectionLost",
    "CreatedRun",
    "HeartbeatSession",
    "NewRun",
    "Page",
    "RecordedStep",
    "RunFilter",
    "WorkerSession",
]

_WAKE = flush.Shape((Wake,), updates=False, claim=False)


class BackendPostgres(AnswersGuesses, StopsAtExit):
    """A connected backend; `stop` it, or `async with await BackendPostgres.connect(url) as …`."""

    def __init__(
        self,
        dsn: Dsn,
        listen_dsn: Dsn | None,
        pool: Any,
        namespace: Namespace,
        *,
        application_name: str,
        pooled: bool,
    ) -> None:
        self.url, self.pooled, self._namespace = dsn, pooled, namespace
        self.namespace_id, self.schema = namespace.id, namespace.schema
        self._channels = namespace.work_channel, namespace.done_channel
        self._place = namespace.place
        self._listen_dsn, self._pool, self._application_name = listen_dsn, pool, application_name
        self._sql = queries.load(namespace.schema)
        self._requests = Requests(pool, dsn, pooled=pooled)
        self._fetch, self.check_usable = self._requests.fetch, self._requests.check_usable
        self.builds = Builds(self._requests.borrow, self._sql, namespace.id)
        self.messages = Messages(self._requests, dsn, self._sql, namespace.id)
        self.progress = Progress(self._requests, self._sql, namespace.id)
        self.schedules = Schedules(self._requests.borrow, self._sql, namespace)
        with_all = (self._requests, self._sql, namespace)
        self.filtering, self.limits = Filtering(*with_all), LimitTable(*with_all)
        self.pauses, self.board = Pauses(*with_all), Board(*with_all)
        self.control = Control(*with_all, self._existing)
        self.families = Families(self._requests, self._sql, namespace, self.control.cancel)
        self._enqueuing = Enqueuing(self._requests, dsn, self._sql, namespace)
        self._closers: list[Callable[[], Awaitable[object]]] = []

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        namespace_id: str = "default",
        schema: str = "public",
        migrate: bool | None = True,
        application_name: str = "openworkflow",
        listen_url: str | None = None,
    ) -> Self:
        """Connect and, unless `migrate` is False, bring the tables up to date.

        None is for who calls `migrate` later: the schema need not be there. `listen_url` is a
        direct connection for wake-ups where `url` leads through a pooler. Raises BackendError, with
        the next thing to try, or ConfigurationError.
        """
        namespace = Namespace(namespace_id, schema)
        dsn, listen_dsn = parse(url), None if listen_url in (None, "") else parse(listen_url)
        connection, pooled = await probe(dsn, application_name=application_name)
        try:
            if migrate:
                await migrations.migrate(connection, schema, pooled=pooled)
            else:
                await migrations.check(connection, schema, absent=migrate is None)
        except DRIVER_ERRORS as error:
            raise as_backend_error(error, dsn) from error
        finally:
            connection.terminate()
        return cls(
            dsn,
            listen_dsn if pooled or listen_dsn else dsn,
            await open_pool(dsn, application_name=application_name, pooled=pooled),
            namespace,
            application_name=application_name,
            pooled=pooled,
        )

    async def stop(self) -> None:
        """Disconnect; sessions and listeners are their openers' to close."""
        async with AsyncExitStack() as last_first:  # all of it, whichever fails
            last_first.push_async_callback(close_pool, self._pool)
            last_first.push_async_callback(self._enqueuing.stop)
            for close in reversed(self._closers):
                last_first.push_async_callback(close)

    def on_stop(self, close: Callable[[], Awaitable[object]]) -> None:
        """Have `close` awaited by `stop`, before the connections go."""
        self._closers.append(close)

    async def create_workflow_runs(
        self,
        runs: Sequence[NewRun],
        *,
        connection: Connection | None = None,
        idempotency_period: timedelta = IDEMPOTENCY_PERIOD,
        unique: UniqueRule | None = None,
    ) -> list[CreatedRun]:
        """Create runs, all or none, and wake the workers; answers in the order of `runs`.

        An idempotency key that made a run of that workflow within the period answers that run.
        With a `connection` of yours the runs are part of your transaction: they exist, and workers
        hear of them, if and only if it commits. `unique` gives a single run a key for itself.
        """
        return await self._enqueuing.create(runs, connection, idempotency_period, unique)

    async def get_workflow_run(self, run_id: UUID) -> WorkflowRun | None:
        """The run, or None if this namespace has none of that id."""
        rows = await self._fetch(self._sql["get_workflow_run"], self.namespace_id, run_id)
        return as_run(rows[0]) if rows else None

    async def find_ended_runs(
        self, run_ids: Collection[UUID], told: Collection[UUID], limit: int, *, seconds: float
    ) -> dict[UUID, WorkflowRun | None]:
        """Runs of these that have ended; None for each that this namespace does not have.

        Those in `told` are among them also if they go on. No more than `limit` at once; asked for
        once, within `seconds`. Raises BackendError.
        """
        wanted = (self.namespace_id, list(run_ids), list(told), limit)
        sql = self._sql["find_ended_runs"]
        rows = await self._requests.fetch_once(sql, *wanted, seconds=seconds)
        return {row["wanted_id"]: as_run(row) if row["id"] else None for row in rows}

    async def list_step_attempts(self, run_id: UUID) -> list[StepAttempt]:
        """The step attempts of a run in the order they began."""
        rows = await self._fetch(self._sql["list_step_attempts"], self.namespace_id, run_id)
        return [as_step(row) for row in rows]

    async def list_workflow_runs(
        self, run_filter: RunFilter | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page:
        """A page of runs, newest first; `cursor` is the `next_cursor` of the page before."""
        page_size(limit)
        wanted = run_filter or RunFilter()
        times = (wanted.created_after, wanted.created_before)
        page = (*(read_cursor(cursor) if cursor else (None, None)), limit + 1)
        if wanted.takes_all:
            rows = await self._fetch(
                self._sql["list_newest_runs"], self.namespace_id, *times, *page
            )
        else:
            failed = wanted.status == RunStatus.FAILED
            rows = await self._fetch(
                self._sql["list_failed_runs"] if failed else self._sql["list_workflow_runs"],
                *(self.namespace_id, *times, *page, wanted.status, wanted.workflow_name),
                *(wanted.version, wanted.worker_id, wanted.build_id, wanted.schedule_name),
                wanted.parent_run_id,
                seconds=SCAN_SECONDS,
            )
        return page_of(rows, limit)

    async def count_runs(self) -> dict[RunStatus, int]:
        """How many runs of the namespace have each status."""
        sql, counts = self._sql["count_workflow_runs"], dict.fromkeys(RunStatus, 0)
        rows = await self._fetch(sql, self.namespace_id, seconds=SCAN_SECONDS)
        return counts | {as_member(RunStatus, row["status"]): row["runs"] for row in rows}

    async def cancel_workflow_run(self, run_id: UUID, *, force: bool = False) -> WorkflowRun:
        """Cancel a run that has not finished, and its children; one that was canceled is left so.

        Steps that can be undone are undone before, unless `force` is True: then it is answered as
        pending. Raises RunNotFound, or InvalidRunState for a run that has succeeded or failed.
        """
        if rows := await self.control.cancel(run_id, force=force):
            if rows[0]["is_parent"]:
                await self.families.after_cancel()
            run = as_run(rows[0])
            return await self.schedules.go_on_without(run) if run.status.finished else run
        run = await self._existing(run_id)
        if run.status is not RunStatus.CANCELED:
            raise InvalidRunState(run_id, run.status, "canceled")
        return await self.schedules.go_on_without(run)  # a try whose answer was lost did not

    async def retry_workflow_run(self, run_id: UUID) -> WorkflowRun:
        """See Control.retry."""
        return await self.control.retry(run_id)

    async def wake_workflow_run(self, run_id: UUID) -> bool:
        """Say that something has happened which this run may wait for.

        One that waits is due at once, and one that is about to wait will not. False if it has
        finished, or is none of this namespace.
        """
        values: dict[str, Any] = {**self._place, "wake_run_id": [run_id]}
        given = (values[name] for name in _WAKE.parameters)
        (row,) = await self._fetch(flush.statement(self._sql, _WAKE), *given)
        return bool(row["wakes"])

    def prune(
        self,
        statuses: Collection[RunStatus],
        older_than: timedelta,
        *,
        batch: int = 1000,
        dry_run: bool = False,
    ) -> AsyncIterator[int]:
        """Delete finished runs that ended so long ago; yields how many, batch by batch.

        With `dry_run` nothing is deleted, and the one number is how many would be.
        """
        if unfinished := [str(status) for status in statuses if not status.finished]:
            raise ConfigurationError(f"{', '.join(unfinished)} runs cannot be pruned")
        wanted = [self.namespace_id, list(map(str, statuses)), older_than]
        return pruned(self._fetch, self._sql, wanted, batch=batch, dry_run=dry_run)

    async def open_session(self, connections: int = 2) -> WorkerSession:
        """Connections for the traffic of one worker."""
        place = Incarnation(self.schema)
        links = [self._link(incarnation=place) for _ in range(connections)]
        session = WorkerSession(links, self._sql, self._place, place)
        await session.open()
        return session

    async def open_heartbeat(self) -> HeartbeatSession:
        """A connection for one worker's heartbeat, in the event loop that is running."""
        link = self._link()
        await link.open()
        return HeartbeatSession(link, self._sql)

    def listen(self) -> Listener:
        """A listener for wake-ups, for `async with`; on a connection of its own."""
        dsn, name, silences = self._listen_dsn, self._application_name, self._requests.silences
        if dsn is None:
            return Listener(self._namespace, None)
        return Listener(self._namespace, lambda: connect(dsn, application_name=name), silences)

    async def next_due(self, after: datetime | None = None) -> float | None:
        """Seconds until the next pending run falls due after `after` (by default now), if any."""
        rows = await self._fetch(self._sql["next_due"], self.namespace_id, after)
        return max(0.0, rows[0]["seconds"]) if rows else None

    async def now(self) -> datetime:
        """The database's clock."""
        now: datetime = (await self._fetch(self._sql["now"]))[0]["now"]
        return now

    async def migrate(self, begun: migrations.Begun | None = None) -> list[migrations.Migration]:
        """Apply the migrations that are missing, each told to `begun` before; returns them."""
        async with self._own_connection() as connection:
            return await migrations.migrate(connection, self.schema, begun, pooled=self.pooled)

    async def mend_indexes(self) -> list[str]:
        """Make indexes again that are gone or invalid, not behind a pooler; returns their names."""
        if self.pooled:  # they are made concurrently, which needs a direct connection
            return []
        async with self._own_connection() as connection:
            return [index.name for index in await migrations.mend(connection, self.schema)]

    async def migration_states(self) -> list[MigrationState]:
        """Every migration this program knows, and when it was applied."""
        return (await self._look()).states

    async def schema_loss(self) -> Loss | None:
        """A table or column that is gone although its migration was applied."""
        return (await self._look()).loss

    async def diagnostics(self) -> Diagnostics:
        """The health of server, schema and namespace; reads both tables whole."""
        return await diagnose(
            partial(self._fetch, seconds=SCAN_SECONDS),
            self._sql,
            schema=self.schema,
            namespace_id=self.namespace_id,
            pooled=self.pooled,
        )

    async def _look(self) -> Ledger:
        async with self._requests.borrow() as connection:
            return await look(connection, self.schema)

    def _own_connection(self) -> AbstractAsyncContextManager[Connection]:
        """One outside of the pool, whose settings and transactions nobody shares."""
        return connected(self.url, application_name=self._application_name, pooled=self.pooled)

    async def _existing(self, run_id: UUID) -> WorkflowRun:
        run = await self.get_workflow_run(run_id)
        if run is None:
            raise RunNotFound(run_id)
        return run

    def _link(self, **more: Any) -> Link:
        more |= {"application_name": self._application_name, "pooled": self.pooled}
        return Link(self.url, silences=self._requests.silences, **more)
