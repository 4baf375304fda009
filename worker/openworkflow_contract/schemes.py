"""How the URL of a PostgreSQL begins, for whoever reads one."""

SCHEME = r"(?i:postgres(?:ql)?)(?:\+\w+)?"
"""A pattern: also SQLAlchemy's form, which names a driver: `postgresql+asyncpg`."""
