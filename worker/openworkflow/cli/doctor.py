"""`openworkflow doctor`: is everything as it should be, and if not, what to do."""

import shlex
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Literal

import click

from openworkflow.backend.backend import BackendPostgres
from openworkflow.backend.diagnostics import Diagnostics
from openworkflow.cli.options import Database, database, database_options, json_option, run_async
from openworkflow.cli.render import as_json as print_json
from openworkflow.cli.render import console, styled
from openworkflow.core.errors import BackendError

PROBLEMS = 3
SKEW_SECONDS = 5.0
LATE_SECONDS = 60.0
OLD_TRANSACTION_SECONDS = 600.0
SHOWN = 5
COLORS = {"ok": "green", "warning": "yellow", "problem": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: str
    level: Literal["ok", "warning", "problem"]
    found: str
    advice: str = ""


@click.command()
@database_options
@json_option
def doctor(url: str | None, namespace: str | None, schema: str | None, as_json: bool) -> None:
    """Check the connection, the tables and what is in them.

    Version, permissions, schema, clocks and leases too.

    Exits 3 if there is a problem. Changes nothing.
    """
    findings = run_async(_examine(database(url, namespace, schema)))
    if as_json:
        print_json({"findings": findings})
    else:
        for finding in findings:
            level = styled(f"{finding.level:<7}", COLORS[finding.level])
            console().print(level, f"{finding.check:<14}", finding.found)
            if finding.advice:
                console().print(" " * 22, styled(finding.advice, "bold"))
    if any(finding.level == "problem" for finding in findings):
        sys.exit(PROBLEMS)


async def _examine(where: Database) -> list[Finding]:
    try:
        async with where.connect(migrate=False) as backend:
            return [finding async for finding in _findings(backend, where)]
    except BackendError as error:
        return [Finding("connection", "problem", str(error))]


async def _findings(backend: BackendPostgres, where: Database) -> AsyncIterator[Finding]:
    yield Finding("connection", "ok", str(backend.url))
    missing = [s.migration.name for s in await backend.migration_states() if s.applied_at is None]
    if missing:
        yield Finding(
            "schema", "problem", f"not applied: {', '.join(missing)}", "openworkflow migrate"
        )
        return
    if loss := await backend.schema_loss():
        yield Finding("schema", "problem", loss.found, loss.advice)
        return
    yield Finding("schema", "ok", f"{where.schema}, up to date")
    for finding in judge(await backend.diagnostics()):
        yield finding


def judge(facts: Diagnostics) -> Iterator[Finding]:
    """What the facts mean."""
    yield Finding("version", "ok", f"PostgreSQL {facts.server_version}")
    yield from _writes(facts)
    yield _durability(facts)
    yield from _distortions(facts)
    yield _pooler(facts)
    yield _permissions(facts)
    yield _indexes(facts)
    yield _clock(facts)
    yield _connections(facts)
    yield _transactions(facts)
    yield _leases(facts)
    yield _due_runs(facts)
    yield _schedules(facts)
    yield from _unserved(facts)
    for violation in facts.violations:
        yield Finding(
            "tables",
            "problem",
            f"not true of {violation.rows} rows: {violation.invariant}",
            f"somebody wrote to the tables by hand? see: openworkflow runs show {violation.run_id}",
        )
    if not facts.violations:
        yield Finding("tables", "ok", "all invariants hold")


def _writes(facts: Diagnostics) -> Iterator[Finding]:
    if facts.read_only == "standby":
        yield Finding(
            "writes",
            "problem",
            "this server is a standby: workers can read, and write nothing",
            "target_session_attrs=read-write in the database URL, or the address of the primary",
        )
    elif facts.read_only is not None:
        yield Finding(
            "writes",
            "problem",
            "default_transaction_read_only is on: workers can read, and write nothing",
            "who set it? some services do when a disk is full. Then ALTER SYSTEM, DATABASE or "
            f"ROLE {facts.role} RESET default_transaction_read_only",
        )


def _durability(facts: Diagnostics) -> Finding:
    if facts.commits_are_durable and facts.standbys and not facts.waits_for_standbys:
        return Finding(
            "durability",
            "warning",
            f"{facts.standbys} standbys, or others, follow this server, and no commit waits for "
            "one: a standby that takes over lacks the last commits",
            "if you cannot afford that: ALTER SYSTEM SET synchronous_standby_names = ...",
        )
    if facts.commits_are_durable:
        return Finding("durability", "ok", "a commit is on disk when it returns")
    return Finding(
        "durability",
        "problem",
        "synchronous_commit is off: a server that dies forgets steps that were recorded",
        f"ALTER ROLE {facts.role} SET synchronous_commit = on; and see ALTER DATABASE",
    )


def _distortions(facts: Diagnostics) -> Iterator[Finding]:
    for each in facts.distortions:
        if each.kind != "asynchronous":  # which the durability tells
            yield Finding(
                "set-up", "warning" if each.may_be_meant else "problem", each.found, each.advice
            )


def _pooler(facts: Diagnostics) -> Finding:
    if not facts.pooled:
        return Finding("wake-ups", "ok", "a direct connection: LISTEN works")
    return Finding(
        "wake-ups",
        "warning",
        "a pooler is in between: workers poll every second unless they can LISTEN",
        "set OPENWORKFLOW_LISTEN_URL to a direct connection",
    )


def _permissions(facts: Diagnostics) -> Finding:
    if facts.missing_privileges:
        missing = ", ".join(facts.missing_privileges)
        return Finding(
            "permissions",
            "problem",
            f"role {facts.role} lacks {missing}",
            "let an administrator GRANT the worker's role of `openworkflow migrate --roles`",
        )
    more = "" if facts.may_create else "; it may not create tables, so migrate with one that may"
    return Finding("permissions", "ok", f"role {facts.role} may read and write{more}")


def _indexes(facts: Diagnostics) -> Finding:
    if facts.missing_indexes:
        return Finding(
            "indexes",
            "problem",
            f"missing or invalid: {'; '.join(facts.missing_indexes)}",
            "`openworkflow migrate` makes them again, while workers run; with a direct connection",
        )
    return Finding("indexes", "ok", "all there")


def _clock(facts: Diagnostics) -> Finding:
    found = f"this machine's clock differs from the database's by {abs(facts.clock_skew):.3f} s"
    if abs(facts.clock_skew) < SKEW_SECONDS:
        return Finding("clock", "ok", found)
    return Finding(
        "clock", "warning", found, "check NTP; the database's clock decides, so runs are not hurt"
    )


def _connections(facts: Diagnostics) -> Finding:
    found = f"{facts.used_connections} of {facts.max_connections} in use"
    if facts.used_connections < 0.9 * facts.max_connections:
        return Finding("connections", "ok", found)
    return Finding(
        "connections", "warning", found, "raise max_connections, or put PgBouncer in between"
    )


def _transactions(facts: Diagnostics) -> Finding:
    found = f"the oldest transaction is {facts.oldest_transaction:.0f} s old"
    if facts.oldest_transaction < OLD_TRANSACTION_SECONDS:
        return Finding("transactions", "ok", found)
    return Finding(
        "transactions",
        "warning",
        f"{found}; it keeps dead rows alive, which slows claims",
        "find it: SELECT * FROM pg_stat_activity ORDER BY xact_start",
    )


def _leases(facts: Diagnostics) -> Finding:
    late = facts.oldest_expired_lease or 0.0
    if late < LATE_SECONDS:
        return Finding("leases", "ok", f"{facts.expired_leases} expired")
    return Finding(
        "leases",
        "problem",
        f"{facts.expired_leases} expired and not taken over, the oldest {late:.0f} s ago",
        "no worker claims in this namespace: start one, or look at the workers' logs",
    )


def _due_runs(facts: Diagnostics) -> Finding:
    late = facts.oldest_due_run or 0.0
    if late < LATE_SECONDS:
        return Finding("due runs", "ok", f"the oldest waits {late:.0f} s")
    return Finding(
        "due runs",
        "problem",
        f"the oldest has been due for {late:.0f} s",
        "no worker serves its workflow and version, or they are all busy: "
        "openworkflow runs list --status pending",
    )


def _schedules(facts: Diagnostics) -> Finding:
    if facts.bad_schedules:
        return Finding(
            "schedules",
            "problem",
            f"cannot be computed: {'; '.join(facts.bad_schedules[:SHOWN])}",
            "update or delete them, or install the time zones (tzdata) where they are missing",
        )
    if facts.late_schedules:
        return Finding(
            "schedules",
            "problem",
            f"overdue for more than a minute: {', '.join(facts.late_schedules[:SHOWN])}",
            "no worker serves their workflows, or they are all busy; one that nobody serves any "
            "more: openworkflow schedules delete",
        )
    return Finding("schedules", "ok", "none is late")


def _unserved(facts: Diagnostics) -> Iterator[Finding]:
    """A name with a slip of the pen in it waits forever."""
    for each in facts.unserved:
        version = f" with version {each.version!r}" if each.version else ""
        yield Finding(
            "unserved",
            "problem" if each.oldest >= LATE_SECONDS else "warning",
            f"no worker serves {each.workflow_name!r}{version}: {each.runs} due, the first for "
            f"{each.oldest:.0f} s",
            "a misspelt name, or a worker that is missing? openworkflow runs explain, of one of: "
            f"openworkflow runs list --workflow {shlex.quote(each.workflow_name)}",
        )
    if not facts.unserved:
        yield Finding("unserved", "ok", "no due run is one that no worker serves")
