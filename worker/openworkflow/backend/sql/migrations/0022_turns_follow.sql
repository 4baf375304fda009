-- openworkflow: additive
-- Turns follow their limit in the transaction that changes it, whoever does: a second statement could be
-- lost with its connection, and runs would wait for turns of a pause that is long over.

CREATE OR REPLACE FUNCTION openworkflow_turns_follow() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $function$
DECLARE
  place TEXT := coalesce(NEW.namespace_id, OLD.namespace_id);
  which TEXT := coalesce(NEW.name, OLD.name);
  -- Without a limit, or with one that has no rate, everybody's turn is now, or after the pause.
  every INTERVAL := make_interval(secs => NEW.rate_seconds / NEW.rate);
  opens TIMESTAMPTZ;
  waiting BIGINT;
BEGIN
  PERFORM set_config('search_path', format('%I, pg_temp', TG_TABLE_SCHEMA), true);
  opens := greatest(now(), NEW.paused_until);
  WITH ordered AS (
    SELECT run_id, step, row_number() OVER (ORDER BY at, run_id, step) - 1 AS nth
      FROM workflow_turns
     WHERE namespace_id = place AND name = which AND at > now()
  ), moved AS (
    UPDATE workflow_turns turn
       SET at = opens + coalesce(every, '0') * ordered.nth
      FROM ordered
     WHERE turn.run_id = ordered.run_id AND turn.step = ordered.step
    RETURNING turn.run_id, turn.at
  ), woken AS (
    -- A run that is being executed may be about to be parked until the turn it had.
    UPDATE workflow_runs run
       SET available_at = CASE WHEN run.status = 'pending' THEN first.at ELSE run.available_at END,
           wake_no = wake_no + CASE WHEN run.status = 'running' THEN 1 ELSE 0 END
      FROM (SELECT run_id, min(at) AS at FROM moved GROUP BY run_id) first
     WHERE run.id = first.run_id AND run.namespace_id || '' = place
       AND (run.status || '' = 'running'
            OR run.status || '' = 'pending' AND run.claim_no > 0 AND NOT run.paused
               AND run.available_at > first.at)
    RETURNING run.id
  )
  SELECT (SELECT count(*) FROM moved) + 0 * (SELECT count(*) FROM woken) INTO waiting;
  IF waiting > 0 THEN
    UPDATE workflow_rates
       SET arrival_at = opens + every * (waiting + coalesce(NEW.burst, 1) - 1)
     WHERE namespace_id = place AND name = which AND every IS NOT NULL;
    PERFORM openworkflow_limits_notify(place);
  END IF;
  RETURN NULL;
END
$function$;

CREATE TRIGGER openworkflow_turns_exist
  AFTER INSERT OR DELETE ON workflow_limits
  FOR EACH ROW EXECUTE FUNCTION openworkflow_turns_follow();

-- A pause that comes, or is prolonged, moves nobody: whose turn is within it is given another.
CREATE TRIGGER openworkflow_turns_follow
  AFTER UPDATE ON workflow_limits
  FOR EACH ROW
  WHEN ((NEW.rate, NEW.rate_seconds, NEW.burst) IS DISTINCT FROM (OLD.rate, OLD.rate_seconds, OLD.burst)
        OR OLD.paused_until > coalesce(NEW.paused_until, '-infinity'))
  EXECUTE FUNCTION openworkflow_turns_follow();
