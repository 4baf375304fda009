-- openworkflow: additive
-- The order in which results reached the workflow. A migration of its own, because it locks
-- another table: a worker that holds this one and waits for workflow_runs would deadlock with it.

ALTER TABLE step_attempts ADD COLUMN completion_no INTEGER;

COMMENT ON COLUMN step_attempts.completion_no IS
  'the order in which results reached the workflow; NULL until then, and in rows of older versions';
