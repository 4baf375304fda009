"""What the checker needs of the database: its rows, and what changed that was recorded for good."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import asyncpg

from openworkflow.backend import queries
from tests.chaos.evidence import Kin, Occurrence, Row, Run, Told
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
CREATE TABLE chaos_taken_over (id uuid PRIMARY KEY, begun_in int NOT NULL);
CREATE FUNCTION chaos_step_taken_over() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO chaos_taken_over VALUES (old.id, old.claim_no) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE FUNCTION chaos_job(run workflow_runs) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT (run.input ->> 'job') || coalesce(to_char(run.scheduled_for AT TIME ZONE 'UTC',
                                                     '"@"YYYY-MM-DD"T"HH24:MI:SS.US'), '')
$$;
CREATE TRIGGER chaos_watch AFTER UPDATE ON workflow_runs FOR EACH ROW
    -- Only what is to be mended is retried by hand.
    WHEN (old.completed_at IS NOT NULL AND NOT old.input ? 'mends'
          AND (old.status, old.output, old.error, old.completed_at)
          IS DISTINCT FROM (new.status, new.output, new.error, new.completed_at))
    EXECUTE FUNCTION chaos_run_changed();
CREATE TRIGGER chaos_watch AFTER UPDATE ON step_attempts FOR EACH ROW
    WHEN (old.status = 'succeeded'
          AND (old.status, old.output) IS DISTINCT FROM (new.status, new.output))
    EXECUTE FUNCTION chaos_step_changed();
CREATE TRIGGER chaos_take_over AFTER UPDATE ON step_attempts FOR EACH ROW
    WHEN (old.claim_no >= 0 AND new.claim_no > old.claim_no)
    EXECUTE FUNCTION chaos_step_taken_over();
"""
_RUNS = """
SELECT chaos_job(workflow_runs) AS job, (input ->> 'generation')::int AS generation, status,
       output::text AS output, split_part(error ->> 'type', ':', 2) AS error,
       claim_no, attempts, crashes, case when pinned then build_id end AS build
  FROM workflow_runs
"""
_UNFINISHED = """
SELECT count(*) FROM workflow_runs
 WHERE completed_at IS NULL
       AND NOT (schedule_name IS NOT NULL AND status = 'pending' AND started_at IS NULL
                AND available_at > now() AND available_at < 'infinity')
"""
_ROWS = """
SELECT chaos_job(run) AS job, step_name, step.status, step.claim_no, step.created_at,
       step.completed_at, step.output::text AS output, kind, completion_no,
       coalesce(step.context ? 'undo', false) AS can_be_undone,
       coalesce(taken.begun_in, step.claim_no) AS begun_in
  FROM step_attempts step
  JOIN workflow_runs run ON run.id = workflow_run_id
  LEFT JOIN chaos_taken_over taken ON taken.id = step.id
 WHERE step.claim_no >= 0  -- not what a retry has discarded
"""
_TOLD = """
SELECT chaos_job(run) AS job, topic, value::text AS value, event_no
  FROM workflow_events event JOIN workflow_runs run ON run.id = event.workflow_run_id
 ORDER BY run.id, event_no
"""
_STATUSES = """
SELECT chaos_job(run) AS job, progress.status::text AS status
  FROM workflow_progress progress JOIN workflow_runs run ON run.id = progress.workflow_run_id
 WHERE progress.status IS NOT NULL
"""
_KIN = """
SELECT chaos_job(parent) AS parent, chaos_job(run) AS job, child.step_id::text AS step,
       child.number, run.status, run.created_at, run.completed_at,
       coalesce(run.priority, 0) AS priority, coalesce(parent.priority, 0) AS least_priority,
       (SELECT kind FROM step_attempts step WHERE step.id = child.step_id) AS kind
  FROM workflow_children child
  JOIN workflow_runs run ON run.id = child.id
  JOIN workflow_runs parent ON parent.id = child.parent_run_id
"""
_BEGUN = """
SELECT input ->> 'key' AS key, array_agg(started_at) AS started_at
  FROM workflow_runs
 WHERE workflow_name = 'rated' AND started_at IS NOT NULL
 GROUP BY 1
"""
_OCCURRENCES = """
SELECT schedule_name, scheduled_for, status FROM workflow_runs WHERE schedule_name IS NOT NULL
"""
_LEFT = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name LIKE 'chaos%'
"""


async def watch(connection: asyncpg.Connection[Any]) -> None:
    """From now on, note each change of what was recorded for good."""
    await connection.execute(_WATCH)


async def unfinished(connection: asyncpg.Connection[Any]) -> int:
    """How many runs have not ended, but for the next ones of schedules."""
    return int(await connection.fetchval(_UNFINISHED))


async def runs(connection: asyncpg.Connection[Any]) -> list[Run]:
    """All rows of workflow_runs."""
    return [
        Run(
            row["job"],
            row["status"],
            row["generation"],
            _tokens(row["output"]),
            row["error"],
            row["claim_no"],
            row["attempts"],
            row["crashes"],
            row["build"],
        )
        for row in await connection.fetch(_RUNS)
    ]


def _token(output: str | None) -> str | None:
    """The result of a step that is a token, and not that of a child or of many."""
    result = None if output is None else json.loads(output)
    return result if isinstance(result, str) else None


def _tokens(output: str | None) -> dict[str, str] | None:
    """A result that is one token is that of the last step, `b`."""
    result = None if output is None else json.loads(output)
    return {"b": result} if isinstance(result, str) else result


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
            _token(row["output"]),
            row["kind"],
            row["completion_no"],
            row["can_be_undone"],
            row["begun_in"],
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
        Told(row["job"], row["topic"], key, token, row["event_no"])
        for row in await connection.fetch(_TOLD)
        for key, token in [json.loads(row["value"])]
    ]


async def statuses(connection: asyncpg.Connection[Any]) -> dict[str, str]:
    """The status that each run has set last."""
    return {row["job"]: json.loads(row["status"]) for row in await connection.fetch(_STATUSES)}


async def kin(connection: asyncpg.Connection[Any]) -> list[Kin]:
    """All children whose parents are there. The step of one is a row, or the item of a map."""
    return [
        Kin(
            row["parent"],
            f"{row['job']}" if row["kind"] != "map" else f"{row['step']} {row['number']}",
            row["job"],
            row["status"],
            row["priority"],
            row["least_priority"],
            row["step"] if row["kind"] == "map" else "",
            (row["created_at"], row["completed_at"]),
        )
        for row in await connection.fetch(_KIN)
    ]


async def begun(connection: asyncpg.Connection[Any]) -> dict[str, list[datetime]]:
    """By key of the rate: when its runs were claimed for the first time."""
    return {row["key"]: row["started_at"] for row in await connection.fetch(_BEGUN)}


async def occurrences(connection: asyncpg.Connection[Any]) -> list[Occurrence]:
    """The runs of schedules."""
    return [Occurrence(*row) for row in await connection.fetch(_OCCURRENCES)]


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
