-- Questions about the database itself.


-- name: now
-- The clock that decides.
select now() as now;


-- name: notify_work
-- Wakes the workers, on their channel $1.
select pg_notify($1, '');


-- name: identify_database
-- Which server this is, and which database of it.
select control.system_identifier::text as server,
       (select oid::text from pg_database where datname = current_database()) as database
  from pg_control_system() as control;


-- name: diagnose_server
-- What the server says of itself, and which of the privileges $2, such as `step_attempts DELETE` or
-- one of a column, `workflow_pauses UPDATE lock_only`, this role lacks in the schema $1;
-- $3 are the indexes that are to be there.
select current_setting('server_version') as server_version,
       current_user::text as role,
       clock_timestamp() as now,
       case when pg_is_in_recovery() then 'standby'
            when current_setting('transaction_read_only') = 'on' then 'setting' end as read_only,
       current_setting('synchronous_commit') <> 'off' as commits_are_durable,
       (select count(*) from pg_stat_replication) as standbys,
       current_setting('synchronous_standby_names') <> ''
           and current_setting('synchronous_commit') <> 'local' as waits_for_standbys,
       current_setting('max_connections')::int as max_connections,
       (select count(*) from pg_stat_activity where backend_type = 'client backend')
           as used_connections,
       coalesce(has_schema_privilege(to_regnamespace($1), 'CREATE'), false) as may_create,
       coalesce((select extract(epoch from max(now() - xact_start))
                   from pg_stat_activity
                  where datname = current_database() and backend_type = 'client backend'),
                0)::float8 as oldest_transaction,
       array(select needed
               from unnest($2::text[]) as needed,
                    to_regclass($1 || '.' || split_part(needed, ' ', 1)) as relation,
                    split_part(needed, ' ', 2) as privilege,
                    split_part(needed, ' ', 3) as named
              where not coalesce(case when named = '' then has_table_privilege(relation, privilege)
                                      else has_column_privilege(relation, named, privilege) end,
                                 false)) as missing_privileges,
       array(select wanted
               from unnest($3::text[]) as wanted
              where not exists (select from pg_index
                                 where indexrelid = to_regclass($1 || '.' || wanted)
                                   and indisvalid)) as missing_indexes;


-- name: find_distortions
-- What breaks a promise although nothing is refused, of the tables $2 and our triggers $3 in the
-- schema $1. A trigger before each row, of a statement that writes one, may drop it.
with ours as (
    select oid, relname, relpersistence
      from pg_class
     where relnamespace = to_regnamespace($1) and relname = any ($2::text[]::name[])
), fires as (
    select tgname, relname, tgtype
      from ours
      join pg_trigger on tgrelid = ours.oid and tgenabled in ('O', 'A') and not tgisinternal
)
select 'asynchronous' as kind, '' as name where current_setting('synchronous_commit') = 'off'
union all
select 'unlogged', relname::text from ours where relpersistence = 'u'
union all
select 'replica', setting
  from current_setting('session_replication_role') as setting where setting <> 'origin'
union all
select 'disabled', wanted
  from unnest($3::text[]) as wanted
 where not exists (select from fires where tgname = wanted)
union all
select 'hidden', relname::text
  from ours
 where row_security_active(oid)
   and not exists (select from pg_policy
                    where polrelid = ours.oid and polname = 'openworkflow_bound')
union all
select 'before', tgname || ' of ' || relname
  from fires where tgtype & 3 = 3 and tgtype & 20 > 0;


-- name: diagnose_runs
-- How far behind a namespace is. Both look at one end of an index.
with oldest as (
    select (select min(available_at) from {schema}.workflow_runs
             where status = 'running' and namespace_id = $1
               and available_at < now()) as expired_lease,
           (select min(available_at) from {schema}.workflow_runs
             where status = 'pending' and namespace_id = $1
               and available_at < now()) as due_run
)
select extract(epoch from now() - {instant expired_lease})::float8 as oldest_expired_lease,
       extract(epoch from now() - {instant due_run})::float8 as oldest_due_run,
       (select count(*) from {schema}.workflow_runs
         where status = 'running' and namespace_id = $1
           and available_at < now()) as expired_leases
  from oldest;


-- name: diagnose_schedules
-- The schedules that are to run, and whether their next run is overdue or gone; one that somebody
-- holds back is neither.
select name, cron, time_zone,
       run.id is null
       or not run.paused and extract(epoch from now() - next_at) - jitter_seconds > 60 as is_late
  from {schema}.workflow_schedules schedule
  left join {schema}.workflow_runs run
    on run.id = schedule.next_run_id and run.completed_at is null
 where schedule.namespace_id = $1 and paused_at is null and retired_at is null
 order by name;


-- name: check_invariants
-- What must hold of every row, whoever wrote it. Answers what is broken, how often, and where.
with broken as (
    select 'a pinned run has a build' as invariant, id
      from {schema}.workflow_runs where pinned and build_id is null
    union all
    select 'a running run has a worker' as invariant, id
      from {schema}.workflow_runs where status = 'running' and worker_id is null
    union all
    select 'only a running run has a worker', id
      from {schema}.workflow_runs where status <> 'running' and worker_id is not null
    union all
    select 'a run has completed_at if and only if it has ended', id
      from {schema}.workflow_runs
     where (completed_at is not null) <> (status in ('succeeded', 'failed', 'canceled'))
    union all
    select 'a run has one of the five statuses', id
      from {schema}.workflow_runs
     where status not in ('pending', 'running', 'succeeded', 'failed', 'canceled')
    union all
    select 'a paused run is held by a pause', id
      from {schema}.workflow_runs run
     where paused and pause is null and completed_at is null and limits is null
       and not exists (select from {schema}.workflow_pauses held
                        where held.namespace_id = run.namespace_id
                          and held.workflow_name in ('', run.workflow_name))
    union all
    select 'a slot of a limit is that of a run that is due or running', used.run_id
      from {schema}.workflow_limit_runs used
      left join {schema}.workflow_runs run on run.id = used.run_id
     where has_slot
       and (run.status = 'running' or run.status = 'pending' and not run.paused) is not true
    union all
    select 'what waits for a limit is a run that is set aside', waits.run_id
      from {schema}.workflow_limit_runs waits
      left join {schema}.workflow_runs run on run.id = waits.run_id
     where not has_slot and (run.status = 'pending' and run.paused) is not true
    union all
    select 'a limited run that is executed has a slot', run.id
      from {schema}.workflow_runs run
     where run.status = 'running' and cardinality(run.limits) > 0
       and coalesce(run.deadline_at > run.available_at, true)
       and not exists (select from {schema}.workflow_limit_runs used
                        where used.run_id = run.id and has_slot)
    union all
    select 'what is in use of a limit is counted', null
      from {schema}.workflow_limit_keys used
     where taken <> (select count(*) from {schema}.workflow_limit_runs had
                      where had.namespace_id = used.namespace_id and has_slot
                        and used.limit_key = any (had.limits))
    union all
    select 'a step attempt has completed_at if and only if it has ended', workflow_run_id
      from {schema}.step_attempts
     where (completed_at is not null) <> (status in ('succeeded', 'failed'))
    union all
    select 'a step attempt belongs to a claim its run has had', attempt.workflow_run_id
      from {schema}.step_attempts attempt
      join {schema}.workflow_runs run on run.id = attempt.workflow_run_id
     where attempt.claim_no > run.claim_no
    union all
    select 'a finished run has no step attempt that is running', attempt.workflow_run_id
      from {schema}.step_attempts attempt
      join {schema}.workflow_runs run on run.id = attempt.workflow_run_id
     where attempt.status = 'running' and run.status in ('succeeded', 'failed', 'canceled')
    union all
    select 'one claim records the success of a step once', workflow_run_id
      from {schema}.step_attempts
     where status = 'succeeded' and claim_no > 0
     group by workflow_run_id, step_name, claim_no
    having count(*) > 1
    union all
    select 'one claim takes a signal once', workflow_run_id
      from {schema}.step_attempts
     where kind = 'signal' and context ->> 'message' is not null
     group by workflow_run_id, claim_no, context ->> 'message'
    having count(*) > 1
    union all
    select 'a run that has a parent is known as its child', run.id
      from {schema}.workflow_runs run
      full join {schema}.workflow_children child on child.id = run.id
     where (run.id is null or run.parent_run_id is not null or child.id is not null)
       and (child.id is null or run.parent_run_id is distinct from child.parent_run_id)
    union all
    select 'a parent is told how its child has ended', child.id
      from {schema}.workflow_children child
      join {schema}.workflow_runs run on run.id = child.id
     where child.status is distinct from case when run.completed_at is not null then run.status end
    union all
    select 'a parent that waits does not sleep through the end of its child', parent.id
      from {schema}.step_attempts attempt
      join {schema}.workflow_runs parent
        on parent.id = attempt.workflow_run_id and parent.status = 'pending'
      join {schema}.workflow_runs child
        on child.id = attempt.id and child.completed_at < now() - interval '1 second'
     where attempt.kind = 'child' and attempt.status = 'running'
       and case when parent.limits is not null then least(parent.available_at, parent.due_at)
                when not parent.paused then parent.available_at end = 'infinity'
    union all
    select 'a signal is kept as long as its run', workflow_run_id
      from {schema}.workflow_messages message
     where workflow_run_id is not null
       and not exists (select from {schema}.workflow_runs run
                        where run.id = message.workflow_run_id
                          and run.namespace_id = message.namespace_id)
    union all
    select 'events are numbered without a gap', workflow_run_id
      from {schema}.workflow_events
     group by workflow_run_id
    having count(*) <> max(event_no) - min(event_no) + 1
    union all
    select 'what a run has told is kept as long as the run', workflow_run_id
      from {schema}.workflow_progress progress
     where not exists (select from {schema}.workflow_runs run
                        where run.id = progress.workflow_run_id)
)
select invariant, count(*) as rows, (array_agg(id))[1] as run_id
  from broken
 group by invariant
 order by invariant;
