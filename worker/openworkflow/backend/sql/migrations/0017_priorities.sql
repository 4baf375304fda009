-- openworkflow: additive
-- Runs that go before others of their workflow, and before those of other workflows.

ALTER TABLE workflow_runs
  -- From 1 to 9; NULL for a run that waits its turn. A run is claimed as if it had been due so many
  -- hours earlier.
  ADD COLUMN priority SMALLINT;

COMMENT ON COLUMN workflow_runs.priority IS
  'a run is claimed as if it had been due so many hours earlier; NULL for none, and at most 9';

-- When a run counts as due among those of its lane.
CREATE OR REPLACE FUNCTION openworkflow_limits_place(due TIMESTAMPTZ, priority SMALLINT)
RETURNS TIMESTAMPTZ LANGUAGE plpgsql STABLE AS $function$
BEGIN
  RETURN CASE WHEN priority IS NULL THEN due
              ELSE greatest(due, to_timestamp(0)) - make_interval(hours => priority) END;
END
$function$;

-- As in 0013, but that the runs of a lane stand in it by their priorities.
CREATE OR REPLACE FUNCTION openworkflow_limits_changed() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $function$
DECLARE
  place TEXT := coalesce(NEW.namespace_id, OLD.namespace_id);
  which TEXT := coalesce(NEW.name, OLD.name);
  keys TEXT[];
  next RECORD;
BEGIN
  PERFORM set_config('search_path', format('%I, pg_temp', TG_TABLE_SCHEMA), true);
  PERFORM openworkflow_limits_lock(place);
  -- Slots of runs that are gone behind the back of the trigger.
  FOR next IN
    SELECT used.run_id FROM workflow_limit_runs used
     WHERE used.namespace_id = place AND used.has_slot
       AND NOT EXISTS (SELECT FROM workflow_runs run
                        WHERE run.id = used.run_id AND run.completed_at IS NULL)
  LOOP
    PERFORM openworkflow_limits_release(place, next.run_id);
  END LOOP;
  -- Those that were let begin at a time to come may have another now.
  FOR next IN
    SELECT run.id
      FROM workflow_limit_runs used
      JOIN workflow_runs run ON run.id = used.run_id
     WHERE used.namespace_id = place AND used.has_slot AND used.has_token
       AND run.status = 'pending' AND run.available_at > clock_timestamp()
       AND EXISTS (SELECT FROM unnest(used.limits) AS each (limit_key)
                    WHERE split_part(limit_key, chr(31), 1) = which)
       FOR NO KEY UPDATE OF run SKIP LOCKED
  LOOP
    UPDATE workflow_runs
       SET paused = true, available_at = coalesce(deadline_at, 'infinity'),
           due_at = (SELECT due_at FROM workflow_limit_runs WHERE run_id = next.id)
                    + make_interval(hours => coalesce(priority, 0))
     WHERE id = next.id;
    PERFORM openworkflow_limits_release(place, next.id);
    PERFORM openworkflow_limits_enter(place, ARRAY[next.id]);
  END LOOP;
  UPDATE workflow_limit_keys used
     SET taken = coalesce(counted.taken, 0), tokens = coalesce(counted.tokens, 0)
    FROM workflow_limit_keys known
    LEFT JOIN (SELECT limit_key, count(*) AS taken, count(*) FILTER (WHERE has_token) AS tokens
                 FROM workflow_limit_runs, unnest(limits) AS each (limit_key)
                WHERE namespace_id = place AND has_slot
                GROUP BY limit_key) counted
      ON counted.limit_key = known.limit_key
   WHERE known.namespace_id = place AND split_part(known.limit_key, chr(31), 1) = which
     AND used.namespace_id = place AND used.limit_key = known.limit_key
     AND (used.taken, used.tokens) IS DISTINCT FROM
         (coalesce(counted.taken, 0), coalesce(counted.tokens, 0));
  DELETE FROM workflow_limit_keys
   WHERE namespace_id = place AND split_part(limit_key, chr(31), 1) = which
     AND taken = 0 AND tokens = 0 AND coalesce(arrival_at < clock_timestamp(), true);
  SELECT array_agg(DISTINCT limit_key) INTO keys
    FROM workflow_limit_lanes
   WHERE namespace_id = place AND split_part(limit_key, chr(31), 1) = which;
  PERFORM openworkflow_limits_go_on(place, keys);
  RETURN NULL;
END
$function$;
