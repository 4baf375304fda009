-- The claim: which runs a worker takes, and what becomes of their rows. A part of a flush.
--
-- Each arm is one reason to take a run; an arm takes what the arms before it have left to take.
-- One whose limit is 0 is not executed at all.


-- name: claim_route
-- The buckets whose new runs this build takes: none unless it is promoted, all if no build is.
route as (
    select coalesce(min(takes_from) filter (where build_id = :build_id), 0) as takes_from,
           case when coalesce(max(takes_to), 0) = 0 then 100
                else coalesce(max(takes_to) filter (where build_id = :build_id), 0)
           end as takes_to
      from {schema}.workflow_builds
     where namespace_id = :namespace_id
)


-- name: claim_pauses
-- The workflows that are paused, '' for all. Locked, so that a resume waits until what is set aside
-- here is there to be seen.
pauses as (
    select workflow_name
      from {schema}.workflow_pauses
     where namespace_id = :namespace_id
       for share
)


-- name: claim_held
-- Whether a run is to be set aside, and not to be executed.
(paused or exists (select from pauses where pauses.workflow_name in ('', run.workflow_name)))


-- name: claim_lease_arm
-- Runs whose lease ran out: no more of them than workers had slots, whatever they are.
-- A workflow is served if its name and version, joined by a separator, are among :claim_keys.
-- A number that cannot be counted on would fail the claim, of this and of every other run.
-- now() is when the statement began: a claim that had to wait finds fewer leases expired, not more.
{arm} as (
    select id, available_at, true as recovered, {claim_held} as held
      from {schema}.workflow_runs run
     where namespace_id = :namespace_id and available_at <= now()
       and workflow_name || chr(31) || coalesce(version, '') = any (:claim_keys::text[])
       and claim_no < 2147483647
       and {where}
     order by available_at
     limit {limit}
       for update skip locked
)


-- name: claim_due_arm
-- Runs that wait, in one walk of an index for each workflow that is served, so that no backlog of
-- others is in the way. The walk that has waited for longest comes first, and the next begins only
-- if that leaves something to take: no walk locks what is not taken, but for its first run. That
-- one is locked to find out who comes first, since a run that somebody else holds must not.
-- A workflow with a priority counts as if it had waited so many hours longer.
{arm} as (
    select run.id, run.available_at, false as recovered, run.held
      from (select served.name, served.version
              from {claim_served}
             cross join lateral ({claim_first}) first
             order by {claim_rank}) served
     cross join lateral (select id, available_at, {claim_held} as held
                           from {schema}.workflow_runs run
                          where {claim_walk} and {where}
                          order by available_at
                          limit {limit}
                            for update skip locked) run
     limit {limit}
)


-- name: claim_served
unnest(:served_names::text[], :served_versions::text[], :served_priorities::int[])
                   as served (name, version, priority)


-- name: claim_first
select available_at
                                   from {schema}.workflow_runs
                                  where {claim_walk} and {where}
                                  order by available_at
                                  limit 1
                                    for update skip locked


-- name: claim_rank
-- When it would have been due without a priority; from a time on at which no subtraction fails.
greatest(first.available_at, to_timestamp(0)) - {head_start served.priority}


-- name: claim_urgent_arm
-- Runs with a priority of their own above that of their workflow, in one walk of their index for each
-- of both: those that come before the run whose turn it is else, if it counts as due so many hours
-- earlier. So nobody waits forever.
{arm} as (
    select run.id, run.available_at, false as recovered, run.held
      from (select served.name, served.version, served.priority
              from (select served.name, served.version, level as priority
                      from {claim_served}
                     cross join generate_series(9, 1, -1) as level
                     where level > served.priority) served
             cross join lateral (select available_at
                                   from {schema}.workflow_runs
                                  where {claim_urgent_walk} and {where}
                                  order by available_at
                                  limit 1
                                    for update skip locked) first
             order by {claim_rank}) served
     cross join lateral (select id, available_at, {claim_held} as held
                           from {schema}.workflow_runs run
                          where {claim_urgent_walk} and {where}
                            and available_at <= (select turn from others)
                                                + {head_start served.priority}
                          order by available_at
                          limit {limit}
                            for update skip locked) run
     limit {limit}
)


-- name: claim_urgent_walk
-- Said as the condition of idx_workflow_runs_priority says it, which is that of no other index: on
-- a table that was never analysed the planner would as soon take one that has the whole backlog.
namespace_id = :namespace_id and available_at <= now()
       and status <> 'running' and completed_at is null and status || '' = 'pending'
       and priority = served.priority
       and workflow_name || chr(31) || coalesce(version, '') = served.name || chr(31) || served.version


-- name: claim_turn
select {claim_rank} as turn
              from {claim_served} cross join lateral ({claim_first}) first
             where {limit} > 0


-- name: claim_others
-- Whose turn it is among all runs, if priorities of their own did not count.
others as (
    select min(turn) as turn from ({turns}) turns
)


-- name: claim_not_urgent
-- Not those that the arms before have: a lock of one's own keeps nobody out.
id <> all (array(select id from urgent_own union all select id from urgent))


-- name: claim_is_urgent
-- Whether runs with a priority wait, so that the next claim looks for them first.
(select priority
               from {schema}.workflow_runs
              where namespace_id = :namespace_id and priority >= 1
                and status <> 'running' and completed_at is null
              order by priority desc
              limit 1) is not null


-- name: claim_walk
namespace_id = :namespace_id and status = 'pending' and available_at <= now()
       and workflow_name = served.name and coalesce(version, '') = served.version


-- name: claim_expired
-- Leases that ran out go first, or a steady backlog would keep them waiting forever.
-- A worker leaves its own to others: its older execution of the run may still be alive in it.
status = 'running' and worker_id is distinct from :worker_id
       and crashes < :trusted_crashes::int
       and {claim_lineage}


-- name: claim_suspect
-- Runs that may be what their workers died of: few at a time, so that a worker's other runs do
-- not die with it again and again until they are taken for the cause as well.
status = 'running' and worker_id is distinct from :worker_id
       and crashes >= :trusted_crashes::int
       and {claim_lineage}


-- name: claim_own
-- Runs pinned to this build, which no other takes.
case when pinned then build_id else '' end = :build_id


-- name: claim_due
-- All others. Where all buckets are taken nothing is computed of the id.
case when pinned then build_id else '' end = ''
       and (select takes_to from route) > 0
       and ((select takes_to - takes_from from route) = 100 or {claim_bucket})


-- name: claim_spared
-- Not those that somebody's trigger or constraint does not let be claimed: one would fail the claim
-- of all. Only in the statement where there are such.
id <> all (:spared_ids::uuid[])


-- name: claim_lineage
-- Runs that are pinned belong to their build; the others to the builds that take their bucket.
case when pinned then build_id = :build_id else {claim_bucket} end


-- name: claim_bucket
((uuid_hash(id) & 2147483647) % 100 >= (select takes_from from route)
       and (uuid_hash(id) & 2147483647) % 100 < (select takes_to from route))


-- name: claim_pins
-- Whether this claim binds the run to the build. Mostly nothing is pinned, and no key is made.
cardinality(:pinned_keys::text[]) > 0
       and workflow_name || chr(31) || coalesce(version, '') = any (:pinned_keys::text[])


-- name: claim_named
-- Only for a worker whose workflows have limits. When it came to be due may be long before it was let
-- begin.
, limits is not null as names_limits,
              (select {instant came.due_at}
                 from (select had.due_at + {head_start run.priority}
                         from {schema}.workflow_limit_runs had
                        where had.run_id = run.id) came (due_at)) as came_due_at


-- name: claim_traced
-- Only for a worker that traces. As bytes, as the input is.
, (select {bytes began.trace}
                 from (select (run.context -> 'traceContext')::text) began (trace)) as trace


-- name: claim_traced_all
, array_agg(trace) as traces


-- name: claim_named_all
, array_agg(names_limits) as names_limits, array_agg(came_due_at) as came_due_at,
           (select count(*) from taken where held) as held


-- name: claim_taken
-- The lease counts from when the row is written: one that was given by the beginning of a statement
-- that had to wait would have run out already. A run that was started by its workflow's name is
-- given the workflow's deadline here, since only workers know it.
taken as (
    {arms}
), claimed as (
    update {schema}.workflow_runs run
       set status = 'running',
           worker_id = :worker_id,
           claim_no = claim_no + 1,
           available_at = clock_timestamp() + :lease::interval,
           started_at = coalesce(started_at, now()),
           deadline_at = case
               when claim_no > 0 or cardinality(:deadline_keys::text[]) = 0 then deadline_at
               else coalesce(deadline_at,
                             least(created_at, now()) + make_interval(
                                 secs => (:deadline_seconds::float8[])[array_position(
                                     :deadline_keys::text[],
                                     workflow_name || chr(31) || coalesce(version, ''))]))
           end,
           build_id = case
               when pinned then build_id
               when {claim_pins} then :build_id
               else coalesce(build_id, :build_id)
           end,
           pinned = pinned or ({claim_pins}),
           -- A lease that expired counts as a crash; the count restarts where steps were recorded.
           crashes = case
               when status = 'pending' then crashes
               when exists (select from {schema}.step_attempts attempt
                             where attempt.workflow_run_id = run.id
                               and attempt.claim_no = run.claim_no
                               and attempt.status <> 'running'
                               and attempt.context -> 'interrupted' is null
                             offset 0) then 1
               else least(crashes, 2147483646) + 1
           end
     where id = any (array(select id from taken where not held))
    -- The input as bytes: one that is no text would fail the statement for all.
    returning id, workflow_name, version, {bytes input} as input,
              claim_no, attempts, crashes, {instant deadline_at} as deadline_at,
              wake_no, history_from{claim_named_}{claim_traced_}
), shelved as (
    -- What is paused and came to be due all the same: that of others than flushes, or what was
    -- begun before the pause. What its worker died of is not known, so that is no crash.
    update {schema}.workflow_runs run
       set status = 'pending', worker_id = null, paused = true, available_at = 'infinity',
           due_at = case when status = 'pending' then available_at else now() end
     where id = any (array(select id from taken where held))
), claim as (
    -- When the server started tells it from one that takes over, which may lack what it committed.
    select now() as claimed_at, pg_postmaster_start_time() as server_started_at,
           array(select id from taken) as taken_ids,
           array(select {instant available_at} from taken) as taken_at,
           array(select id from taken where recovered) as recovered_ids,
           array_agg(id) as id, array_agg(workflow_name) as workflow_name,
           array_agg(version) as version, array_agg(input) as input,
           array_agg(claim_no) as claim_no, array_agg(attempts) as attempts,
           array_agg(crashes) as crashes, array_agg(deadline_at) as deadline_at,
           array_agg(wake_no) as wake_no, array_agg(history_from) as history_from,
           {claim_is_urgent} as is_urgent{claim_named_all_}{claim_traced_all_}
      from claimed
)
