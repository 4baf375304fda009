"""Faults that the server says in words: limits of time, a full disk, writes that it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import asyncpg

from tests.chaos.ground import TERMINATE, Fault, Ground

#: One of each class that a write can be refused with, and that is not the value's fault.
REFUSALS = {
    "08006": "connection failure",
    "23514": "a constraint",
    "25006": "read only",
    "40001": "serialization",
    "40P01": "deadlock",
    "42501": "a privilege",
    "53200": "out of memory",
    "53300": "too many connections",
    "54000": "a limit of the program",
    "55P03": "a lock",
    "57014": "canceled",
    "58030": "an I/O error",
    "P0001": "a trigger",
    "XX000": "a defect of the server",
    "XX001": "a damaged page",
}
VALUES = {"54000"}
"""Those by which the value is at fault: they fail a run, and so are no part of a campaign."""
TABLES = ("workflow_runs", "step_attempts")
_REFUSE = """
CREATE OR REPLACE FUNCTION chaos_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION 'refused by the campaign' USING ERRCODE = '{state}';
END $$;
CREATE TRIGGER chaos_refuse BEFORE INSERT OR UPDATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION chaos_refuse();
"""


async def refused_writes(on: Ground) -> None:
    """A trigger refuses every write to a table, in the words of one class of errors."""
    state = on.chance.choice([state for state in REFUSALS if state not in VALUES])
    with on.stage.fault("refused-writes"):
        await _refuse(on, state, [on.chance.choice(TABLES)])


async def disk_full(on: Ground) -> None:
    """Nothing can be written to either table, as a server says whose disk is full."""
    with on.stage.fault("disk-full"):
        await _refuse(on, "53100", TABLES)


async def _refuse(on: Ground, state: str, tables: tuple[str, ...] | list[str]) -> None:
    async with on.admin() as connection:
        for table in tables:
            await _alter(on, connection, _REFUSE.format(table=table, state=state))
        await asyncio.sleep(on.outage)
        for table in tables:
            await _alter(on, connection, f"DROP TRIGGER chaos_refuse ON {table}")


async def _alter(on: Ground, connection: asyncpg.Connection[Any], sql: str) -> None:
    """Change a table as a careful administrator does: who waits for its lock holds up all others.

    A connection that fell silent in the middle of a statement keeps its lock until the server hears
    that its client is gone.
    """
    await connection.execute("SET lock_timeout = '1s'")
    while True:
        try:
            await connection.execute(sql)
            return
        except asyncpg.LockNotAvailableError:
            on.proxy.forget()
            await asyncio.sleep(0.5)


async def statement_timeout(on: Ground) -> None:
    """The server gives a statement less time than a large flush takes."""
    await _limited(on, "statement-timeout", "statement_timeout", "20ms")


async def lock_timeout(on: Ground) -> None:
    """The server lets nobody wait for a lock, and somebody holds some."""
    await _limited(on, "lock-timeout", "lock_timeout", "20ms")


async def idle_timeout(on: Ground) -> None:
    """The server ends connections that say nothing for a moment."""
    await _limited(on, "idle-timeout", "idle_session_timeout", "50ms")


async def _limited(on: Ground, kind: str, setting: str, value: str) -> None:
    """The workers' connections are opened anew, with the limit; and again without."""
    with on.stage.fault(kind):
        async with on.admin() as connection:
            await connection.execute("SET idle_session_timeout = 0")
            await connection.execute(f"ALTER DATABASE postgres SET {setting} = '{value}'")
            await connection.fetchval(TERMINATE, "chaos%")
            async with connection.transaction():
                await connection.execute(
                    "SELECT FROM workflow_runs WHERE completed_at IS NULL LIMIT 20 FOR UPDATE"
                )
                await asyncio.sleep(on.outage)
            await connection.execute(f"ALTER DATABASE postgres RESET {setting}")
            await connection.fetchval(TERMINATE, "%")


FAULTS: Mapping[str, Fault] = {
    "refused-writes": refused_writes,
    "disk-full": disk_full,
    "statement-timeout": statement_timeout,
    "lock-timeout": lock_timeout,
    "idle-timeout": idle_timeout,
}
