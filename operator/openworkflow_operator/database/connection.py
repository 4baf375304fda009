"""One connection to one tenant database: a bounded, read-only look, wake-ups by NOTIFY, pruning.

Each statement is a transaction of its own with its limits set inside it, so it works through
PgBouncer in transaction mode too; there NOTIFY is not heard, and polling remains.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Self
from uuid import UUID

import asyncpg

from openworkflow_contract.channels import work_channel
from openworkflow_operator.database import queries
from openworkflow_operator.database.answers import (
    Question,
    build_id,
    build_view,
    count,
    counts,
    new_runs,
    observation,
    workflow_names,
)
from openworkflow_operator.database.bounded import BoundedLoop
from openworkflow_operator.database.diagnosis import SchemaMissing, SchemaTooNew, UnusableAnswer
from openworkflow_operator.database.dsn import Dsn, TlsMode, check_address, tls_context
from openworkflow_operator.database.listening import heard
from openworkflow_operator.database.refused import Refused
from openworkflow_operator.database.resolving import Resolver
from openworkflow_operator.decide.observation import NewRuns, Observation
from openworkflow_operator.decide.rollout import MOST_BUILDS, BuildView

CONNECT_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 5.0
PRUNE_SECONDS: Final = 40.0
#: What a server may send for one look, or while connecting. 500 namespaces with 20 busy pods each
#: answer with less than a megabyte.
MOST_BYTES: Final = 4 * 2**20
#: The contract of the schema that this operator knows: the highest number in its ledger. What
#: additive migrations bring, which do not raise it, is none of the operator's business.
KNOWN_CONTRACT: Final = 2

# A statement sees what was committed before it, whatever the role's default: changes take turns.
_READ: Final = (
    "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; "
    "SET LOCAL statement_timeout = 3000; SET LOCAL lock_timeout = 1000; "
    # The indexes bound the look; fresh or missing statistics must not choose a scan of the table.
    "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL jit = off"
)
_LIMITS: Final = ("namespace_id", "due_limit", "running_limit", "lead_seconds")
_WRITE: Final = (
    "BEGIN ISOLATION LEVEL READ COMMITTED; "
    "SET LOCAL statement_timeout = 30000; SET LOCAL lock_timeout = 1000; "
    "SET LOCAL enable_seqscan = off; SET LOCAL jit = off"
)


Fetch = Callable[..., Awaitable[list[Any]]]
"""Sends the statement of this name, with its arguments; returns the rows."""


@dataclass(frozen=True, slots=True)
class Kept:
    """How long the finished runs of one status of one namespace are kept."""

    namespace_id: str
    status: str
    seconds: int
    spared_build: str | None = None
    """Whose runs are kept for longer."""


@dataclass(frozen=True, slots=True)
class Told:
    """What is to be seen of the fleet of a namespace."""

    namespace_id: str
    resource: str
    """The WorkflowNamespace, as NAMESPACE/NAME."""
    status: str
    """JSON."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """A page that was gone through."""

    last: UUID | None
    """Where the next page begins; None after the last one."""
    deleted: Mapping[str, int]
    """Runs by namespace id."""


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """The operator's own say about connections to tenants."""

    ca_file: str | None = None
    allow_loopback: bool = False
    """Only for development, where the database is on the operator's machine."""
    resolver: Resolver = field(default_factory=Resolver, compare=False)

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """Where the host is; InvalidUrl if that leads back to the operator."""
        found = await self.resolver.addresses(host, port)
        if not self.allow_loopback:
            for address in found:
                check_address(address)
        return found


class Database:
    """A connection that looks at one schema. Not to be used concurrently."""

    def __init__(
        self, connection: asyncpg.Connection[Any], schema: str, budget: BoundedLoop
    ) -> None:
        self._connection, self._schema, self._budget = connection, schema, budget
        self._sql = queries.load(schema)
        self._listening: dict[str, Callable[..., None]] = {}
        self._refused = Refused()

    @classmethod
    async def connect(cls, dsn: Dsn, schema: str, options: ConnectOptions) -> Self:
        """Connect and check the schema's contract.

        Raises what `diagnosis.diagnose` understands: OSError, TimeoutError, asyncpg's errors,
        InvalidUrl, SchemaMissing and SchemaTooNew.
        """
        budget = BoundedLoop(MOST_BYTES, options.addresses)
        try:
            async with budget.limited(CONNECT_SECONDS * len(dsn.hosts) + LOOK_SECONDS):
                self = cls(await _connect(dsn, options, budget), schema, budget)
                try:
                    await self._check_contract()
                except BaseException:
                    self.terminate()
                    raise
        except BaseException:
            budget.abort()
            raise
        return self

    @property
    def is_closed(self) -> bool:
        """Whether only a new connection helps."""
        return bool(self._connection.is_closed())

    @property
    def received(self) -> int:
        """How many bytes the server has sent since the connection was made."""
        return self._budget.total

    async def look(self, questions: Sequence[Question], serial: int) -> dict[str, Observation]:
        """Answer all questions with one statement, by namespace id."""
        async with self._budget.limited(LOOK_SECONDS):
            rows = await self._read("observe_runs", *_columns(questions, *_LIMITS))
            asked = {question.namespace_id: question for question in questions}
            waits = [row["namespace_id"] for row in rows if row["due"] or row["waking"]]
            served = await self._served([asked[name] for name in waits if name in asked])
            names = await self._unserved(rows, served)
            builds, new = await self._look_at_builds([q for q in questions if q.build], served)
        now = datetime.now(UTC)
        return {
            name: observation(
                *(row, asked[name], now, serial, builds.get(name), new.get(name), served.get(name)),
                names.get(name, ()),
            )
            for row in rows
            if (name := row["namespace_id"])
        }

    async def _served(self, questions: Sequence[Question]) -> dict[str, Any]:
        """What workers say they serve of what waits; nothing of a namespace where none does."""
        if not questions or "served" in self._refused:
            return {}
        try:
            rows = await self._read(
                "observe_served",
                *_columns(questions, "namespace_id", "due_limit", "lead_seconds"),
            )
        except asyncpg.QueryCanceledError:
            return {}
        except (asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedTableError):
            # A role that may only count runs, or tables from before workers said it: all count.
            self._refused.add("served")
            return {}
        return {row["namespace_id"]: row for row in rows}

    async def _unserved(
        self, rows: Sequence[Any], served: Mapping[str, Any]
    ) -> dict[str, tuple[str, ...]]:
        """Names of what nobody serves, where there is such; only people need them."""
        counted = {row["namespace_id"]: row["due"] for row in rows}
        some = [name for name, row in served.items() if counted.get(name, 0) > row["due"]]
        if not some:
            return {}
        try:
            found = await self._read("observe_unserved", some)
        except (asyncpg.QueryCanceledError, asyncpg.InsufficientPrivilegeError):
            return {}
        return {row["namespace_id"]: workflow_names(row["workflows"]) for row in found}

    async def _look_at_builds(
        self, questions: Sequence[Question], served: Mapping[str, Any]
    ) -> tuple[dict[str, dict[str, BuildView]], dict[str, NewRuns]]:
        asked = {question.namespace_id: question for question in questions}
        found: dict[str, dict[str, BuildView]] = {name: {} for name in asked}
        new: dict[str, NewRuns] = {}
        if not questions:
            return found, new
        rows = await self._read(
            "observe_builds",
            *_columns(questions, *_LIMITS, "build", "canary", "first_runs"),
            MOST_BUILDS,
        )
        for row in rows:
            name = row["namespace_id"]
            found[name][build_id(row["build_id"])] = build_view(row, asked[name])
            new[name] = new_runs(row, asked[name], served.get(name))
        if any(len(builds) > MOST_BUILDS for builds in found.values()):
            raise UnusableAnswer
        return found, new

    async def read(self, name: str, *arguments: object) -> list[Any]:
        """The answer of a statement that changes nothing."""
        async with self._budget.limited(LOOK_SECONDS):
            return await self._read(name, *arguments)

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[Fetch]:
        """A transaction that may change something, and has so much time in all."""
        async with self._budget.limited(PRUNE_SECONDS), self._transaction(_WRITE, "COMMIT"):
            yield self._fetch

    async def tell(self, told: Sequence[Told]) -> None:
        """Say what fleets do; nothing where the role may not, or the table is not there yet."""
        if not told or "fleets" in self._refused:
            return
        async with self._budget.limited(LOOK_SECONDS):
            try:
                async with self._transaction(_WRITE, "COMMIT"):
                    await self._fetch("tell_fleets", *zip(*map(astuple, told), strict=True))
            except (asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedTableError):
                self._refused.add("fleets")

    async def listen(self, namespace_ids: Sequence[str], on_work: Callable[[], None]) -> None:
        """Hear of new work in exactly these namespaces from now on."""
        wanted = {work_channel(self._schema, namespace_id) for namespace_id in namespace_ids}
        async with self._budget.limited(LOOK_SECONDS):
            for channel in self._listening.keys() - wanted:
                await self._connection.remove_listener(channel, self._listening.pop(channel))
            for channel in wanted - self._listening.keys():
                self._listening[channel] = heard(on_work)
                with contextlib.suppress(asyncpg.PostgresError):  # a standby; polling remains
                    await self._connection.add_listener(channel, self._listening[channel])

    def terminate(self) -> None:
        """Close at once, without asking the server."""
        self._connection.terminate()
        self._budget.abort()

    async def prune(self, kept: Sequence[Kept], after: UUID, page: int) -> Pruned:
        """Delete what is old on the page of the table that follows this id."""
        async with self.writing() as fetch:
            rows = await fetch(
                "prune_page",
                [each.namespace_id for each in kept],
                [each.status for each in kept],
                [float(each.seconds) for each in kept],
                after,
                page,
                [each.spared_build for each in kept],
            )
        last, deleted = rows[0]["last_id"], counts(rows[0]["deleted"])
        if count(rows[0]["looked_at"]) < page:
            last = None
        elif not isinstance(last, UUID) or last <= after:
            raise UnusableAnswer
        return Pruned(last, deleted)

    async def _read(self, name: str, *arguments: object) -> list[Any]:
        async with self._transaction(_READ, "ROLLBACK"):
            return await self._fetch(name, *arguments)

    async def _fetch(self, name: str, *arguments: object) -> list[Any]:
        return list(await self._connection.fetch(self._sql[name], *arguments))

    @contextlib.asynccontextmanager
    async def _transaction(self, begin: str, end: str) -> AsyncIterator[None]:
        try:
            await self._connection.execute(begin)
            yield
        except asyncpg.PostgresError:
            # Only after an answer: a server that gave none would not answer this either.
            if not self._connection.is_closed():
                await self._connection.execute("ROLLBACK")
            raise
        await self._connection.execute(end)

    async def _check_contract(self) -> None:
        try:
            rows = await self._read("read_contract")
        except asyncpg.InsufficientPrivilegeError:
            return  # a role that may only count runs; the look itself tells whether it can
        except asyncpg.UndefinedTableError:
            raise SchemaMissing from None
        contract = rows[0]["contract"] if rows else None
        if contract is None:
            raise SchemaMissing
        if not isinstance(contract, int):
            raise UnusableAnswer
        if contract > KNOWN_CONTRACT:
            raise SchemaTooNew


async def _connect(dsn: Dsn, options: ConnectOptions, budget: BoundedLoop) -> Any:
    context = tls_context(dsn.tls, options.ca_file)
    arguments: dict[str, Any] = {
        "host": list(dsn.hosts),
        "port": list(dsn.ports),
        "user": dsn.user,
        # Never None: asyncpg would look for a password in the operator's own files.
        "password": dsn.password,
        "database": dsn.database,
        "timeout": CONNECT_SECONDS,
        "loop": budget,
        "statement_cache_size": 0,
        "server_settings": {"application_name": "openworkflow-operator"},
    }
    try:
        return await asyncpg.connect(**arguments, ssl=context or False)
    except ConnectionError as error:
        if dsn.tls is not TlsMode.PREFER or "rejected SSL upgrade" not in str(error):
            raise
    return await asyncpg.connect(**arguments, ssl=False)


def _columns(questions: Sequence[Question], *names: str) -> list[list[object]]:
    """The questions as the arrays that a statement takes."""
    return [[getattr(question, name) for question in questions] for name in names]
