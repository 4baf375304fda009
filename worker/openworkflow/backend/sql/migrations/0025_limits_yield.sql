-- openworkflow: additive
-- A run that time alone keeps from beginning keeps nobody else from it: a pause of a limit holds no run
-- that has begun, and a slot that is kept for a time to come is there for whoever needs it before.

-- As in 0013, but that a pause is for runs that have yet to begin.
CREATE OR REPLACE FUNCTION openworkflow_limits_room(place TEXT, wanted TEXT[], begun BOOLEAN)
RETURNS TIMESTAMPTZ LANGUAGE plpgsql AS $function$
BEGIN
  RETURN (
    SELECT CASE WHEN bool_and((said.slots IS NULL OR coalesce(used.taken, 0) < said.slots)
                              AND (begun OR said.rate IS NULL
                                   OR coalesce(used.tokens, 0) < said.burst))
                THEN max(greatest(clock_timestamp(),
                                  CASE WHEN NOT begun THEN said.paused_until END,
                                  CASE WHEN NOT begun THEN used.arrival_at + make_interval(secs =>
                                    (used.tokens - said.burst + 1) * said.rate_seconds / said.rate)
                                  END)) END
      FROM unnest(wanted) AS each (limit_key)
      LEFT JOIN LATERAL (SELECT * FROM workflow_limits
                          WHERE namespace_id = place
                            AND name = split_part(each.limit_key, chr(31), 1) OFFSET 0) said ON true
      LEFT JOIN LATERAL (SELECT * FROM workflow_limit_keys
                          WHERE namespace_id = place
                            AND workflow_limit_keys.limit_key = each.limit_key OFFSET 0) used
        ON true);
END
$function$;

-- Lets the next run of a lane begin at that time, now or later. Answers whether there was one.
CREATE OR REPLACE FUNCTION openworkflow_limits_let_in(
  place TEXT, which UUID, wanted TEXT[], workflow TEXT, begun BOOLEAN, opens TIMESTAMPTZ
) RETURNS BOOLEAN LANGUAGE plpgsql AS $function$
DECLARE
  next UUID;
  chosen UUID;
  rated BOOLEAN;
BEGIN
  IF opens IS NULL OR EXISTS (SELECT FROM workflow_pauses held
                               WHERE held.namespace_id = place
                                 AND held.workflow_name IN ('', workflow)) THEN
    RETURN false;
  END IF;
  -- One by one, by the keys of both tables: a plan that is made before there are statistics would
  -- walk the whole of one. What somebody deleted behind the back of the trigger waits no more.
  FOR next IN
    SELECT run_id FROM workflow_limit_runs
     WHERE lane = which AND NOT has_slot ORDER BY due_at, run_id
  LOOP
    SELECT id INTO chosen FROM workflow_runs
     WHERE id = next AND status || '' = 'pending' AND pause IS NULL
       FOR NO KEY UPDATE SKIP LOCKED;
    EXIT WHEN FOUND;
    DELETE FROM workflow_limit_runs
     WHERE run_id = next
       AND NOT EXISTS (SELECT FROM workflow_runs WHERE id = next AND completed_at IS NULL);
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

-- Lets the next run of a lane begin, if there is room. Answers whether there was one.
CREATE OR REPLACE FUNCTION openworkflow_limits_admit(
  place TEXT, which UUID, wanted TEXT[], workflow TEXT, begun BOOLEAN
) RETURNS BOOLEAN LANGUAGE plpgsql AS $function$
BEGIN
  RETURN openworkflow_limits_let_in(
    place, which, wanted, workflow, begun, openworkflow_limits_room(place, wanted, begun));
END
$function$;

-- Lets runs begin in the lanes of these limits, one lane after the other, while there is room. As in
-- 0013, but that a lane whose next run may begin only later lets those after it go first: of so many
-- lanes as are looked at, the one whose time comes first.
CREATE OR REPLACE FUNCTION openworkflow_limits_go_on(place TEXT, freed TEXT[])
RETURNS VOID LANGUAGE plpgsql AS $function$
DECLARE
  most CONSTANT INT := 32;
  wanted TEXT;
  has_room BOOLEAN;
  fresh BOOLEAN;
  next RECORD;
  later RECORD;
  admitted BOOLEAN;
  opens TIMESTAMPTZ;
  first TIMESTAMPTZ;
  looked INT;
BEGIN
  FOREACH wanted IN ARRAY coalesce(freed, '{}') LOOP
    LOOP
      admitted := false;
      first := NULL;
      looked := 0;
      -- Whether there is room, and whether for runs too that have not begun. No row: no limit.
      SELECT said.slots IS NULL OR coalesce(used.taken, 0) < said.slots,
             said.rate IS NULL OR coalesce(used.tokens, 0) < said.burst
        INTO has_room, fresh
        FROM workflow_limits said
        LEFT JOIN LATERAL (SELECT * FROM workflow_limit_keys
                            WHERE namespace_id = place AND limit_key = wanted OFFSET 0) used
          ON true
       WHERE said.namespace_id = place AND said.name = split_part(wanted, chr(31), 1);
      EXIT WHEN NOT has_room;
      fresh := coalesce(fresh, true);
      FOR next IN
        SELECT * FROM workflow_limit_lanes lane
         WHERE lane.namespace_id = place AND lane.limit_key = wanted AND (lane.begun OR fresh)
         ORDER BY lane.turn
      LOOP
        opens := openworkflow_limits_room(place, next.limits, next.begun);
        CONTINUE WHEN opens IS NULL;
        IF opens <= clock_timestamp() THEN
          admitted := openworkflow_limits_let_in(
            place, next.lane, next.limits, next.workflow_name, next.begun, opens);
          EXIT WHEN admitted;
        ELSE
          IF first IS NULL OR opens < first THEN
            first := opens;
            later := next;
          END IF;
          looked := looked + 1;
          EXIT WHEN looked >= most;
        END IF;
      END LOOP;
      IF NOT admitted AND first IS NOT NULL THEN
        admitted := openworkflow_limits_let_in(
          place, later.lane, later.limits, later.workflow_name, later.begun, first);
      END IF;
      EXIT WHEN NOT admitted;
    END LOOP;
  END LOOP;
END
$function$;

-- When a run came to be due that stands at this place among those of its lane.
CREATE OR REPLACE FUNCTION openworkflow_limits_due(place TIMESTAMPTZ, priority SMALLINT)
RETURNS TIMESTAMPTZ LANGUAGE plpgsql STABLE AS $function$
BEGIN
  -- What openworkflow_limits_place takes away, it takes from 1970 as well.
  RETURN place + (to_timestamp(0) - openworkflow_limits_place(to_timestamp(0), priority));
END
$function$;

-- Puts runs that are due into the lines of their lanes.
CREATE OR REPLACE FUNCTION openworkflow_limits_line_up(place TEXT, ids UUID[])
RETURNS VOID LANGUAGE plpgsql AS $function$
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
END
$function$;

-- Makes room for a run of these limits that may begin now, where others have the slots for a time to
-- come: of each limit that is full, the one that is to begin last waits again. `freed` are the limits
-- for which there may be room for others too, NULL if nothing was done; `barren` those of which
-- nobody has a slot for later.
CREATE OR REPLACE FUNCTION openworkflow_limits_yield(
  place TEXT, wanted TEXT[], begun BOOLEAN, INOUT barren TEXT[], OUT freed TEXT[]
) LANGUAGE plpgsql AS $function$
DECLARE
  taken TEXT[];
  may BOOLEAN;
  wish TEXT;
  chosen UUID;
  victims UUID[] := '{}';
BEGIN
  IF wanted && barren THEN
    RETURN;
  END IF;
  -- With more of them than there are slots one that waits again is not enough.
  SELECT array_agg(each.limit_key) FILTER (WHERE used.taken >= said.slots),
         bool_and(coalesce(used.taken < said.slots
                           OR used.taken = said.slots AND used.tokens > 0, said.slots > 0, true)
                  AND (begun OR said.rate IS NULL OR coalesce(used.tokens, 0) < said.burst)
                  AND (begun OR coalesce(said.paused_until <= clock_timestamp(), true))
                  AND (begun OR coalesce(used.arrival_at + make_interval(secs =>
                                (used.tokens - said.burst + 1) * said.rate_seconds / said.rate)
                              <= clock_timestamp(), true)))
    INTO taken, may
    FROM unnest(wanted) AS each (limit_key)
    LEFT JOIN LATERAL (SELECT * FROM workflow_limits
                        WHERE namespace_id = place
                          AND name = split_part(each.limit_key, chr(31), 1) OFFSET 0) said ON true
    LEFT JOIN LATERAL (SELECT * FROM workflow_limit_keys
                        WHERE namespace_id = place
                          AND workflow_limit_keys.limit_key = each.limit_key OFFSET 0) used
      ON true;
  IF NOT may OR taken IS NULL THEN
    RETURN;
  END IF;
  FOREACH wish IN ARRAY taken LOOP
    CONTINUE WHEN EXISTS (SELECT FROM workflow_limit_runs
                           WHERE run_id = ANY (victims) AND wish = ANY (limits));
    SELECT run.id INTO chosen
      FROM workflow_limit_runs holder
      JOIN workflow_runs run ON run.id = holder.run_id
     WHERE holder.namespace_id = place AND holder.has_slot AND holder.has_token
       AND wish = ANY (holder.limits)
       AND run.status || '' = 'pending' AND NOT run.paused
       AND run.available_at > clock_timestamp()
     ORDER BY run.available_at DESC, run.id DESC
     LIMIT 1
       FOR NO KEY UPDATE OF run SKIP LOCKED;
    IF NOT FOUND THEN
      barren := barren || wish;
      RETURN;
    END IF;
    victims := victims || chosen;
  END LOOP;
  freed := '{}';
  FOREACH chosen IN ARRAY victims LOOP
    UPDATE workflow_runs run
       SET paused = true, available_at = coalesce(deadline_at, 'infinity'),
           due_at = openworkflow_limits_due(
             (SELECT due_at FROM workflow_limit_runs WHERE run_id = chosen), priority)
     WHERE id = chosen;
    freed := freed || openworkflow_limits_release(place, chosen);
  END LOOP;
  PERFORM openworkflow_limits_line_up(place, victims);
END
$function$;

-- As in 0018, but that those who may begin take the places of those who may not yet.
CREATE OR REPLACE FUNCTION openworkflow_limits_enter(place TEXT, ids UUID[])
RETURNS VOID LANGUAGE plpgsql AS $function$
DECLARE
  next RECORD;
  admitted BOOLEAN;
  opens TIMESTAMPTZ;
  yielded TEXT[];
  freed TEXT[] := '{}';
  barren TEXT[] := '{}';
BEGIN
  PERFORM openworkflow_limits_line_up(place, ids);
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
      opens := openworkflow_limits_room(place, next.limits, next.begun);
      IF opens IS NULL AND NOT EXISTS (SELECT FROM workflow_pauses held
                                        WHERE held.namespace_id = place
                                          AND held.workflow_name IN ('', next.workflow_name)) THEN
        SELECT made.barren, made.freed INTO barren, yielded
          FROM openworkflow_limits_yield(place, next.limits, next.begun, barren) made;
        IF yielded IS NOT NULL THEN
          freed := freed || yielded;
          opens := openworkflow_limits_room(place, next.limits, next.begun);
        END IF;
      END IF;
      admitted := openworkflow_limits_let_in(
        place, next.lane, next.limits, next.workflow_name, next.begun, opens) OR admitted;
    END LOOP;
    EXIT WHEN NOT admitted;
  END LOOP;
  PERFORM openworkflow_limits_go_on(place, freed);
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
