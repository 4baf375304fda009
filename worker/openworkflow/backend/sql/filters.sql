-- The filter language (core/filters.py) as SQL. A term is one of the blocks `where_`, with the
-- column that its field means and the parameters that it got; the statements are composed of them
-- (backend/filtering.py).


-- name: where_is
-- Said so, an index has its rows in their order; of several values the planner sorts them.
{column} = :value::text


-- name: where_one_of
{column} = any (:value::text[])


-- name: where_id
{column} = any (:value::uuid[])


-- name: where_failed
status = 'failed'


-- name: where_pending
status = 'pending'


-- name: where_running
status = 'running'


-- name: where_contains
{column} ilike any (:value::text[])


-- name: where_tag
-- One value each, so that the index on tags is of use.
tags @> :value::text::jsonb


-- name: where_older
{column} < now() - :value::interval


-- name: where_younger
{column} > now() - :value::interval


-- name: where_before
{column} < :value::timestamptz


-- name: where_after
{column} > :value::timestamptz


-- name: where_equal
{column} = any (:value::float8[])


-- name: where_more
{column} > :value::float8


-- name: where_less
{column} < :value::float8


-- name: where_flag
{column} = :value::bool


-- name: where_among
id = any (:among::uuid[])


-- name: where_held
-- What waits for a slot of a limit is set aside as what is paused, and is not.
(paused and (limits is null or pause is not null
             or array['', workflow_name] && array(select held.workflow_name
                                                    from {schema}.workflow_pauses held
                                                   where held.namespace_id = :namespace_id)))


-- name: where_limited
-- One with limits that waits for a time, or to be woken, is set aside as well, until that has come.
(paused and due_at <= now() and available_at > now() and not {where_held})


-- name: where_list
select {run_columns}
  {where_page}


-- name: where_brief
-- Without inputs and outputs.
select {run_facts}
  {where_page}


-- name: where_page
from {schema}.workflow_runs run
 where namespace_id = :namespace_id and {where}
   and created_at <= case when :at::timestamptz < {instant 'infinity'} then :at else 'infinity' end
   and (:at is null or ({instant created_at}, id) < (:at, :id::uuid))
 order by run.created_at desc, run.id desc
 limit :limit


-- name: where_count
select count(*)
  from {schema}.workflow_runs
 where namespace_id = :namespace_id and {where} and {actionable}
   and created_at <= coalesce(:began::timestamptz, 'infinity')


-- name: where_chunk
-- The next runs of an operation, in the order of their ids, after :id. What has come to be since it
-- began is not meant: a run that it retried and that failed again is not retried again.
select id
  from {schema}.workflow_runs
 where namespace_id = :namespace_id and {where} and {actionable}
   and created_at <= :began::timestamptz and (completed_at is null or completed_at <= :began)
   and id > :id::uuid
 order by id
 limit :limit


-- name: where_retryable
status in ('failed', 'canceled')


-- name: where_unfinished
status in ('pending', 'running')


-- name: where_pausable
status in ('pending', 'running') and pause is null


-- name: where_resumable
status in ('pending', 'running') and pause is not null


-- name: where_finished
status in ('succeeded', 'failed', 'canceled')


-- name: delete_runs
-- Runs that have ended; their step attempts go with them.
delete from {schema}.workflow_runs
 where id = any (array(select id from {schema}.workflow_runs
                        where id = any ($2::uuid[]) and namespace_id = $1
                          and status in ('succeeded', 'failed', 'canceled')
                        order by id
                          for update skip locked))
returning id;
