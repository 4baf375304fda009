"""A database that refuses what is written, with any SQLSTATE, for as long as a test likes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg


@contextlib.asynccontextmanager
async def refusing(
    sql: asyncpg.Connection[Any], table: str, state: str, when: str = "true"
) -> AsyncIterator[None]:
    """Inserts and updates of `table` fail with `state`, those at least for whose row `when` holds.

    `when` is SQL about `new`. What was under way when this ends is committed or refused by then.
    """
    await sql.execute(
        f"""
        create function refuse() returns trigger language plpgsql as $$
        begin
            if {when} then raise exception 'refused by a test' using errcode = '{state}'; end if;
            return new;
        end $$;
        create trigger refuse before insert or update on {table}
            for each row execute function refuse();
        """
    )
    try:
        yield
    finally:
        await sql.execute(f"drop trigger refuse on {table}; drop function refuse")
