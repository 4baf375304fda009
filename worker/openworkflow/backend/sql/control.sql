-- What people do with runs that others execute: ask why one is not done, retry it, fork it.


-- name: explain_run
-- A run, and all that its not being done may follow from, at one moment. $3 and $4 are the most
-- waits, and the most runs ahead of it, that are told.
-- Of a step the newest attempt counts: one that runs, or one that is to be repeated.
with it as (
    select id, status, available_at, history_from, workflow_name, coalesce(version, '') as version,
           case when pinned then build_id else '' end as bound_to
      from {schema}.workflow_runs
     where id = $2 and namespace_id = $1
), latest as (
    select distinct on (step_name) attempt.*
      from it
      join {schema}.step_attempts attempt
        on attempt.workflow_run_id = it.id and attempt.claim_no >= it.history_from
     where not {mark interrupted}
     order by step_name, attempt.created_at desc, attempt.id desc
), open as (
    -- What a worker that died was doing, nobody is doing.
    select latest.id, kind, step_name, created_at, resume_at, attempt, error,
           count(*) over () as in_all
      from latest, it
     where latest.status = 'running' and (it.status = 'running' or kind <> 'run')
        or latest.status = 'failed' and resume_at is not null
           and not {mark final} and not {mark canceled}
     order by resume_at nulls last, created_at, latest.id
     limit $3
), waits as (
    select array_agg(id) as wait_ids, array_agg(kind) as wait_kinds,
           array_agg(step_name) as wait_names,
           array_agg({instant created_at}) as wait_since,
           array_agg({instant resume_at}) as wait_until,
           array_agg(attempt) as wait_attempts, array_agg(error::text) as wait_errors,
           coalesce(max(in_all), 0) as waits_in_all
      from open
), ahead as (
    select count(*) as ahead
      from (select
              from it
              join {schema}.workflow_runs other
                on other.namespace_id = $1 and other.status = 'pending'
               and case when other.pinned then other.build_id else '' end = it.bound_to
               and other.workflow_name = it.workflow_name
               and coalesce(other.version, '') = it.version
               and other.available_at < it.available_at
             where it.status = 'pending' and it.available_at <= now()
             limit $4) counted
), takers as (
    select array(select build_id
                   from {schema}.workflow_builds, it
                  where namespace_id = $1 and it.bound_to = ''
                    and (uuid_hash(it.id) & 2147483647) % 100 between takes_from and takes_to - 1
                  order by build_id) as takers
), said as (
    select array_agg(workflow_name) as served_names, array_agg(version) as served_versions
      from ({served_now}) served
)
select {run_columns}, now() as now, waits.*, ahead.ahead, takers.takers, said.*
  from {schema}.workflow_runs run, waits, ahead, takers, said
 where run.id = (select it.id from it);


-- name: list_served
{served_now};


-- name: served_now
-- What workers say that they serve. They repeat it every ten minutes; what was not repeated for an
-- hour, while others were, is served no more.
select workflow_name, version
  from {schema}.workflow_served
 where namespace_id = $1
   and seen_at > (select max(seen_at) from {schema}.workflow_served where namespace_id = $1)
                 - interval '1 hour'
 order by workflow_name, version
 limit 2000


-- name: diagnose_unserved
-- Due runs that no worker says it serves, by what they are: none where no worker says anything.
with served as (
    {served_now}
), unserved as (
    select workflow_name, coalesce(version, '') as version, count(*) as runs,
           min(available_at) as oldest
      from {schema}.workflow_runs run
     where namespace_id = $1 and status = 'pending' and available_at <= now()
       and exists (select from served)
       and not exists (select from served
                        where served.workflow_name = run.workflow_name
                          and served.version = coalesce(run.version, ''))
     group by 1, 2
)
select workflow_name, version, runs,
       extract(epoch from now() - {instant oldest})::float8 as oldest
  from unserved
 order by unserved.oldest
 limit 100;


-- name: retry_workflow_run
-- Back to pending. Recorded successes stay, so the run goes on where it stopped. The steps that
-- the error names, because their failure ended the run, are tried afresh. Older versions named
-- none: then it is those whose retries were spent with no other step begun afterwards.
-- $4 is the claim that ended, so that to repeat this is to do it once.
-- With $5 only those rows count from now on: the others get a claim below zero, where no replay
-- looks, and stay for people to see.
with stopped as (
    select id, claim_no, error -> 'steps' as steps
      from {schema}.workflow_runs
     where id = $2 and namespace_id = $1 and status in ('failed', 'canceled') and claim_no = $4
       for update
), discarded as (
    update {schema}.step_attempts attempt
       set claim_no = -1 - attempt.claim_no,
           context = coalesce(attempt.context, '{}') || '{"discarded": true}'
      from stopped
     where $5::uuid[] is not null and attempt.workflow_run_id = stopped.id
       and attempt.claim_no >= 0 and attempt.id <> all ($5)
), retried as (
    update {schema}.workflow_runs run
       set status = 'pending', worker_id = null, available_at = now(),
           attempts = 0, crashes = 0, error = null, completed_at = null, deadline_at = null
      from stopped
     where run.id = stopped.id
    returning run.*
), reopened as (
    update {schema}.step_attempts attempt
       set context = (attempt.context - 'final')
                     || jsonb_build_object('reopened', true, 'reopened_at', stopped.claim_no)
      from stopped
     where $5 is null and attempt.workflow_run_id = stopped.id
       and attempt.status = 'failed' and attempt.context @> '{"final": true}'
       and case when jsonb_typeof(stopped.steps) = 'array'
                then stopped.steps ? attempt.step_name
                else not exists (select from {schema}.step_attempts later
                                  where later.workflow_run_id = attempt.workflow_run_id
                                    and later.step_name <> attempt.step_name
                                    and later.created_at > attempt.completed_at) end
)
select {run_columns}, pg_notify($3, '') as workers from retried;


-- name: fork_workflow_run
-- A new run $3 of the kind of $2, with these rows of its history: $9 become $10, and where $11 says
-- so, with the result of $12 in place of theirs. Claims and the numbers of events stay as they are,
-- so that they mean the same. $4 is the history that was looked at: a run that has continued as new
-- since has another. With $5 the version is $6, with $13 the input $7; $8 is the build to bind it to.
-- A statement that is sent again finds the run, and does nothing.
with forked as (
    insert into {schema}.workflow_runs
        (id, namespace_id, workflow_name, version, status, config, context, input, tags,
         available_at, deadline_at, claim_no, history_from, build_id, pinned, forked_from)
    select $3, namespace_id, workflow_name, case when $5::bool then $6 else version end,
           'pending', config, context, case when $13::bool then $7::text::jsonb else input end, tags,
           now(), now() + (deadline_at - created_at), claim_no, history_from,
           $8, $8::text is not null, id
      from {schema}.workflow_runs
     where id = $2 and namespace_id = $1 and history_from = $4::int
    on conflict (id) do nothing
    returning *
), copied as (
    insert into {schema}.step_attempts
        (id, workflow_run_id, claim_no, step_name, kind, status, attempt, config,
         context, output, error, created_at, completed_at, resume_at, completion_no)
    select copy.id, forked.id, attempt.claim_no, step_name, kind,
           case when is_given then 'succeeded' else attempt.status end, attempt, attempt.config,
           case when is_given then coalesce(attempt.context, '{}') - 'final' || '{"overridden": true}'
                else attempt.context end,
           case when is_given then copy.output::jsonb else attempt.output end,
           case when not is_given then attempt.error end,
           attempt.created_at, attempt.completed_at, resume_at, completion_no
      from unnest($9::uuid[], $10::uuid[], $11::bool[], $12::text[])
               as copy (source_id, id, is_given, output)
      join {schema}.step_attempts attempt
        on attempt.id = copy.source_id and attempt.workflow_run_id = $2
     cross join forked
)
select {run_columns}, pg_notify($14, '') as workers from forked;


-- name: get_history_from
select history_from from {schema}.workflow_runs where id = $2 and namespace_id = $1;
