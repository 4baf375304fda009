-- Which migration the schema has reached.
SELECT max(version) AS version
FROM {schema}.openworkflow_migrations
