-- openworkflow: additive
-- What people do with runs: fork them, pause them, tag them.

ALTER TABLE workflow_runs
  -- The run whose history this one began with.
  ADD COLUMN forked_from UUID,
  -- Held back, by a pause of its own or by one in workflow_pauses: while it waits it is due at no
  -- time, and due_at keeps when it would be; one that is executed is set aside when it waits.
  ADD COLUMN paused BOOLEAN NOT NULL DEFAULT FALSE,
  ADD COLUMN due_at TIMESTAMPTZ,
  -- A pause of this run: who, why and since when.
  ADD COLUMN pause JSONB,
  -- An object of texts; NULL for a run without tags.
  ADD COLUMN tags JSONB;

COMMENT ON COLUMN workflow_runs.due_at IS
  'of a paused run that waits: the available_at that it gets back';

-- Pauses of workflows, and of whole namespaces. It may have outlived the other tables, if somebody
-- dropped those.
CREATE TABLE IF NOT EXISTS workflow_pauses (
  namespace_id TEXT NOT NULL,
  -- '' for all workflows.
  workflow_name TEXT NOT NULL,
  reason TEXT,
  paused_by TEXT,
  paused_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  -- Never written: who may update it may lock the row, and so has a resume wait for what it did.
  lock_only BOOLEAN,
  PRIMARY KEY (namespace_id, workflow_name)
);
