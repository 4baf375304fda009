-- Keys that one run of a workflow has at a time: $1 namespace, $2 workflow, $3 key.


-- name: hold_key
-- Who has the key; it is ours, $4, if nobody ever had it. Held until the transaction ends.
insert into {schema}.workflow_keys as there (namespace_id, workflow_name, key, run_id)
values ($1, $2, $3, $4)
on conflict (namespace_id, workflow_name, key) do update set run_id = there.run_id
returning run_id;


-- name: find_key_run
select status from {schema}.workflow_runs where id = $2 and namespace_id = $1;


-- name: take_key
update {schema}.workflow_keys
   set run_id = $4, since = now()
 where namespace_id = $1 and workflow_name = $2 and key = $3;


-- name: replace_input
-- Of the run $4, unless it has begun. What is debounced begins $7 from now, and no later than $8
-- after the first call; NULL leaves the time as it is. One that had limits, of which nobody knows with
-- the new input, has an empty list: their trigger sees that, and it is found out at the next claim.
with since as (
    select case when $7::interval is not null
                then least(now() + $7::interval, since + $8::interval) end as due
      from {schema}.workflow_keys
     where namespace_id = $1 and workflow_name = $2 and key = $3
)
update {schema}.workflow_runs
   set input = $5::text::jsonb,
       limits = coalesce(string_to_array($6::text, chr(30)),
                         case when limits is not null then '{}'::text[] end),
       available_at = case when since.due is null or pause is not null
                                or paused and limits is null then available_at
                           else since.due end,
       due_at = case when paused then coalesce(since.due, due_at) end
  from since
 where id = $4 and namespace_id = $1 and status || '' = 'pending' and started_at is null
returning id;


-- name: lock_key_run
-- See lock_workflow_run.
select from {schema}.workflow_runs where id = $2 and namespace_id = $1 for update;


-- name: cancel_key_run
{canceled_run};


-- name: forget_keys
-- Keys of runs that have ended, a few at a time.
delete from {schema}.workflow_keys
 where (namespace_id, workflow_name, key) in (
         select namespace_id, workflow_name, key
           from {schema}.workflow_keys held
          where namespace_id = $1 and since < now() - interval '1 hour'
            and not exists (select from {schema}.workflow_runs
                             where id = held.run_id and completed_at is null)
          order by since
          limit 1000
            for update skip locked);
