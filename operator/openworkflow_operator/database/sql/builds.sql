-- The builds of namespaces, and of each what only it can finish. Bounded like the other look:
--   due, waking, next   idx_workflow_runs_pinned   (namespace_id, build_id, available_at)
--                                                  where pinned and pending
--   running             idx_workflow_runs_lease    as many rows as workers have slots
--   canary              idx_workflow_runs_idempotency
--   ended, failed       idx_workflow_runs_namespace, only of the build that is judged
--   new                 idx_workflow_runs_available, past at most 20,000 runs that are pinned
WITH n AS MATERIALIZED (
  SELECT n.*, new.*
  FROM unnest($1::text[], $2::int[], $3::int[], $4::float8[], $5::text[], $6::text[], $7::int[])
    AS n (namespace_id, due_limit, running_limit, lead, wanted_build, canary_workflow, first_runs)
  CROSS JOIN LATERAL (
    SELECT
      count(*) AS new_due,
      coalesce(extract(
        epoch FROM now() - min(greatest(q.available_at, now() - interval '100 years'))
      ), 0)::float8 AS oldest_new_age,
      EXISTS (
        SELECT
        FROM {schema}.workflow_runs w
        WHERE w.namespace_id = n.namespace_id AND w.status = 'pending' AND w.available_at <= now()
        ORDER BY w.available_at
        OFFSET 20000
      ) AS is_cut
    FROM (
      SELECT waits.available_at
      FROM (
        SELECT w.available_at, w.pinned
        FROM {schema}.workflow_runs w
        WHERE w.namespace_id = n.namespace_id AND w.status = 'pending' AND w.available_at <= now()
        ORDER BY w.available_at
        LIMIT 20000
      ) waits
      WHERE NOT waits.pinned
      LIMIT n.due_limit
    ) q
  ) new
)
SELECT
  n.namespace_id,
  n.new_due,
  n.oldest_new_age,
  n.is_cut,
  b.build_id,
  b.takes_to - b.takes_from AS share,
  b.takes_to = 100 AND b.takes_from < 100 AS is_main,
  b.promoted_at IS NOT NULL AS is_promoted,
  b.held_at IS NOT NULL AS is_held,
  coalesce(extract(epoch FROM now() - b.promoted_at), 0)::float8 AS seconds_since_promotion,
  due.runs AS due,
  coalesce(due.oldest_age, 0) AS oldest_due_age,
  waking.runs AS waking,
  next.seconds AS next_wake_seconds,
  running.runs AS running,
  canary.status AS canary,
  coalesce(extract(epoch FROM now() - canary.created_at), 0)::float8 AS canary_age,
  first.ended,
  first.failed
FROM n
CROSS JOIN LATERAL (
  SELECT *
  FROM {schema}.workflow_builds
  WHERE namespace_id = n.namespace_id
  ORDER BY takes_to > takes_from DESC, created_at DESC
  LIMIT $8
) b
CROSS JOIN LATERAL (
  SELECT
    count(*) AS runs,
    extract(epoch FROM now() - min(greatest(q.available_at, now() - interval '100 years')))::float8
      AS oldest_age
  FROM (
    SELECT w.available_at
    FROM {schema}.workflow_runs w
    WHERE w.namespace_id = n.namespace_id AND w.build_id = b.build_id
      AND w.pinned AND w.status = 'pending' AND w.available_at <= now()
    ORDER BY w.available_at
    LIMIT n.due_limit
  ) q
) due
CROSS JOIN LATERAL (
  SELECT count(*) AS runs
  FROM (
    SELECT 1
    FROM {schema}.workflow_runs w
    WHERE w.namespace_id = n.namespace_id AND w.build_id = b.build_id
      AND w.pinned AND w.status = 'pending'
      AND w.available_at > now() AND w.available_at <= now() + n.lead * interval '1 second'
    LIMIT n.due_limit
  ) q
) waking
CROSS JOIN LATERAL (
  -- Also runs that wait for what has no time: they are left all the same.
  SELECT least(extract(epoch FROM q.available_at - now()), 1e12)::float8 AS seconds
  FROM (
    SELECT CASE WHEN w.available_at = 'infinity' THEN now() + interval '1000 years'
                ELSE w.available_at END AS available_at
    FROM {schema}.workflow_runs w
    WHERE w.namespace_id = n.namespace_id AND w.build_id = b.build_id
      AND w.pinned AND w.status = 'pending' AND w.available_at > now()
    ORDER BY w.available_at
    LIMIT 1
  ) q
  UNION ALL
  SELECT NULL
  LIMIT 1
) next
CROSS JOIN LATERAL (
  SELECT count(*) AS runs
  FROM (
    SELECT 1
    FROM {schema}.workflow_runs w
    WHERE w.namespace_id = n.namespace_id AND w.status = 'running'
      AND w.pinned AND w.build_id = b.build_id
    LIMIT n.running_limit
  ) q
) running
LEFT JOIN LATERAL (
  SELECT w.status, w.created_at
  FROM {schema}.workflow_runs w
  WHERE w.namespace_id = n.namespace_id AND w.workflow_name = n.canary_workflow
    AND w.idempotency_key = 'openworkflow canary ' || b.build_id
) canary ON true
CROSS JOIN LATERAL (
  -- That index begins with the workflow, so the names are hopped through first. Of each, twice the
  -- oldest runs since the promotion that hold `first_runs` of this build are looked at: at most
  -- 10,000, since the CRD has `firstRuns` be at most 50 for each percent of the share.
  WITH RECURSIVE names AS (
    SELECT (
      SELECT min(w.workflow_name)
      FROM {schema}.workflow_runs w
      WHERE w.namespace_id = n.namespace_id
    ) AS name
    WHERE n.first_runs > 0 AND b.build_id = n.wanted_build AND b.promoted_at IS NOT NULL
      AND (b.takes_to - b.takes_from BETWEEN 1 AND 99 OR b.held_at IS NOT NULL)
    UNION ALL
    SELECT (
      SELECT min(w.workflow_name)
      FROM {schema}.workflow_runs w
      WHERE w.namespace_id = n.namespace_id AND w.workflow_name > names.name
    )
    FROM names
    WHERE names.name IS NOT NULL
  )
  SELECT count(*) AS ended, count(*) FILTER (WHERE q.status = 'failed') AS failed
  FROM (
    SELECT seen.status
    FROM (
      SELECT since.build_id, since.status, since.completed_at
      FROM names
      CROSS JOIN LATERAL (
        SELECT w.build_id, w.status, w.completed_at
        FROM {schema}.workflow_runs w
        WHERE w.namespace_id = n.namespace_id AND w.workflow_name = names.name
          AND w.created_at >= b.promoted_at
          AND (b.held_at IS NULL OR w.created_at <= b.held_at)
        ORDER BY w.created_at
        LIMIT least(10000, 200 * n.first_runs / greatest(b.takes_to - b.takes_from, 1))
      ) since
      LIMIT 20000
    ) seen
    WHERE seen.build_id = b.build_id AND seen.status IN ('succeeded', 'failed')
    ORDER BY seen.completed_at
    LIMIT n.first_runs
  ) q
) first
