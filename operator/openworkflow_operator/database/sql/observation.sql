-- Looks at the runs of all namespaces of a database. Every part is an index scan that stops at a
-- limit, so a million pending runs cost what the limit costs.


-- name: observe_runs
--   due, waking, next   idx_workflow_runs_available   (namespace_id, available_at) where pending
--   running, sample     idx_workflow_runs_lease       (namespace_id, available_at) where running
-- A run that waits for a signal or a child has available_at = infinity and is never due.
select n.namespace_id,
       due.runs as due,
       {age due.oldest_at} as oldest_due_age,
       waking.runs as waking,
       next.seconds as next_wake_seconds,
       running.runs as running,
       running.by_pod,
       sample.mean_age as mean_running_age
  from unnest($1::text[], $2::int[], $3::int[], $4::float8[])
       as n (namespace_id, due_limit, running_limit, lead)
 cross join lateral (
       select count(*) as runs, min(q.available_at) as oldest_at
         from (select w.available_at
                 from {schema}.workflow_runs w
                where w.namespace_id = n.namespace_id and {is_due}
                order by w.available_at
                limit n.due_limit) q
       ) due
 cross join lateral (
       select count(*) as runs
         from (select 1
                 from {schema}.workflow_runs w
                where w.namespace_id = n.namespace_id and {is_waking}
                limit n.due_limit) q
       ) waking
 cross join lateral (
       select extract(epoch from min(w.available_at) - now())::float8 as seconds
         from {schema}.workflow_runs w
        where w.namespace_id = n.namespace_id and w.status = 'pending'
          and w.available_at > now() and w.available_at < 'infinity'
       ) next
 cross join lateral (
       select coalesce(sum(p.runs), 0)::bigint as runs,
              coalesce(jsonb_object_agg(p.pod, p.runs) filter (where p.place <= 2000), '{}')::text
              as by_pod
         from (
              -- A worker's id is its pod's name, a slash and a random part. Anything can be in the
              -- column: the answer has as many pods as a fleet can have, and names as long as
              -- theirs can be.
              select left(split_part(coalesce(q.worker_id, ''), '/', 1), 253) as pod,
                     count(*) as runs,
                     row_number() over (order by count(*) desc) as place
                from (select w.worker_id
                        from {schema}.workflow_runs w
                       where w.namespace_id = n.namespace_id and w.status = 'running'
                       order by w.available_at desc
                       limit n.running_limit) q
               group by 1
              ) p
       ) running
 cross join lateral (
       -- Only runs in their first claim: others may have slept since they started.
       select avg(extract(epoch from now() - q.started_at)) filter (where q.claim_no = 1)::float8
              as mean_age
         from (select w.started_at, w.claim_no
                 from {schema}.workflow_runs w
                where w.namespace_id = n.namespace_id and w.status = 'running'
                order by w.available_at desc
                limit 100) q
       ) sample;


-- name: is_due
w.status = 'pending' and w.available_at <= now()


-- name: is_waking
-- Due within the lead of the namespace `n`.
w.status = 'pending'
and w.available_at > now() and w.available_at <= now() + n.lead * interval '1 second'


-- name: said
-- What some worker has said that it serves, in the namespaces $1: workers repeat it every ten
-- minutes, and what was not repeated for an hour, while others were, is served no more.
said as materialized (
    select s.namespace_id, s.workflow_name, s.version
      from unnest($1::text[]) as n (namespace_id)
     cross join lateral (
           select q.*, max(q.seen_at) over () as last_seen_at
             from (select w.namespace_id, w.workflow_name, w.version, w.seen_at
                     from {schema}.workflow_served w
                    where w.namespace_id = n.namespace_id and w.workflow_name <> '' -- no build
                    limit 2000) q
           ) s
     where s.seen_at > s.last_seen_at - interval '1 hour'
)


-- name: observe_served
-- Of the runs that wait, those that some worker has said it serves.
-- Bounded: idx_workflow_runs_claim has the runs of each workflow, for each build and for none
--   (namespace_id, build or '', workflow_name, version or '', available_at) where pending
with {said}
select n.namespace_id,
       due.runs as due,
       fresh.runs as new_due,
       waking.runs as waking,
       {age oldest.available_at} as oldest_due_age,
       {age oldest.new_available_at} as oldest_new_age
  from unnest($1::text[], $2::int[], $3::float8[]) as n (namespace_id, due_limit, lead)
 cross join lateral (
       select array_agg(b.build_id) as builds
         from ((select '' as build_id)
               union all
               (select w.build_id
                  from {schema}.workflow_builds w
                 where w.namespace_id = n.namespace_id
                 order by w.created_at desc
                 limit 500)) b
       ) known
 cross join lateral (
       select min(head.available_at) as available_at,
              min(head.available_at) filter (where b.build_id = '') as new_available_at
         from said
        cross join unnest(known.builds) as b (build_id)
        cross join lateral (
              select w.available_at
                from {schema}.workflow_runs w
               where {is_in_queue} and {is_due}
               order by w.available_at
               limit 1
              ) head
        where said.namespace_id = n.namespace_id
       ) oldest
 cross join lateral (
       select count(*) as runs
         from (select 1 {from_queues} and {is_due} limit n.due_limit) q
       ) due
 cross join lateral (
       select count(*) as runs
         from (select 1 {from_queues} and b.build_id = '' and {is_due} limit n.due_limit) q
       ) fresh
 cross join lateral (
       select count(*) as runs
         from (select 1 {from_queues} and {is_waking} limit n.due_limit) q
       ) waking
 where exists (select from said where said.namespace_id = n.namespace_id);


-- name: from_queues
-- The runs of each workflow that is served, of each build that is known and of none.
  from said
 cross join unnest(known.builds) as b (build_id)
 cross join {schema}.workflow_runs w
 where said.namespace_id = n.namespace_id and {is_in_queue}


-- name: is_in_queue
-- Said as the index does.
w.namespace_id = n.namespace_id
and case when w.pinned then w.build_id else '' end = b.build_id
and w.workflow_name = said.workflow_name and coalesce(w.version, '') = said.version


-- name: observe_unserved
-- Which workflows those of the due runs are of that no worker says it serves: a few names, for
-- people. Asked only where there are such runs; of the first thousand that are due.
with {said}
select n.namespace_id,
       (select coalesce(jsonb_agg(left(few.workflow, 200) order by few.workflow), '[]')::text
          from (select distinct due.workflow_name || coalesce(' ' || due.version, '') as workflow
                  from (select w.workflow_name, w.version
                          from {schema}.workflow_runs w
                         where w.namespace_id = n.namespace_id and {is_due}
                         order by w.available_at
                         limit 1000) due
                 where not exists (
                       select
                         from said
                        where said.namespace_id = n.namespace_id
                          and said.workflow_name = due.workflow_name
                          and said.version = coalesce(due.version, ''))
                 order by 1
                 limit 5) few) as workflows
  from unnest($1::text[]) as n (namespace_id);
