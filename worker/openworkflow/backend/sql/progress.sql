-- What runs tell while they go on: parts of a flush, as those in flush.sql, and how it is read.


-- name: flush_event_rows
select *
  from unnest(:event_run_id::uuid[], :event_claim_no::int[], :event_event_no::int[],
              :event_topic::text[], :event_value::text[], :event_step_name::text[],
              :event_attempt::int[])
       as event (run_id, claim_no, event_no,
                 topic, value, step_name,
                 attempt)


-- name: flush_events
-- Events of runs whose claim still stands: the fence is that of steps, a lock too. A statement that
-- is sent again writes the same once more; and so does a claim what another had sent and not counted,
-- in a batch that was sent row by row. A run has one batch under way at a time, so that
-- nobody reads a number before those below it.
event as (
    select *
      from ({rows}) as event
     where exists (select from {schema}.workflow_runs run
                    where run.id = event.run_id
                      and run.claim_no = event.claim_no and run.worker_id = :worker_id
                      for key share)
), emitted as (
    insert into {schema}.workflow_events
        (workflow_run_id, event_no, topic, value, step_name, attempt)
    select run_id, event_no, topic, value::jsonb, step_name, attempt
      from event
    on conflict (workflow_run_id, event_no) do update
       set topic = excluded.topic, value = excluded.value,
           step_name = excluded.step_name, attempt = excluded.attempt
), heralded as (
    select pg_notify(:events_channel, string_agg(id::text, ','))
      from (select id, (row_number() over () - 1) / 200 as chunk
              from (select distinct run_id as id from event) runs) chunked
     group by chunk
), events as (
    select case when (select count(*) from event) < :events_count::int
                then array(select run_id from event) end as events,
           (select count(*) from heralded) as events_told
)


-- name: flush_progress_rows
select *
  from unnest(:progress_run_id::uuid[], :progress_claim_no::int[], :progress_events::int[],
              :progress_events_from::int[], :progress_counts::text[],
              :progress_has_status::bool[], :progress_status::text[], :progress_tags::text[],
              :progress_forget_before::int[])
       as progress (run_id, claim_no, events,
                    events_from, counts,
                    has_status, status, tags,
                    forget_before)


-- name: flush_progress
-- How far runs have come with what they tell. Tags are in the run's own row, by which it is found.
-- Of a run that has continued as new, events from before the last time but one are forgotten.
progressed as (
    select *
      from ({rows}) as progress
     where exists (select from {schema}.workflow_runs run
                    where run.id = progress.run_id
                      and run.claim_no = progress.claim_no and run.worker_id = :worker_id
                      for key share)
), noted as (
    insert into {schema}.workflow_progress as known
        (workflow_run_id, claim_no, status, status_at, events, events_from, counts)
    select run_id, claim_no, status::jsonb, case when has_status then now() end,
           events, events_from, counts::jsonb
      from progressed
    on conflict (workflow_run_id) do update
       set claim_no = excluded.claim_no,
           status = case when excluded.status_at is null then known.status else excluded.status end,
           status_at = coalesce(excluded.status_at, known.status_at),
           events = excluded.events,
           events_from = excluded.events_from,
           counts = excluded.counts,
           retried = false
), tagged as (
    update {schema}.workflow_runs run
       set tags = coalesce(run.tags, '{}') || progressed.tags::jsonb
      from progressed
     where progressed.tags is not null and run.id = any (array[progressed.run_id])
       and run.claim_no = progressed.claim_no and run.worker_id = :worker_id {in_turn}
), outdated as (
    delete from {schema}.workflow_events old
     using progressed
     where progressed.forget_before is not null
       and old.workflow_run_id = any (array[progressed.run_id]) and old.event_no < progressed.forget_before
), progress as (
    select case when (select count(*) from progressed) < :progress_count::int
                then array(select run_id from progressed) end as progress
)


-- name: flush_events_first
and (select count(*) from event) >= 0


-- name: read_told
-- What these runs have told in earlier claims.
select workflow_run_id, claim_no, events, events_from, counts::text as counts, retried
  from {schema}.workflow_progress
 where workflow_run_id = any ($1::uuid[]);


-- name: read_progress
-- The status that each of these runs has set last, and when.
select progress.workflow_run_id, progress.status::text as status, progress.status_at, progress.events
  from {schema}.workflow_progress progress
  join {schema}.workflow_runs run on run.id = progress.workflow_run_id
 where progress.workflow_run_id = any ($2::uuid[]) and run.namespace_id = $1;


-- name: read_events
-- For each run of $3 the next $5 events from the number of $4 on, of all topics or that of $6, and
-- whether it has ended. Both are of one moment: a run that has ended has told everything before.
with asked as (
    select * from unnest($2::int[], $3::uuid[], $4::int[], $6::text[])
                  as asked (place, run_id, event_no, topic)
)
select asked.place, run.completed_at is not null as ended,
       event.event_no, event.topic, event.value::text as value,
       event.step_name, event.attempt, event.created_at
  from asked
  join {schema}.workflow_runs run on run.id = asked.run_id and run.namespace_id = $1
  left join lateral (
       select *
         from (select *, sum(pg_column_size(value)) over (order by event_no)
                         - coalesce(pg_column_size(value), 0) as before
                 from (select *
                         from {schema}.workflow_events event
                        where event.workflow_run_id = run.id and event.event_no >= asked.event_no
                          and (asked.topic is null or event.topic = asked.topic)
                        order by event.event_no
                        limit $5) following) measured
        where before is null or before < 262144) event on true
 order by asked.place, event.event_no;
