-- Step attempts are written by flush.sql; here they are read.


-- name: load_histories
-- What earlier claims of these runs recorded.
select workflow_run_id, id, step_name, kind, status, attempt, claim_no,
       output::text as output, error::text as error,
       coalesce((context ->> 'final')::bool, false) as final,
       coalesce((context ->> 'interrupted')::bool, false) as interrupted,
       coalesce((context ->> 'reopened')::bool, false) as reopened,
       resume_at
  from {schema}.step_attempts
 where workflow_run_id = any ($1::uuid[])
 order by created_at, id;


-- name: list_step_attempts
select attempt.*
  from {schema}.step_attempts attempt
  join {schema}.workflow_runs run on run.id = attempt.workflow_run_id
 where attempt.workflow_run_id = $2 and run.namespace_id = $1
 order by attempt.created_at, attempt.id;
