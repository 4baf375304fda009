-- openworkflow: additive, concurrently
-- What a claim walks of the runs that have a priority and wait. No other run ever enters it. That they
-- wait is said as no other index says it, so that no plan for one of those is one for these.

CREATE INDEX CONCURRENTLY idx_workflow_runs_priority
  ON workflow_runs (namespace_id, priority, (CASE WHEN pinned THEN build_id ELSE '' END),
                    (workflow_name || chr(31) || COALESCE(version, '')), available_at)
  WHERE priority IS NOT NULL AND status <> 'running' AND completed_at IS NULL;
