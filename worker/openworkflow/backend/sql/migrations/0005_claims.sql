-- openworkflow: additive, concurrently
-- What a claim walks: the runs that wait, by who may take them (the build that a run is pinned to,
-- or any), by what they are, and by when they are due. So a backlog that a worker does not serve
-- costs it nothing.

CREATE INDEX CONCURRENTLY idx_workflow_runs_claim
  ON workflow_runs (namespace_id, (CASE WHEN pinned THEN build_id ELSE '' END), workflow_name,
                    (COALESCE(version, '')), available_at)
  WHERE status = 'pending';
