-- Builds of the user's code. `$1` is the namespace throughout.


-- name: register_build
-- A worker of this build has started.
insert into {schema}.workflow_builds (namespace_id, build_id)
values ($1, $2)
on conflict do nothing;


-- name: serve_workflows
-- What a worker serves, and by a row without a workflow that its build is there. Those that start together write a row once; in the order given, so that
-- two of them cannot wait for each other.
insert into {schema}.workflow_served (namespace_id, workflow_name, version)
select $1, name, version from unnest($2::text[], $3::text[]) as served (name, version)
on conflict (namespace_id, workflow_name, version) do update set seen_at = now()
      where workflow_served.seen_at < now() - interval '1 minute';


-- name: list_builds
-- Newest first, those that only runs still know of included, with the runs pinned to each.
with known as (
    select build_id, takes_to - takes_from as share, created_at, promoted_at, held_at
      from {schema}.workflow_builds
     where namespace_id = $1
), pinned as (
    select build_id, status, available_at
      from {schema}.workflow_runs
     where namespace_id = $1 and pinned and status = 'pending'
    union all
    select build_id, status, available_at
      from {schema}.workflow_runs
     where namespace_id = $1 and pinned and status = 'running'
), counted as (
    select build_id,
           count(*) filter (where status = 'running') as running,
           count(*) filter (where status = 'pending' and available_at <= now()) as due,
           count(*) filter (where status = 'pending' and available_at > now()) as waiting,
           min(available_at) filter (where status = 'pending') as next_due_at
      from pinned
     group by build_id
)
select build_id, coalesce(share, 0) as share, created_at, promoted_at, held_at,
       coalesce(running, 0) as running, coalesce(due, 0) as due,
       coalesce(waiting, 0) as waiting, {instant next_due_at} as next_due_at
  from known full join counted using (build_id)
 order by created_at desc nulls last, build_id;
