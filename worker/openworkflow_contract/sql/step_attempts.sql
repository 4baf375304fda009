-- Step attempts that nobody is left to end.


-- name: interrupted
-- Marked, because such an attempt is no failure of its step.
status = 'failed', completed_at = now(),
context = coalesce(attempt.context, '{}') || '{"interrupted": true}'


-- name: end_canceled_attempts
-- Those of the runs `canceled`, a part of the statement around this one.
update {schema}.step_attempts attempt
   set {interrupted}, error = '{"type": "Interrupted", "message": "the run was canceled"}'
  from canceled
 where attempt.workflow_run_id = canceled.id and attempt.status = 'running'
