-- What the runs of one worker gathered, and its next claim: one round trip, one commit.
--
-- The parts that a flush needs are joined into one statement,
--     with <parts> select now(), steps.*, ends.*, claim.* from steps, ends, claim
-- so that one which carries a single step does not pay for the rest. `:name` is a parameter.
-- All parts see the database as it was before the statement.


-- name: flush_step_successes
-- What nearly every step is: one attempt that succeeded, with no row to say that it had begun.
select id, run_id, claim_no,
       step_name, 'run' as kind, 'succeeded' as status,
       1 as attempt, output, null as error,
       null as context, duration,
       null::timestamptz as resume_at, false as is_update
  from unnest(:success_id::uuid[], :success_run_id::uuid[], :success_claim_no::int[],
              :success_step_name::text[], :success_output::text[], :success_duration::float8[])
       as success (id, run_id, claim_no,
                   step_name, output, duration)


-- name: flush_step_writes
select *
  from unnest(:step_id::uuid[], :step_run_id::uuid[], :step_claim_no::int[],
              :step_step_name::text[], :step_kind::text[], :step_status::text[],
              :step_attempt::int[], :step_output::text[], :step_error::text[],
              :step_context::text[], :step_duration::float8[],
              :step_resume_at::timestamptz[], :step_update::bool[])
       as step (id, run_id, claim_no,
                step_name, kind, status,
                attempt, output, error,
                context, duration,
                resume_at, is_update)


-- name: flush_steps
-- Step attempts whose claim still stands; the others are dropped, and then the answer says which
-- were kept. The rows are one or both kinds of the above.
step as (
    select *
      from ({rows}) as step
     where exists (select from {schema}.workflow_runs run
                    where run.id = step.run_id
                      and run.claim_no = step.claim_no and run.worker_id is not null)
), inserted as (
    -- A statement sent again after a lost connection finds its rows and leaves them.
    insert into {schema}.step_attempts
        (id, workflow_run_id, claim_no, step_name, kind, status, attempt,
         output, error, context, created_at, completed_at, resume_at)
    select id, run_id, claim_no, step_name, kind, status, attempt,
           output::jsonb, error::jsonb, context::jsonb,
           now() - make_interval(secs => duration),
           case when status <> 'running' then now() end,
           resume_at
      from step
     where not is_update
    on conflict (id) do nothing
), steps as (
    select case when (select count(*) from step) < :step_count::int
                then array(select id from step) end as steps
)


-- name: flush_updates
-- The ends of attempts that were recorded as running. A row keeps the claim that began it.
updated as (
    update {schema}.step_attempts attempt
       set status = step.status,
           output = step.output::jsonb,
           error = step.error::jsonb,
           context = coalesce(step.context::jsonb, attempt.context),
           resume_at = step.resume_at,
           completed_at = case when step.status <> 'running' then now() end
      from step
     where step.is_update
       and attempt.id = step.id and attempt.workflow_run_id = step.run_id
)


-- name: flush_completions
-- What nearly every run comes to.
select run_id, claim_no, 'succeeded' as status,
       output, null as error, null::timestamptz as available_at,
       null::float8 as delay, null::int as attempts, false as progress
  from unnest(:completion_run_id::uuid[], :completion_claim_no::int[], :completion_output::text[])
       as completion (run_id, claim_no, output)


-- name: flush_run_ends
select *
  from unnest(:end_run_id::uuid[], :end_claim_no::int[], :end_status::text[],
              :end_output::text[], :end_error::text[], :end_available_at::timestamptz[],
              :end_delay::float8[], :end_attempts::int[], :end_progress::bool[])
       as ending (run_id, claim_no, status,
                  output, error, available_at,
                  delay, attempts, progress)


-- name: flush_ends
-- Runs that finish, park, retry or are handed back. A deadline wakes a run that waits.
-- The rows are one or both kinds of the above.
ended as (
    update {schema}.workflow_runs run
       set status = ending.status,
           worker_id = null,
           output = ending.output::jsonb,
           error = case when ending.status = 'pending'
                        then coalesce(ending.error::jsonb, run.error)
                        else ending.error::jsonb end,
           available_at = case when ending.status = 'pending'
                               then least(coalesce(ending.available_at,
                                                   now() + make_interval(secs => ending.delay),
                                                   now()),
                                          run.deadline_at)
                               else run.available_at end,
           completed_at = case when ending.status <> 'pending' then now() end,
           attempts = coalesce(ending.attempts, run.attempts),
           crashes = case when ending.progress then 0 else run.crashes end
      from ({rows}) as ending
     where run.id = ending.run_id
       and run.claim_no = ending.claim_no and run.worker_id is not null
    returning run.id, run.status
), notified as (
    -- 200 ids are 7.4 kB; a payload may have 8.
    select pg_notify(:done_channel, string_agg(id::text, ','))
      from (select id, (row_number() over () - 1) / 200 as chunk
              from ended where status <> 'pending') finished
     group by chunk
), ends as (
    select case when (select count(*) from ended) < :end_count::int
                then array(select id from ended) end as ends,
           (select count(*) from notified) as notifications
)


-- name: flush_claim
-- Leases that ran out go first, or a steady backlog would keep them waiting for ever.
-- A workflow is served if its name and version, joined by a separator, are among :claim_keys.
-- Runs that are pinned belong to their build; the others to the builds that take their bucket.
route as (
    select coalesce(min(takes_from) filter (where build_id = :build_id), 0) as takes_from,
           case when coalesce(max(takes_to), 0) = 0 then 100
                else coalesce(max(takes_to) filter (where build_id = :build_id), 0)
           end as takes_to
      from {schema}.workflow_builds
     where namespace_id = :namespace_id
), expired as (
    select id, available_at
      from {schema}.workflow_runs
     where status = 'running' and namespace_id = :namespace_id and available_at <= now()
       and workflow_name || chr(31) || coalesce(version, '') = any (:claim_keys::text[])
       and case when pinned then build_id = :build_id
                else (uuid_hash(id) & 2147483647) % 100 >= (select takes_from from route)
                 and (uuid_hash(id) & 2147483647) % 100 < (select takes_to from route) end
     order by available_at
     limit :claim_limit
       for update skip locked
), own as (
    select id, available_at
      from {schema}.workflow_runs
     where pinned and status = 'pending' and namespace_id = :namespace_id
       and build_id = :build_id and available_at <= now()
       and workflow_name || chr(31) || coalesce(version, '') = any (:claim_keys::text[])
     order by available_at
     limit :claim_limit - (select count(*) from expired)
       for update skip locked
), due as (
    select id, available_at
      from {schema}.workflow_runs
     where status = 'pending' and namespace_id = :namespace_id and available_at <= now()
       and workflow_name || chr(31) || coalesce(version, '') = any (:claim_keys::text[])
       and not pinned
       and (select takes_to from route) > 0
       and ((select takes_to - takes_from from route) = 100
            or (uuid_hash(id) & 2147483647) % 100 >= (select takes_from from route)
           and (uuid_hash(id) & 2147483647) % 100 < (select takes_to from route))
     order by available_at
     limit :claim_limit - (select count(*) from expired) - (select count(*) from own)
       for update skip locked
), taken as (
    select id, available_at, true as recovered from expired
    union all
    select id, available_at, false from own
    union all
    select id, available_at, false from due
), claimed as (
    update {schema}.workflow_runs run
       set status = 'running',
           worker_id = :worker_id,
           claim_no = claim_no + 1,
           available_at = now() + :lease::interval,
           started_at = coalesce(started_at, now()),
           build_id = case
               when pinned then build_id
               when workflow_name || chr(31) || coalesce(version, '')
                    = any (:pinned_keys::text[]) then :build_id
               else coalesce(build_id, :build_id)
           end,
           pinned = pinned
               or workflow_name || chr(31) || coalesce(version, '') = any (:pinned_keys::text[]),
           -- A lease that expired counts as a crash; the count restarts where steps were recorded.
           crashes = case
               when status = 'pending' then crashes
               when exists (select from {schema}.step_attempts attempt
                             where attempt.workflow_run_id = run.id
                               and attempt.claim_no = run.claim_no
                               and attempt.status <> 'running'
                               and attempt.context -> 'interrupted' is null) then 1
               else crashes + 1
           end
     where id = any (array(select id from taken))
    returning id, workflow_name, version, input::text as input,
              claim_no, attempts, crashes, deadline_at
), claim as (
    select array(select id from taken) as taken_ids,
           array(select available_at from taken) as taken_at,
           array(select id from taken where recovered) as recovered_ids,
           array_agg(id) as id, array_agg(workflow_name) as workflow_name,
           array_agg(version) as version, array_agg(input) as input,
           array_agg(claim_no) as claim_no, array_agg(attempts) as attempts,
           array_agg(crashes) as crashes, array_agg(deadline_at) as deadline_at
      from claimed
)
