"""Everything that talks to PostgreSQL: connections, the schema, and every SQL statement."""
