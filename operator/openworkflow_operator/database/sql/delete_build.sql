-- Forget $2 if it takes no new runs and none is pinned to it.
DELETE FROM {schema}.workflow_builds
WHERE namespace_id = $1 AND build_id = $2 AND takes_to = takes_from
  AND NOT EXISTS (SELECT FROM {schema}.workflow_runs
                  WHERE namespace_id = $1 AND build_id = $2 AND pinned AND status = 'pending')
  AND NOT EXISTS (SELECT FROM {schema}.workflow_runs
                  WHERE namespace_id = $1 AND build_id = $2 AND pinned AND status = 'running')
RETURNING build_id
