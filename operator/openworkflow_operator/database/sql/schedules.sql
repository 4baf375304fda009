-- Schedules that a resource declares. Of one that is there, the run of its next instant waits.


-- name: look_at_schedules
-- The schedules that have the names $2, whoever made them, and those that a resource declared and
-- that are not retired, at most $3; a row without a name where there are none. Their next run is
-- found by its primary key.
select clock_timestamp() as now, found.*
  from (select 1) as once
  left join lateral (
       select s.name, s.id, s.source, s.workflow_name, s.version, s.cron, s.time_zone,
              case when s.source = 'resource' and s.name = any ($2::text[])
                   then s.input::text end as input,
              s.overlap, s.catch_up, s.jitter_seconds,
              s.paused_at is not null as is_paused,
              s.retired_at is not null as is_retired,
              case when isfinite(s.next_at) then s.next_at end as next_at,
              s.next_run_id,
              exists (select
                        from {schema}.workflow_runs w
                       where w.id = s.next_run_id and w.completed_at is null) as has_run
         from {schema}.workflow_schedules s
        where s.namespace_id = $1
          and (s.name = any ($2::text[]) or s.source = 'resource' and s.retired_at is null)
        order by s.name = any ($2::text[]) desc, s.name
        limit $3) as found on true


-- name: lock_schedules
-- The first statement of a change of the schedules $2: whoever changes one, or makes one of its
-- runs, does so in turn, and locks runs after schedules. In the same order as the worker's.
select
  from {schema}.workflow_schedules
 where namespace_id = $1 and name = any ($2::text[])
 order by name
   for no key update


-- name: insert_schedule
-- A schedule that a resource declares, and its first run; nothing where the name is taken. The run
-- $12 of the instant $13 is due at $14, when nobody has to be woken to find its time.
with made as (
    insert into {schema}.workflow_schedules
           (namespace_id, name, id, workflow_name, version, source, cron, time_zone, input, overlap,
            catch_up, jitter_seconds, next_at, next_run_id)
    values ($1, $2, $3, $4, $5, 'resource', $6, $7, $8::text::jsonb, $9, $10, $11, $13, $12)
        on conflict (namespace_id, name) do nothing
    returning name, workflow_name, version, input, next_at, next_run_id
)
insert into {schema}.workflow_runs
       (id, namespace_id, workflow_name, version, status, config, input, available_at,
        schedule_name, scheduled_for)
select next_run_id, $1, workflow_name, version, 'pending', '{}', input, $14::timestamptz,
       name, next_at
  from made
returning schedule_name as name


-- name: change_schedule
-- What the schedule $2 is from now on, and where it goes on: its waiting run becomes the run $12 of
-- the instant $13, due at $14 or at no time, as the worker's `place_occurrences` has it. A run that
-- is gone is made anew, one that was claimed in this moment is left to its claim, which waits for
-- us. Nothing is changed where the schedule is not as it was seen ($3, its next run $15), or where
-- there was such a run before.
with schedule as (
    select s.name, s.next_run_id
      from {schema}.workflow_schedules s
     where s.namespace_id = $1 and s.name = $2 and s.id = $3 and s.source = 'resource'
       and s.next_run_id is not distinct from $15::uuid
), current as (
    select w.id, w.status
      from {schema}.workflow_runs w
      join schedule on w.id = schedule.next_run_id
     where w.completed_at is null
       for no key update of w
), moved as (
    update {schema}.workflow_runs w
       set id = $12,
           workflow_name = $4,
           version = $5,
           input = $8::text::jsonb,
           scheduled_for = $13,
           status = 'pending',
           worker_id = null,
           available_at = coalesce($14::timestamptz, 'infinity'),
           created_at = now(),
           started_at = null,
           deadline_at = null,
           attempts = 0,
           crashes = 0,
           build_id = null,
           pinned = false
      from current
     where w.id = current.id and current.status = 'pending'
       and (w.id = $12
            or not exists (select from {schema}.workflow_runs other where other.id = $12))
    returning w.id
), made as (
    insert into {schema}.workflow_runs
           (id, namespace_id, workflow_name, version, status, config, input, available_at,
            schedule_name, scheduled_for)
    select $12, $1, $4, $5, 'pending', '{}', $8::text::jsonb,
           coalesce($14::timestamptz, 'infinity'), schedule.name, $13
      from schedule
     where not exists (select from current)
        on conflict (id) do nothing
    returning id
), placed as (
    select id from moved
     union all
    select id from made
), changed as (
    update {schema}.workflow_schedules s
       set workflow_name = $4,
           version = $5,
           cron = $6,
           time_zone = $7,
           input = $8::text::jsonb,
           overlap = $9,
           catch_up = $10,
           jitter_seconds = $11,
           retired_at = null,
           next_at = case when exists (select from placed) then $13 else s.next_at end,
           next_run_id = case when exists (select from placed) then $12 else s.next_run_id end,
           updated_at = now()
      from schedule
     where s.namespace_id = $1 and s.name = schedule.name
       and (exists (select from placed)
            or exists (select from current where current.status <> 'pending'))
    returning s.name
)
select exists (select from changed) as is_changed, exists (select from schedule) as is_as_seen


-- name: retire_schedules
-- What a resource declared and declares no more, $2, stops, as what is taken out of the code does:
-- it is kept with its counts and its pause, and its waiting run is due at no time.
with retired as (
    update {schema}.workflow_schedules
       set retired_at = now(), updated_at = now()
     where namespace_id = $1 and name = any ($2::text[]) and source = 'resource'
       and retired_at is null
    returning name, next_run_id
), held as (
    update {schema}.workflow_runs w
       set available_at = 'infinity'
      from retired
     where w.id = retired.next_run_id and w.status = 'pending'
)
select name
  from retired
