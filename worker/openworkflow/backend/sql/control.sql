-- What people do with runs that others execute: ask why one is not done.


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
