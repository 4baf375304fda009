-- What the runs of one worker gathered, and its next claim: one round trip, one commit.
--
-- The parts that a flush needs are joined into one statement,
--     with <parts> select clock_timestamp(), steps.*, ends.*, claim.* from steps, ends, claim
-- so that one which carries a single step does not pay for the rest. `:name` is a parameter.
-- `{in_turn}` is a condition, of the parts that write runs, on the fence of the steps: else they might
-- come first, and a row that the statement has written already cannot be locked by it any more.
-- All parts see the database as it was before the statement, and no row is written twice by it:
-- of two parts that mean to write one row, PostgreSQL silently drops one. So a flush never carries
-- the end and the wake of one run; the engine's journal keeps them apart.
--
-- A connection plans such a statement once, maybe when the tables are empty, and keeps the plan until
-- they are analysed. So each part is written so that one plan is possible only (test_plans.py):
-- * `id = any (array[row.id])`, where `id = row.id` would do, looks a key up as that does, but is
--   nothing by which two tables can be merged: for that the planner would walk a primary key whole.
-- * `(a = b) is true` is no condition of an index, where another one is to be walked.
-- * `exists (... offset 0)` is asked for each row, and not made a join, or a table of all answers.


-- name: flush_step_successes
-- What nearly every step is: one attempt that succeeded, with no row to say that it had begun.
-- Its columns, and those of completions, are sent as the text of arrays: a driver in Python takes
-- ten times as long to encode the elements one by one.
select id, run_id, claim_no,
       step_name, 'run' as kind, 'succeeded' as status,
       1 as attempt, output, null as error,
       context, microseconds * 1e-6::float8 as duration,
       null::timestamptz as resume_at, false as is_update, completion_no
  from unnest(:success_id::text::uuid[], :success_run_id::text::uuid[],
              :success_claim_no::text::int[],
              :success_step_name::text::text[], :success_output::text::text[],
              :success_duration::text::bigint[],
              :success_completion_no::text::int[], :success_context::text::text[])
       as success (id, run_id, claim_no,
                   step_name, output, microseconds,
                   completion_no, context)


-- name: flush_step_writes
select *
  from unnest(:step_id::uuid[], :step_run_id::uuid[], :step_claim_no::int[],
              :step_step_name::text[], :step_kind::text[], :step_status::text[],
              :step_attempt::int[], :step_output::text[], :step_error::text[],
              :step_context::text[], :step_duration::float8[],
              :step_resume_at::timestamptz[], :step_update::bool[], :step_completion_no::int[])
       as step (id, run_id, claim_no,
                step_name, kind, status,
                attempt, output, error,
                context, duration,
                resume_at, is_update, completion_no)


-- name: flush_steps
-- Step attempts whose claim still stands; the others are dropped, and then the answer says which
-- were kept. The rows are one or both kinds of the above.
-- The fence is a lock too, the one that the foreign key takes anyway. A claim, a cancellation and
-- whoever else ends a run of others lock it FOR UPDATE, which is what this lock meets: they come
-- before, and then this statement looks again and drops the row although its snapshot is older; or
-- after, and then they see the row. Heartbeats and ends of runs do not meet it.
step as (
    select *
      from ({rows}) as step
     where exists (select from {schema}.workflow_runs run
                    where run.id = step.run_id
                      and run.claim_no = step.claim_no and run.worker_id = :worker_id
                      for key share)
), inserted as (
    -- A statement sent again after a lost connection finds its rows and leaves them.
    insert into {schema}.step_attempts
        (id, workflow_run_id, claim_no, step_name, kind, status, attempt,
         output, error, context, created_at, completed_at, resume_at, completion_no)
    select id, run_id, claim_no, step_name, kind, status, attempt,
           output::jsonb, error::jsonb, context::jsonb,
           now() - make_interval(secs => duration),
           case when status <> 'running' then now() end,
           resume_at, completion_no
      from step
     where not is_update
    on conflict (id) do nothing
), steps as (
    select case when (select count(*) from step) < :steps_count::int
                then array(select id from step) end as steps
)


-- name: flush_steps_first
and (select count(*) from step) >= 0


-- name: flush_updates
-- The ends of attempts that were recorded as running, and of no others: of a result and the next
-- claim's word that the attempt was cut short, the one that comes first stands.
-- A row keeps what its context said from the beginning, and the time that a sleep is over; that it
-- belongs to the claim that ended it says how events and claims relate.
updated as (
    update {schema}.step_attempts attempt
       set status = step.status,
           output = step.output::jsonb,
           error = step.error::jsonb,
           context = coalesce(attempt.context || step.context::jsonb,
                              step.context::jsonb, attempt.context),
           resume_at = coalesce(step.resume_at, attempt.resume_at),
           claim_no = case when step.completion_no is null then attempt.claim_no
                           else step.claim_no end,
           completed_at = case when step.status <> 'running' then now() end,
           completion_no = step.completion_no
      from step
     where step.is_update
       and attempt.id = any (array[step.id]) and (attempt.workflow_run_id = step.run_id) is true
       and (attempt.status = 'running'
            -- A sleep goes on under a new claim: its end stands, not that of the claim before.
            or step.completion_no is not null and attempt.claim_no < step.claim_no)
)


-- name: flush_completions
-- What nearly every run comes to.
select run_id, claim_no, 'succeeded' as status,
       output, null as error, null::timestamptz as available_at,
       null::float8 as delay, null::int as attempts, false as progress,
       null::int as wake_no, false as forever
  from unnest(:completion_run_id::text::uuid[], :completion_claim_no::text::int[],
              :completion_output::text::text[])
       as completion (run_id, claim_no, output)


-- name: flush_run_ends
select *
  from unnest(:end_run_id::uuid[], :end_claim_no::int[], :end_status::text[],
              :end_output::text[], :end_error::text[], :end_available_at::timestamptz[],
              :end_delay::float8[], :end_attempts::int[], :end_progress::bool[],
              :end_wake_no::int[], :end_forever::bool[])
       as ending (run_id, claim_no, status,
                  output, error, available_at,
                  delay, attempts, progress,
                  wake_no, forever)


-- name: flush_ends
-- Runs that finish, park, retry or are handed back. A deadline wakes a run that waits.
-- A run that was woken since its wait began is not parked but due: whichever of the two statements
-- comes first, the other finds its row as the first one left it.
-- One that is paused is set aside: due at no time, until it is resumed.
-- The rows are one or both kinds of the above.
ended as (
    update {schema}.workflow_runs run
       set status = ending.status,
           worker_id = null,
           output = ending.output::jsonb,
           error = case when ending.status = 'pending'
                        then coalesce(ending.error::jsonb, run.error)
                        else ending.error::jsonb end,
           available_at = case when ending.status <> 'pending' then run.available_at
                               when run.paused then 'infinity' else {ends_due} end,
           due_at = case when ending.status = 'pending' and run.paused then {ends_due} end,
           completed_at = case when ending.status <> 'pending' then now() end,
           attempts = coalesce(ending.attempts, run.attempts),
           crashes = case when ending.progress then 0 else run.crashes end
      from ({rows}) as ending
     where run.id = any (array[ending.run_id])
       and run.claim_no = ending.claim_no and run.worker_id = :worker_id {in_turn}
    returning run.id, run.status,
              run.status = 'pending' and run.wake_no > ending.wake_no as is_woken
), notified as (
    -- 200 ids are 7.4 kB; a payload may have 8.
    select pg_notify(:done_channel, string_agg(id::text, ','))
      from (select id, (row_number() over () - 1) / 200 as chunk
              from ended where status <> 'pending') finished
     group by chunk
), due_at_once as (
    -- What woke the run told its worker, which was about to park it; nobody else knows.
    select pg_notify(:work_channel, '') where exists (select from ended where is_woken)
), ends as (
    select case when (select count(*) from ended) < :ends_count::int
                then array(select id from ended) end as ends,
           (select count(*) from notified) + (select count(*) from due_at_once) as ends_told
)


-- name: flush_continuation_rows
select *
  from unnest(:continuation_run_id::uuid[], :continuation_claim_no::int[],
              :continuation_input::text[])
       as continuation (run_id, claim_no, input)


-- name: ends_due
case when run.wake_no > ending.wake_no then now()
                else least(case when ending.forever then coalesce(ending.available_at, 'infinity')
                                else coalesce(ending.available_at,
                                              now() + make_interval(secs => ending.delay),
                                              now()) end,
                           case when not ending.forever or ending.available_at is null
                                then run.deadline_at end) end


-- name: flush_continuations
-- Runs that start afresh with a new input. Their steps go, those at least that are seen here: a row
-- that another statement is about to commit stays, and does not count, as history_from says.
-- Signals that were taken go too, and that those of topics were taken is kept.
continued as (
    update {schema}.workflow_runs run
       set status = 'pending',
           worker_id = null,
           available_at = case when run.paused then 'infinity' else now() end,
           due_at = case when run.paused then now() end,
           input = continuation.input::jsonb,
           output = null,
           error = null,
           attempts = 0,
           crashes = 0,
           history_from = run.claim_no + 1
      from ({rows}) as continuation
     where run.id = any (array[continuation.run_id])
       and run.claim_no = continuation.claim_no and run.worker_id = :worker_id {in_turn}
    returning run.id, run.namespace_id
), forgotten as (
    delete from {schema}.step_attempts
     where workflow_run_id = any (array(select id from continued))
    returning workflow_run_id, kind, context
), signaled as (
    select workflow_run_id, context ->> 'message' as message, context ->> 'topic' as topic
      from forgotten
     where kind = 'signal' and context ->> 'message' is not null
), consumed as (
    delete from {schema}.workflow_messages
     where workflow_run_id = any (array(select workflow_run_id from signaled where topic is null))
       and id::text = any (array(select message from signaled))
), received as (
    insert into {schema}.workflow_subscriptions
        (workflow_run_id, topic, namespace_id, waiting, received)
    select signaled.workflow_run_id, message.name, message.namespace_id, false, array_agg(message.id)
      from signaled
      join continued on continued.id = signaled.workflow_run_id
     cross join lateral (select id, name, namespace_id
                           from {schema}.workflow_messages
                          where workflow_run_id is null and namespace_id = continued.namespace_id
                            and name = signaled.topic and id::text = signaled.message
                          order by message_no
                         offset 0) message
     group by 1, 2, 3
    -- What is not kept any more need not be remembered.
    on conflict (workflow_run_id, topic) do update
       set waiting = false,
           received = excluded.received
                      || array(select id from {schema}.workflow_messages
                                where id = any (workflow_subscriptions.received))
), continuations as (
    select case when (select count(*) from continued) < :continuations_count::int
                then array(select id from continued) end as continuations
)


-- name: flush_wake_rows
select run_id from unnest(:wake_run_id::uuid[]) as wake (run_id)


-- name: flush_wakes
-- Runs that may wait for what has just happened: those that do are due now. A run that nobody has
-- begun waits for nothing but its own time. One that is being executed is found by its number, or
-- hears of it at once: workers of older versions take the message for one of new work.
-- The namespace is spelt so that no index on it is used: on a table that was never analysed the
-- planner would walk the whole namespace instead of the primary key.
woken as (
    update {schema}.workflow_runs
       set wake_no = wake_no + 1,
           available_at = case when status = 'pending' and claim_no > 0 and not paused
                               then least(available_at, now()) else available_at end,
           due_at = case when status = 'pending' and claim_no > 0 and paused
                         then least(due_at, now()) else due_at end
     where id = any (array({rows}))
       and namespace_id || '' = :namespace_id and completed_at is null {in_turn}
    returning id, status
), told as (
    select pg_notify(:work_channel, case when status = 'running'
                                         then 'wake ' || string_agg(id::text, ',') else '' end)
      from (select id, status, (row_number() over () - 1) / 200 as chunk from woken) as chunked
     group by status, chunk
), wakes as (
    select array(select id from woken) as wakes, (select count(*) from told) as wakes_told
)


-- name: flush_leftover_rows
select id, run_id from unnest(:leftover_id::uuid[], :leftover_run_id::uuid[]) as leftover (id, run_id)


-- name: flush_leftovers
-- Rows of a claim that is lost, from the worker that lost it. Such a row may have been on its way
-- when the run was canceled or claimed by another, whose statement could not see it. Of a run that
-- goes on, a sleep may have been taken over: that row is for the claim that ends the run.
closed as (
    update {schema}.step_attempts attempt
       set {interrupted},
           error = '{"type": "Interrupted", "message": "the attempt was cut short: its claim was lost"}'
      from ({rows}) as leftover
     where attempt.id = any (array[leftover.id])
       and (attempt.workflow_run_id = leftover.run_id) is true
       and attempt.status = 'running'
       and exists (select from {schema}.workflow_runs run
                    where run.id = leftover.run_id
                      and (run.completed_at is not null
                           or attempt.kind = 'run' and run.claim_no > attempt.claim_no)
                      offset 0)
    returning attempt.id
), leftovers as (
    select count(*) as leftovers from closed
)


-- name: flush_child_rows
select *
  from unnest(:child_id::uuid[], :child_run_id::uuid[], :child_claim_no::int[],
              :child_step_id::uuid[], :child_number::int[], :child_workflow_name::text[],
              :child_version::text[], :child_input::text[], :child_tags::text[],
              :child_available_at::timestamptz[], :child_delay::float8[],
              :child_deadline_at::timestamptz[], :child_deadline::float8[],
              :child_on_close::text[], :child_wake_at::int[], :child_limits::text[],
              :child_priority::int[], :child_context::text[])
       as child (id, run_id, claim_no,
                 step_id, number, workflow_name,
                 version, input, tags,
                 available_at, delay,
                 deadline_at, deadline,
                 on_close, wake_at, limits, priority, context)


-- name: flush_children
-- Runs that steps start, where the claim of the parent still stands: the fence of steps, again.
-- What a child has of its parent is read here: tags, a priority, and the latest that its deadline
-- may be.
child as (
    select child.*, parent.namespace_id, parent.tags as parent_tags,
           parent.deadline_at as parent_deadline, parent.priority as parent_priority
      from ({rows}) as child
      join {schema}.workflow_runs parent
        on parent.id = any (array[child.run_id])
       and parent.claim_no = child.claim_no and parent.worker_id = :worker_id {in_turn}
       for key share of parent
), child_pauses as (
    select workflow_name
      from {schema}.workflow_pauses
     where namespace_id = :namespace_id
       for share
), child_due as (
    select child.*, coalesce(available_at, now() + make_interval(secs => coalesce(delay, 0))) as due,
           exists (select from child_pauses
                    where child_pauses.workflow_name in ('', child.workflow_name)) as held
      from child
), born as (
    insert into {schema}.workflow_runs
        (id, namespace_id, workflow_name, version, status, config, input, available_at,
         deadline_at, paused, due_at, tags, parent_run_id, limits, priority, context)
    select id, namespace_id, workflow_name, version, 'pending', '{}', input::jsonb,
           case when held then 'infinity' else due end,
           least(coalesce(deadline_at, now() + make_interval(secs => deadline)), parent_deadline),
           held, case when held then due end,
           nullif(coalesce(parent_tags, '{}') || coalesce(tags::jsonb, '{}'), '{}'), run_id,
           string_to_array(limits, chr(30)),
           greatest(priority, parent_priority), context::jsonb
      from child_due
    on conflict (id) do nothing
    returning id
), related as (
    insert into {schema}.workflow_children
        (id, namespace_id, parent_run_id, step_id, number, on_close, wake_at)
    select id, namespace_id, run_id, step_id, number, on_close, wake_at from child
    on conflict do nothing
), children as (
    select case when (select count(*) from child) < :children_count::int
                then array(select id from child) end as children,
           (select pg_notify(:work_channel, '') where exists (select from born)) as children_told
)


-- name: flush_disowned_rows
select step_id, run_id, claim_no
  from unnest(:disowned_step_id::uuid[], :disowned_run_id::uuid[], :disowned_claim_no::int[])
       as disowned (step_id, run_id, claim_no)


-- name: flush_disowned
-- Children of steps that wait for them no more: whoever looks for orphans cancels them.
orphaned as (
    update {schema}.workflow_children child
       set orphaned = true
      from ({rows}) as disowned
     where child.step_id = any (array[disowned.step_id])
       and (child.parent_run_id = disowned.run_id) is true
       and coalesce(child.status, '') = ''
       and exists (select from {schema}.workflow_runs run
                    where run.id = disowned.run_id
                      and run.claim_no = disowned.claim_no and run.worker_id = :worker_id
                      offset 0)
    returning child.id
), disowned as (
    select count(*) as disowned,
           (select pg_notify(:work_channel, 'orphans') where exists (select from orphaned))
               as disowned_told
      from orphaned
)


-- name: flush_orphaned_rows
select run_id, claim_no
  from unnest(:orphaned_run_id::uuid[], :orphaned_claim_no::int[]) as undone (run_id, claim_no)


-- name: flush_families
-- Children of runs that are to be undone, as far as they are to end with them; as above.
ending as (
    update {schema}.workflow_children child
       set orphaned = true
      from ({rows}) as undone
     where child.parent_run_id = any (array[undone.run_id])
       and on_close = 'cancel' and coalesce(child.status, '') = ''
       and exists (select from {schema}.workflow_runs run
                    where run.id = undone.run_id
                      and run.claim_no = undone.claim_no and run.worker_id = :worker_id
                      offset 0)
    returning child.id
), families as (
    select count(*) as families,
           (select pg_notify(:work_channel, 'orphans') where exists (select from ending))
               as families_told
      from ending
)


-- name: flush_steps_read
-- Whether PostgreSQL can read what a row of a step says, if nothing is stored. What it refuses here is
-- the value's fault; what it takes here and refuses there is that of the table.
select count(output::jsonb), count(error::jsonb), count(context::jsonb),
       count(now() - make_interval(secs => duration)), count(resume_at), count(step_name)
  from ({rows}) as step


-- name: flush_ends_read
select count(output::jsonb), count(error::jsonb), count(available_at),
       count(now() + make_interval(secs => delay))
  from ({rows}) as ending


-- name: flush_continuations_read
select count(input::jsonb) from ({rows}) as continuation


-- name: flush_children_read
select count(input::jsonb), count(tags::jsonb), count(available_at), count(deadline_at),
       count(now() + make_interval(secs => delay)), count(now() + make_interval(secs => deadline)),
       count(workflow_name), count(version)
  from ({rows}) as child


-- name: flush_events_read
select count(value::jsonb), count(topic), count(step_name) from ({rows}) as event


-- name: flush_progress_read
select count(status::jsonb), count(counts::jsonb), count(tags::jsonb) from ({rows}) as progress
