-- What people do with runs that others execute: ask why one is not done, retry it, fork it.


-- name: explain_run
-- A run, and all that its not being done may follow from, at one moment. $3 and $4 are the most
-- waits, and the most runs ahead of it, that are told.
-- Of a step the newest attempt counts: one that runs, or one that is to be repeated.
with it as (
    select id, status, available_at, history_from, workflow_name, coalesce(version, '') as version,
           case when pinned then build_id else '' end as bound_to, started_at, schedule_name
      from {schema}.workflow_runs
     where id = $2 and namespace_id = $1
), latest as (
    select distinct on (step_name) attempt.*
      from it
      join {schema}.step_attempts attempt
        on attempt.workflow_run_id = it.id and attempt.claim_no >= it.history_from
     where not {mark interrupted}
     order by step_name, attempt.created_at desc, attempt.id desc
), decided as (
    select max(output::text) as decision
      from it
      join {schema}.step_attempts attempt
        on attempt.workflow_run_id = it.id and attempt.claim_no >= it.history_from
     where kind = 'undo' and step_name = 'undo'
), open as (
    -- What a worker that died was doing, nobody is doing.
    -- What a run whose steps are undone was waiting for, it waits for no more.
    select latest.id, kind, step_name, created_at, resume_at, attempt, error,
           coalesce(case when kind = 'child' then context ->> 'child' end,
                    case when kind = 'map'
                         then (select child.id::text from {schema}.workflow_children child
                                where child.step_id = latest.id and child.status is null
                                order by number limit 1)
                         else latest.id::text end) as what,
           count(*) over () as in_all
      from latest, it, decided
     where (decision is null or kind = 'undo' or kind = 'run' and latest.status = 'running')
       and (latest.status = 'running' and (it.status = 'running' or kind not in ('run', 'undo'))
            or latest.status = 'failed' and resume_at is not null
               and not {mark final} and not {mark canceled})
     order by resume_at nulls last, created_at, latest.id
     limit $3
), waits as (
    select array_agg(id) as wait_ids, array_agg(kind) as wait_kinds,
           array_agg(step_name) as wait_names,
           array_agg({instant created_at}) as wait_since,
           array_agg({instant resume_at}) as wait_until,
           array_agg(attempt) as wait_attempts, array_agg(error::text) as wait_errors,
           array_agg(what) as wait_whats,
           coalesce(max(in_all), 0) as waits_in_all
      from open
), ahead as (
    select count(*) as ahead
      from (select
              from it
              join {schema}.workflow_runs other
                on other.namespace_id = $1 and other.status = 'pending'
               and case when other.pinned then other.build_id else '' end = it.bound_to
               and other.workflow_name = it.workflow_name
               and coalesce(other.version, '') = it.version
               and other.available_at < it.available_at
             where it.status = 'pending' and it.available_at <= now()
             limit $4) counted
), limited as (
    -- What it waits for; or for the time that a rate has given it.
    select array_agg(each.limit_key order by place) as limit_keys,
           array_agg(said.slots order by place) as limit_slots,
           array_agg(coalesce(used.taken, 0) - has_slot::int order by place) as limit_used,
           -- One that has its slots waits for a time alone, and who has begun for a slot alone.
           array_agg(coalesce(not has_slot and used.taken >= said.slots, false)
                     or it.started_at is null
                        and coalesce(said.rate is not null
                                     and (has_slot or used.tokens >= said.burst)
                                     or said.paused_until > now(), false)
                     order by place) as limit_full,
           array_agg(case when has_slot and said.rate is not null then it.available_at end
                     order by place) as limit_opens,
           array_agg(case when it.started_at is null and said.paused_until > now()
                          then {instant said.paused_until} end
                     order by place) as limit_paused,
           array_agg((select holder.run_id
                        from {schema}.workflow_limit_runs holder
                       where holder.namespace_id = $1 and holder.has_slot
                         and holder.run_id <> it.id and each.limit_key = any (holder.limits)
                       order by holder.due_at, holder.run_id
                       limit 1) order by place) as limit_holders,
           coalesce(max((select count(*)
                           from (select from {schema}.workflow_limit_runs other
                                  where other.lane = waits.lane and not other.has_slot
                                    and (other.due_at, other.run_id) < (waits.due_at, waits.run_id)
                                  limit $4) counted)), 0) as limit_ahead
      from it
      join {schema}.workflow_limit_runs waits on waits.run_id = it.id
     cross join unnest(waits.limits) with ordinality as each (limit_key, place)
      left join {schema}.workflow_limits said
        on said.namespace_id = $1 and said.name = split_part(each.limit_key, chr(31), 1)
      left join {schema}.workflow_limit_keys used
        on used.namespace_id = $1 and used.limit_key = each.limit_key
     where it.status = 'pending' and (not has_slot or it.available_at > now())
), turn as (
    -- The step of it that may be called next, at a rate.
    select array_agg(name order by at) as turn_names, array_agg({instant at} order by at) as turn_at,
           coalesce(min((select count(*)
                           from (select from {schema}.workflow_turns other
                                  where other.namespace_id = $1 and other.name = mine.name
                                    and other.at < mine.at
                                  limit $4) counted)), 0) as turn_ahead
      from it
     cross join lateral (select name, at from {schema}.workflow_turns
                          where run_id = it.id and namespace_id = $1
                          order by at limit 1) mine
     where it.status = 'pending' and it.available_at > now()
), bound as (
    -- Workers of a build name it when they start.
    select it.bound_to = '' or exists (select from {schema}.workflow_builds known
                                        where known.namespace_id = $1
                                          and known.build_id = it.bound_to) as build_known,
           (select {instant last.seen_at} from {schema}.workflow_served last
             where last.namespace_id = $1 and last.workflow_name = ''
               and last.version = it.bound_to and {build_gone}) as build_seen_at
      from it
), occurrence as (
    -- What the schedule says of it: that it is paused, or that it waits for earlier ones.
    select plan.paused_at as schedule_paused_at, plan.pause_reason as schedule_reason,
           plan.next_run_id = it.id as is_next,
           case when it.id = any (plan.queued_run_ids)
                then coalesce(plan.open_run_ids[1], plan.queued_run_ids[1]) end as behind
      from it
      left join {schema}.workflow_schedules plan
        on plan.namespace_id = $1 and plan.name = it.schedule_name
), takers as (
    select array(select build_id
                   from {schema}.workflow_builds, it
                  where namespace_id = $1 and it.bound_to = ''
                    and (uuid_hash(it.id) & 2147483647) % 100 between takes_from and takes_to - 1
                  order by build_id) as takers
), held as (
    select array_agg(held.workflow_name) as held_names, array_agg(reason) as held_reasons,
           array_agg(paused_by) as held_by, array_agg({instant paused_at}) as held_since
      from it
      join {schema}.workflow_pauses held
        on held.namespace_id = $1 and held.workflow_name in ('', it.workflow_name)
), said as (
    select array_agg(workflow_name) as served_names, array_agg(version) as served_versions
      from ({served_now}) served
)
select {run_columns}, now() as now, waits.*, ahead.ahead, takers.takers, held.*, said.*,
       decided.decision, limited.*, turn.*, bound.*, occurrence.*
  from {schema}.workflow_runs run, waits, ahead, takers, held, said, decided, limited, turn, bound,
       occurrence
 where run.id = (select it.id from it);


-- name: list_standings
-- Of those of these runs that have not ended: whether each is due or held, and what it waits for.
-- What waits for a limit is set aside as what is paused, and is not.
select run.id, available_at <= now() as due,
       paused and (limits is null or pause is not null)
       or exists (select from {schema}.workflow_pauses held
                   where held.namespace_id = $1
                     and held.workflow_name in ('', run.workflow_name))
       or schedule_name is not null
          and exists (select from {schema}.workflow_schedules plan
                       where plan.namespace_id = $1 and plan.name = schedule_name
                         and plan.next_run_id = run.id and plan.paused_at is not null) as held,
       limits is not null
       and exists (select from {schema}.workflow_limit_runs waits
                    where waits.run_id = run.id and run.status = 'pending'
                      and (not has_slot or available_at > now()))
       or status = 'pending' and claim_no > 0 and available_at > now()
          and exists (select from {schema}.workflow_turns turn
                       where turn.run_id = run.id and turn.namespace_id = $1) as limited,
       not pinned or exists (select from {schema}.workflow_builds known
                              where known.namespace_id = $1
                                and known.build_id = run.build_id)
       and not exists (select from {schema}.workflow_served last
                        where last.namespace_id = $1 and last.workflow_name = ''
                          and last.version = run.build_id and {build_gone}) as build_known,
       schedule_name is not null
       and exists (select from {schema}.workflow_schedules plan
                    where plan.namespace_id = $1 and plan.name = schedule_name
                      and run.id = any (plan.queued_run_ids)) as queued,
       array(select distinct case when attempt.status = 'failed' then 'retry' else kind end
               from {schema}.step_attempts attempt
              where attempt.workflow_run_id = run.id and attempt.claim_no >= run.history_from
                and (attempt.status = 'running' and kind not in ('run', 'undo')
                     or attempt.status = 'failed' and attempt.resume_at > now()
                        and not {mark final} and not {mark canceled})
                -- What a run whose steps are undone was waiting for, it waits for no more.
                and (kind = 'undo'
                     or not exists (select from {schema}.step_attempts decided
                                     where decided.workflow_run_id = run.id
                                       and decided.claim_no >= run.history_from
                                       and decided.kind = 'undo'
                                       and decided.step_name = 'undo'))) as waits
  from {schema}.workflow_runs run
 where namespace_id = $1 and id = any($2) and status in ('pending', 'running');


-- name: list_served
{served_now};


-- name: served_now
-- What workers say that they serve. They repeat it every ten minutes; what was not repeated for an
-- hour, while others were, is served no more.
select workflow_name, version
  from {schema}.workflow_served
 where namespace_id = $1 and workflow_name <> ''
   and seen_at > (select max(seen_at) from {schema}.workflow_served where namespace_id = $1)
                 - interval '1 hour'
 order by workflow_name, version
 limit 2000


-- name: build_gone
-- Whether no worker of a build is left, as below. Those of older versions do not say that they are there.
last.seen_at <= (select max(served.seen_at) from {schema}.workflow_served served
                               where served.namespace_id = $1) - interval '1 hour'


-- name: diagnose_unserved
-- Due runs that no worker says it serves, by what they are: none where no worker says anything.
with served as (
    {served_now}
), unserved as (
    select workflow_name, coalesce(version, '') as version, count(*) as runs,
           min(available_at) as oldest
      from {schema}.workflow_runs run
     where namespace_id = $1 and status = 'pending' and available_at <= now()
       and exists (select from served)
       and not exists (select from served
                        where served.workflow_name = run.workflow_name
                          and served.version = coalesce(run.version, ''))
     group by 1, 2
)
select workflow_name, version, runs,
       extract(epoch from now() - {instant oldest})::float8 as oldest
  from unserved
 order by unserved.oldest
 limit 100;


-- name: retry_workflow_run
-- Back to pending. Recorded successes stay, so the run goes on where it stopped. The steps that
-- the error names, because their failure ended the run, are tried afresh. Older versions named
-- none: then it is those whose retries were spent with no other step begun afterwards.
-- $4 is the claim that ended, so that to repeat this is to do it once.
-- With $5 only those rows count from now on: the others get a claim below zero, where no replay
-- looks, and stay for people to see.
-- Steps that were undone are reopened too, and what undid them counts no more: if the run fails
-- again, they are undone again. That it happened stays, since the key of their effects is another
-- then.
-- Whether it is held back is found out anew: a resume passes over runs that have ended.
with stopped as (
    select id, workflow_name, claim_no, error -> 'steps' as steps
      from {schema}.workflow_runs
     where id = $2 and namespace_id = $1 and status in ('failed', 'canceled') and claim_no = $4
       for update
), undone as (
    {undone_steps}
), over as (
    update {schema}.step_attempts attempt
       set step_name = 'undone@' || stopped.claim_no,
           context = jsonb_build_object(
               'over', (select coalesce(jsonb_agg(step_name), '[]') from undone))
      from stopped
     where attempt.workflow_run_id = stopped.id and attempt.kind = 'undo'
       and attempt.step_name = 'undo' and attempt.claim_no >= 0
), pauses as (
    select from {schema}.workflow_pauses held
     where namespace_id = $1
       and workflow_name = any (array(select unnest(array['', workflow_name]) from stopped))
       for share
), discarded as (
    update {schema}.step_attempts attempt
       set claim_no = -1 - attempt.claim_no,
           context = coalesce(attempt.context, '{}') || '{"discarded": true}'
      from stopped
     where attempt.workflow_run_id = stopped.id and attempt.claim_no >= 0
       and case when attempt.kind = 'undo' then attempt.context ? 'undoes'
                else attempt.id <> all ($5)
                     or attempt.completion_no is null
                        and attempt.step_name in (select step_name from undone) end
), retried as (
    update {schema}.workflow_runs run
       set status = 'pending', worker_id = null,
           paused = {retried_held},
           available_at = case when {retried_held} then 'infinity' else now() end,
           due_at = case when {retried_held} then now() end,
           attempts = 0, crashes = 0, error = null, completed_at = null, deadline_at = null
      from stopped
     where run.id = stopped.id
    returning run.*
), reopened as (
    update {schema}.step_attempts attempt
       set context = (attempt.context - 'final')
                     || jsonb_build_object('reopened', true, 'reopened_at', stopped.claim_no)
      from stopped
     where attempt.workflow_run_id = stopped.id and attempt.claim_no >= 0
       and attempt.completion_no is not null and (attempt.id <> all ($5::uuid[])) is not true
       and attempt.kind <> 'undo' and attempt.step_name in (select step_name from undone)
        or $5 is null and attempt.workflow_run_id = stopped.id
       and attempt.status = 'failed' and attempt.context @> '{"final": true}'
       and attempt.kind <> 'undo'
       and case when jsonb_typeof(stopped.steps) = 'array'
                then stopped.steps ? attempt.step_name
                else not exists (select from {schema}.step_attempts later
                                  where later.workflow_run_id = attempt.workflow_run_id
                                    and later.step_name <> attempt.step_name
                                    and later.created_at > attempt.completed_at) end
), spared as (
    -- Children that it has handles of, and that were to be canceled with it: they go on.
    update {schema}.workflow_children child
       set orphaned = false
      from stopped, {schema}.step_attempts start
     where child.parent_run_id = stopped.id and child.orphaned and child.status is null
       and start.workflow_run_id = stopped.id and start.id = child.step_id
       and start.kind = 'child-start' and start.claim_no >= 0
       and (start.id = any ($5::uuid[])) is not false
), told_anew as (
    update {schema}.workflow_progress progress
       set retried = true,
           counts = progress.counts || jsonb_build_object('retried', stopped.claim_no)
      from stopped
     where progress.workflow_run_id = stopped.id
)
select {run_columns}, pg_notify($3, '') as workers from retried;


-- name: undone_steps
-- The keys of the steps of the run $2 that were undone.
select distinct context ->> 'undoes' as step_name
      from {schema}.step_attempts
     where workflow_run_id = $2 and kind = 'undo' and status = 'succeeded' and claim_no >= 0
       and context ? 'undoes'


-- name: retried_held
(run.pause is not null or exists (select from pauses))


-- name: fork_workflow_run
-- A new run $3 of the kind of $2, with these rows of its history: $9 become $10, and where $11 says
-- so, with the result of $12 in place of theirs. Claims and the numbers of events stay as they are,
-- so that they mean the same. $4 is the history that was looked at: a run that has continued as new
-- since has another. With $5 the version is $6, with $13 the input $7; $8 is the build to bind it to.
-- $15 is the trace that it is started in, NULL for that of the other.
-- What the other run has done is not for this one to undo; and what was undone is done anew.
-- A statement that is sent again finds the run, and does nothing.
with undone as (
    {undone_steps}
), forked as (
    insert into {schema}.workflow_runs
        (id, namespace_id, workflow_name, version, status, config, context, input, tags,
         available_at, deadline_at, claim_no, history_from, build_id, pinned, forked_from,
         schedule_name, scheduled_for, priority)
    select $3, namespace_id, workflow_name, case when $5::bool then $6 else version end,
           'pending', config, coalesce($15::text::jsonb, context),
           case when $13::bool then $7::text::jsonb else input end, tags,
           now(), now() + (deadline_at - created_at), claim_no, history_from,
           $8, $8::text is not null, id, schedule_name, scheduled_for, priority
      from {schema}.workflow_runs
     where id = $2 and namespace_id = $1 and history_from = $4::int
    on conflict (id) do nothing
    returning *
), copied as (
    insert into {schema}.step_attempts
        (id, workflow_run_id, claim_no, step_name, kind, status, attempt, config,
         context, output, error, created_at, completed_at, resume_at, completion_no)
    select copy.id, forked.id, attempt.claim_no, step_name, kind,
           case when is_given then 'succeeded' else attempt.status end, attempt, attempt.config,
           case when is_given
                then coalesce(attempt.context, '{}') - 'final' - 'undo' - 'timed_out'
                     || '{"overridden": true}'
                when attempt.step_name in (select step_name from undone)
                then attempt.context - 'final' - 'undo'
                     || jsonb_build_object('reopened', true, 'reopened_at', forked.claim_no)
                else attempt.context - 'undo' end,
           case when is_given then copy.output::jsonb else attempt.output end,
           case when not is_given then attempt.error end,
           attempt.created_at, attempt.completed_at, resume_at, completion_no
      from unnest($9::uuid[], $10::uuid[], $11::bool[], $12::text[])
               as copy (source_id, id, is_given, output)
      join {schema}.step_attempts attempt
        on attempt.id = copy.source_id and attempt.workflow_run_id = $2
     cross join forked
)
select {run_columns}, pg_notify($14, '') as workers from forked;


-- name: get_history_from
select history_from from {schema}.workflow_runs where id = $2 and namespace_id = $1;


-- name: pause_workflow
-- $2 is the workflow, '' for all. Of two who pause it the last one says why.
insert into {schema}.workflow_pauses (namespace_id, workflow_name, reason, paused_by)
values ($1, $2, $3, $4)
on conflict (namespace_id, workflow_name)
   do update set reason = excluded.reason, paused_by = excluded.paused_by;


-- name: hold_runs
-- One batch of the runs with status $3 of the workflow $2, '' for all, that somebody has paused: set
-- aside, or marked to be when they come to wait. For as long as that pause is there: who resumes
-- waits for this, and nothing is set aside after.
with pause as (
    select from {schema}.workflow_pauses
     where namespace_id = $1 and workflow_name = $2
       for share
)
update {schema}.workflow_runs
   set {set_aside}
 where id = any (array(select id from {schema}.workflow_runs
                        where namespace_id = $1 and status = $3 and not paused
                          and ($2 = '' or workflow_name = $2)
                          and exists (select from pause)
                        limit $4
                          for update skip locked))
returning id;


-- name: set_aside
paused = true,
       available_at = case when status = 'pending' then 'infinity' else available_at end,
       due_at = case when status <> 'pending' then due_at
                     when paused then due_at else available_at end


-- name: pause_runs
-- These runs $2, each for itself; those that have ended stay as they are.
update {schema}.workflow_runs
   set {set_aside},
       pause = jsonb_build_object('by', $3::text, 'reason', $4::text, 'at', now())
 where id = any (array(select id from {schema}.workflow_runs
                        where id = any ($2::uuid[]) and namespace_id = $1 and completed_at is null
                        order by id
                          for no key update))
returning id;


-- name: resume_runs
-- These runs lose their own pause; release_runs is to follow. Those that have ended too, or a retry
-- would find it.
update {schema}.workflow_runs
   set pause = null
 where id = any (array(select id from {schema}.workflow_runs
                        where id = any ($2::uuid[]) and namespace_id = $1
                          and (completed_at is null or pause is not null)
                        order by id
                          for no key update))
returning id;


-- name: resume_workflow
delete from {schema}.workflow_pauses
 where namespace_id = $1 and workflow_name = $2
returning workflow_name;


-- name: admit_resumed
-- Runs with limits wait for those when nothing else holds them: every update of a limit has it looked
-- at afresh. Their deadlines count again.
with waiting as (
    update {schema}.workflow_runs
       set available_at = deadline_at
     where id = any (array(select run.id
                             from {schema}.workflow_limit_runs waits
                             join {schema}.workflow_runs run on run.id = waits.run_id
                            where waits.namespace_id = $1 and not waits.has_slot
                              and $2 in ('', run.workflow_name)
                              and run.status || '' = 'pending' and run.paused and run.pause is null
                              and run.available_at = 'infinity' and run.deadline_at is not null
                            order by run.id
                              for no key update of run))
)
update {schema}.workflow_limits
   set updated_at = now()
 where namespace_id = $1
   and name in (select split_part(limit_key, chr(31), 1)
                  from {schema}.workflow_limit_lanes
                 where namespace_id = $1 and $2 in ('', workflow_name));


-- name: release_runs
-- One batch of runs that nothing holds any more, of all or of $2: due when they would have been, and
-- those whose time has passed, now. A deadline goes on while a run is paused. What has a time of
-- its own all the same was woken by somebody who does not know of pauses.
with released as (
    update {schema}.workflow_runs
       set paused = false,
           due_at = null,
           available_at = case when status = 'pending' and due_at is not null
                               then least(available_at, greatest(due_at, now()), deadline_at)
                               else available_at end
     where id = any (array(select id from {schema}.workflow_runs run
                            where {released}
                            order by id
                            limit $3
                              for no key update skip locked))
    returning id
), told as (
    select pg_notify($4, '') where exists (select from released)
)
select (select count(*) from released) as released, (select count(*) from told) as told;


-- name: released
namespace_id = $1 and paused and completed_at is null and pause is null and limits is null
       and ($2::uuid[] is null or id = any ($2))
       and not exists (select from {schema}.workflow_pauses held
                        where held.namespace_id = $1
                          and held.workflow_name in ('', run.workflow_name))


-- name: find_unreleased
-- Whether runs were left out, because somebody was writing to them.
select exists (select from {schema}.workflow_runs run where {released}) as is_left;


-- name: list_pauses
-- Pauses of workflows, '' for all, with the unfinished runs that they hold.
select workflow_name, reason, paused_by, paused_at,
       (select count(*) from {schema}.workflow_runs run
         where run.namespace_id = $1 and paused and completed_at is null
           and (held.workflow_name = '' or run.workflow_name = held.workflow_name)) as runs
  from {schema}.workflow_pauses held
 where namespace_id = $1
 order by workflow_name;
