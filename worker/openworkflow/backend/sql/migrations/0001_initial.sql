-- The two tables of OpenWorkflow. Unqualified names: the schema is on the search_path.

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
  completed_at TIMESTAMPTZ,
  -- Unique per workflow for as long as it is honoured, then NULL.
  idempotency_key TEXT,
  -- The fence: +1 at each claim. A worker writes only where its own number still stands.
  claim_no INTEGER NOT NULL DEFAULT 0,
  -- Failed attempts of the run as a whole.
  attempts INTEGER NOT NULL DEFAULT 0,
  -- Claims of an expired lease since the run last made progress.
  crashes INTEGER NOT NULL DEFAULT 0,
  -- The first claim.
  started_at TIMESTAMPTZ
);

COMMENT ON COLUMN workflow_runs.available_at IS
  'pending: when it is due; running: when its lease ends and another worker may claim it';
COMMENT ON COLUMN workflow_runs.worker_id IS
  'the worker that holds the claim; NULL unless running';

-- Index for efficient polling
CREATE INDEX idx_workflow_runs_available
  ON workflow_runs (namespace_id, available_at)
  WHERE status = 'pending';

-- Index for namespace lookups
CREATE INDEX idx_workflow_runs_namespace
  ON workflow_runs (namespace_id, workflow_name, created_at DESC);

-- Finds expired leases, so that a claim recovers them and no sweeper is needed.
CREATE INDEX idx_workflow_runs_lease
  ON workflow_runs (namespace_id, available_at) INCLUDE (worker_id)
  WHERE status = 'running';

-- Two requests with one idempotency key make one run, also when they are simultaneous.
CREATE UNIQUE INDEX idx_workflow_runs_idempotency
  ON workflow_runs (namespace_id, workflow_name, idempotency_key)
  WHERE idempotency_key IS NOT NULL;

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
  completed_at TIMESTAMPTZ,
  -- 1 for the first try of a step; a repetition after a crash keeps its number.
  attempt INTEGER NOT NULL DEFAULT 1,
  -- The claim of the run that began this attempt.
  claim_no INTEGER NOT NULL DEFAULT 0,
  -- When a sleep ends, or a failed attempt may be repeated.
  resume_at TIMESTAMPTZ
);

-- Index for loading step history
CREATE INDEX idx_step_attempts_workflow_run
  ON step_attempts (workflow_run_id, created_at);
