-- openworkflow: additive
-- Children: runs that a step of another run has started.
--
-- No foreign keys, as for signals. Triggers do what is to follow from the end of a run, whoever ends
-- it and by whatever statement: that of a child wakes the parent which waits for it, that of a
-- parent has its children canceled. No run that is neither one nor the other fires any of them.

-- It may have outlived the runs, if somebody dropped those; then it is of nobody.
DROP TABLE IF EXISTS workflow_children;

CREATE TABLE workflow_children (
  -- Of the run. A child that a step awaits or starts by itself has the id of its step attempt.
  id UUID PRIMARY KEY,
  namespace_id TEXT NOT NULL,
  parent_run_id UUID NOT NULL,
  -- The step attempt of the parent that started it, and for which item of it.
  step_id UUID NOT NULL,
  number INTEGER NOT NULL DEFAULT 0,
  -- What becomes of it when the parent ends first.
  on_close TEXT NOT NULL CHECK (on_close IN ('cancel', 'abandon')),
  -- The parent is woken by an end that leaves so many of the step's children, or fewer, or that is
  -- no success. NULL: it does not wait.
  wake_at INTEGER,
  -- How it has ended; NULL until then.
  status TEXT,
  -- It is to be canceled.
  orphaned BOOLEAN NOT NULL DEFAULT FALSE,
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);

COMMENT ON TABLE workflow_children IS
  'which run started which, kept as long as the child; written by the worker of the parent';

CREATE UNIQUE INDEX idx_workflow_children_step ON workflow_children (step_id, number);

CREATE INDEX idx_workflow_children_parent ON workflow_children (parent_run_id);

-- How many are left of a step.
CREATE INDEX idx_workflow_children_open ON workflow_children (step_id) WHERE status IS NULL;

CREATE INDEX idx_workflow_children_orphans ON workflow_children (namespace_id)
  WHERE orphaned AND status IS NULL;

ALTER TABLE workflow_runs
  -- The run that started this one.
  ADD COLUMN parent_run_id UUID,
  -- It has started others. NULL: it has not.
  ADD COLUMN is_parent BOOLEAN;

-- A parent says that it is one, so that its end is heeded; one that ends in the same statement too.
CREATE OR REPLACE FUNCTION openworkflow_child_added() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
  EXECUTE format('UPDATE %I.workflow_runs SET is_parent = true
      WHERE id = $1 AND namespace_id = $2 AND is_parent IS NOT true', TG_TABLE_SCHEMA)
    USING NEW.parent_run_id, NEW.namespace_id;
  EXECUTE format('UPDATE %1$I.workflow_children SET orphaned = true
      WHERE id = $1 AND on_close = ''cancel''
        AND EXISTS (SELECT FROM %1$I.workflow_runs
                     WHERE id = $2 AND completed_at IS NOT NULL)', TG_TABLE_SCHEMA)
    USING NEW.id, NEW.parent_run_id;
  RETURN NULL;
END
$function$;

CREATE TRIGGER openworkflow_child_added
  AFTER INSERT ON workflow_children
  FOR EACH ROW EXECUTE FUNCTION openworkflow_child_added();

-- Notes whose child ends, for the trigger below: at the end of a transaction its parents are locked
-- in the order of their ids, so that two transactions do not wait for each other.
CREATE OR REPLACE FUNCTION openworkflow_child_ending() RETURNS trigger
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
  noted TEXT := coalesce(current_setting('openworkflow.parents', true), '');
BEGIN
  IF position(NEW.parent_run_id::text IN noted) = 0 THEN
    PERFORM set_config('openworkflow.parents', noted || ',' || NEW.parent_run_id, true);
  END IF;
  RETURN NULL;
END
$function$;

CREATE TRIGGER openworkflow_child_ending
  AFTER UPDATE OF completed_at ON workflow_runs
  FOR EACH ROW
  WHEN (NEW.parent_run_id IS NOT NULL AND NEW.completed_at IS NOT NULL AND OLD.completed_at IS NULL)
  EXECUTE FUNCTION openworkflow_child_ending();

-- What follows from the end of a child, or of a parent; and from a retry by hand, which takes an end
-- back. At the end of the transaction, and always the parent's row before that of the child here.
-- A parent is locked before its children are counted: of two that end at once, the second sees the
-- first. The channel is Namespace.work_channel of backend/namespace.py.
CREATE OR REPLACE FUNCTION openworkflow_family_changed() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
  channel TEXT := 'openworkflow_work_' || left(encode(sha256(convert_to(
    TG_TABLE_SCHEMA || '.' || NEW.namespace_id, 'UTF8')), 'hex'), 16);
  noted TEXT := ltrim(coalesce(current_setting('openworkflow.parents', true), ''), ',');
  child RECORD;
  changed INTEGER;
BEGIN
  IF NEW.parent_run_id IS NOT NULL AND NEW.completed_at IS NULL THEN
    EXECUTE format('UPDATE %I.workflow_children SET status = NULL, orphaned = false
        WHERE id = $1 AND namespace_id = $2', TG_TABLE_SCHEMA) USING NEW.id, NEW.namespace_id;
  ELSIF NEW.parent_run_id IS NOT NULL THEN
    IF noted <> '' THEN
      EXECUTE format('SELECT FROM %I.workflow_runs
          WHERE id = ANY ($1) AND namespace_id || '''' = $2 ORDER BY id
          FOR NO KEY UPDATE', TG_TABLE_SCHEMA)
        USING string_to_array(noted, ',')::uuid[], NEW.namespace_id;
      PERFORM set_config('openworkflow.parents', '', true);
    END IF;
    EXECUTE format('UPDATE %I.workflow_children SET status = $2
        WHERE id = $1 AND namespace_id = $3 RETURNING step_id, wake_at', TG_TABLE_SCHEMA)
      INTO child USING NEW.id, NEW.status, NEW.namespace_id;
    IF child.wake_at IS NOT NULL THEN
      EXECUTE format('SELECT count(*) FROM (SELECT FROM %I.workflow_children
          WHERE step_id = $1 AND status IS NULL LIMIT $2 + 1) AS open', TG_TABLE_SCHEMA)
        INTO changed USING child.step_id, child.wake_at;
      IF changed <= child.wake_at OR NEW.status <> 'succeeded' THEN
        EXECUTE format('WITH woken AS (
            UPDATE %I.workflow_runs
               SET wake_no = wake_no + 1,
                   available_at = CASE WHEN status = ''pending'' AND NOT paused
                                       THEN least(available_at, now()) ELSE available_at END,
                   due_at = CASE WHEN status = ''pending'' AND paused
                                 THEN least(due_at, now()) ELSE due_at END
             WHERE id = $1 AND namespace_id = $2 AND completed_at IS NULL
            RETURNING id, status
          )
          SELECT pg_notify($3, CASE WHEN status = ''running'' THEN ''wake '' || id ELSE '''' END)
            FROM woken', TG_TABLE_SCHEMA)
          USING NEW.parent_run_id, NEW.namespace_id, channel;
      END IF;
    END IF;
  END IF;
  IF NEW.is_parent AND NEW.completed_at IS NOT NULL THEN
    EXECUTE format('UPDATE %I.workflow_children SET orphaned = true
        WHERE parent_run_id = $1 AND namespace_id = $2 AND status IS NULL
          AND on_close = ''cancel''', TG_TABLE_SCHEMA)
      USING NEW.id, NEW.namespace_id;
    GET DIAGNOSTICS changed = ROW_COUNT;
    IF changed > 0 THEN
      PERFORM pg_notify(channel, 'orphans');
    END IF;
  END IF;
  RETURN NULL;
END
$function$;

CREATE CONSTRAINT TRIGGER openworkflow_family_changed
  AFTER UPDATE OF completed_at ON workflow_runs
  DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW
  WHEN ((NEW.parent_run_id IS NOT NULL OR NEW.is_parent)
        AND (NEW.completed_at IS NULL) <> (OLD.completed_at IS NULL))
  EXECUTE FUNCTION openworkflow_family_changed();

-- What is known of a child goes with it.
CREATE OR REPLACE FUNCTION openworkflow_children_deleted() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
  IF EXISTS (SELECT FROM gone WHERE parent_run_id IS NOT NULL) THEN
    EXECUTE format('DELETE FROM %I.workflow_children
        WHERE id = ANY ($1)', TG_TABLE_SCHEMA)
      USING ARRAY(SELECT id FROM gone WHERE parent_run_id IS NOT NULL);
  END IF;
  RETURN NULL;
END
$function$;

CREATE TRIGGER openworkflow_children_deleted
  AFTER DELETE ON workflow_runs REFERENCING OLD TABLE AS gone
  FOR EACH STATEMENT EXECUTE FUNCTION openworkflow_children_deleted();

-- A child is kept for as long as its parent goes on, which may not have read what it came to; whoever
-- deletes old runs, programs of older versions too.
CREATE OR REPLACE FUNCTION openworkflow_child_kept() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
  kept BOOLEAN;
BEGIN
  EXECUTE format('SELECT EXISTS (SELECT FROM %I.workflow_runs
      WHERE id = $1 AND namespace_id || '''' = $2 AND completed_at IS NULL)', TG_TABLE_SCHEMA)
    INTO kept USING OLD.parent_run_id, OLD.namespace_id;
  RETURN CASE WHEN kept THEN NULL ELSE OLD END;
END
$function$;

CREATE TRIGGER openworkflow_child_kept
  BEFORE DELETE ON workflow_runs
  FOR EACH ROW WHEN (OLD.parent_run_id IS NOT NULL)
  EXECUTE FUNCTION openworkflow_child_kept();
