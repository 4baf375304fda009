-- The first statement of the end of a batch of the runs pinned to $2: steps that are being recorded
-- come before it, and the statement after this one sees them, or not at all.
SELECT
FROM {schema}.workflow_runs
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
ORDER BY id
FOR UPDATE
