-- Step attempts are written by flush.sql; here they are read.


-- name: load_histories
-- What earlier claims of these runs recorded, in the order in which results reached the workflow.
-- Rows of older versions have no number; they come first, in the order they were completed. What
-- has not reached the workflow comes last.
-- It is as long as the run has steps, not attempts: of those that failed and were to be repeated
-- only the last of each step is read, without its error.
-- What is odd in a row (a kind, a context, a time) is passed on, and fails no more than its run.
-- A history does not begin after the next claim; a row that says so has all that there is.
-- Its keys are looked up one by one (flush.sql), and sorted by a column of which no index has the order.
with run as (
    select id, case when history_from > claim_no + 1 then 0 else history_from end as history_from
      from {schema}.workflow_runs
     where id = any ($1::uuid[])
), step as (
    select workflow_run_id, attempt.id, step_name, kind, status, attempt, claim_no,
           output::text as output, error::text as error, context,
           created_at, completed_at, resume_at, completion_no
      from run
      join {schema}.step_attempts attempt
        on attempt.workflow_run_id = any (array[run.id]) and attempt.claim_no >= run.history_from
     where not {repeated_attempt}
    union all
    (select distinct on (run.id, step_name, {mark interrupted})
            workflow_run_id, attempt.id, step_name, kind, status, attempt, claim_no,
            null, null, context,
            created_at, completed_at, resume_at, completion_no
       from run
       join {schema}.step_attempts attempt
         on attempt.workflow_run_id = any (array[run.id]) and attempt.claim_no >= run.history_from
      where {repeated_attempt}
      order by run.id, step_name, {mark interrupted},
               created_at desc, attempt.id desc)
)
select workflow_run_id, {instant created_at} as created_at,
       step_name, kind, status, attempt, claim_no, output, error, context::text as context,
       {instant resume_at} as resume_at, id, completion_no,
       {mark final} as final, {mark interrupted} as interrupted,
       {mark reopened} as reopened, {mark canceled} as canceled
  from step
 order by completed_at is null or {repeated_attempt},
          completion_no nulls first, completed_at, step.created_at, id;


-- name: repeated_attempt
-- A failed attempt that did not decide anything.
(status = 'failed' and completion_no is null
      and not coalesce(context ?| array['final', 'reopened', 'canceled'], false))


-- name: list_step_attempts
select {step_columns}
  from {schema}.step_attempts attempt
 where workflow_run_id = $2
   and exists (select from {schema}.workflow_runs run
                where run.id = attempt.workflow_run_id and run.namespace_id = $1)
 order by created_at, id;


-- name: step_columns
-- Every column that is shown, times within what Python can hold.
id, workflow_run_id, step_name, kind, status, config, context, output, error,
       {instant created_at} as created_at, {instant completed_at} as completed_at,
       attempt, claim_no, {instant resume_at} as resume_at
