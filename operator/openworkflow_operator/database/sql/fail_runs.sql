-- One batch of the runs pinned to $2, which nobody will continue. The fence stops who runs them.
-- Asked for twice, as when they are moved.
WITH failed AS (
  UPDATE {schema}.workflow_runs
  SET
    status = 'failed',
    worker_id = NULL,
    completed_at = now(),
    error = jsonb_build_object(
      'type', 'BuildRetired',
      'message', 'build ' || $2 || ' was retired before the run had finished')
  WHERE status IN ('pending', 'running') AND id IN (
    (
      SELECT w.id
      FROM {schema}.workflow_runs w
      WHERE w.namespace_id = $1 AND w.build_id = $2 AND w.pinned AND w.status = 'pending'
      LIMIT 1000
    )
    UNION ALL
    (
      SELECT w.id
      FROM {schema}.workflow_runs w
      WHERE w.namespace_id = $1 AND w.build_id = $2 AND w.pinned AND w.status = 'running'
      LIMIT 1000
    )
  )
  RETURNING id, error
), interrupted AS (
  UPDATE {schema}.step_attempts attempt
  SET
    status = 'failed',
    completed_at = now(),
    context = '{{"interrupted": true}}',
    error = failed.error
  FROM failed
  WHERE attempt.workflow_run_id = failed.id AND attempt.status = 'running'
)
SELECT id FROM failed
