-- What each kind of role may do, and what keeps namespaces apart. `openworkflow migrate --roles`
-- applies it, and every migration applies it again; a role loses first whatever it had.
-- docs/security.md has it as a table, which a test holds against PostgreSQL.


-- name: register
-- Our roles, and those that are bound to one namespace. Only the owner writes here.
create table {schema}.openworkflow_roles (
  role_name TEXT PRIMARY KEY,
  -- What it may do: owner, operator, worker, enqueuer, reader.
  kinds TEXT[] NOT NULL,
  -- The only one that it sees; NULL for a role that sees all.
  namespace_id TEXT
);


-- name: owner
-- Makes and changes the tables, which belong to it. Row security does not hold it back.
grant usage, create on schema {schema} to {role};


-- name: operator
-- A worker that may also delete finished runs and say which build takes new ones.
grant usage on schema {schema} to {role};
grant select on {schema}.openworkflow_migrations, {schema}.openworkflow_roles to {role};
grant select, insert, update, delete
   on {schema}.workflow_runs, {schema}.step_attempts, {schema}.workflow_builds,
      {schema}.workflow_served, {schema}.workflow_schedules, {schema}.workflow_pauses,
      {schema}.workflow_fleets,
      {schema}.workflow_messages, {schema}.workflow_subscriptions, {schema}.workflow_children,
      {schema}.workflow_progress, {schema}.workflow_events,
      {schema}.workflow_limits, {schema}.workflow_keys, {schema}.workflow_rates,
      {schema}.workflow_turns
   to {role};
grant select
   on {schema}.workflow_limit_keys, {schema}.workflow_limit_runs, {schema}.workflow_limit_lanes
   to {role};


-- name: worker
-- Deletes steps and signals, those of a run that continues as new, and schedules. It may start runs,
-- as steps do; it could make a pending one of any run that there is anyway.
grant usage on schema {schema} to {role};
grant select on {schema}.openworkflow_migrations, {schema}.openworkflow_roles to {role};
grant select, insert, update on {schema}.workflow_runs to {role};
grant select, insert, update, delete on {schema}.step_attempts to {role};
grant select, insert on {schema}.workflow_builds to {role};
grant select, insert, update on {schema}.workflow_served, {schema}.workflow_fleets to {role};
grant select, insert, delete on {schema}.workflow_messages to {role};
grant select, insert, update on {schema}.workflow_subscriptions to {role};
grant select, insert, update on {schema}.workflow_progress to {role};
grant select, insert, update, delete on {schema}.workflow_events to {role};
grant select, insert, update on {schema}.workflow_children to {role};
grant select, insert, update, delete on {schema}.workflow_schedules to {role};
grant select, update (lock_only) on {schema}.workflow_pauses to {role};
grant select, insert, update, delete on {schema}.workflow_limits to {role};
grant select, insert, update, delete on {schema}.workflow_keys to {role};
grant select, insert, update on {schema}.workflow_rates to {role};
grant select, insert, update, delete on {schema}.workflow_turns to {role};
grant select
   on {schema}.workflow_limit_keys, {schema}.workflow_limit_runs, {schema}.workflow_limit_lanes
   to {role};


-- name: enqueuer
-- Starts runs and sends signals, and sees neither inputs nor results, nor what others sent. An
-- idempotency key is written when it is freed. That a signal wakes its run is no right of this role,
-- which could end leases with it, but the doing of a trigger.
grant usage on schema {schema} to {role};
grant select on {schema}.openworkflow_migrations, {schema}.openworkflow_roles to {role};
grant select (id, namespace_id, workflow_name, status, created_at, idempotency_key),
      insert (id, namespace_id, workflow_name, version, status, config, input,
              available_at, deadline_at, idempotency_key, paused, due_at, tags, limits, priority),
      update (idempotency_key)
   on {schema}.workflow_runs to {role};
grant select (id, namespace_id, workflow_run_id, name, idempotency_key),
      insert (id, namespace_id, workflow_run_id, name, payload, idempotency_key, expires_at)
   on {schema}.workflow_messages to {role};
grant select (namespace_id, workflow_name), update (lock_only) on {schema}.workflow_pauses to {role};
grant insert (namespace_id, name, slots, rate, rate_seconds, burst, workflow_name, declared)
   on {schema}.workflow_limits to {role};
grant select, insert, update on {schema}.workflow_keys to {role};


-- name: reader
grant usage on schema {schema} to {role};
grant select on {schema}.openworkflow_migrations, {schema}.openworkflow_roles to {role};
grant select
   on {schema}.workflow_runs, {schema}.step_attempts, {schema}.workflow_builds,
      {schema}.workflow_served, {schema}.workflow_schedules, {schema}.workflow_pauses,
      {schema}.workflow_fleets,
      {schema}.workflow_messages, {schema}.workflow_subscriptions, {schema}.workflow_children,
      {schema}.workflow_progress, {schema}.workflow_events,
      {schema}.workflow_limits, {schema}.workflow_keys, {schema}.workflow_rates,
      {schema}.workflow_turns,
      {schema}.workflow_limit_keys, {schema}.workflow_limit_runs, {schema}.workflow_limit_lanes
   to {role};


-- name: nothing
revoke all on {schema}.openworkflow_migrations, {schema}.openworkflow_roles,
              {schema}.workflow_runs, {schema}.step_attempts, {schema}.workflow_builds,
              {schema}.workflow_served, {schema}.workflow_schedules, {schema}.workflow_pauses,
              {schema}.workflow_fleets,
              {schema}.workflow_messages, {schema}.workflow_subscriptions,
              {schema}.workflow_children, {schema}.workflow_progress, {schema}.workflow_events,
              {schema}.workflow_limits, {schema}.workflow_keys, {schema}.workflow_rates,
              {schema}.workflow_turns,
              {schema}.workflow_limit_keys, {schema}.workflow_limit_runs,
              {schema}.workflow_limit_lanes
  from {role};


-- name: policies
-- A role sees what some policy shows it: the roles of all namespaces everything, one that is bound
-- its own, any other nothing. The subqueries stand alone, so that each is asked once a statement
-- and its answer walks an index.
create policy openworkflow_bound on {schema}.workflow_runs
 using (namespace_id = (select bound.namespace_id from {schema}.openworkflow_roles bound
                         where bound.role_name = current_user));
create policy openworkflow_bound on {schema}.workflow_builds
 using (namespace_id = (select bound.namespace_id from {schema}.openworkflow_roles bound
                         where bound.role_name = current_user));
create policy openworkflow_bound on {schema}.workflow_served
 using (namespace_id = (select bound.namespace_id from {schema}.openworkflow_roles bound
                         where bound.role_name = current_user));
create policy openworkflow_bound on {schema}.workflow_messages
-- A run of another namespace is none that may be written to.
 using (namespace_id = (select bound.namespace_id from {schema}.openworkflow_roles bound
                         where bound.role_name = current_user)
        and (workflow_run_id is null
             or (select true from {schema}.workflow_runs run where run.id = workflow_run_id)));
create policy openworkflow_bound on {schema}.workflow_subscriptions
 using (namespace_id = (select bound.namespace_id from {schema}.openworkflow_roles bound
                         where bound.role_name = current_user));
create policy openworkflow_bound on {schema}.workflow_children
 using (namespace_id = (select bound.namespace_id from {schema}.openworkflow_roles bound
                         where bound.role_name = current_user));
create policy openworkflow_bound on {schema}.workflow_schedules
 using (namespace_id = (select bound.namespace_id from {schema}.openworkflow_roles bound
                         where bound.role_name = current_user));
create policy openworkflow_bound on {schema}.workflow_pauses
 using (namespace_id = (select bound.namespace_id from {schema}.openworkflow_roles bound
                         where bound.role_name = current_user));
create policy openworkflow_bound on {schema}.workflow_fleets
 using (namespace_id = (select bound.namespace_id from {schema}.openworkflow_roles bound
                         where bound.role_name = current_user));
create policy openworkflow_bound on {schema}.workflow_limits
 using (namespace_id = (select bound.namespace_id from {schema}.openworkflow_roles bound
                         where bound.role_name = current_user));
create policy openworkflow_bound on {schema}.workflow_keys
 using (namespace_id = (select bound.namespace_id from {schema}.openworkflow_roles bound
                         where bound.role_name = current_user));
create policy openworkflow_bound on {schema}.workflow_limit_keys
 using (namespace_id = (select bound.namespace_id from {schema}.openworkflow_roles bound
                         where bound.role_name = current_user));
create policy openworkflow_bound on {schema}.workflow_limit_runs
 using (namespace_id = (select bound.namespace_id from {schema}.openworkflow_roles bound
                         where bound.role_name = current_user));
create policy openworkflow_bound on {schema}.workflow_limit_lanes
 using (namespace_id = (select bound.namespace_id from {schema}.openworkflow_roles bound
                         where bound.role_name = current_user));
create policy openworkflow_bound on {schema}.workflow_rates
 using (namespace_id = (select bound.namespace_id from {schema}.openworkflow_roles bound
                         where bound.role_name = current_user));
create policy openworkflow_bound on {schema}.workflow_turns
 using (namespace_id = (select bound.namespace_id from {schema}.openworkflow_roles bound
                         where bound.role_name = current_user));
create policy openworkflow_bound on {schema}.step_attempts
-- Not `exists`: of that the planner may make a hash of the whole namespace.
 using ((select true from {schema}.workflow_runs run where run.id = workflow_run_id));
create policy openworkflow_bound on {schema}.workflow_progress
 using ((select true from {schema}.workflow_runs run where run.id = workflow_run_id));
create policy openworkflow_bound on {schema}.workflow_events
 using ((select true from {schema}.workflow_runs run where run.id = workflow_run_id));
create policy openworkflow_bound on {schema}.openworkflow_roles
 using (role_name = current_user);
create policy openworkflow_all on {schema}.workflow_runs to {all} using (true);
create policy openworkflow_all on {schema}.workflow_builds to {all} using (true);
create policy openworkflow_all on {schema}.workflow_served to {all} using (true);
create policy openworkflow_all on {schema}.workflow_messages to {all} using (true);
create policy openworkflow_all on {schema}.workflow_subscriptions to {all} using (true);
create policy openworkflow_all on {schema}.workflow_children to {all} using (true);
create policy openworkflow_all on {schema}.workflow_schedules to {all} using (true);
create policy openworkflow_all on {schema}.workflow_pauses to {all} using (true);
create policy openworkflow_all on {schema}.workflow_fleets to {all} using (true);
create policy openworkflow_all on {schema}.workflow_progress to {all} using (true);
create policy openworkflow_all on {schema}.workflow_events to {all} using (true);
create policy openworkflow_all on {schema}.workflow_limits to {all} using (true);
create policy openworkflow_all on {schema}.workflow_keys to {all} using (true);
create policy openworkflow_all on {schema}.workflow_limit_keys to {all} using (true);
create policy openworkflow_all on {schema}.workflow_limit_runs to {all} using (true);
create policy openworkflow_all on {schema}.workflow_limit_lanes to {all} using (true);
create policy openworkflow_all on {schema}.workflow_rates to {all} using (true);
create policy openworkflow_all on {schema}.workflow_turns to {all} using (true);
create policy openworkflow_all on {schema}.step_attempts to {all} using (true);
alter table {schema}.workflow_runs enable row level security;
alter table {schema}.workflow_builds enable row level security;
alter table {schema}.workflow_served enable row level security;
alter table {schema}.workflow_messages enable row level security;
alter table {schema}.workflow_subscriptions enable row level security;
alter table {schema}.workflow_children enable row level security;
alter table {schema}.workflow_schedules enable row level security;
alter table {schema}.workflow_pauses enable row level security;
alter table {schema}.workflow_fleets enable row level security;
alter table {schema}.workflow_progress enable row level security;
alter table {schema}.workflow_events enable row level security;
alter table {schema}.workflow_limits enable row level security;
alter table {schema}.workflow_keys enable row level security;
alter table {schema}.workflow_limit_keys enable row level security;
alter table {schema}.workflow_limit_runs enable row level security;
alter table {schema}.workflow_limit_lanes enable row level security;
alter table {schema}.workflow_rates enable row level security;
alter table {schema}.workflow_turns enable row level security;
alter table {schema}.step_attempts enable row level security;
alter table {schema}.openworkflow_roles enable row level security;
