-- Questions about the database itself.


-- name: now
-- The clock that decides.
select now() as now;


-- name: notify_work
-- Wakes the workers, on their channel $1.
select pg_notify($1, '');
