"""What the checker needs of the database: its rows, and what changed that was recorded for good."""

from __future__ import annotations

import json
from typing import Any

import asyncpg

from openworkflow.backend import queries
from tests.chaos.evidence import Row, Run, Told
from tests.helpers import eventually

_WATCH = """
CREATE TABLE chaos_orders (job text PRIMARY KEY);
CREATE TABLE chaos_changes (what text NOT NULL);
CREATE FUNCTION chaos_run_changed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO chaos_changes VALUES (left(format('run %s: %s %s became %s %s', old.id,
        old.status, coalesce(old.output, old.error), new.status,
        coalesce(new.output, new.error)), 500));
    RETURN NULL;
END $$;
CREATE FUNCTION chaos_step_changed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO chaos_changes VALUES (left(format('step %s of %s: %s %s became %s %s',
        old.step_name, old.workflow_run_id, old.status, old.output, new.status, new.output), 500));
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_watch AFTER UPDATE ON workflow_runs FOR EACH ROW
    WHEN (old.completed_at IS NOT NULL AND (old.status, old.output, old.error, old.completed_at)
          IS DISTINCT FROM (new.status, new.output, new.error, new.completed_at))
    EXECUTE FUNCTION chaos_run_changed();
CREATE TRIGGER chaos_watch AFTER UPDATE ON step_attempts FOR EACH ROW
    WHEN (old.status = 'succeeded'
          AND (old.status, old.output) IS DISTINCT FROM (new.status, new.output))
    EXECUTE FUNCTION chaos_step_changed();
"""
_RUNS = """
SELECT input ->> 'job' AS job, (input ->> 'generation')::int AS generation, status,
       output::text AS output, split_part(error ->> 'type', ':', 2) AS error,
       claim_no, attempts, crashes, case when pinned then build_id end AS build
  FROM workflow_runs
"""
_ROWS = """
SELECT run.input ->> 'job' AS job, step_name, step.status, step.claim_no, step.created_at,
       step.completed_at, step.output::text AS output, kind
  FROM step_attempts step JOIN workflow_runs run ON run.id = workflow_run_id
"""
_TOLD = """
SELECT run.input ->> 'job' AS job, topic, value::text AS value
  FROM workflow_events event JOIN workflow_runs run ON run.id = event.workflow_run_id
 ORDER BY run.id, event_no
"""
_STATUSES = """
SELECT run.input ->> 'job' AS job, progress.status::text AS status
  FROM workflow_progress progress JOIN workflow_runs run ON run.id = progress.workflow_run_id
 WHERE progress.status IS NOT NULL
"""
_LEFT = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'chaos%'"


async def watch(connection: asyncpg.Connection[Any]) -> None:
    """From now on, note each change of what was recorded for good."""
    await connection.execute(_WATCH)


async def unfinished(connection: asyncpg.Connection[Any]) -> int:
    """How many runs have not ended."""
    return int(
        await connection.fetchval("SELECT count(*) FROM workflow_runs WHERE completed_at IS NULL")
    )


async def runs(connection: asyncpg.Connection[Any]) -> list[Run]:
    """All rows of workflow_runs."""
    return [
        Run(
            row["job"],
            row["status"],
            row["generation"],
            None if row["output"] is None else json.loads(row["output"]),
            row["error"],
            row["claim_no"],
            row["attempts"],
            row["crashes"],
            row["build"],
        )
        for row in await connection.fetch(_RUNS)
    ]


async def rows(connection: asyncpg.Connection[Any]) -> list[Row]:
    """All rows of step_attempts."""
    return [
        Row(
            row["job"],
            row["step_name"],
            row["status"],
            row["claim_no"],
            row["created_at"],
            row["completed_at"],
            None if row["output"] is None else json.loads(row["output"]),
            row["kind"],
        )
        for row in await connection.fetch(_ROWS)
    ]


async def changes(connection: asyncpg.Connection[Any]) -> list[str]:
    """What changed that was recorded for good."""
    return [row["what"] for row in await connection.fetch("SELECT what FROM chaos_changes")]


async def orders(connection: asyncpg.Connection[Any]) -> frozenset[str]:
    """The orders that were committed."""
    return frozenset(row["job"] for row in await connection.fetch("SELECT job FROM chaos_orders"))


async def told(connection: asyncpg.Connection[Any]) -> list[Told]:
    """What runs have emitted, in their order."""
    return [
        Told(row["job"], row["topic"], *json.loads(row["value"]))
        for row in await connection.fetch(_TOLD)
    ]


async def statuses(connection: asyncpg.Connection[Any]) -> dict[str, str]:
    """The status that each run has set last."""
    return {row["job"]: json.loads(row["status"]) for row in await connection.fetch(_STATUSES)}


async def broken(connection: asyncpg.Connection[Any]) -> list[str]:
    """The invariants that `openworkflow doctor` finds broken."""
    found = await connection.fetch(queries.load("public")["check_invariants"])
    return [f"not true of {row['rows']} rows: {row['invariant']}, {row['run_id']}" for row in found]


async def connections_left(connection: asyncpg.Connection[Any], patience: float = 10) -> int:
    """Connections of workers, once there are none or the patience is over."""

    async def none_left() -> bool:
        return bool(await connection.fetchval(_LEFT) == 0)

    try:
        await eventually(none_left, patience)
    except AssertionError:
        return int(await connection.fetchval(_LEFT))
    return 0
