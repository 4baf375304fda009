-- openworkflow: additive
-- What people do with runs: fork them, pause them, tag them.

ALTER TABLE workflow_runs
  -- The run whose history this one began with.
  ADD COLUMN forked_from UUID,
  -- Held back by a row of workflow_pauses: a run that waits is due at no time, and due_at keeps
  -- when it would be; one that is executed is set aside when it comes to wait.
  ADD COLUMN paused BOOLEAN NOT NULL DEFAULT FALSE,
  ADD COLUMN due_at TIMESTAMPTZ,
  -- An object of texts; NULL for a run without tags.
  ADD COLUMN tags JSONB;

COMMENT ON COLUMN workflow_runs.due_at IS
  'of a paused run that waits: the available_at that it gets back';

-- Who paused what, and why. It may have outlived the other tables, if somebody dropped those.
CREATE TABLE IF NOT EXISTS workflow_pauses (
  namespace_id TEXT NOT NULL,
  -- namespace, workflow or run.
  scope TEXT NOT NULL,
  -- '', the name of a workflow, or the id of a run.
  subject TEXT NOT NULL,
  reason TEXT,
  paused_by TEXT,
  paused_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  PRIMARY KEY (namespace_id, scope, subject)
);
