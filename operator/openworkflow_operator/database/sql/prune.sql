-- One page of the table, in the order of the ids after $4, with the finished runs on it deleted
-- whose time is over, but for those of a build that is being proven by them; their step attempts go
-- with them. What it costs is bounded by the page.
WITH page AS (
  SELECT w.id
  FROM {schema}.workflow_runs w
  WHERE w.id > $4
  ORDER BY w.id
  LIMIT $5
), old AS (
  SELECT w.id
  FROM page
  JOIN {schema}.workflow_runs w USING (id)
  JOIN unnest($1::text[], $2::text[], $3::float8[], $6::text[])
      AS kept (namespace_id, status, seconds, spared_build)
    ON kept.namespace_id = w.namespace_id AND kept.status = w.status
  WHERE w.completed_at < now() - kept.seconds * interval '1 second'
    AND (w.build_id = kept.spared_build) IS NOT TRUE
  FOR UPDATE OF w SKIP LOCKED
), deleted AS (
  DELETE FROM {schema}.workflow_runs
  WHERE id IN (SELECT old.id FROM old)
  RETURNING namespace_id
)
SELECT
  (SELECT page.id FROM page ORDER BY page.id DESC LIMIT 1) AS last_id,
  (SELECT count(*) FROM page) AS looked_at,
  (
    SELECT coalesce(jsonb_object_agg(d.namespace_id, d.runs), '{{}}')::text
    FROM (SELECT namespace_id, count(*) AS runs FROM deleted GROUP BY 1) d
  ) AS deleted
