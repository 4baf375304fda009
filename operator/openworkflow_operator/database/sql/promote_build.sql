-- $2 takes $3 of a hundred new runs; the build that took the most before takes the others.
-- The same statement as that of `openworkflow builds promote`.
WITH main AS (
  SELECT build_id
  FROM {schema}.workflow_builds
  WHERE namespace_id = $1 AND build_id <> $2 AND takes_to > takes_from
  ORDER BY takes_to - takes_from DESC, promoted_at DESC
  LIMIT 1
)
UPDATE {schema}.workflow_builds build
SET
  takes_from = CASE WHEN build.build_id = $2 THEN 0
                    WHEN build.build_id = (SELECT build_id FROM main) THEN $3 ELSE 0 END,
  takes_to = CASE WHEN build.build_id = $2 THEN $3
                  WHEN build.build_id = (SELECT build_id FROM main) THEN 100 ELSE 0 END,
  promoted_at = CASE WHEN build.build_id = $2 THEN now() ELSE promoted_at END,
  held_at = CASE WHEN build.build_id = $2 THEN NULL ELSE held_at END
WHERE namespace_id = $1
  AND EXISTS (SELECT FROM {schema}.workflow_builds WHERE namespace_id = $1 AND build_id = $2)
  AND ($3::smallint = 100 OR EXISTS (SELECT FROM main))
RETURNING build.build_id
