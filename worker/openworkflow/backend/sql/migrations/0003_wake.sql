-- openworkflow: additive
-- What a waiting run and the one that ends its wait agree on, and where a history begins.

-- Raised by whatever ends a wait. A park carries the number it has seen, so that a wait which
-- ended in the same moment is not slept through.
ALTER TABLE workflow_runs
  ADD COLUMN wake_no INTEGER NOT NULL DEFAULT 0,
  -- The claim from which recorded steps count: a run that continues as new starts afresh.
  ADD COLUMN history_from INTEGER NOT NULL DEFAULT 0;

COMMENT ON COLUMN workflow_runs.wake_no IS
  'raised by whatever ends a wait; a park holds only for the number it has seen';
COMMENT ON COLUMN workflow_runs.history_from IS
  'the claim_no from which the steps of step_attempts count';
COMMENT ON COLUMN openworkflow_migrations.version IS
  'below zero: additive, older programs need not know it; the highest is the contract';
