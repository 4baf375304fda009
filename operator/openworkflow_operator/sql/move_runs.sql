-- One batch of the runs pinned to $2, which any build may continue from now on.
UPDATE {schema}.workflow_runs
SET pinned = false
WHERE id IN (
  SELECT w.id
  FROM {schema}.workflow_runs w
  WHERE w.namespace_id = $1 AND w.build_id = $2 AND w.pinned AND w.status IN ('pending', 'running')
  LIMIT 1000
)
RETURNING id
