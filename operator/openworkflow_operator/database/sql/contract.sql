-- The contract of the schema. Additive migrations have numbers below zero and do not raise it.
SELECT max(version) AS contract
FROM {schema}.openworkflow_migrations
