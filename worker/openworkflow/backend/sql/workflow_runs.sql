-- The life of a workflow run: created, extended, canceled, retried, and what people ask about it.
-- Claims are in claim.sql, ends in flush.sql with everything else that a worker writes.
--
-- `{schema}` stands for the quoted schema. Every write of a claimed run carries the fence
--     claim_no = <this claim> and worker_id = <this worker>
-- and names no status: with `status = 'running'` in it the planner of a never analysed table picks
-- the index on leases instead of the primary key, which costs most of the throughput.
-- `= any (array(select ..))` instead of a join is deliberate too, for the same reason.


-- name: create_workflow_runs
-- Many runs of a kind in one statement. A run whose idempotency key is taken is left out of the
-- answer. $12 is the channel of the workers, NULL where they are to be told later.
-- Where their workflow is paused they are set aside; a resume waits until they are there to be seen.
with {create_due}, created as (
    insert into {schema}.workflow_runs ({create_columns})
    select {create_values}
      from unnest($9::uuid[], $10::text[], $11::text[]) as run (id, input, idempotency_key)
    {create_once}
), {create_told}
select id, (select count(*) from notified) from created;


-- name: create_detailed_runs
-- The same for runs that name limits, those of each joined by U+001E, or were started in a trace.
with {create_due}, created as (
    insert into {schema}.workflow_runs ({create_columns}, limits, context)
    select {create_values}, string_to_array(run.limits, chr(30)), run.context::jsonb
      from unnest($9::uuid[], $10::text[], $11::text[], $15::text[], $16::text[])
           as run (id, input, idempotency_key, limits, context)
    {create_once}
), {create_told}
select id, (select count(*) from notified) from created;


-- name: create_due
pauses as (
    select from {schema}.workflow_pauses
     where namespace_id = $1 and workflow_name in ('', $2)
       for share
), due as (
    select coalesce($5::timestamptz, now() + coalesce($6::interval, interval '0')) as due,
           exists (select from pauses) as held
)


-- name: create_columns
id, namespace_id, workflow_name, version, status, config, input,
         available_at, deadline_at, idempotency_key, paused, due_at, tags, priority


-- name: create_values
id, $1, $2, $3, 'pending', $4::text::jsonb, input::jsonb,
           case when (select held from due) then 'infinity' else (select due from due) end,
           coalesce($7::timestamptz, now() + $8::interval),
           idempotency_key,
           (select held from due),
           case when (select held from due) then (select due from due) end,
           $13::text::jsonb, $14::int


-- name: create_once
on conflict (namespace_id, workflow_name, idempotency_key) where idempotency_key is not null
       do nothing
    returning id


-- name: create_told
notified as (
    select pg_notify($12, '') where $12::text is not null and exists (select from created)
)


-- name: release_idempotency_keys
-- Keys older than the period they are honoured for may be used again.
update {schema}.workflow_runs run
   set idempotency_key = null
  from unnest($2::text[], $3::text[]) as used (workflow_name, idempotency_key)
 where run.namespace_id = $1
   and run.workflow_name = used.workflow_name
   and run.idempotency_key = used.idempotency_key
   and run.created_at < now() - $4::interval;


-- name: find_idempotent_runs
-- The runs that hold these keys.
select run.workflow_name, run.idempotency_key, run.id, run.status
  from unnest($2::text[], $3::text[]) as used (workflow_name, idempotency_key)
  join {schema}.workflow_runs run
    on run.namespace_id = $1
   and run.workflow_name = used.workflow_name
   and run.idempotency_key = used.idempotency_key;


-- name: extend_leases
-- The heartbeat: one statement for all runs of a worker. Answers which claims still stand.
-- A row that is locked is being ended or canceled; waiting for it could deadlock. If its lease is
-- over, it may as well be somebody's claim that is not committed yet: not known until asked again.
-- The lease counts from when it is written, not from before a wait for a lock on the table.
with claim as (
    select * from unnest($1::uuid[], $2::int[]) as claim (run_id, claim_no)
), unlocked as (
    select run.id
      from claim
      join {schema}.workflow_runs run
        on run.id = any (array[claim.run_id])
       and run.claim_no = claim.claim_no and run.worker_id = $4
       for no key update of run skip locked
), extended as (
    update {schema}.workflow_runs
       set available_at = clock_timestamp() + $3::interval
     where id = any (array(select id from unlocked))
)
select claim.run_id, claim.claim_no,
       run.available_at <= clock_timestamp()
       and run.id <> all (array(select id from unlocked)) as unknown
  from claim
  join {schema}.workflow_runs run
    on run.id = any (array[claim.run_id])
   and run.claim_no = claim.claim_no and run.worker_id = $4;


-- name: release_workflow_runs
-- Hands back runs that this worker was given by a statement whose answer never arrived; with $4
-- only those whose lease has run out. What is paused is set aside.
update {schema}.workflow_runs
   set status = 'pending', worker_id = null,
       available_at = case when paused then 'infinity' else now() end,
       due_at = case when paused then now() end
 where id = any (array(select id
                         from {schema}.workflow_runs
                        where status = 'running' and namespace_id = $1 and worker_id = $2
                          and id <> all ($3::uuid[])
                          and (not $4::bool or available_at < now())
                        order by available_at
                          for update skip locked))
returning id;


-- name: keep_whole_claims
-- On a server that took over, or went back to an earlier time: which claims of a worker stand there,
-- with all that it was told is recorded; and which lack some of it, rather than be over. A run that
-- lacks something is handed back, to be replayed from what is there. A number of which the server
-- has not heard is not given a second time: what was done under it may still be on its way. That is
-- also so where it knows an earlier claim of this worker, which is handed back then.
-- Only rows that are changed are locked: else one that somebody has open would hold up all runs.
with claim as (
    select * from unnest($1::uuid[], $2::int[], $3::timestamptz[], $4::bigint[])
                  as claim (run_id, claim_no, deadline_at, told)
), lacking as (
    select run_id
      from unnest($5::uuid[], $6::uuid[], $7::bool[]) as recorded (run_id, id, is_over)
     where not exists (select from {schema}.step_attempts attempt
                        where attempt.id = recorded.id
                          and (attempt.status <> 'running' or not recorded.is_over)
                       offset 0)
     union all
    select run_id
      from claim
     where told > coalesce((select events + (select coalesce(sum(value::bigint), 0)
                                               from jsonb_each_text(counts))
                              from {schema}.workflow_progress progress
                             where workflow_run_id = any (array[claim.run_id])
                               and progress.claim_no = claim.claim_no), 0)
), mine as (
    select run.id, claim.claim_no, run.id in (select run_id from lacking) as lacks
      from claim
      join {schema}.workflow_runs run
        on run.id = any (array[claim.run_id])
       and run.claim_no = claim.claim_no and run.worker_id = $8
), released as (
    update {schema}.workflow_runs run
       set status = 'pending', worker_id = null,
           available_at = case when paused then 'infinity' else now() end,
           due_at = case when paused then now() end
      from mine
     where run.id = any (array[mine.id]) and mine.lacks
       and run.claim_no = mine.claim_no and run.worker_id = $8
), numbered as (
    update {schema}.workflow_runs run
       set claim_no = claim.claim_no, deadline_at = coalesce(run.deadline_at, claim.deadline_at),
           status = 'pending', worker_id = null,
           available_at = case when run.worker_id is null then run.available_at
                               when run.paused then 'infinity' else now() end,
           due_at = case when run.worker_id is null then run.due_at when run.paused then now() end
      from claim
     where run.id = any (array[claim.run_id]) and run.claim_no < claim.claim_no
       and (run.worker_id is null or run.worker_id = $8) and run.completed_at is null
)
select claim.run_id, claim.claim_no,
       claim.run_id in (select id from mine where not lacks) as stands,
       coalesce(run.claim_no < claim.claim_no, true)
       or claim.run_id in (select id from mine where lacks) as lacks
  from claim
  left join {schema}.workflow_runs run on run.id = any (array[claim.run_id]);


-- name: take_back_crashes
-- Of claims that were taken over while their worker could not reach the database: it is alive, so
-- that was no crash. A count that a recorded step has ended by now stays as it is.
update {schema}.workflow_runs run
   set crashes = crashes - 1
  from unnest($1::uuid[], $2::int[]) as claim (run_id, claim_no)
 where run.id = any (array[claim.run_id]) and run.claim_no > claim.claim_no
   and run.crashes > 0 and run.completed_at is null
returning run.id;


-- name: list_unknown_runs
-- What release_workflow_runs would hand back, but for rows that are locked.
select id
  from {schema}.workflow_runs
 where status = 'running' and namespace_id = $1 and worker_id = $2
   and id <> all ($3::uuid[])
   and (not $4::bool or available_at < now())
 order by available_at;


-- name: next_due
-- Seconds until the next run becomes due after $2, by default now; no row if none will.
select extract(epoch from available_at - now())::float8 as seconds
  from {schema}.workflow_runs
 where status = 'pending' and namespace_id = $1
   and available_at > coalesce($2::timestamptz, now()) and available_at < 'infinity'
 order by available_at
 limit 1;


-- name: lock_workflow_run
-- The first statement of a cancellation: steps that are being recorded come before it or not at all,
-- and the statement after this one sees those that came.
select from {schema}.workflow_runs where id = $2 and namespace_id = $1 for update;


-- name: cancel_workflow_run
{canceled_run};


-- name: canceled_run
-- Whoever runs it hears at once, and so does whoever waits for it.
-- One that has begun steps with an undo is not over yet, unless $5 says so: that it is to be undone
-- is recorded, as the engine does, the claim on it ends, and it is due for whoever takes it next. A
-- second cancellation finds the record.
with it as (
    select id, claim_no, history_from
      from {schema}.workflow_runs
     where id = $2 and namespace_id = $1 and status in ('pending', 'running')
), owing as (
    select it.*,
           exists (select from {schema}.step_attempts attempt
                    where attempt.workflow_run_id = it.id and attempt.kind = 'undo'
                      and attempt.step_name = 'undo'
                      and attempt.claim_no >= it.history_from) as is_decided
      from it
     where not $5::bool
       and exists (select from {schema}.step_attempts attempt
                    where attempt.workflow_run_id = it.id and attempt.kind <> 'undo'
                      and attempt.claim_no >= it.history_from and attempt.context ? 'undo')
), decided as (
    insert into {schema}.step_attempts
        (id, workflow_run_id, claim_no, step_name, kind, status, attempt, output, created_at,
         completed_at)
    select $6, id, claim_no, 'undo', 'undo', 'succeeded', 1, '{"end": "canceled"}', now(), now()
      from owing
     where not is_decided
), undoing as (
    update {schema}.workflow_runs
       set status = 'pending', worker_id = null,
           available_at = case when paused then 'infinity' else now() end,
           due_at = case when paused then now() end
     where id = (select id from owing where not is_decided)
    returning *, pg_notify($3, '')::text as waiting
), canceled as (
    update {schema}.workflow_runs
       set status = 'canceled', worker_id = null, completed_at = now()
     where id = (select id from it) and not exists (select from owing)
    returning *, pg_notify($4, id::text)::text as waiting
), interrupted as (
    {end_canceled_attempts}
), answer as (
    select * from canceled
    union all
    select * from undoing
    union all
    select *, null
      from {schema}.workflow_runs
     where id = (select id from owing where is_decided)
)
select {run_columns}, is_parent,
       case when status <> 'running' then pg_notify($3, 'canceled ' || id::text) end as workers,
       waiting
  from answer;


-- name: get_workflow_run
select {run_columns} from {schema}.workflow_runs where id = $2 and namespace_id = $1;


-- name: find_ended_runs
-- For all who wait in a process. Of $2 those that have ended and those that are not there; of $3,
-- which are among $2, all. Results may be large, so there are no more than $4 at once.
-- The offset keeps it at one walk of the primary key for each, whatever else the table holds.
select run_id as wanted_id, run.*
  from unnest($2::uuid[]) as wanted (run_id)
  left join lateral (select {run_columns}
                       from {schema}.workflow_runs
                      where id = run_id and namespace_id = $1
                     offset 0) run on true
 where run.id is null
    or run.status in ('succeeded', 'failed', 'canceled')
    or run_id = any ($3::uuid[])
 limit $4;


-- name: run_columns
-- Every column that is shown, times within what Python can hold.
{run_facts}, input, output


-- name: run_facts
-- What a list shows: inputs and outputs may be large, and of fifty runs at once.
id, namespace_id, workflow_name, version, status, worker_id, config, context, error,
       {instant available_at} as available_at, {instant deadline_at} as deadline_at,
       {instant created_at} as created_at, {instant completed_at} as completed_at,
       idempotency_key, claim_no, attempts, crashes, {instant started_at} as started_at,
       build_id, pinned, schedule_name, {instant scheduled_for} as scheduled_for,
       forked_from, paused and (limits is null or pause is not null) as paused,
       {instant due_at} as due_at, pause, tags,
       limits, parent_run_id, priority


-- name: list_workflow_runs
-- Newest first. $4 and $5 are the created_at and id of the last run of the page before, as shown.
-- The first test of $4 is for the index; a time too late to be shown passes it on every page.
select {run_columns}
  from {schema}.workflow_runs run
 where namespace_id = $1
   and {list_wanted}
   and {list_page}


-- name: list_failed_runs
-- The same for runs that failed; their index is of use only where its condition is said.
select {run_columns}
  from {schema}.workflow_runs run
 where namespace_id = $1 and status = 'failed'
   and {list_wanted}
   and {list_page}


-- name: list_wanted
($7::text is null or status = $7)
   and ($8::text is null or workflow_name = $8)
   and ($9::text is null or version = $9)
   and ($10::text is null or worker_id = $10)
   and ($11::text is null or build_id = $11)
   and ($12::text is null or schedule_name = $12)
   -- By their table, which has an index on it.
   and ($13::uuid is null
        or id = any (array(select child.id from {schema}.workflow_children child
                            where child.parent_run_id = $13)))


-- name: list_newest_runs
-- The same for runs of all kinds.
{newest_runs}
select {run_columns}
  from {schema}.workflow_runs
 where id = any (array(select id from newest))
 order by created_at desc, id desc;


-- name: newest_runs
-- The ids of the newest runs of a namespace, after a row and within times as above. No index has all
-- of a namespace by their age, but one has those of each workflow: its names are hopped through, and
-- the newest of each are merged.
with recursive names as (
    select (select min(workflow_name) from {schema}.workflow_runs where namespace_id = $1) as name
    union all
    select (select min(workflow_name) from {schema}.workflow_runs
             where namespace_id = $1 and workflow_name > names.name)
      from names
     where names.name is not null
), newest as (
    select run.id
      from names
     cross join lateral (select id, created_at
                           from {schema}.workflow_runs run
                          where namespace_id = $1 and workflow_name = names.name
                            and {list_page}) run
     order by run.created_at desc, run.id desc
     limit $6
)


-- name: list_page
-- Ordered by the column of the table: the one that is shown by its name is an expression, which no
-- index has, so that all runs of a workflow would be read and sorted for a page.
($2::timestamptz is null or created_at >= $2)
   and ($3::timestamptz is null or created_at < $3)
   and created_at <= case when $4::timestamptz < {instant 'infinity'} then $4 else 'infinity' end
   and ($4 is null or ({instant created_at}, id) < ($4, $5::uuid))
 order by run.created_at desc, run.id desc
 limit $6


-- name: count_workflow_runs
select status, count(*) as runs
  from {schema}.workflow_runs
 where namespace_id = $1
 group by status;


-- name: prune_workflow_runs
-- One batch of finished runs, in the order of their ids, after the id $4; their step attempts go
-- with them. Each row of the table is looked at once in a whole prune.
with batch as (
    select id
      from {schema}.workflow_runs run
     where namespace_id = $1 and id > $4
       and status = any ($2::text[]) and completed_at < now() - $3::interval and {not_needed}
     order by id
     limit $5
       for update skip locked
), pruned as (
    delete from {schema}.workflow_runs where id = any (array(select id from batch))
)
select id from batch order by id;


-- name: count_prunable_runs
select count(*)
  from {schema}.workflow_runs run
 where namespace_id = $1
   and status = any ($2::text[]) and completed_at < now() - $3::interval and {not_needed};


-- name: not_needed
-- A child is kept for as long as its parent goes on; a trigger holds everybody to that.
(parent_run_id is null
        or not exists (select from {schema}.workflow_runs parent
                        where parent.id = run.parent_run_id and parent.completed_at is null))
