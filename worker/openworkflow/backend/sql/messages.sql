-- Signals: how they are sent, and how those who wait for them hear of them. What a message sets in
-- motion is in the triggers of migrations 0007 and 0009, since anybody may insert one.
--
-- A message is taken by the row of a step attempt that names it. That row is the only mark, so that
-- there is one writer, whose fence is that of every other step.


-- name: send_signal
select {schema}.openworkflow_signal($1::uuid, $2::text, $3::text::jsonb, $4::text, $5::uuid,
                                    $6::text) as id;


-- name: send_topic_signal
select {schema}.openworkflow_signal_topic($1::text, $2::text::jsonb, $3::text, $4::interval,
                                          $5::uuid, $6::text) as id;


-- name: read_inboxes
-- What was sent to runs under the names that they wait for ($1 and $2), but for the messages $3
-- that they have had, or that runs $4 and $5 have had of topics. Who has read up to here has seen
-- all that was woken for up to this wake_no: both are of one moment.
with asked as (
    select * from unnest($1::uuid[], $2::text[]) as asked (run_id, name)
)
select run.id as run_id, asked.name, run.wake_no,
       message.id, message.payload::text as payload, message.of_topic,
       {instant message.created_at} as sent_at
  from asked
  join {schema}.workflow_runs run on run.id = asked.run_id
  left join lateral (
       (select id, payload, message_no, false as of_topic, created_at
          from {schema}.workflow_messages
         where workflow_run_id = run.id and name = asked.name and namespace_id = run.namespace_id
           and id <> all ($3::uuid[])
         order by message_no
         limit $6)
        union all
       (select id, payload, message_no, true, created_at
          from {schema}.workflow_messages topical
         where workflow_run_id is null and namespace_id = run.namespace_id and name = asked.name
           and expires_at > now()
           and not exists (select from unnest($4::uuid[], $5::uuid[]) as taken (run_id, id)
                            where taken.run_id = run.id and taken.id = topical.id)
           and not exists (select from {schema}.workflow_subscriptions subscription
                            where subscription.workflow_run_id = run.id
                              and subscription.topic = asked.name
                              and topical.id = any (subscription.received))
         order by message_no
         limit $6)
       ) message on true
 order by message.message_no;


-- name: subscribe
-- Runs $1 wait for topics $2, of the namespace $3: the next message of a topic wakes them. One that
-- is being sent at this moment would not, so its topic is answered as not free: look again.
with asked as (
    select * from unnest($1::uuid[], $2::text[]) as asked (run_id, topic)
), tried as (
    select topic, pg_try_advisory_xact_lock(
               hashtextextended('openworkflow topic ' || $4 || '.' || $3 || '.' || topic, 0)) as free
      from (select distinct topic from asked) topics
), subscribed as (
    insert into {schema}.workflow_subscriptions (workflow_run_id, topic, namespace_id, waiting)
    select asked.run_id, asked.topic, $3, true
      from asked join tried on tried.topic = asked.topic and tried.free
     where exists (select from {schema}.workflow_runs run
                    where run.id = asked.run_id and run.completed_at is null)
    on conflict (workflow_run_id, topic) do update set waiting = true
)
select topic from tried where not free;


-- name: read_wakes
-- How often these runs were woken.
select id, wake_no from {schema}.workflow_runs where id = any ($1::uuid[]);
