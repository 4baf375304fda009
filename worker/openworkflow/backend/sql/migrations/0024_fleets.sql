-- openworkflow: additive
-- What the operator last said of the fleet of a namespace: how many workers there are, how many it
-- decided on, and why. It is for people who look at runs and may not ask Kubernetes.

-- It may have outlived the runs, if somebody dropped those.
DROP TABLE IF EXISTS workflow_fleets;

CREATE TABLE workflow_fleets (
  namespace_id TEXT PRIMARY KEY,
  -- The WorkflowNamespace, as NAMESPACE/NAME.
  resource TEXT NOT NULL,
  -- An old time says that no operator keeps this any more.
  reported_at TIMESTAMPTZ NOT NULL DEFAULT now(),
  -- Numbers, conditions and builds of its status.
  status JSONB NOT NULL
);
