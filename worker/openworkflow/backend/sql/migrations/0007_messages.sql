-- openworkflow: additive
-- Signals: what is sent to runs, and to topics that any number of runs may wait for.
--
-- No foreign keys: `DROP TABLE workflow_runs` means what it always did, and a transaction that
-- sends something holds no lock on a run. Triggers do what is to follow from a row: a message
-- wakes whom it is for, whoever inserts it, and goes with its run.

-- They may have outlived the runs, if somebody dropped those; then they are for nobody.
DROP TABLE IF EXISTS workflow_messages, workflow_subscriptions;

CREATE TABLE workflow_messages (
  id UUID PRIMARY KEY,
  namespace_id TEXT NOT NULL,
  -- NULL: sent to a topic.
  workflow_run_id UUID,
  -- Of the signal, or the topic.
  name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
  -- The order of sending.
  message_no BIGINT NOT NULL GENERATED ALWAYS AS IDENTITY,
  payload JSONB,
  idempotency_key TEXT CHECK (length(idempotency_key) BETWEEN 1 AND 500),
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  -- How long one that was sent to a topic is kept.
  expires_at TIMESTAMPTZ CHECK ((expires_at IS NULL) = (workflow_run_id IS NOT NULL))
);

COMMENT ON TABLE workflow_messages IS
  'signals, kept until their run is deleted; a step attempt of kind signal names the one it took';

CREATE INDEX idx_workflow_messages_run
  ON workflow_messages (workflow_run_id, name, message_no)
  WHERE workflow_run_id IS NOT NULL;

CREATE INDEX idx_workflow_messages_topic
  ON workflow_messages (namespace_id, name, message_no)
  WHERE workflow_run_id IS NULL;

CREATE INDEX idx_workflow_messages_expiry
  ON workflow_messages (namespace_id, expires_at)
  WHERE workflow_run_id IS NULL;

-- A message is sent once for each key, also by two at the same time.
CREATE UNIQUE INDEX idx_workflow_messages_idempotency
  ON workflow_messages (namespace_id, (COALESCE(workflow_run_id::text, '')), name, idempotency_key)
  WHERE idempotency_key IS NOT NULL;

-- The topics that a run has waited for.
CREATE TABLE workflow_subscriptions (
  workflow_run_id UUID NOT NULL,
  topic TEXT NOT NULL,
  namespace_id TEXT NOT NULL,
  -- The next message wakes the run, and ends this.
  waiting BOOLEAN NOT NULL,
  -- Messages that it took before it continued as new.
  received UUID[] NOT NULL DEFAULT '{}',
  PRIMARY KEY (workflow_run_id, topic)
);

CREATE INDEX idx_workflow_subscriptions_waiting
  ON workflow_subscriptions (namespace_id, topic)
  WHERE waiting;

-- Wakes whom a message is for. At the end of the transaction that sent it: until then that holds no
-- lock that a worker could wait for. Whoever may insert a message may thereby wake a run of its
-- namespace, and change nothing else of it: hence the rights of the owner.
-- A run that waits for something else stays as it is: every wait for a signal subscribes first.
-- The channel is Namespace.work_channel of backend/namespace.py.
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
             available_at = CASE WHEN status = ''pending'' AND id = ANY ($4)
                                 THEN least(available_at, now()) ELSE available_at END
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

CREATE CONSTRAINT TRIGGER openworkflow_message_sent
  AFTER INSERT ON workflow_messages
  DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION openworkflow_message_sent();

-- What was sent to a run goes with it.
CREATE OR REPLACE FUNCTION openworkflow_runs_deleted() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
  EXECUTE format('DELETE FROM %I.workflow_messages
      WHERE workflow_run_id = ANY ($1)', TG_TABLE_SCHEMA) USING ARRAY(SELECT id FROM gone);
  EXECUTE format('DELETE FROM %I.workflow_subscriptions
      WHERE workflow_run_id = ANY ($1)', TG_TABLE_SCHEMA) USING ARRAY(SELECT id FROM gone);
  RETURN NULL;
END
$function$;

CREATE TRIGGER openworkflow_runs_deleted
  AFTER DELETE ON workflow_runs REFERENCING OLD TABLE AS gone
  FOR EACH STATEMENT EXECUTE FUNCTION openworkflow_runs_deleted();

-- Sends a signal to a run, in the transaction of the caller and with its rights; answers the id of
-- the message, of the first one for each key. Raises no_data_found, or for a run that has ended
-- object_not_in_prerequisite_state with its status as the detail.
CREATE OR REPLACE FUNCTION openworkflow_signal(
  run_id UUID,
  signal TEXT,
  payload JSONB DEFAULT NULL,
  idempotency_key TEXT DEFAULT NULL,
  message_id UUID DEFAULT gen_random_uuid(),
  namespace TEXT DEFAULT NULL
) RETURNS UUID LANGUAGE plpgsql SET search_path FROM CURRENT AS $function$
DECLARE
  run RECORD;
  sent UUID;
BEGIN
  SELECT found.namespace_id, found.status INTO run
    FROM workflow_runs found
   WHERE found.id = run_id AND (namespace IS NULL OR found.namespace_id = namespace);
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no workflow run %', run_id USING ERRCODE = 'no_data_found';
  END IF;
  IF run.status NOT IN ('succeeded', 'failed', 'canceled') THEN
    INSERT INTO workflow_messages
        (id, namespace_id, workflow_run_id, name, payload, idempotency_key)
      VALUES ($5, run.namespace_id, run_id, signal, $3, $4)
      ON CONFLICT DO NOTHING
      RETURNING id INTO sent;
  END IF;
  -- What was sent before is sent, whatever became of the run.
  sent := coalesce(sent, (
    SELECT message.id FROM workflow_messages message
     WHERE message.id = $5 AND message.workflow_run_id = run_id
     UNION ALL
    SELECT message.id FROM workflow_messages message
     WHERE message.namespace_id = run.namespace_id AND message.name = signal
       AND coalesce(message.workflow_run_id::text, '') = run_id::text
       AND message.idempotency_key = $4
     LIMIT 1));
  IF sent IS NULL THEN
    RAISE EXCEPTION 'workflow run % is % and cannot be signaled', run_id, run.status
      USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = run.status;
  END IF;
  RETURN sent;
END
$function$;

-- Sends a signal to all runs of a namespace that wait for this topic now, or before it is no longer
-- kept. In a transaction that is READ COMMITTED, which is the default.
CREATE OR REPLACE FUNCTION openworkflow_signal_topic(
  topic TEXT,
  payload JSONB DEFAULT NULL,
  idempotency_key TEXT DEFAULT NULL,
  keep_for INTERVAL DEFAULT INTERVAL '24 hours',
  message_id UUID DEFAULT gen_random_uuid(),
  namespace TEXT DEFAULT 'default'
) RETURNS UUID LANGUAGE plpgsql SET search_path FROM CURRENT AS $function$
DECLARE
  sent UUID;
BEGIN
  INSERT INTO workflow_messages (id, namespace_id, name, payload, idempotency_key, expires_at)
    VALUES ($5, namespace, topic, $2, $3, clock_timestamp() + keep_for)
    ON CONFLICT DO NOTHING
    RETURNING id INTO sent;
  RETURN coalesce(sent, (
    SELECT message.id FROM workflow_messages message WHERE message.id = $5
     UNION ALL
    SELECT message.id FROM workflow_messages message
     WHERE message.namespace_id = namespace AND message.name = topic
       AND coalesce(message.workflow_run_id::text, '') = '' AND message.idempotency_key = $3
     LIMIT 1));
END
$function$;
