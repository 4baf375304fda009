-- openworkflow: additive
-- Limits that meet what else there is: rates count runs that did not know their limits when they were
-- started, what is paused is due at no time, and nobody waits for a row while others wait for them.

-- As in 0013, but that the runs of a lane stand in it by their priorities, and that a run which nobody
-- has begun is told by that, and not by its claims: one that was claimed to find out its limits, or as
-- a fork, has yet to begin.
CREATE OR REPLACE FUNCTION openworkflow_limits_enter(place TEXT, ids UUID[])
RETURNS VOID LANGUAGE plpgsql AS $function$
DECLARE
  next RECORD;
  admitted BOOLEAN;
BEGIN
  INSERT INTO workflow_limit_runs AS waits (run_id, namespace_id, lane, limits, due_at)
    SELECT id, place,
           md5(concat_ws(chr(30), place, workflow_name, started_at IS NOT NULL,
                         array_to_string(limits, chr(30))))::uuid,
           limits, openworkflow_limits_place(least(available_at, due_at), priority)
      FROM workflow_runs
     WHERE id = ANY (ids)
    ON CONFLICT (run_id) DO UPDATE SET due_at = excluded.due_at WHERE NOT waits.has_slot;
  INSERT INTO workflow_limit_lanes
      (namespace_id, lane, limit_key, limits, workflow_name, begun)
    SELECT DISTINCT place, waits.lane, limit_key, run.limits, run.workflow_name,
           run.started_at IS NOT NULL
      FROM workflow_runs run
      JOIN workflow_limit_runs waits ON waits.run_id = run.id
     CROSS JOIN unnest(run.limits) AS each (limit_key)
     WHERE run.id = ANY (ids)
    ON CONFLICT DO NOTHING;
  LOOP
    admitted := false;
    FOR next IN
      SELECT lane.lane, max(lane.limits) AS limits, max(lane.workflow_name) AS workflow_name,
             bool_or(lane.begun) AS begun
        FROM workflow_limit_lanes lane
       WHERE lane.lane = ANY (ARRAY(SELECT DISTINCT waits.lane FROM workflow_limit_runs waits
                                     WHERE waits.run_id = ANY (ids) AND NOT waits.has_slot))
       GROUP BY lane.lane
       ORDER BY min(lane.turn)
    LOOP
      admitted := openworkflow_limits_admit(
        place, next.lane, next.limits, next.workflow_name, next.begun) OR admitted;
    END LOOP;
    EXIT WHEN NOT admitted;
  END LOOP;
  -- A deadline goes on while a run waits, but for one that is held: who resumes it looks at that.
  UPDATE workflow_runs run
     SET paused = true,
         due_at = least(available_at, run.due_at),
         available_at = wish.until
    FROM (SELECT id, CASE WHEN EXISTS (SELECT FROM workflow_pauses held
                                        WHERE held.namespace_id = place
                                          AND held.workflow_name IN ('', waits.workflow_name))
                          THEN 'infinity' ELSE coalesce(waits.deadline_at, 'infinity') END AS until
            FROM workflow_runs waits
           WHERE id = ANY (ARRAY(SELECT run_id FROM workflow_limit_runs
                                  WHERE run_id = ANY (ids) AND NOT has_slot))) wish
   WHERE run.id = wish.id AND (NOT run.paused OR run.available_at <> wish.until);
END
$function$;

-- What else follows from a transaction at its end waits for rows that others hold: parents are locked,
-- and runs that are sent a signal. Those others may wait for the lock of the limits. So limits come
-- after all of that: a run is touched once more, by a column that nobody else writes, and decided
-- about in the next round of triggers.
CREATE OR REPLACE FUNCTION openworkflow_rows_wait() RETURNS trigger
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
  PERFORM set_config('openworkflow.rows', 'wait', true);
  RETURN NULL;
END
$function$;

CREATE TRIGGER openworkflow_family_rows
  AFTER UPDATE OF completed_at ON workflow_runs
  FOR EACH ROW
  WHEN ((NEW.parent_run_id IS NOT NULL OR NEW.is_parent)
        AND (NEW.completed_at IS NULL) <> (OLD.completed_at IS NULL))
  EXECUTE FUNCTION openworkflow_rows_wait();

CREATE OR REPLACE FUNCTION openworkflow_limits_settle() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $function$
DECLARE
  place TEXT := coalesce(NEW.namespace_id, OLD.namespace_id);
  which UUID := coalesce(NEW.id, OLD.id);
  moment TIMESTAMPTZ := clock_timestamp();
  run RECORD;
  had RECORD;
  held BOOLEAN;
  due BOOLEAN;
  freed TEXT[];
  was_due TIMESTAMPTZ;
BEGIN
  PERFORM set_config('search_path', format('%I, pg_temp', TG_TABLE_SCHEMA), true);
  IF TG_NAME = 'openworkflow_limits_late' THEN
    PERFORM set_config('openworkflow.rows', '', true);
  ELSIF current_setting('openworkflow.rows', true) = 'wait' AND TG_OP <> 'DELETE' THEN
    UPDATE workflow_runs SET config = config WHERE id = which;
    RETURN NULL;
  END IF;
  SELECT * INTO had FROM workflow_limit_runs WHERE run_id = which;
  IF TG_OP = 'INSERT' AND had.run_id IS NOT NULL THEN
    RETURN NULL; -- with the first that the transaction inserted
  END IF;
  SELECT id, namespace_id, workflow_name, status, started_at, available_at, due_at, deadline_at,
         paused, pause, limits, created_at, completed_at, priority
    INTO run FROM workflow_runs WHERE id = which;
  was_due := had.due_at + make_interval(hours => coalesce(run.priority, 0));
  IF TG_OP = 'UPDATE' AND had.has_token AND run.status = 'pending'
     AND (run.paused OR run.limits IS DISTINCT FROM had.limits)
     AND was_due < least(run.available_at, run.due_at)
     AND least(run.available_at, run.due_at) = least(OLD.available_at, OLD.due_at) THEN
    -- The time that a rate gave it, or a pause of the limit, goes with the slot: it asks for another.
    UPDATE workflow_runs
       SET available_at = CASE WHEN paused THEN available_at ELSE was_due END,
           due_at = CASE WHEN paused THEN was_due END
     WHERE id = which
    RETURNING available_at, due_at INTO run.available_at, run.due_at;
  END IF;
  IF run.id IS NULL OR run.completed_at IS NOT NULL OR coalesce(cardinality(run.limits), 0) = 0 THEN
    IF had.run_id IS NOT NULL THEN
      PERFORM openworkflow_limits_lock(place);
      PERFORM openworkflow_limits_go_on(place, openworkflow_limits_release(place, which));
    END IF;
    IF run.status = 'pending' AND run.limits IS NOT NULL
       AND (had.run_id IS NOT NULL OR run.paused) THEN
      -- It lost its limits, with an input of which they are not known. Only a pause holds it now.
      held := run.pause IS NOT NULL OR EXISTS (
        SELECT FROM workflow_pauses each
         WHERE each.namespace_id = place AND each.workflow_name IN ('', run.workflow_name));
      UPDATE workflow_runs
         SET limits = NULL, paused = held,
             available_at = CASE WHEN held THEN 'infinity'
                                 ELSE least(available_at, due_at) END,
             due_at = CASE WHEN held THEN least(available_at, due_at) END
       WHERE id = which;
      PERFORM openworkflow_limits_notify(place);
    END IF;
    RETURN NULL;
  END IF;

  IF run.status = 'running' THEN
    IF had.has_slot AND NOT had.has_token OR had.run_id IS NULL THEN
      RETURN NULL;
    END IF;
    PERFORM openworkflow_limits_lock(place);
    IF NOT had.has_slot THEN -- its deadline is over, or somebody knows better
      PERFORM openworkflow_limits_release(place, which);
      RETURN NULL;
    END IF;
    UPDATE workflow_limit_runs SET has_token = false WHERE run_id = which;
    WITH spent AS (
      UPDATE workflow_limit_keys used
         SET tokens = greatest(tokens - 1, 0),
             arrival_at = CASE WHEN said.rate IS NULL THEN arrival_at
                               ELSE greatest(used.arrival_at, moment)
                                    + make_interval(secs => said.rate_seconds / said.rate) END
        FROM workflow_limits said
       WHERE used.namespace_id = place AND used.limit_key = ANY (run.limits)
         AND said.namespace_id = place AND said.name = split_part(used.limit_key, chr(31), 1)
      RETURNING used.limit_key, said.rate
    )
    SELECT array_agg(limit_key ORDER BY strpos(limit_key, chr(31)) > 0, limit_key) INTO freed
      FROM spent WHERE rate IS NOT NULL;
    PERFORM openworkflow_limits_go_on(place, freed);
    RETURN NULL;
  END IF;

  due := coalesce(run.pause IS NULL AND least(run.available_at, run.due_at) <= moment, false);
  IF had.has_slot AND NOT run.paused AND (due OR had.has_token) AND had.limits = run.limits THEN
    RETURN NULL; -- it is about to begin, or was handed back
  END IF;
  IF had.run_id IS NULL AND run.paused AND run.available_at = run.due_at
     AND run.pause IS NULL AND NOT due THEN
    RETURN NULL; -- set aside as below
  END IF;
  IF due AND NOT had.has_slot AND run.paused AND had.limits = run.limits
     AND had.due_at = openworkflow_limits_place(run.due_at, run.priority)
     AND coalesce(run.deadline_at > moment, true)
     AND run.available_at = coalesce(run.deadline_at, 'infinity') THEN
    -- It waits. Whoever had its row while there was room for it was passed over, and looks now.
    IF OLD.paused THEN
      PERFORM openworkflow_limits_lock(place);
      PERFORM openworkflow_limits_admit(
        place, had.lane, run.limits, run.workflow_name, run.started_at IS NOT NULL);
    END IF;
    RETURN NULL;
  END IF;
  PERFORM openworkflow_limits_lock(place);
  IF had.run_id IS NOT NULL AND (had.has_slot OR NOT due OR had.limits <> run.limits) THEN
    freed := openworkflow_limits_release(place, which);
  END IF;
  held := EXISTS (SELECT FROM workflow_pauses each
                   WHERE each.namespace_id = place
                     AND each.workflow_name IN ('', run.workflow_name));
  IF due AND run.deadline_at <= moment AND NOT held THEN
    -- It is executed only to be failed, which takes no slot.
    PERFORM openworkflow_limits_release(place, which);
    UPDATE workflow_runs
       SET paused = false, due_at = NULL, available_at = least(run.due_at, now())
     WHERE id = which AND paused;
    PERFORM openworkflow_limits_notify(place);
  ELSIF due AND TG_OP = 'INSERT' THEN
    PERFORM openworkflow_limits_enter(place, ARRAY(
      SELECT other.id FROM workflow_runs other
       WHERE other.namespace_id = place AND other.workflow_name = run.workflow_name
         AND other.created_at = run.created_at AND other.limits IS NOT NULL
         AND other.status = 'pending' AND other.pause IS NULL
         AND least(other.available_at, other.due_at) <= moment
         AND coalesce(other.deadline_at > moment, true)
         AND NOT EXISTS (SELECT FROM workflow_limit_runs known WHERE known.run_id = other.id)));
  ELSIF due THEN
    PERFORM openworkflow_limits_enter(place, ARRAY[which]);
  ELSIF run.pause IS NULL THEN
    -- It waits for a time, or to be woken; when that has come, it waits for a slot.
    UPDATE workflow_runs
       SET paused = true,
           due_at = least(run.available_at, run.due_at),
           available_at = least(run.available_at, run.due_at)
     WHERE id = which
       AND (NOT paused OR due_at IS NULL OR due_at <> available_at);
  END IF;
  PERFORM openworkflow_limits_go_on(place, freed);
  RETURN NULL;
END
$function$;

CREATE CONSTRAINT TRIGGER openworkflow_limits_late
  AFTER UPDATE OF config ON workflow_runs
  DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION openworkflow_limits_settle();
