-- A run of the workflow $3 that only the build $2 may claim. The key makes it one, however often.
INSERT INTO {schema}.workflow_runs
  (namespace_id, workflow_name, status, available_at, build_id, pinned, idempotency_key)
VALUES ($1, $3, 'pending', now(), $2, true, 'openworkflow canary ' || $2)
ON CONFLICT DO NOTHING
RETURNING id
