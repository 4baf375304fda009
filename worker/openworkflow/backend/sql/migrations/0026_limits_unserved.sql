-- openworkflow: additive
-- A run that nobody executes keeps no slot of a limit from those that somebody does: where one of these
-- waits, one whose workflow no worker serves, or whose build has no workers any more, is due without a
-- slot. The first worker that takes it has it wait in its line, at its old place.

ALTER TABLE workflow_limit_runs
  -- A worker wanted to execute it, so that somebody serves it, whatever has been said by then.
  ADD COLUMN asked BOOLEAN NOT NULL DEFAULT FALSE;

-- Whether nobody serves a run, by what workers say of themselves; as served_now of control.sql has it.
-- What is not known is not said: where nobody has told anything, everything may be served.
CREATE OR REPLACE FUNCTION openworkflow_limits_unserved(
  place TEXT, workflow TEXT, wanted_version TEXT, wanted_build TEXT
) RETURNS BOOLEAN LANGUAGE plpgsql STABLE AS $function$
DECLARE
  seen TIMESTAMPTZ;
  latest TIMESTAMPTZ;
BEGIN
  -- A build says that it is there by a row without a workflow; its workers of older versions do not.
  SELECT said.seen_at INTO seen FROM workflow_served said
   WHERE said.namespace_id = place
     AND said.workflow_name = CASE WHEN wanted_build IS NULL THEN workflow ELSE '' END
     AND said.version = coalesce(wanted_build, wanted_version, '');
  IF NOT FOUND AND EXISTS (SELECT FROM workflow_builds known
                            WHERE known.namespace_id = place AND known.build_id = wanted_build) THEN
    RETURN false;
  END IF;
  IF seen > now() - interval '1 hour' THEN
    RETURN false;
  END IF;
  SELECT max(said.seen_at) INTO latest FROM workflow_served said WHERE said.namespace_id = place;
  RETURN latest IS NOT NULL AND coalesce(seen <= latest - interval '1 hour', true);
END
$function$;

-- Whether somebody who is served may wait for one of these limits: by the names of the workflows that
-- wait, however many lanes there are, since this is asked while the limits of a namespace are locked.
-- A name of which another version alone is served counts too: who leaves for it was served by nobody.
CREATE OR REPLACE FUNCTION openworkflow_limits_wanted(place TEXT, wanted TEXT[])
RETURNS BOOLEAN LANGUAGE plpgsql STABLE AS $function$
DECLARE
  latest TIMESTAMPTZ;
BEGIN
  SELECT max(said.seen_at) INTO latest FROM workflow_served said WHERE said.namespace_id = place;
  RETURN EXISTS (
    SELECT FROM (SELECT DISTINCT workflow_name FROM workflow_limit_lanes
                  WHERE namespace_id = place AND limit_key = ANY (wanted)) waits
     WHERE EXISTS (SELECT FROM workflow_served said
                    WHERE said.namespace_id = place AND said.workflow_name = waits.workflow_name
                      AND said.seen_at > latest - interval '1 hour'))
      OR EXISTS (
    SELECT FROM (SELECT DISTINCT lane FROM workflow_limit_lanes
                  WHERE namespace_id = place AND limit_key = ANY (wanted) LIMIT 32) lanes
     CROSS JOIN LATERAL (SELECT asked FROM workflow_limit_runs
                          WHERE lane = lanes.lane AND NOT has_slot
                          ORDER BY due_at, run_id LIMIT 100) waits
     WHERE asked);
END
$function$;

-- Takes a run out of its line, or its slot from it: it is due, as a run that sleeps is whose time has
-- come, and waits again once a worker takes it. Answers as openworkflow_limits_release.
CREATE OR REPLACE FUNCTION openworkflow_limits_leave(place TEXT, which UUID)
RETURNS TEXT[] LANGUAGE plpgsql AS $function$
DECLARE
  since TIMESTAMPTZ;
BEGIN
  SELECT openworkflow_limits_due(had.due_at, run.priority) INTO since
    FROM workflow_limit_runs had
    JOIN workflow_runs run ON run.id = had.run_id
   WHERE had.run_id = which;
  UPDATE workflow_runs SET paused = true, available_at = since, due_at = since WHERE id = which;
  RETURN openworkflow_limits_release(place, which);
END
$function$;

-- Lets the next run of a lane begin at that time, now or later. Answers whether there was one. As in
-- 0025, but that those leave the lane that nobody serves, while others wait whom somebody does: no
-- more than a thousand at a time.
CREATE OR REPLACE FUNCTION openworkflow_limits_let_in(
  place TEXT, which UUID, wanted TEXT[], workflow TEXT, begun BOOLEAN, opens TIMESTAMPTZ
) RETURNS BOOLEAN LANGUAGE plpgsql AS $function$
DECLARE
  most CONSTANT INT := 1000;
  next RECORD;
  run RECORD;
  chosen UUID;
  rated BOOLEAN;
  gone INT := 0;
BEGIN
  IF opens IS NULL OR EXISTS (SELECT FROM workflow_pauses held
                               WHERE held.namespace_id = place
                                 AND held.workflow_name IN ('', workflow)) THEN
    RETURN false;
  END IF;
  -- One by one, by the keys of both tables: a plan that is made before there are statistics would
  -- walk the whole of one. What somebody deleted behind the back of the trigger waits no more.
  FOR next IN
    SELECT run_id, asked FROM workflow_limit_runs
     WHERE lane = which AND NOT has_slot ORDER BY due_at, run_id
  LOOP
    SELECT id, version, CASE WHEN pinned THEN build_id END AS bound_to INTO run FROM workflow_runs
     WHERE id = next.run_id AND status || '' = 'pending' AND pause IS NULL
       FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
      DELETE FROM workflow_limit_runs
       WHERE run_id = next.run_id
         AND NOT EXISTS (SELECT FROM workflow_runs
                          WHERE id = next.run_id AND completed_at IS NULL);
    ELSIF next.asked OR gone >= most
          OR NOT openworkflow_limits_unserved(place, workflow, run.version, run.bound_to)
          -- Who is wanted stays so while others leave.
          OR gone = 0 AND NOT openworkflow_limits_wanted(place, wanted) THEN
      chosen := run.id;
      EXIT;
    ELSE
      PERFORM openworkflow_limits_leave(place, run.id);
      gone := gone + 1;
    END IF;
  END LOOP;
  IF chosen IS NULL THEN
    PERFORM openworkflow_limits_close(which);
    RETURN false;
  END IF;
  rated := opens > clock_timestamp() OR NOT begun AND EXISTS (
    SELECT FROM workflow_limits said
     WHERE said.namespace_id = place AND said.rate IS NOT NULL
       AND said.name IN (SELECT split_part(limit_key, chr(31), 1)
                           FROM unnest(wanted) AS each (limit_key)));
  UPDATE workflow_runs
     SET paused = false, due_at = NULL,
         available_at = CASE WHEN opens > clock_timestamp() THEN least(opens, deadline_at)
                             ELSE now() END
   WHERE id = chosen AND (paused OR opens > clock_timestamp());
  UPDATE workflow_limit_runs SET has_slot = true, has_token = rated WHERE run_id = chosen;
  INSERT INTO workflow_limit_keys AS used (namespace_id, limit_key, taken, tokens)
    SELECT place, limit_key, 1, rated::int FROM unnest(wanted) AS each (limit_key)
    ON CONFLICT (namespace_id, limit_key)
       DO UPDATE SET taken = used.taken + 1, tokens = used.tokens + excluded.tokens;
  UPDATE workflow_limit_lanes SET turn = DEFAULT WHERE lane = which;
  PERFORM openworkflow_limits_close(which);
  PERFORM openworkflow_limits_notify(place);
  RETURN true;
END
$function$;

-- As openworkflow_limits_enter, for a run that a worker wanted to execute.
CREATE OR REPLACE FUNCTION openworkflow_limits_ask(place TEXT, which UUID)
RETURNS VOID LANGUAGE plpgsql AS $function$
BEGIN
  PERFORM openworkflow_limits_line_up(place, ARRAY[which]);
  UPDATE workflow_limit_runs SET asked = true WHERE run_id = which;
  PERFORM openworkflow_limits_enter(place, ARRAY[which]);
END
$function$;

-- As in 0018, but that a run which is due without a slot waits for whoever takes it.
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
     AND run.pause IS NULL THEN
    RETURN NULL; -- set aside as below, or left by those who are served
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
  ELSIF due AND (TG_NAME = 'openworkflow_limits_late' OR OLD.status = 'running'
                 OR OLD.paused AND OLD.available_at = OLD.due_at) THEN
    -- Whoever executed it, or was about to, serves it, whatever has been said.
    PERFORM openworkflow_limits_ask(place, which);
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

-- As in 0017, but that nobody keeps a slot whom nobody serves.
CREATE OR REPLACE FUNCTION openworkflow_limits_changed() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $function$
DECLARE
  place TEXT := coalesce(NEW.namespace_id, OLD.namespace_id);
  which TEXT := coalesce(NEW.name, OLD.name);
  keys TEXT[];
  freed TEXT[] := '{}';
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
  -- Slots of runs that nobody has taken, and nobody serves, while others wait whom somebody does.
  FOR next IN
    SELECT run.id
      FROM workflow_limit_runs used
      JOIN workflow_runs run ON run.id = used.run_id
     WHERE used.namespace_id = place AND used.has_slot
       AND run.status = 'pending' AND NOT run.paused
       AND run.available_at < clock_timestamp() - interval '1 minute'
       AND EXISTS (SELECT FROM unnest(used.limits) AS each (limit_key)
                    WHERE split_part(limit_key, chr(31), 1) = which)
       AND openworkflow_limits_unserved(place, run.workflow_name, run.version,
                                        CASE WHEN run.pinned THEN run.build_id END)
       AND openworkflow_limits_wanted(place, used.limits)
       FOR NO KEY UPDATE OF run SKIP LOCKED
  LOOP
    freed := freed || openworkflow_limits_leave(place, next.id);
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
           due_at = openworkflow_limits_due(
             (SELECT due_at FROM workflow_limit_runs WHERE run_id = next.id), priority)
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
  PERFORM openworkflow_limits_go_on(place, keys || freed);
  RETURN NULL;
END
$function$;
