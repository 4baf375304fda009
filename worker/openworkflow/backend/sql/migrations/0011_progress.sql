-- openworkflow: additive
-- What runs tell while they go on: a status, of which the last counts, and events, which all do.
--
-- No foreign keys, as for signals; a trigger deletes what a run has told together with it.

-- They may have outlived the runs, if somebody dropped those; then they are of nobody.
DROP TABLE IF EXISTS workflow_progress, workflow_events;

-- A row for each run that has told something.
CREATE TABLE workflow_progress (
  workflow_run_id UUID PRIMARY KEY,
  -- The claim that wrote it last.
  claim_no INTEGER NOT NULL,
  status JSONB,
  status_at TIMESTAMPTZ,
  -- How many events it has emitted: the number of the next one.
  events INTEGER NOT NULL DEFAULT 0,
  -- The first event since the run has continued as new.
  events_from INTEGER NOT NULL DEFAULT 0,
  -- How far the workflow has come, as numbers of calls: of emit by topic, of set_status and of tag.
  -- What a replay repeats up to here is told already.
  counts JSONB NOT NULL DEFAULT '{}',
  -- Somebody has retried the run since: from where the replay ends on, everything is told anew.
  retried BOOLEAN NOT NULL DEFAULT FALSE
);

CREATE TABLE workflow_events (
  workflow_run_id UUID NOT NULL,
  -- From 0, in the order of emitting, without a gap.
  event_no INTEGER NOT NULL,
  topic TEXT NOT NULL CHECK (length(topic) BETWEEN 1 AND 200),
  value JSONB,
  -- Which attempt of which step has emitted it; NULL for the workflow itself.
  step_name TEXT,
  attempt INTEGER,
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  PRIMARY KEY (workflow_run_id, event_no)
);

COMMENT ON TABLE workflow_events IS
  'what runs have emitted, kept until their run is deleted';

CREATE OR REPLACE FUNCTION openworkflow_progress_deleted() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
  EXECUTE format('DELETE FROM %I.workflow_events
      WHERE workflow_run_id = ANY ($1)', TG_TABLE_SCHEMA)
    USING ARRAY(SELECT id FROM gone);
  EXECUTE format('DELETE FROM %I.workflow_progress
      WHERE workflow_run_id = ANY ($1)', TG_TABLE_SCHEMA)
    USING ARRAY(SELECT id FROM gone);
  RETURN NULL;
END
$function$;

CREATE TRIGGER openworkflow_progress_deleted
  AFTER DELETE ON workflow_runs REFERENCING OLD TABLE AS gone
  FOR EACH STATEMENT EXECUTE FUNCTION openworkflow_progress_deleted();
