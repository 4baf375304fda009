-- Of the runs that wait, those that some worker has said it serves: workers repeat it every ten
-- minutes, and what was not repeated for an hour, while others were, is served no more.
-- Bounded: idx_workflow_runs_claim has the runs of each workflow, for each build and for none
--   (namespace_id, build or '', workflow_name, version or '', available_at) where pending
WITH said AS MATERIALIZED (
  SELECT s.namespace_id, s.workflow_name, s.version
  FROM unnest($1::text[]) AS n (namespace_id)
  CROSS JOIN LATERAL (
    SELECT q.*, max(q.seen_at) OVER () AS last_seen_at
    FROM (
      SELECT w.namespace_id, w.workflow_name, w.version, w.seen_at
      FROM {schema}.workflow_served w
      WHERE w.namespace_id = n.namespace_id
      LIMIT 2000
    ) q
  ) s
  WHERE s.seen_at > s.last_seen_at - interval '1 hour'
)
SELECT
  n.namespace_id,
  due.runs AS due,
  fresh.runs AS new_due,
  waking.runs AS waking,
  coalesce(extract(
    epoch FROM now() - greatest(oldest.available_at, now() - interval '100 years')
  ), 0)::float8 AS oldest_due_age,
  coalesce(extract(
    epoch FROM now() - greatest(oldest.new_available_at, now() - interval '100 years')
  ), 0)::float8 AS oldest_new_age
FROM unnest($1::text[], $2::int[], $3::float8[]) AS n (namespace_id, due_limit, lead)
CROSS JOIN LATERAL (
  SELECT array_agg(b.build_id) AS builds
  FROM (
    (SELECT '' AS build_id)
    UNION ALL
    (
      SELECT w.build_id
      FROM {schema}.workflow_builds w
      WHERE w.namespace_id = n.namespace_id
      ORDER BY w.created_at DESC
      LIMIT 500
    )
  ) b
) known
CROSS JOIN LATERAL (
  SELECT
    min(head.available_at) AS available_at,
    min(head.available_at) FILTER (WHERE b.build_id = '') AS new_available_at
  FROM said
  CROSS JOIN unnest(known.builds) AS b (build_id)
  CROSS JOIN LATERAL (
    SELECT w.available_at
    FROM {schema}.workflow_runs w
    WHERE w.namespace_id = n.namespace_id AND w.status = 'pending' AND w.available_at <= now()
      AND CASE WHEN w.pinned THEN w.build_id ELSE '' END = b.build_id
      AND w.workflow_name = said.workflow_name AND coalesce(w.version, '') = said.version
    ORDER BY w.available_at
    LIMIT 1
  ) head
  WHERE said.namespace_id = n.namespace_id
) oldest
CROSS JOIN LATERAL (
  SELECT count(*) AS runs
  FROM (
    SELECT 1
    FROM said
    CROSS JOIN unnest(known.builds) AS b (build_id)
    JOIN {schema}.workflow_runs w
      ON w.namespace_id = n.namespace_id AND w.status = 'pending' AND w.available_at <= now()
      AND CASE WHEN w.pinned THEN w.build_id ELSE '' END = b.build_id
      AND w.workflow_name = said.workflow_name AND coalesce(w.version, '') = said.version
    WHERE said.namespace_id = n.namespace_id
    LIMIT n.due_limit
  ) q
) due
CROSS JOIN LATERAL (
  SELECT count(*) AS runs
  FROM (
    SELECT 1
    FROM said
    JOIN {schema}.workflow_runs w
      ON w.namespace_id = n.namespace_id AND w.status = 'pending' AND w.available_at <= now()
      AND CASE WHEN w.pinned THEN w.build_id ELSE '' END = ''
      AND w.workflow_name = said.workflow_name AND coalesce(w.version, '') = said.version
    WHERE said.namespace_id = n.namespace_id
    LIMIT n.due_limit
  ) q
) fresh
CROSS JOIN LATERAL (
  SELECT count(*) AS runs
  FROM (
    SELECT 1
    FROM said
    CROSS JOIN unnest(known.builds) AS b (build_id)
    JOIN {schema}.workflow_runs w
      ON w.namespace_id = n.namespace_id AND w.status = 'pending'
      AND w.available_at > now() AND w.available_at <= now() + n.lead * interval '1 second'
      AND CASE WHEN w.pinned THEN w.build_id ELSE '' END = b.build_id
      AND w.workflow_name = said.workflow_name AND coalesce(w.version, '') = said.version
    WHERE said.namespace_id = n.namespace_id
    LIMIT n.due_limit
  ) q
) waking
WHERE EXISTS (SELECT FROM said WHERE said.namespace_id = n.namespace_id)
