-- Schedules and their occurrences. `$1` is the namespace throughout.
--
-- Whatever changes a schedule, or makes one of its runs, first locks its row; runs are locked after
-- schedules, never before. So of two at once the second sees what the first did.


-- name: schedule_columns
id, name, workflow_name, version, source, cron, time_zone, input, overlap, catch_up,
       jitter_seconds, {instant paused_at} as paused_at, pause_reason,
       {instant retired_at} as retired_at, {instant next_at} as next_at, next_run_id,
       {instant last_at} as last_at, last_run_id, open_run_ids, queued_run_ids,
       begun, skipped, missed, {instant created_at} as created_at,
       {instant updated_at} as updated_at


-- name: list_schedules
-- All, or those with the names $2, and those that the workflows $3 with the versions $4 are said to
-- have by the source $5.
select {schedule_columns}
  from {schema}.workflow_schedules
 where namespace_id = $1
   and ($2::text[] is null
        or name = any ($2)
        or source = $5
           and (workflow_name, coalesce(version, ''))
               in (select * from unnest($3::text[], $4::text[])))
 order by name;


-- name: lock_schedules
-- Those with the names $2, and those of the runs $3; in one order, so that nobody waits in a circle.
select {schedule_columns}
  from {schema}.workflow_schedules
 where namespace_id = $1
   and name = any ($2::text[] || array(select schedule_name
                                         from {schema}.workflow_runs
                                        where id = any ($3::uuid[]) and schedule_name is not null))
 order by name
   for no key update;


-- name: read_clock
-- The time now, and not when the transaction began: it may have waited for a lock.
select clock_timestamp() as now, $1::text as namespace_id;


-- name: insert_schedule
insert into {schema}.workflow_schedules
    (namespace_id, name, id, workflow_name, version, source, cron, time_zone, input, overlap,
     catch_up, jitter_seconds, paused_at, pause_reason)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::jsonb, $10, $11, $12,
        case when $13::bool then now() end, $14)
on conflict (namespace_id, name) do nothing
returning {schedule_columns};


-- name: change_schedule
-- What it is; whether it is paused is not for this.
update {schema}.workflow_schedules
   set workflow_name = $3, version = $4, source = $5, cron = $6, time_zone = $7,
       input = $8::text::jsonb, overlap = $9, catch_up = $10, jitter_seconds = $11,
       retired_at = null, updated_at = now()
 where namespace_id = $1 and name = $2
returning {schedule_columns};


-- name: pause_schedule
update {schema}.workflow_schedules
   set paused_at = case when $3::bool then coalesce(paused_at, now()) end,
       pause_reason = case when $3 then $4 end,
       updated_at = now()
 where namespace_id = $1 and name = $2
returning {schedule_columns};


-- name: retire_schedule
update {schema}.workflow_schedules
   set retired_at = coalesce(retired_at, now()), updated_at = now()
 where namespace_id = $1 and name = $2
returning {schedule_columns};


-- name: delete_schedule
delete from {schema}.workflow_schedules where namespace_id = $1 and name = $2;


-- name: leads_builds
-- Whether a worker of the build $2 says what is scheduled: that of the build which takes the most
-- new runs, and any where none is promoted.
select coalesce((select build_id
                   from {schema}.workflow_builds
                  where namespace_id = $1 and takes_to > takes_from
                  order by takes_to - takes_from desc, promoted_at desc
                  limit 1), $2) = $2 as leads;


-- name: lock_waiting_runs
-- Those that nobody has claimed.
select id
  from {schema}.workflow_runs
 where id = any ($2::uuid[]) and namespace_id || '' = $1 and status = 'pending'
 order by id
   for no key update;


-- name: lock_claimed_runs
-- Those whose claim by the worker $4 still stands. One that has limits was let begin by the claim that
-- found those out.
select run.id, run.schedule_name, {instant run.scheduled_for} as scheduled_for,
       run.started_at is not distinct from claim.claimed_at and run.limits is null as is_first,
       {instant run.deadline_at} as deadline_at, clock_timestamp() as now
  from unnest($2::uuid[], $3::int[], $5::timestamptz[]) as claim (run_id, claim_no, claimed_at)
  join {schema}.workflow_runs run
    on run.id = claim.run_id and run.claim_no = claim.claim_no and run.worker_id = $4
   and run.namespace_id || '' = $1
 order by run.id
   for no key update of run;


-- name: find_unfinished_runs
-- One that is queued was claimed when its time came, unless a backfill made it.
select id, case when claim_no > 0 then {instant scheduled_for} end as scheduled_for
  from {schema}.workflow_runs
 where id = any ($2::uuid[]) and namespace_id || '' = $1 and completed_at is null;


-- name: place_occurrences
-- The runs $4 of the schedules $2, at the instants $5, due at $6 or at no time. Each is made of the
-- run $3 where there is one, which the caller holds locked. One that was there already is left as
-- it is, and is missing in the answer. $7 is the channel of the workers.
-- A run that is moved may become one of another workflow: it keeps a pause of its own, and heeds
-- that of its workflow when it is claimed, as one that is inserted.
with wish as (
    select wish.*, schedule.workflow_name, schedule.version, schedule.input
      from unnest($2::text[], $3::uuid[], $4::uuid[], $5::timestamptz[], $6::timestamptz[])
           as wish (name, old_id, id, scheduled_for, available_at)
      join {schema}.workflow_schedules schedule
        on schedule.namespace_id = $1 and schedule.name = wish.name
), moved as (
    update {schema}.workflow_runs run
       set id = wish.id, workflow_name = wish.workflow_name, version = wish.version,
           input = wish.input, scheduled_for = wish.scheduled_for, status = 'pending',
           worker_id = null, paused = run.pause is not null,
           available_at = case when run.pause is null then coalesce(wish.available_at, 'infinity')
                               else 'infinity' end,
           due_at = case when run.pause is not null
                         then coalesce(wish.available_at, 'infinity') end,
           created_at = now(), started_at = null, deadline_at = null,
           attempts = 0, crashes = 0, build_id = null, pinned = false
      from wish
     where run.id = wish.old_id
       and (wish.id = wish.old_id
            or not exists (select from {schema}.workflow_runs other where other.id = wish.id))
    returning run.id, run.available_at
), inserted as (
    insert into {schema}.workflow_runs
        (id, namespace_id, workflow_name, version, status, config, input, available_at,
         schedule_name, scheduled_for)
    select id, $1, workflow_name, version, 'pending', '{}', input,
           coalesce(available_at, 'infinity'), name, scheduled_for
      from wish
     where old_id is null
    on conflict (id) do nothing
    returning id, available_at
), placed as (
    select * from moved union all select * from inserted
), notified as (
    select pg_notify($7, '') where exists (select from placed where available_at <= now())
)
select id, (select count(*) from notified) from placed;


-- name: save_occurrences
-- What became of the occurrences of the schedules $2.
update {schema}.workflow_schedules schedule
   set next_at = new.next_at, next_run_id = new.next_run_id,
       last_at = coalesce(new.last_at, schedule.last_at),
       last_run_id = coalesce(new.last_run_id, schedule.last_run_id),
       open_run_ids = new.open_run_ids::uuid[], queued_run_ids = new.queued_run_ids::uuid[],
       begun = new.begun, skipped = new.skipped, missed = new.missed
  from unnest($2::text[], $3::timestamptz[], $4::uuid[], $5::timestamptz[], $6::uuid[],
              $7::text[], $8::text[], $9::bigint[], $10::bigint[], $11::bigint[])
       as new (name, next_at, next_run_id, last_at, last_run_id,
               open_run_ids, queued_run_ids, begun, skipped, missed)
 where schedule.namespace_id = $1 and schedule.name = new.name;


-- name: begin_occurrences
-- The deadline of a run counts from its beginning: its row may be older by a year.
update {schema}.workflow_runs run
   set deadline_at = begun.deadline_at
  from unnest($2::uuid[], $3::timestamptz[]) as begun (id, deadline_at)
 where run.id = begun.id and run.namespace_id || '' = $1;


-- name: queue_occurrences
-- Runs that were claimed and wait for earlier ones: due at no time, and as if nobody had begun them.
update {schema}.workflow_runs
   set status = 'pending', worker_id = null, available_at = 'infinity', started_at = null,
       deadline_at = null, build_id = null, pinned = false
 where id = any ($2::uuid[]) and namespace_id || '' = $1;


-- name: release_occurrences
-- Queued runs whose turn has come. $3 is the channel of the workers.
with released as (
    update {schema}.workflow_runs
       set available_at = case when paused then 'infinity' else now() end,
           due_at = case when paused then now() end
     where id = any ($2::uuid[]) and namespace_id || '' = $1 and status = 'pending'
    returning id
)
select pg_notify($3, '') from (select from released limit 1) found;


-- name: cancel_occurrences
-- Runs that nobody has begun, of a schedule that goes.
update {schema}.workflow_runs
   set status = 'canceled', worker_id = null, completed_at = now()
 where id = any ($2::uuid[]) and namespace_id || '' = $1 and completed_at is null;


-- name: find_broken_schedules
-- Those whose next run is gone, since somebody canceled it or an older program executed it, and
-- those with a queue that nobody is left to release.
select name
  from {schema}.workflow_schedules schedule
 where namespace_id = $1
   and (paused_at is null and retired_at is null
        and not exists (select from {schema}.workflow_runs run
                         where run.id = schedule.next_run_id and run.completed_at is null)
        or cardinality(queued_run_ids) > 0
           and not exists (select from {schema}.workflow_runs run
                            where run.id = any (schedule.open_run_ids)
                              and run.completed_at is null));


-- name: count_late_schedules
-- Occurrences that have been due for more than a minute, and how long the oldest has; but for those
-- that somebody holds back.
select count(*) as schedules,
       coalesce(max(extract(epoch from now() - next_at) - jitter_seconds), 0)::float8 as seconds
  from {schema}.workflow_schedules schedule
 where namespace_id = $1 and paused_at is null and retired_at is null
   and extract(epoch from now() - next_at) - jitter_seconds > 60
   and not exists (select from {schema}.workflow_runs run
                    where run.id = schedule.next_run_id and paused);
