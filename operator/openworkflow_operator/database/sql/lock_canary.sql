-- The first statement of the end of a canary run: steps that are being recorded come before it, and
-- the statement after this one sees them, or not at all.
SELECT
FROM {schema}.workflow_runs
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
FOR UPDATE
