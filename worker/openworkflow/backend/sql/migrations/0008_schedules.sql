-- openworkflow: additive
-- Workflows that run again and again. A schedule has one run that waits for its next instant; who
-- claims that one lets it begin, and puts the next in its place.

-- It may have outlived the other tables, if somebody dropped those.
CREATE TABLE IF NOT EXISTS workflow_schedules (
  namespace_id TEXT NOT NULL,
  name TEXT NOT NULL,
  id UUID NOT NULL,
  workflow_name TEXT NOT NULL,
  version TEXT,
  -- Who says what it is: code, api, resource.
  source TEXT NOT NULL,
  cron TEXT NOT NULL,
  time_zone TEXT NOT NULL,
  input JSONB,
  overlap TEXT NOT NULL,
  -- none, all, or seconds.
  catch_up TEXT NOT NULL,
  jitter_seconds DOUBLE PRECISION NOT NULL DEFAULT 0,
  paused_at TIMESTAMPTZ,
  pause_reason TEXT,
  -- Since when it is declared no more.
  retired_at TIMESTAMPTZ,
  next_at TIMESTAMPTZ,
  next_run_id UUID,
  last_at TIMESTAMPTZ,
  last_run_id UUID,
  -- Occurrences that were let begin, and those that wait for them to end.
  open_run_ids UUID[] NOT NULL DEFAULT '{}',
  queued_run_ids UUID[] NOT NULL DEFAULT '{}',
  begun BIGINT NOT NULL DEFAULT 0,
  skipped BIGINT NOT NULL DEFAULT 0,
  missed BIGINT NOT NULL DEFAULT 0,
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  updated_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  PRIMARY KEY (namespace_id, name)
);

-- Of which schedule a run is an occurrence, and of which instant.
ALTER TABLE workflow_runs
  ADD COLUMN schedule_name TEXT,
  ADD COLUMN scheduled_for TIMESTAMPTZ;
