-- $2 fails and takes no new runs; the build that takes the most beside it takes them all.
-- The same statement as that of `openworkflow builds hold`.
WITH main AS (
  SELECT build_id
  FROM {schema}.workflow_builds
  WHERE namespace_id = $1 AND build_id <> $2 AND takes_to > takes_from
  ORDER BY takes_to - takes_from DESC, promoted_at DESC
  LIMIT 1
)
UPDATE {schema}.workflow_builds build
SET
  takes_from = 0,
  takes_to = CASE WHEN build.build_id = (SELECT build_id FROM main) THEN 100 ELSE 0 END,
  held_at = CASE WHEN build.build_id = $2 THEN now() ELSE held_at END
WHERE namespace_id = $1
  AND EXISTS (SELECT FROM {schema}.workflow_builds WHERE namespace_id = $1 AND build_id = $2)
  AND EXISTS (SELECT FROM main)
RETURNING build.build_id
