-- One look at all namespaces of a database. Every part is an index scan that stops at a limit, so
-- a million pending runs cost what the limit costs:
--   due, waking, next   idx_workflow_runs_available   (namespace_id, available_at) where pending
--   running, sample     idx_workflow_runs_lease       (namespace_id, available_at) where running
-- A run that waits for a signal or a child has available_at = infinity and is never due.
SELECT
  n.namespace_id,
  due.runs AS due,
  coalesce(due.oldest_age, 0) AS oldest_due_age,
  waking.runs AS waking,
  next.seconds AS next_wake_seconds,
  running.runs AS running,
  running.by_pod,
  sample.mean_age AS mean_running_age
FROM unnest($1::text[], $2::int[], $3::int[], $4::float8[])
  AS n (namespace_id, due_limit, running_limit, lead)
CROSS JOIN LATERAL (
  SELECT
    count(*) AS runs,
    extract(epoch FROM now() - min(greatest(q.available_at, now() - interval '100 years')))::float8
      AS oldest_age
  FROM (
    SELECT w.available_at
    FROM {schema}.workflow_runs w
    WHERE w.namespace_id = n.namespace_id AND w.status = 'pending' AND w.available_at <= now()
    ORDER BY w.available_at
    LIMIT n.due_limit
  ) q
) due
CROSS JOIN LATERAL (
  SELECT count(*) AS runs
  FROM (
    SELECT 1
    FROM {schema}.workflow_runs w
    WHERE w.namespace_id = n.namespace_id AND w.status = 'pending'
      AND w.available_at > now() AND w.available_at <= now() + n.lead * interval '1 second'
    LIMIT n.due_limit
  ) q
) waking
CROSS JOIN LATERAL (
  SELECT extract(epoch FROM min(w.available_at) - now())::float8 AS seconds
  FROM {schema}.workflow_runs w
  WHERE w.namespace_id = n.namespace_id AND w.status = 'pending'
    AND w.available_at > now() AND w.available_at < 'infinity'
) next
CROSS JOIN LATERAL (
  SELECT
    coalesce(sum(p.runs), 0)::bigint AS runs,
    coalesce(jsonb_object_agg(p.pod, p.runs) FILTER (WHERE p.place <= 2000), '{{}}')::text AS by_pod
  FROM (
    -- A worker's id is its pod's name, a slash and a random part. Anything can be in the column:
    -- the answer has as many pods as a fleet can have, and names as long as theirs can be.
    SELECT
      left(split_part(coalesce(q.worker_id, ''), '/', 1), 253) AS pod,
      count(*) AS runs,
      row_number() OVER (ORDER BY count(*) DESC) AS place
    FROM (
      SELECT w.worker_id
      FROM {schema}.workflow_runs w
      WHERE w.namespace_id = n.namespace_id AND w.status = 'running'
      ORDER BY w.available_at DESC
      LIMIT n.running_limit
    ) q
    GROUP BY 1
  ) p
) running
CROSS JOIN LATERAL (
  -- Only runs in their first claim: others may have slept since they started.
  SELECT
    avg(extract(epoch FROM now() - q.started_at)) FILTER (WHERE q.claim_no = 1)::float8 AS mean_age
  FROM (
    SELECT w.started_at, w.claim_no
    FROM {schema}.workflow_runs w
    WHERE w.namespace_id = n.namespace_id AND w.status = 'running'
    ORDER BY w.available_at DESC
    LIMIT 100
  ) q
) sample
