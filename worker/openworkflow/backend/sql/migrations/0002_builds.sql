-- Builds of the user's code: which one a run is bound to, and which ones take new runs.

-- The build that began the run, or that it is pinned to.
ALTER TABLE workflow_runs ADD COLUMN build_id TEXT;
-- Only workers of build_id may claim it.
ALTER TABLE workflow_runs ADD COLUMN pinned BOOLEAN NOT NULL DEFAULT FALSE;

-- A build finds the runs that wait for it beside any backlog of others.
-- Runs are pinned by their first claim, so those that never wait never enter it.
CREATE INDEX idx_workflow_runs_pinned
  ON workflow_runs (namespace_id, build_id, available_at)
  WHERE pinned AND status = 'pending';

-- It may have outlived the other tables, if somebody dropped those.
CREATE TABLE IF NOT EXISTS workflow_builds (
  namespace_id TEXT NOT NULL,
  build_id TEXT NOT NULL,
  -- Every run belongs to one of a hundred buckets, by its id. This build takes those from
  -- takes_from up to, but without, takes_to. Where no build takes any, all builds take all.
  takes_from SMALLINT NOT NULL DEFAULT 0,
  takes_to SMALLINT NOT NULL DEFAULT 0,
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  promoted_at TIMESTAMPTZ,
  -- Since when it is held back, because it failed; a promotion ends that.
  held_at TIMESTAMPTZ,
  PRIMARY KEY (namespace_id, build_id)
);
