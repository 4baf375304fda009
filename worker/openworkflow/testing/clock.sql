-- A database whose clock can be moved ahead: for tests, in databases that were made for them.
--
-- The functions stand before those of pg_catalog on the search_path of the database, and in the
-- functions and defaults of the tables, which name them. So all SQL of OpenWorkflow reads this
-- clock, unchanged, and no row is ever moved.

create schema openworkflow_clock;

create table openworkflow_clock.clock (ahead interval not null);

insert into openworkflow_clock.clock values ('0');

create function openworkflow_clock.now() returns timestamptz
  language sql stable as $$ select pg_catalog.now() + ahead from openworkflow_clock.clock $$;

create function openworkflow_clock.clock_timestamp() returns timestamptz
  language sql volatile as
$$ select pg_catalog.clock_timestamp() + ahead from openworkflow_clock.clock $$;

do $$
declare
  found record;
  calls constant text := '(?<![.\w])(now|clock_timestamp)\(\)';
  reads_ours constant text := 'openworkflow_clock.\1()';
begin
  for found in
    select oid from pg_proc where pronamespace = 'public'::regnamespace and prosrc ~ calls
  loop
    execute regexp_replace(pg_get_functiondef(found.oid), calls, reads_ours, 'g');
  end loop;
  for found in
    select adrelid::regclass as owner, attname, pg_get_expr(adbin, adrelid) as expression
      from pg_attrdef
      join pg_attribute on attrelid = adrelid and attnum = adnum
      join pg_class on pg_class.oid = adrelid
     where relnamespace = 'public'::regnamespace and pg_get_expr(adbin, adrelid) ~ calls
  loop
    execute format('alter table %s alter column %I set default %s', found.owner, found.attname,
                   regexp_replace(found.expression, calls, reads_ours, 'g'));
  end loop;
end
$$;
