-- Keeping the tables.


-- name: read_contract
-- The contract of the schema. Additive migrations have numbers below zero and do not raise it.
select max(version) as contract
  from {schema}.openworkflow_migrations;


-- name: prune_page
-- One page of the table, in the order of the ids after $4, with the finished runs on it deleted
-- whose time is over, but for those of a build that is being proven by them; their step attempts go
-- with them. What it costs is bounded by the page.
with page as (
    select w.id
      from {schema}.workflow_runs w
     where w.id > $4
     order by w.id
     limit $5
), old as (
    select w.id
      from page
      join {schema}.workflow_runs w using (id)
      join unnest($1::text[], $2::text[], $3::float8[], $6::text[])
           as kept (namespace_id, status, seconds, spared_build)
        on kept.namespace_id = w.namespace_id and kept.status = w.status
     where w.completed_at < now() - kept.seconds * interval '1 second'
       and (w.build_id = kept.spared_build) is not true
       for update of w skip locked
), deleted as (
    delete from {schema}.workflow_runs
     where id in (select old.id from old)
    returning namespace_id
)
select (select page.id from page order by page.id desc limit 1) as last_id,
       (select count(*) from page) as looked_at,
       (select coalesce(jsonb_object_agg(d.namespace_id, d.runs), '{}')::text
          from (select namespace_id, count(*) as runs from deleted group by 1) d) as deleted;


-- name: tell_fleets
-- What is to be seen of the fleets of these namespaces, for people who look at the runs.
insert into {schema}.workflow_fleets (namespace_id, resource, status)
select namespace_id, resource, status
  from unnest($1::text[], $2::text[], $3::jsonb[]) as told (namespace_id, resource, status)
 order by namespace_id
    on conflict (namespace_id) do update
   set resource = excluded.resource, status = excluded.status, reported_at = now();
