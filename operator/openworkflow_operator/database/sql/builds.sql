-- Looks at builds, and the runs that prove one. What changes builds is said with the worker.


-- name: observe_builds
-- The builds of namespaces, and of each what only it can finish. Bounded like the look at runs:
--   due, waking, next   idx_workflow_runs_pinned   (namespace_id, build_id, available_at)
--                                                  where pinned and pending
--   running             idx_workflow_runs_lease    as many rows as workers have slots
--   canary              idx_workflow_runs_idempotency
--   ended, failed       idx_workflow_runs_namespace, only of the build that is judged
--   new                 idx_workflow_runs_available, past at most 20,000 runs that are pinned
with n as materialized (
    select n.*, new.*
      from unnest($1::text[], $2::int[], $3::int[], $4::float8[], $5::text[], $6::text[], $7::int[])
           as n (namespace_id, due_limit, running_limit, lead, wanted_build, canary_workflow,
                 first_runs)
     cross join lateral (
           select count(*) as new_due,
                  min(q.available_at) as oldest_new_at,
                  exists (select
                            from {schema}.workflow_runs w
                           where w.namespace_id = n.namespace_id and {is_due}
                           order by w.available_at
                          offset 20000) as is_cut
             from (select waits.available_at
                     from (select w.available_at, w.pinned
                             from {schema}.workflow_runs w
                            where w.namespace_id = n.namespace_id and {is_due}
                            order by w.available_at
                            limit 20000) waits
                    where not waits.pinned
                    limit n.due_limit) q
           ) new
)
select n.namespace_id,
       n.new_due,
       {age n.oldest_new_at} as oldest_new_age,
       n.is_cut,
       b.build_id,
       b.takes_to - b.takes_from as share,
       b.takes_to = 100 and b.takes_from < 100 as is_main,
       b.promoted_at is not null as is_promoted,
       b.held_at is not null as is_held,
       {age b.promoted_at} as seconds_since_promotion,
       due.runs as due,
       {age due.oldest_at} as oldest_due_age,
       waking.runs as waking,
       next.seconds as next_wake_seconds,
       running.runs as running,
       canary.status as canary,
       {age canary.created_at} as canary_age,
       first.ended,
       first.failed
  from n
 cross join lateral (
       select *
         from {schema}.workflow_builds
        where namespace_id = n.namespace_id
        order by takes_to > takes_from desc, created_at desc
        limit $8
       ) b
 cross join lateral (
       select count(*) as runs, min(q.available_at) as oldest_at
         from (select w.available_at
                 from {schema}.workflow_runs w
                where {is_of_build} and {is_due}
                order by w.available_at
                limit n.due_limit) q
       ) due
 cross join lateral (
       select count(*) as runs
         from (select 1
                 from {schema}.workflow_runs w
                where {is_of_build} and {is_waking}
                limit n.due_limit) q
       ) waking
 cross join lateral (
       -- Also runs that wait for what has no time: they are left all the same.
       select least(extract(epoch from q.available_at - now()), 1e12)::float8 as seconds
         from (select case when w.available_at = 'infinity' then now() + interval '1000 years'
                           else w.available_at end as available_at
                 from {schema}.workflow_runs w
                where {is_of_build} and w.status = 'pending' and w.available_at > now()
                order by w.available_at
                limit 1) q
        union all
       select null
        limit 1
       ) next
 cross join lateral (
       select count(*) as runs
         from (select 1
                 from {schema}.workflow_runs w
                where {is_of_build} and w.status = 'running'
                limit n.running_limit) q
       ) running
  left join lateral (
       select w.status, w.created_at
         from {schema}.workflow_runs w
        where w.namespace_id = n.namespace_id and w.workflow_name = n.canary_workflow
          and w.idempotency_key = {canary_key} || b.build_id
       ) canary on true
 cross join lateral (
       -- That index begins with the workflow, so the names are hopped through first. Of each, twice
       -- the oldest runs since the promotion that hold `first_runs` of this build are looked at: at
       -- most 10,000, since the CRD has `firstRuns` be at most 50 for each percent of the share.
       with recursive names as (
           select (select min(w.workflow_name)
                     from {schema}.workflow_runs w
                    where w.namespace_id = n.namespace_id) as name
            where n.first_runs > 0 and b.build_id = n.wanted_build and b.promoted_at is not null
              and (b.takes_to - b.takes_from between 1 and 99 or b.held_at is not null)
            union all
           select (select min(w.workflow_name)
                     from {schema}.workflow_runs w
                    where w.namespace_id = n.namespace_id and w.workflow_name > names.name)
             from names
            where names.name is not null
       )
       select count(*) as ended, count(*) filter (where q.status = 'failed') as failed
         from (select seen.status
                 from (select since.build_id, since.status, since.completed_at
                         from names
                        cross join lateral (
                              select w.build_id, w.status, w.completed_at
                                from {schema}.workflow_runs w
                               where w.namespace_id = n.namespace_id
                                 and w.workflow_name = names.name
                                 and w.created_at >= b.promoted_at
                                 and (b.held_at is null or w.created_at <= b.held_at)
                               order by w.created_at
                               limit least(10000, 200 * n.first_runs
                                                  / greatest(b.takes_to - b.takes_from, 1))
                              ) since
                        limit 20000) seen
                where seen.build_id = b.build_id and seen.status in ('succeeded', 'failed')
                order by seen.completed_at
                limit n.first_runs) q
       ) first;


-- name: is_of_build
w.namespace_id = n.namespace_id and w.build_id = b.build_id and w.pinned


-- name: canary_key
-- The idempotency key of the run that proves a build, up to the build's name.
'openworkflow canary '


-- name: start_canary
-- A run of the workflow $3 that only the build $2 may claim. The key makes it one, however often.
insert into {schema}.workflow_runs
       (namespace_id, workflow_name, status, available_at, build_id, pinned, idempotency_key)
values ($1, $3, 'pending', now(), $2, true, {canary_key} || $2)
on conflict do nothing
returning id;


-- name: canary_of_build
-- The canary run of the build $2, if it has not ended. The status is tested twice, as when runs are
-- moved.
status in ('pending', 'running')
and idempotency_key = {canary_key} || $2
and id in (select w.id
             from {schema}.workflow_runs w
            where w.namespace_id = $1 and w.build_id = $2 and w.pinned and w.status = 'pending'
            union all
           select w.id
             from {schema}.workflow_runs w
            where w.namespace_id = $1 and w.build_id = $2 and w.pinned and w.status = 'running')


-- name: lock_canary
-- The first statement of the end of a canary run: steps that are being recorded come before it, and
-- the statement after this one sees them, or not at all.
select from {schema}.workflow_runs
 where {canary_of_build}
   for update;


-- name: stop_canary
-- Canceled without its key, so that it can be started again.
with canceled as (
    update {schema}.workflow_runs
       set status = 'canceled', worker_id = null, completed_at = now(), idempotency_key = null
     where {canary_of_build}
    returning id
), interrupted as (
    {end_canceled_attempts}
)
select id from canceled;
