"""What `openworkflow doctor` asks the database."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from openworkflow.backend import distortions, roles
from openworkflow.backend.blueprint import Index, known, made_by
from openworkflow.backend.distortions import Distortion
from openworkflow.core.cron import recurrence
from openworkflow.core.errors import BackendError, ConfigurationError
from openworkflow_contract.statements import quoted

_NOT_A_WORKERS = ("openworkflow_", "workflow_fleets")
"""Without the former nobody connects; the latter is for an operator that logs in as a worker."""


_TOLD_AS_IT_IS = (
    "server_version",
    "role",
    "read_only",
    "commits_are_durable",
    "standbys",
    "waits_for_standbys",
    "max_connections",
    "used_connections",
    "may_create",
    "missing_privileges",
    "oldest_transaction",
)


def needed() -> list[str]:
    """What a worker does with the tables, such as `step_attempts DELETE`: what its role is granted.

    A right to a column is `workflow_pauses UPDATE lock_only`.
    """
    return [each for each in roles.rights("worker") if not each.startswith(_NOT_A_WORKERS)]


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant of the tables that does not hold."""

    invariant: str
    rows: int
    run_id: UUID
    """One of the runs concerned."""


@dataclass(frozen=True, slots=True)
class Unserved:
    """Due runs of a workflow that no worker serves."""

    workflow_name: str
    version: str
    """"" for none."""
    runs: int
    oldest: float
    """Seconds that the first of them has been due."""


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """The state of the server, the schema and the namespace."""

    server_version: str
    role: str
    pooled: bool
    commits_are_durable: bool
    """Whether a commit waits until it is on disk (`synchronous_commit`)."""
    standbys: int
    """How many servers, or other readers of its log, follow this one."""
    waits_for_standbys: bool
    """Whether a commit waits for one of them."""
    clock_skew: float
    """Seconds by which this machine's clock is ahead of the database's; good to a round trip."""
    max_connections: int
    used_connections: int
    may_create: bool
    """Whether migrations can make tables."""
    missing_privileges: list[str]
    """Such as `step_attempts DELETE`."""
    missing_indexes: list[str]
    """The SQL that makes each index that is gone or invalid."""
    oldest_transaction: float
    """Seconds; an old one keeps dead rows alive, which slows every claim."""
    expired_leases: int
    oldest_expired_lease: float | None
    """Seconds; more than a few mean that no worker claims."""
    oldest_due_run: float | None
    """Seconds the longest waiting run has been due."""
    violations: list[Violation]
    late_schedules: list[str]
    """Schedules whose next run has been due for more than a minute, or is gone."""
    bad_schedules: list[str]
    """Schedules that cannot be computed here, each with why."""
    unserved: list[Unserved]
    """Due runs that no worker says it serves; none where no worker says anything."""
    read_only: str | None = None
    """Why nothing can be written there: `standby`, or a `setting`."""
    distortions: list[Distortion] = field(default_factory=list)
    """What breaks a promise although nothing is refused."""


async def diagnose(
    fetch: Callable[..., Awaitable[list[Any]]],
    queries: Any,
    *,
    schema: str,
    namespace_id: str,
    pooled: bool,
) -> Diagnostics:
    """Ask everything; the schema must be up to date."""
    before = datetime.now(UTC)
    made = made_by(known())
    names = [index.name for index in made.indexes]
    (server,) = await fetch(queries["diagnose_server"], quoted(schema), needed(), names)
    middle = before + (datetime.now(UTC) - before) / 2
    try:
        (runs,) = await fetch(queries["diagnose_runs"], namespace_id)
        unserved = await fetch(queries["diagnose_unserved"], namespace_id)
        schedules = await fetch(queries["diagnose_schedules"], namespace_id)
        violations = await fetch(queries["check_invariants"])
    except BackendError as error:
        raise _lacking(error, server) from error
    return Diagnostics(
        **{name: server[name] for name in _TOLD_AS_IT_IS},
        pooled=pooled,
        clock_skew=(middle - server["now"]).total_seconds(),
        missing_indexes=_statements(made.indexes, server["missing_indexes"], schema),
        expired_leases=runs["expired_leases"],
        oldest_expired_lease=runs["oldest_expired_lease"],
        oldest_due_run=runs["oldest_due_run"],
        violations=[Violation(**row) for row in violations],
        late_schedules=[row["name"] for row in schedules if row["is_late"]],
        bad_schedules=[bad for row in schedules if (bad := _cannot_be_computed(row))],
        unserved=[Unserved(**row) for row in unserved],
        distortions=await distortions.find(fetch, queries, schema),
    )


def _lacking(error: BackendError, server: Any) -> BackendError:
    """PostgreSQL names one table that a role may not read; people need to know of all."""
    if not (missing := server["missing_privileges"]):
        return error
    return BackendError(
        f"role {server['role']} lacks {', '.join(missing)}, without which nothing more can be "
        "looked at; let an administrator GRANT the worker's role of `openworkflow migrate --roles`"
    ).of(error.fault)


def _statements(indexes: Iterable[Index], missing: list[str], schema: str) -> list[str]:
    """The SQL that makes those of the indexes that are missing."""
    return [
        index.statement(schema, concurrently=True) for index in indexes if index.name in missing
    ]


def _cannot_be_computed(row: Any) -> str | None:
    try:
        recurrence(row["cron"], row["time_zone"])
    except ConfigurationError as error:
        return f"{row['name']}: {error}"
    return None
