-- Children: what a parent reads of them, and the cancellation of those that nobody needs any more.
-- They are started in flush.sql; what follows from their ends is in the triggers of migration 0012.


-- name: read_children
-- How the children $2 stand that the runs $1 wait for: one of a step of its own, or with $3 all of a
-- map: they are started in order, so the last number says how many, and those that go on or have
-- failed are counted, each by an index of theirs. What it costs does not grow with those that ended
-- well, as long as one goes on. A map of which more than $4 have failed has ended with the first of
-- those that was one too many. Who has read up to here has seen all that was woken for up to this
-- wake_no: both are of one moment.
select asked.run_id, asked.id, asked.tolerated, run.wake_no,
       child.status, child.output::text as output, child.error::text as error,
       map.started, map.open, map.failed,
       case when map.failed > asked.tolerated
            then (select {instant last.completed_at}
                    from {schema}.workflow_children each
                    join {schema}.workflow_runs last on last.id = each.id
                   where each.step_id = asked.id and each.status <> 'succeeded'
                   order by last.completed_at
                  offset asked.tolerated limit 1)
            when map.open = 0 then (select max({instant last.completed_at})
                                      from {schema}.workflow_children each
                                      join {schema}.workflow_runs last on last.id = each.id
                                     where each.step_id = asked.id)
            else {instant child.completed_at} end as ended_at
  from unnest($1::uuid[], $2::uuid[], $3::bool[], $4::int[])
       as asked (run_id, id, is_map, tolerated)
  join {schema}.workflow_runs run on run.id = asked.run_id
  left join {schema}.workflow_runs child
    on child.id = asked.id and child.namespace_id = run.namespace_id and not asked.is_map
  left join lateral (select coalesce((select number + 1
                                        from {schema}.workflow_children
                                       where step_id = asked.id
                                       order by number desc
                                       limit 1), 0) as started,
                            (select count(*) from {schema}.workflow_children
                              where step_id = asked.id and status is null) as open,
                            (select count(*) from {schema}.workflow_children
                              where step_id = asked.id and status <> 'succeeded') as failed
                    ) map on asked.is_map;


-- name: await_children
-- The runs $2 wait for their children $1 from now on. Answers those that are no child of theirs.
-- An end that is under way is waited for: what comes after it finds the child ended.
with asked as (
    select * from unnest($1::uuid[], $2::uuid[]) as asked (id, run_id)
), awaited as (
    update {schema}.workflow_children child
       set wake_at = 0
      from asked
     where child.id = asked.id and child.parent_run_id = asked.run_id
    returning child.id
)
select id from asked where id not in (select id from awaited);


-- name: find_orphans
-- Children of the namespace $1 that are to be canceled.
select id
  from {schema}.workflow_children
 where namespace_id = $1 and orphaned and status is null
 limit $2;


-- name: forget_orphans
-- These were canceled.
update {schema}.workflow_children
   set orphaned = false
 where id = any ($2::uuid[]) and namespace_id = $1 and orphaned;


-- name: find_retried
-- Children that the run $2 has handles of, and that are to go on with it when it is retried: those
-- that ended with it, those whose failure it has heard of by a step that is tried afresh, and those
-- that have failed before it has heard of it. As far as their starts are kept, by $3 if those are given.
with it as (
    select id, history_from, error -> 'steps' as steps,
           least(completed_at, (select min(decided.created_at)
                                  from {schema}.step_attempts decided
                                 where decided.workflow_run_id = run.id and decided.kind = 'undo'
                                   and decided.step_name = 'undo'
                                   and decided.claim_no >= run.history_from)) as over_at
      from {schema}.workflow_runs run
     where id = $2 and namespace_id = $1 and status in ('failed', 'canceled') and is_parent
)
select child.id
  from it
  join {schema}.step_attempts start
    on start.workflow_run_id = it.id and start.kind = 'child-start'
   and start.claim_no >= it.history_from and (start.id = any ($3::uuid[])) is not false
  join {schema}.workflow_children child on child.step_id = start.id
  join {schema}.workflow_runs run on run.id = child.id and run.status in ('failed', 'canceled')
 where child.parent_run_id = it.id
   and (child.on_close = 'cancel'
        and (run.completed_at >= it.over_at
             or run.status = 'failed'
                and not exists (select from {schema}.step_attempts heard
                                 where heard.workflow_run_id = it.id and heard.kind = 'child'
                                   and heard.status <> 'running'
                                   and heard.context -> 'interrupted' is null
                                   and heard.claim_no >= it.history_from
                                   and heard.context ->> 'child' = child.id::text
                                   and (heard.id = any ($3::uuid[])) is not false))
        or exists (select from {schema}.step_attempts heard
                    where heard.workflow_run_id = it.id and heard.kind = 'child'
                      and heard.status = 'failed' and heard.claim_no >= it.history_from
                      and heard.context ->> 'child' = child.id::text
                      and case when $3 is null then coalesce(it.steps ? heard.step_name, false)
                               else heard.id <> all ($3) end))
 order by child.created_at, child.id;


-- name: read_map
-- What the children of the step $2 came to, from the item $3 on, $4 of them; of the namespace $1.
select child.number, child.id, run.status, run.output::text as output, run.error::text as error
  from {schema}.workflow_children child
  join {schema}.workflow_runs run on run.id = child.id
 where child.namespace_id = $1 and child.step_id = $2 and child.number >= $3
 order by child.number
 limit $4;
