-- What the dashboard shows beside what others read too. $1 is the namespace throughout.
--
-- It is asked again and again while somebody looks, so nothing here costs more as the tables grow:
-- counts stop at a number, and what is summed up is summed up over the newest runs. The numbers are
-- {most}, written into the text: of a parameter the planner would think that it is a tenth of all.


-- name: board_counts
-- Runs by where they stand, each up to {most}.
select (select count(*)
          from (select from {schema}.workflow_runs
                 where namespace_id = $1 and status = 'pending' and available_at <= now()
                 limit {most}) counted) as due,
       least({most},
             (select count(*)
                from (select from {schema}.workflow_runs
                       where namespace_id = $1 and status = 'pending' and available_at > now()
                         and not (paused and completed_at is null)
                       limit {most}) counted)
             + count(*) filter (where has_limits and not is_limited and available_at > now()))
           as later,
       count(*) filter (where not has_limits) as paused,
       count(*) filter (where has_limits and is_limited) as limited,
       (select count(*)
          from (select from {schema}.workflow_runs
                 where namespace_id = $1 and status = 'running' and available_at > now()
                 limit {most}) counted) as running,
       (select count(*)
          from (select from {schema}.workflow_runs
                 where namespace_id = $1 and status = 'running' and available_at <= now()
                 limit {most}) counted) as lost,
       (select {age due.available_at}
          from (select min(available_at) as available_at
                  from {schema}.workflow_runs
                 where namespace_id = $1 and status = 'pending' and available_at <= now()) due)
           as oldest_due
  from (select limits is not null and pause is null
               and not array['', workflow_name] && array(select paused.workflow_name
                                                           from {schema}.workflow_pauses paused
                                                          where paused.namespace_id = $1)
                   as has_limits,
               -- One that waits for a time, or to be woken, is set aside as well.
               due_at <= now() and available_at > now() as is_limited, available_at
          from {schema}.workflow_runs
         where namespace_id = $1 and paused and completed_at is null
         limit {most}) held;


-- name: board_runs
-- The newest $6 runs before the one that was created at $4 with the id $5, without inputs and outputs.
{newest_runs}
select {run_facts}
  from {schema}.workflow_runs
 where id = any (array(select id from newest))
 order by created_at desc, id desc;


-- name: board_ids
-- Their ids alone.
{newest_runs}
select id from newest;


-- name: board_newest
-- The newest {most} runs of each workflow, of no more than 100 workflows: how they ended and how long
-- they took. No index has all of a namespace by their age, but one has those of each workflow: its
-- names are hopped through.
with recursive names as (
    select (select min(workflow_name) from {schema}.workflow_runs where namespace_id = $1) as name,
           1 as place
    union all
    select (select min(workflow_name) from {schema}.workflow_runs
             where namespace_id = $1 and workflow_name > names.name), place + 1
      from names
     where names.name is not null and place < 100
), newest as (
    select names.name, run.*
      from names
     cross join lateral (select status, {instant created_at} as created_at,
                                {instant started_at} as started_at,
                                {instant completed_at} as completed_at
                           from {schema}.workflow_runs its
                          where namespace_id = $1 and workflow_name = names.name
                          order by its.created_at desc
                          limit {most}) run
)
select name as workflow, count(*) as runs,
       count(*) filter (where status = 'succeeded') as succeeded,
       count(*) filter (where status = 'failed') as failed,
       count(*) filter (where status = 'canceled') as canceled,
       count(*) filter (where status in ('pending', 'running')) as open,
       min(created_at) as since,
       (percentile_cont(array[0.5, 0.95]) within group
           (order by extract(epoch from completed_at - created_at)))::float8[] as seconds,
       array_agg(extract(epoch from now() - created_at)::float8 order by created_at) as begun,
       array_agg(extract(epoch from now() - completed_at)::float8 order by completed_at)
           filter (where status = 'succeeded') as ended_well,
       array_agg(extract(epoch from now() - completed_at)::float8 order by completed_at)
           filter (where status = 'failed') as ended_badly
  from newest
 group by name
 order by name;


-- name: board_failures
-- The newest {most} runs that failed, with as much of each error as tells them apart.
select id, workflow_name, {instant created_at} as created_at, {instant completed_at} as failed_at,
       left(error ->> 'type', 300) as type, left(error ->> 'message', 500) as message,
       right(coalesce(error ->> 'traceback', ''), 1000) as traceback,
       left(error -> 'cause' ->> 'type', 300) as cause
  from {schema}.workflow_runs run
 where namespace_id = $1 and status = 'failed'
 order by run.created_at desc, run.id desc
 limit {most};


-- name: board_steps
-- Step attempts of the run $2, the newest first, before the one that began at $3 with the id $4.
-- Of results and errors no more than $5 characters: a page is for reading.
select id, workflow_run_id, step_name, kind, status, attempt, claim_no, context,
       {instant created_at} as created_at, {instant completed_at} as completed_at,
       {instant resume_at} as resume_at,
       left(output::text, $5) as output, length(output::text) as output_length,
       case when error is not null
            then jsonb_build_object('type', left(error ->> 'type', 300),
                                    'message', left(error ->> 'message', $5),
                                    'traceback', right(error ->> 'traceback', $5)) end as error
  from {schema}.step_attempts attempt
 where workflow_run_id = $2
   and exists (select from {schema}.workflow_runs run
                where run.id = attempt.workflow_run_id and run.namespace_id = $1)
   and created_at <= coalesce($3::timestamptz, 'infinity')
   and ($3 is null or ({instant created_at}, id) < ($3, $4::uuid))
 order by attempt.created_at desc, attempt.id desc
 limit {most};


-- name: board_children
-- The newest $3 runs that the run $2 started; of one with more than {most}, of so many.
select run.id, run.workflow_name, run.status, {instant run.created_at} as created_at,
       {instant run.completed_at} as completed_at
  from (select id
          from (select id from {schema}.workflow_children where parent_run_id = $2 limit {most}) found
         order by id desc
         limit $3) child
  join {schema}.workflow_runs run on run.id = child.id and run.namespace_id = $1
 order by run.created_at desc, run.id desc;


-- name: board_fleet
-- What the operator last said of the fleet.
select resource, {instant reported_at} as reported_at, now() - reported_at as age, status
  from {schema}.workflow_fleets
 where namespace_id = $1;
