-- The canary run of $2 is canceled if it has not ended; without its key, so that it can be started
-- again. Asked for twice, as when runs are moved.
WITH canceled AS (
  UPDATE {schema}.workflow_runs
  SET status = 'canceled', worker_id = NULL, completed_at = now(), idempotency_key = NULL
  WHERE status IN ('pending', 'running')
    AND idempotency_key = 'openworkflow canary ' || $2
    AND id IN (
      SELECT w.id
      FROM {schema}.workflow_runs w
      WHERE w.namespace_id = $1 AND w.build_id = $2 AND w.pinned AND w.status = 'pending'
      UNION ALL
      SELECT w.id
      FROM {schema}.workflow_runs w
      WHERE w.namespace_id = $1 AND w.build_id = $2 AND w.pinned AND w.status = 'running'
    )
  RETURNING id
), interrupted AS (
  UPDATE {schema}.step_attempts attempt
  SET
    status = 'failed',
    completed_at = now(),
    context = '{{"interrupted": true}}',
    error = '{{"type": "Interrupted", "message": "the run was canceled"}}'
  FROM canceled
  WHERE attempt.workflow_run_id = canceled.id AND attempt.status = 'running'
)
SELECT id FROM canceled
