-- Which workflows those of the due runs are of that no worker says it serves: a few names, for
-- people. Asked only where there are such runs; of the first thousand that are due.
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
  (
    SELECT coalesce(jsonb_agg(left(few.workflow, 200) ORDER BY few.workflow), '[]')::text
    FROM (
      SELECT DISTINCT due.workflow_name || coalesce(' ' || due.version, '') AS workflow
      FROM (
        SELECT w.workflow_name, w.version
        FROM {schema}.workflow_runs w
        WHERE w.namespace_id = n.namespace_id AND w.status = 'pending' AND w.available_at <= now()
        ORDER BY w.available_at
        LIMIT 1000
      ) due
      WHERE NOT EXISTS (
        SELECT
        FROM said
        WHERE said.namespace_id = n.namespace_id AND said.workflow_name = due.workflow_name
          AND said.version = coalesce(due.version, '')
      )
      ORDER BY 1
      LIMIT 5
    ) few
  ) AS workflows
FROM unnest($1::text[]) AS n (namespace_id)
