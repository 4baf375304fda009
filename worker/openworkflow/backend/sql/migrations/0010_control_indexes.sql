-- openworkflow: additive, concurrently
-- Runs that are paused, and runs with tags; no other run ever enters these.

CREATE INDEX CONCURRENTLY idx_workflow_runs_paused
  ON workflow_runs (namespace_id, workflow_name, id)
  WHERE paused AND completed_at IS NULL;

CREATE INDEX CONCURRENTLY idx_workflow_runs_tags
  ON workflow_runs USING gin (tags jsonb_path_ops)
  WHERE tags IS NOT NULL;
