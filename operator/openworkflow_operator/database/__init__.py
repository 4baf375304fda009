"""All talk with the databases of tenants, each of which may be hostile.

Duty: read a URL safely, connect, observe, listen, prune, and carry out what a rollout decided. The
only wing with SQL (`sql/`) and asyncpg. Nothing that a URL or a server says leaves it as text: what
leaves are checked counts, and reasons and advice in words of our own.
"""
