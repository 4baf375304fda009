-- openworkflow: additive, concurrently
-- The children of a step that have not ended well, which a map counts each time it looks. No other
-- child ever enters it.

CREATE INDEX CONCURRENTLY idx_workflow_children_failed
  ON workflow_children (step_id)
  WHERE status <> 'succeeded';
