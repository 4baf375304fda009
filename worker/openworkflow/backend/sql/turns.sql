-- Turns of steps at a rate: $1 namespace, $2 the name of the limit.


-- name: rate_said
said as (
    select make_interval(secs => rate_seconds / rate) as every, coalesce(burst, 1) as burst,
           greatest(now(), paused_until) as opens
      from {schema}.workflow_limits
     where namespace_id = $1 and name = $2
)


-- name: take_turns
-- Of the steps $4 of the runs $3: when each may begin; NULL for now. Who has a turn that has come takes
-- it. One that comes too late to it would call at once with all others that were late: it gets another,
-- once. So does one whose turn is in a pause. Those that wait have a row, and no others.
with {rate_said}, asked as (
    select each.run_id, each.step, place, turn.at, coalesce(turn.renewed, false) as renewed
      from unnest($3::uuid[], $4::text[]) with ordinality as each (run_id, step, place)
      left join {schema}.workflow_turns turn
        on turn.run_id = each.run_id and turn.step = each.step
       and turn.namespace_id = $1 and turn.name = $2
), judged as (
    select asked.*, said.opens,
           coalesce(at > now() and at >= opens, false) as waits,
           coalesce(at <= now() and coalesce(opens <= now(), true), false)
           and (renewed or every is null or at > now() - greatest(every, interval '10 s')) as has_come
      from asked
      left join said on true
), fresh as (
    select run_id, step, at is not null and (renewed or coalesce(opens <= now(), true)) as renewed,
           row_number() over (order by at nulls last, place) - 1 as nth, count(*) over () as in_all
      from judged
     where not waits and not has_come
), counted as (
    insert into {schema}.workflow_rates as known (namespace_id, name, arrival_at)
    select $1, $2, opens + every * (select count(*) from fresh)
      from said
     where every is not null and exists (select from fresh)
    on conflict (namespace_id, name) do update
       set arrival_at = greatest(known.arrival_at, (select opens from said))
                        + (select every from said) * (select count(*) from fresh)
    returning arrival_at
), given as (
    select run_id, step, renewed,
           greatest(said.opens,
                    counted.arrival_at - said.every * (in_all - nth + said.burst - 1)) as at
      from fresh
      left join said on true
      left join counted on true
), stored as (
    insert into {schema}.workflow_turns (run_id, step, namespace_id, name, at, renewed)
    select run_id, step, $1, $2, at, renewed from given where at > now()
    on conflict (run_id, step) do update
       set namespace_id = $1, name = $2, at = excluded.at, renewed = excluded.renewed
), dropped as (
    delete from {schema}.workflow_turns turn
     using (select run_id, step from judged where has_come
            union all
            select run_id, step from given where at is null or at <= now()) done
     where turn.run_id = done.run_id and turn.step = done.step
), forgotten as (
    -- Of runs that have ended meanwhile.
    delete from {schema}.workflow_turns
     where (run_id, step) in (select run_id, step from {schema}.workflow_turns
                               where namespace_id = $1 and name = $2
                                 and at < now() - interval '1 day' and run_id <> all ($3::uuid[])
                               limit 100 for update skip locked)
)
select run_id, step, case when at > now() then at end as at, exists (select from said) as is_known
  from given
union all
select run_id, step, case when waits then at end, true from judged where waits or has_come;


-- name: turns_of_run
-- The steps of the run $2 that wait for a turn to come, the next first; no more than a screen shows.
select step, name as limit_name, at
  from {schema}.workflow_turns
 where run_id = $2 and namespace_id = $1 and at > now()
 order by at, step
 limit 100;


-- name: hold_limit
-- As pause_limit, for a step that was told to wait: also of a limit that nobody has told of.
insert into {schema}.workflow_limits as there (namespace_id, name, paused_until)
values ($1, $2, coalesce($3::timestamptz, now() + make_interval(secs => $4::float8)))
on conflict (namespace_id, name) do update
   set paused_until = greatest(there.paused_until, excluded.paused_until), updated_at = now();
