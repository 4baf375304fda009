"""The SQL that OpenWorkflow's documentation of the PostgreSQL backend shows, word for word."""

from typing import Any
from uuid import UUID

import asyncpg
import pytest

from openworkflow.backend.backend import BackendPostgres, NewRun
from openworkflow.core.workflow_run import RunStatus
from tests.flushes import LEASE, claim_one, end_of, flush, session_of, step_of

TABLES = """
CREATE TABLE workflow_runs (
  id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  namespace_id TEXT NOT NULL DEFAULT 'default',
  workflow_name TEXT NOT NULL,
  version TEXT,
  status TEXT NOT NULL,
  worker_id TEXT,
  config JSONB NOT NULL DEFAULT '{}',
  context JSONB,
  input JSONB,
  output JSONB,
  error JSONB,
  available_at TIMESTAMPTZ NOT NULL,
  deadline_at TIMESTAMPTZ,
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  completed_at TIMESTAMPTZ
);

-- Index for efficient polling
CREATE INDEX idx_workflow_runs_available
  ON workflow_runs (namespace_id, available_at)
  WHERE status = 'pending';

-- Index for namespace lookups
CREATE INDEX idx_workflow_runs_namespace
  ON workflow_runs (namespace_id, workflow_name, created_at DESC);

CREATE TABLE step_attempts (
  id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  workflow_run_id UUID NOT NULL REFERENCES workflow_runs(id) ON DELETE CASCADE,
  step_name TEXT NOT NULL,
  kind TEXT NOT NULL,
  status TEXT NOT NULL,
  config JSONB NOT NULL DEFAULT '{}',
  context JSONB,
  output JSONB,
  error JSONB,
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  completed_at TIMESTAMPTZ
);

-- Index for loading step history
CREATE INDEX idx_step_attempts_workflow_run
  ON step_attempts (workflow_run_id, created_at);
"""

ADDITIONAL_INDEXES = """
-- Index for status filtering
CREATE INDEX idx_workflow_runs_status
  ON workflow_runs (namespace_id, status, created_at DESC);

-- Index for worker queries
CREATE INDEX idx_workflow_runs_worker
  ON workflow_runs (worker_id, status);
"""

PENDING = """
SELECT * FROM workflow_runs
WHERE status = 'pending'
ORDER BY created_at DESC;
"""

BY_NAME = """
SELECT * FROM workflow_runs
WHERE workflow_name = 'send-welcome-email'
ORDER BY created_at DESC
LIMIT 100;
"""

FAILED = """
SELECT * FROM workflow_runs
WHERE status = 'failed'
ORDER BY completed_at DESC;
"""

WITH_STEPS = """
SELECT
  wr.*,
  json_agg(
    json_build_object(
      'stepName', sa.step_name,
      'status', sa.status,
      'output', sa.output,
      'createdAt', sa.created_at
    ) ORDER BY sa.created_at
  ) AS steps
FROM workflow_runs wr
LEFT JOIN step_attempts sa ON sa.workflow_run_id = wr.id
WHERE wr.id = 'your-workflow-run-id'
GROUP BY wr.id;
"""

CLEANUP = """
-- Delete succeeded workflows older than 30 days
DELETE FROM workflow_runs
WHERE status = 'succeeded'
  AND completed_at < NOW() - INTERVAL '30 days';

-- Step attempts are automatically deleted via CASCADE
"""

DROP = "DROP TABLE step_attempts; DROP TABLE workflow_runs;"

POLLING = """
EXPLAIN ANALYZE
SELECT * FROM workflow_runs
WHERE status = 'pending'
  AND available_at <= NOW()
ORDER BY available_at ASC
LIMIT 1;
"""

ACTIVITY = "SELECT * FROM pg_stat_activity WHERE state = 'active';"


async def _columns(connection: Any, schema: str) -> dict[tuple[str, str], tuple[Any, ...]]:
    rows = await connection.fetch(
        "SELECT table_name, column_name, ordinal_position, data_type, is_nullable, column_default "
        "FROM information_schema.columns WHERE table_schema = $1",
        schema,
    )
    return {(row["table_name"], row["column_name"]): tuple(row) for row in rows}


async def _definitions(connection: Any, schema: str) -> set[tuple[str, str, str]]:
    indexes = await connection.fetch(
        "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = $1", schema
    )
    constraints = await connection.fetch(
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE connamespace = $1::regnamespace AND contype IN ('p', 'f')",
        schema,
    )
    return {
        (row[0].split(".")[-1], row[1], row[2].replace(f"{schema}.", ""))
        for row in [*indexes, *constraints]
    }


@pytest.fixture
async def connection(backend: BackendPostgres, database_url: str) -> Any:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def test_every_column_of_the_document_is_there_with_its_type_default_and_place(
    connection: Any,
) -> None:
    await connection.execute(f"CREATE SCHEMA seed; SET search_path TO seed, public; {TABLES}")
    await connection.execute("RESET search_path")
    expected = await _columns(connection, "seed")

    ours = await _columns(connection, "public")

    assert expected.items() <= ours.items()


async def test_every_index_and_key_of_the_document_is_there(connection: Any) -> None:
    await connection.execute(f"CREATE SCHEMA seed; SET search_path TO seed, public; {TABLES}")
    await connection.execute("RESET search_path")
    expected = await _definitions(connection, "seed")

    ours = await _definitions(connection, "public")

    assert len(expected) == 8
    assert expected <= ours


async def test_queries_of_the_document_find_runs_by_status_and_name(
    backend: BackendPostgres, connection: Any
) -> None:
    await backend.create_workflow_runs([NewRun("send-welcome-email"), NewRun("billing")])
    session = await session_of(backend)
    run = await claim_one(session, "billing")
    await flush(session, ends=[end_of(run, RunStatus.FAILED, error="{}")])
    await session.close()

    pending = await connection.fetch(PENDING)
    named = await connection.fetch(BY_NAME)
    failed = await connection.fetch(FAILED)

    assert ["send-welcome-email"] == [row["workflow_name"] for row in pending]
    assert ["send-welcome-email"] == [row["workflow_name"] for row in named]
    assert [run.id] == [row["id"] for row in failed]


async def test_a_run_comes_with_its_step_history(backend: BackendPostgres, connection: Any) -> None:
    (created,) = await backend.create_workflow_runs([NewRun("a")])
    session = await session_of(backend)
    run = await claim_one(session, "a")
    await flush(session, steps=[step_of(run, "first", output='{"answer": 42}')])
    await session.close()

    (row,) = await connection.fetch(WITH_STEPS.replace("your-workflow-run-id", str(created.id)))

    assert '"stepName" : "first", "status" : "succeeded", "output" : {"answer": 42}' in row["steps"]


async def test_cleanup_deletes_old_succeeded_runs_and_their_steps(
    backend: BackendPostgres, connection: Any
) -> None:
    for status, age in (("succeeded", 31), ("succeeded", 29), ("failed", 31)):
        run_id: UUID = await connection.fetchval(
            "INSERT INTO workflow_runs (workflow_name, status, available_at, completed_at) "
            "VALUES ('a', $1, now(), now() - make_interval(days => $2)) RETURNING id",
            status,
            age,
        )
        await connection.execute(
            "INSERT INTO step_attempts (workflow_run_id, step_name, kind, status) "
            "VALUES ($1, 's', 'run', 'succeeded')",
            run_id,
        )

    await connection.execute(CLEANUP)

    counts = await backend.count_runs()
    assert (1, 1) == (counts[RunStatus.SUCCEEDED], counts[RunStatus.FAILED])
    assert await connection.fetchval("SELECT count(*) FROM step_attempts") == 2


async def test_a_row_inserted_by_hand_is_run(backend: BackendPostgres, connection: Any) -> None:
    """Columns that we added have defaults, so the document's columns are enough."""
    run_id = await connection.fetchval(
        "INSERT INTO workflow_runs (workflow_name, status, available_at) "
        "VALUES ('by-hand', 'pending', NOW()) RETURNING id"
    )
    session = await session_of(backend)

    run = await claim_one(session, "by-hand")

    assert (run_id, 1) == (run.id, run.claim_no)
    await session.close()


async def test_the_polling_query_can_use_the_polling_index(
    backend: BackendPostgres, connection: Any
) -> None:
    """The document's query names no namespace; with one it walks the index and sorts nothing."""
    await backend.create_workflow_runs([NewRun("a")] * 100)
    await connection.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")

    as_written = await connection.fetch(POLLING)
    plan = "\n".join(
        row[0]
        for row in await connection.fetch(
            POLLING.replace("ANALYZE", "").replace("AND", "AND namespace_id = 'default' AND")
        )
    )

    assert as_written
    assert "idx_workflow_runs_available" in plan
    assert "Sort" not in plan


async def test_the_remaining_statements_run(connection: Any) -> None:
    await connection.execute(ADDITIONAL_INDEXES)
    assert await connection.fetch(ACTIVITY)
    await connection.execute(DROP)


async def test_sleeping_runs_are_pending_in_the_future(
    backend: BackendPostgres, connection: Any
) -> None:
    """`status = 'pending' AND available_at <= now()` means due work, nothing else."""
    await backend.create_workflow_runs([NewRun("sleeper", delay=LEASE), NewRun("due")])

    due = await connection.fetch(
        "SELECT workflow_name FROM workflow_runs WHERE status = 'pending' AND available_at <= NOW()"
    )

    assert ["due"] == [row["workflow_name"] for row in due]
