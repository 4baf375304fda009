-- openworkflow: additive
-- What people do with runs: fork them, pause them, tag them.

ALTER TABLE workflow_runs
  -- The run whose history this one began with.
  ADD COLUMN forked_from UUID,
  -- Held back, by a pause of its own or by one in workflow_pauses: while it waits it is due at no
  -- time, and due_at keeps when it would be; one that is executed is set aside when it waits.
  ADD COLUMN paused BOOLEAN NOT NULL DEFAULT FALSE,
  ADD COLUMN due_at TIMESTAMPTZ,
  -- A pause of this run: who, why and since when.
  ADD COLUMN pause JSONB,
  -- An object of texts; NULL for a run without tags.
  ADD COLUMN tags JSONB;

COMMENT ON COLUMN workflow_runs.due_at IS
  'of a paused run that waits: the available_at that it gets back';

-- Pauses of workflows, and of whole namespaces. It may have outlived the other tables, if somebody
-- dropped those.
CREATE TABLE IF NOT EXISTS workflow_pauses (
  namespace_id TEXT NOT NULL,
  -- '' for all workflows.
  workflow_name TEXT NOT NULL,
  reason TEXT,
  paused_by TEXT,
  paused_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  -- Never written: who may update it may lock the row, and so has a resume wait for what it did.
  lock_only BOOLEAN,
  PRIMARY KEY (namespace_id, workflow_name)
);

-- As in 0007, but that a run which is held back stays due at no time: a message is what it goes on
-- with once it is resumed.
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
    EXECUTE format('WITH heard AS (UPDATE %I.workflow_subscriptions SET waiting = false
        WHERE namespace_id = $1 AND topic = $2 AND waiting RETURNING workflow_run_id)
      SELECT array_agg(workflow_run_id) FROM heard', TG_TABLE_SCHEMA)
      INTO runs USING NEW.namespace_id, NEW.name;
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
