-- Limits, which runs name; which of them may begin is decided by the triggers of migration 0013.


-- name: declared_rows
unnest($2::text[], $3::int[], $4::int[], $5::float8[], $6::int[], $7::text[])
           as said (name, slots, rate, rate_seconds, burst, workflow_name)


-- name: declared_as
jsonb_build_object('slots', said.slots, 'rate', said.rate, 'rate_seconds', said.rate_seconds,
                          'burst', said.burst)


-- name: declared_insert
insert into {schema}.workflow_limits as there
    (namespace_id, name, slots, rate, rate_seconds, burst, workflow_name, declared)
select $1, name, slots, rate, rate_seconds, burst, workflow_name, {declared_as}
  from {declared_rows}


-- name: declared_rate
-- What somebody has set stays, whatever the code says.
rate = case when there.is_set then there.rate else excluded.rate end,
       rate_seconds = case when there.is_set then there.rate_seconds else excluded.rate_seconds end,
       burst = case when there.is_set then there.burst else excluded.burst end,
       declared = excluded.declared,
       updated_at = now()


-- name: ensure_limits
-- What nobody has told of yet. Workers say what is so.
{declared_insert}
on conflict do nothing;


-- name: declare_limits
-- Every update has what is in use counted afresh, so twice a minute is enough for many workers.
{declared_insert}
on conflict (namespace_id, name) do update
   set slots = case when there.is_set then there.slots else excluded.slots end,
       workflow_name = excluded.workflow_name,
       {declared_rate}
 where there.updated_at < now() - interval '30 s'
    or there.declared is distinct from excluded.declared;


-- name: tell_limit
-- Of steps: it is told by whoever calls one, so that nothing is told again and again.
{declared_insert}
on conflict (namespace_id, name) do update
   set {declared_rate}
 where there.declared is distinct from excluded.declared;


-- name: retire_limits
-- Limits that these workflows had for themselves, and have no more.
with gone as (
    delete from {schema}.workflow_limits
     where namespace_id = $1 and workflow_name = any ($2::text[]) and name <> all ($3::text[])
       and not is_set
)
update {schema}.workflow_limits
   set declared = null, workflow_name = null, updated_at = now()
 where namespace_id = $1 and workflow_name = any ($2::text[]) and name <> all ($3::text[])
   and is_set;


-- name: adopt_limits
-- A run that was started by somebody who did not know of its limits: nobody has begun it yet.
update {schema}.workflow_runs
   set status = 'pending', worker_id = null, available_at = now(), started_at = null,
       limits = string_to_array($4, chr(30))
 where id = $2 and namespace_id = $1 and claim_no = $3 and worker_id = $5;


-- name: list_limits
select said.name, slots, rate, rate_seconds, burst, workflow_name, is_set,
       declared is not null as is_declared,
       {instant paused_until} as paused_until, pause_reason,
       coalesce(counted.used, 0) as used,
       coalesce(counted.waiting, 0) + coalesce(turns.waiting, 0) as waiting,
       coalesce(counted.keys, 0) as keys
  from {schema}.workflow_limits said
  left join (select split_part(limit_key, chr(31), 1) as name,
                    count(*) filter (where has_slot) as used,
                    count(*) filter (where not has_slot) as waiting,
                    count(distinct limit_key) as keys
               from {schema}.workflow_limit_runs, unnest(limits) as each (limit_key)
              where namespace_id = $1
              group by 1) counted
    on counted.name = said.name
  left join (select name, count(*) as waiting
               from {schema}.workflow_turns turn
              where namespace_id = $1
                and exists (select from {schema}.workflow_runs run
                             where run.id = turn.run_id and run.completed_at is null)
              group by name) turns
    on turns.name = said.name
 where said.namespace_id = $1
 order by said.name;


-- name: set_limit
insert into {schema}.workflow_limits
    (namespace_id, name, slots, rate, rate_seconds, burst, is_set)
values ($1, $2, $3, $4, $5, $6, true)
on conflict (namespace_id, name) do update
   set slots = excluded.slots, rate = excluded.rate, rate_seconds = excluded.rate_seconds,
       burst = excluded.burst, is_set = true, updated_at = now();


-- name: delete_limit
-- Back to what the code says, or gone.
with gone as (
    delete from {schema}.workflow_limits
     where namespace_id = $1 and name = $2 and declared is null
    returning name
), back as (
    update {schema}.workflow_limits
       set is_set = false, updated_at = now(),
           slots = (declared ->> 'slots')::int, rate = (declared ->> 'rate')::int,
           rate_seconds = (declared ->> 'rate_seconds')::float8,
           burst = (declared ->> 'burst')::int
     where namespace_id = $1 and name = $2 and declared is not null and is_set
    returning name
)
select name from gone union all select name from back;


-- name: pause_limit
-- Until $3, or for $4 seconds; the later of two pauses counts, and NULL ends it.
update {schema}.workflow_limits
   set paused_until = case when $3::timestamptz is null and $4::float8 is null then null
                           else greatest(paused_until,
                                         coalesce($3, now() + make_interval(secs => $4))) end,
       updated_at = now()
 where namespace_id = $1 and name = $2
returning name;
