-- openworkflow: additive, concurrently
-- Runs that failed, newest first: what people look for in a table of millions that did not. No other
-- run ever enters it.

CREATE INDEX CONCURRENTLY idx_workflow_runs_failed
  ON workflow_runs (namespace_id, created_at DESC, id DESC)
  WHERE status = 'failed';
