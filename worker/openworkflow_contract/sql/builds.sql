-- Who takes new runs, and what becomes of the runs of a build that is retired. `$1` is the namespace,
-- `$2` the build, unless a block says otherwise.


-- name: lock_builds
-- The first statement of a change of who takes new runs: the changes of a namespace take turns, and
-- the statement after this one sees what those before it did. Oldest first, so that a build that
-- is made meanwhile comes after all that somebody may hold.
select from {schema}.workflow_builds
 where namespace_id = $1
 order by created_at, build_id
   for update;


-- name: promote_build
-- $2 takes $3 of a hundred new runs; the build that took the most before takes the others.
-- Nothing changes if $2 is unknown, or if nobody is there for the others.
with main as (
    select build_id
      from {schema}.workflow_builds
     where namespace_id = $1 and build_id <> $2 and takes_to > takes_from
     order by takes_to - takes_from desc, promoted_at desc
     limit 1
)
update {schema}.workflow_builds build
   set takes_from = case when build.build_id = $2 then 0
                         when build.build_id = (select build_id from main) then $3 else 0 end,
       takes_to = case when build.build_id = $2 then $3
                       when build.build_id = (select build_id from main) then 100 else 0 end,
       promoted_at = case when build.build_id = $2 then now() else promoted_at end,
       held_at = case when build.build_id = $2 then null else held_at end
 where namespace_id = $1
   and exists (select from {schema}.workflow_builds
                where namespace_id = $1 and build_id = $2)
   and ($3::smallint = 100 or exists (select from main))
returning build_id, takes_to - takes_from as share;


-- name: hold_build
-- $2 takes no new runs; the build that takes the most beside it takes them all.
-- Nothing changes if there is none, or if $2 is unknown.
with main as (
    select build_id
      from {schema}.workflow_builds
     where namespace_id = $1 and build_id <> $2 and takes_to > takes_from
     order by takes_to - takes_from desc, promoted_at desc
     limit 1
)
update {schema}.workflow_builds build
   set takes_from = 0,
       takes_to = case when build.build_id = (select build_id from main) then 100 else 0 end,
       held_at = case when build.build_id = $2 then now() else held_at end
 where namespace_id = $1
   and exists (select from {schema}.workflow_builds
                where namespace_id = $1 and build_id = $2)
   and exists (select from main)
returning build_id;


-- name: unpin_build
-- One batch of the runs pinned to $2, which any build may continue from now on.
-- Asked for twice: by the index of each status, and again of the row itself, which may have ended
-- meanwhile.
update {schema}.workflow_runs
   set pinned = false
 where status in ('pending', 'running')
   and id in ((select id from {schema}.workflow_runs
                where namespace_id = $1 and build_id = $2 and pinned and status = 'pending'
                limit $3)
              union all
              (select id from {schema}.workflow_runs
                where namespace_id = $1 and build_id = $2 and pinned and status = 'running'
                limit $3))
returning id;


-- name: lock_pinned_runs
-- One batch of the unfinished runs pinned to $2, to end them: steps that are being recorded come
-- before, and are seen by the statement after this one, or not at all. Asked for twice, as when they
-- are moved.
select id
  from {schema}.workflow_runs
 where status in ('pending', 'running')
   and id in ((select id from {schema}.workflow_runs
                where namespace_id = $1 and build_id = $2 and pinned and status = 'pending'
                limit $3)
              union all
              (select id from {schema}.workflow_runs
                where namespace_id = $1 and build_id = $2 and pinned and status = 'running'
                limit $3))
 order by id
   for update;


-- name: fail_build
-- The runs $1, pinned to a build which nobody will continue; they are locked. The fence stops
-- who runs them.
with failed as (
    update {schema}.workflow_runs
       set status = 'failed', worker_id = null, completed_at = now(), error = $2::text::jsonb
     where id = any ($1::uuid[])
    returning id
), interrupted as (
    update {schema}.step_attempts attempt
       set {interrupted}, error = $2::text::jsonb
      from failed
     where attempt.workflow_run_id = failed.id and attempt.status = 'running'
)
select id from failed;


-- name: delete_build
-- If it takes no new runs and none is pinned to it.
delete from {schema}.workflow_builds
 where namespace_id = $1 and build_id = $2 and takes_to = takes_from
   and not exists (select from {schema}.workflow_runs
                    where namespace_id = $1 and build_id = $2 and pinned and status = 'pending')
   and not exists (select from {schema}.workflow_runs
                    where namespace_id = $1 and build_id = $2 and pinned and status = 'running')
returning build_id;
