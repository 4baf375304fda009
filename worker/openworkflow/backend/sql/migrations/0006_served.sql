-- openworkflow: additive
-- What workers serve, by their own word: more of them do not help a run that none of them takes.

-- It may have outlived the other tables, if somebody dropped those.
CREATE TABLE IF NOT EXISTS workflow_served (
  namespace_id TEXT NOT NULL,
  workflow_name TEXT NOT NULL,
  -- '' for none.
  version TEXT NOT NULL DEFAULT '',
  seen_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  PRIMARY KEY (namespace_id, workflow_name, version)
);
