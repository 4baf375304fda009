-- One batch of the runs pinned to $2, which any build may continue from now on.
-- Asked for twice: by the index of each status, and again of the row itself, which may have ended
-- meanwhile.
UPDATE {schema}.workflow_runs
SET pinned = false
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
RETURNING id
