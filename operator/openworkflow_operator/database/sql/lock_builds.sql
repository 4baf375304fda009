-- The first statement of a change of who takes new runs: the changes of a namespace take turns, and
-- the statement after this one sees what those before it did. In the same order as the worker's.
SELECT
FROM {schema}.workflow_builds
WHERE namespace_id = $1
ORDER BY created_at, build_id
FOR UPDATE
