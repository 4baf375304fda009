-- openworkflow: additive
-- A signal to a topic locks the runs that wait for it before it ends their waits. It did so the other
-- way round, and a signal of that name to one of them waited for it in a circle: PostgreSQL ended one
-- of the two.

-- As in 0009 but for the order of locks.
CREATE OR REPLACE FUNCTION openworkflow_message_sent() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
  place TEXT := TG_TABLE_SCHEMA || '.' || NEW.namespace_id;
  channel TEXT := 'openworkflow_work_'
    || left(encode(sha256(convert_to(place, 'UTF8')), 'hex'), 16);
  runs UUID[] := ARRAY[NEW.workflow_run_id];
  hearing UUID[];
BEGIN
  IF NEW.workflow_run_id IS NULL THEN
    IF current_setting('transaction_isolation') NOT LIKE 'read %committed' THEN
      RAISE EXCEPTION 'a signal to a topic cannot be sent in a transaction that is %',
          current_setting('transaction_isolation')
        USING ERRCODE = 'feature_not_supported',
              HINT = 'It would not see who has begun to wait since; use READ COMMITTED.';
    END IF;
    -- Who begins to wait while this is held looks again; who has begun before is seen here.
    PERFORM pg_advisory_xact_lock_shared(
      hashtextextended('openworkflow topic ' || place || '.' || NEW.name, 0));
    EXECUTE format('SELECT array_agg(workflow_run_id) FROM %I.workflow_subscriptions
        WHERE namespace_id = $1 AND topic = $2 AND waiting', TG_TABLE_SCHEMA)
      INTO runs USING NEW.namespace_id, NEW.name;
    -- Rows of runs before those of their waits, as below, and in the order of their ids.
    EXECUTE format('SELECT FROM %I.workflow_runs WHERE id = ANY ($1)
        ORDER BY id FOR NO KEY UPDATE', TG_TABLE_SCHEMA) USING runs;
    EXECUTE format('WITH heard AS (UPDATE %I.workflow_subscriptions SET waiting = false
        WHERE workflow_run_id = ANY ($1) AND topic = $2 AND namespace_id = $3 AND waiting
        RETURNING workflow_run_id)
      SELECT array_agg(workflow_run_id) FROM heard', TG_TABLE_SCHEMA)
      INTO runs USING runs, NEW.name, NEW.namespace_id;
    hearing := runs;
    EXECUTE format('DELETE FROM %1$I.workflow_messages WHERE id = ANY (ARRAY(
        SELECT id FROM %1$I.workflow_messages
         WHERE workflow_run_id IS NULL AND namespace_id = $1 AND expires_at < now()
         ORDER BY expires_at LIMIT 100 FOR UPDATE SKIP LOCKED))', TG_TABLE_SCHEMA)
      USING NEW.namespace_id;
  ELSE
    -- First its row, then who waits: of a run that is parked meanwhile the wait is seen, and one
    -- that is parked later finds itself woken.
    EXECUTE format('SELECT FROM %I.workflow_runs WHERE id = $1 FOR NO KEY UPDATE', TG_TABLE_SCHEMA)
      USING NEW.workflow_run_id;
    EXECUTE format('WITH heard AS (UPDATE %I.workflow_subscriptions SET waiting = false
        WHERE workflow_run_id = $1 AND topic = $2 AND namespace_id = $3 AND waiting
        RETURNING workflow_run_id)
      SELECT array_agg(workflow_run_id) FROM heard', TG_TABLE_SCHEMA)
      INTO hearing USING NEW.workflow_run_id, NEW.name, NEW.namespace_id;
  END IF;
  EXECUTE format('WITH woken AS (
      UPDATE %I.workflow_runs
         SET wake_no = wake_no + 1,
             available_at = CASE WHEN status = ''pending'' AND id = ANY ($4) AND NOT paused
                                 THEN least(available_at, now()) ELSE available_at END,
             due_at = CASE WHEN status = ''pending'' AND id = ANY ($4) AND paused
                           THEN least(due_at, now()) ELSE due_at END
       WHERE id = ANY ($1) AND namespace_id || '''' = $2 AND completed_at IS NULL
      RETURNING id, status
    ), chunked AS (
      SELECT id, status, (row_number() OVER () - 1) / 200 AS chunk FROM woken
    )
    SELECT pg_notify($3, CASE WHEN status = ''running''
                              THEN ''wake '' || string_agg(id::text, '','') ELSE '''' END)
      FROM chunked GROUP BY status, chunk', TG_TABLE_SCHEMA)
    USING runs, NEW.namespace_id, channel, coalesce(hearing, '{}');
  RETURN NULL;
END
$function$;
