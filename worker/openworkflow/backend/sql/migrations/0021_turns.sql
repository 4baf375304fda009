-- openworkflow: additive
-- Turns of steps at a rate: when the next call of each limit may begin, and the calls that wait until
-- then. A turn is a time and holds nothing: one that nobody takes passes by itself.

-- They may have outlived the runs, if somebody dropped those.
DROP TABLE IF EXISTS workflow_rates, workflow_turns;

CREATE TABLE workflow_rates (
  namespace_id TEXT NOT NULL,
  -- That of a row of workflow_limits.
  name TEXT NOT NULL,
  -- The theoretical arrival time of GCRA.
  arrival_at TIMESTAMPTZ NOT NULL,
  PRIMARY KEY (namespace_id, name)
) WITH (fillfactor = 50);

CREATE TABLE workflow_turns (
  run_id UUID NOT NULL,
  -- The step's key.
  step TEXT NOT NULL,
  namespace_id TEXT NOT NULL,
  name TEXT NOT NULL,
  at TIMESTAMPTZ NOT NULL,
  -- It came too late to its turn before; to this one it may.
  renewed BOOLEAN NOT NULL DEFAULT FALSE,
  PRIMARY KEY (run_id, step)
);

CREATE INDEX idx_workflow_turns_at ON workflow_turns (namespace_id, name, at);
