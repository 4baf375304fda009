"""Which server a worker speaks to, and which tables there: one that took over may lack commits.

A standby that was not waited for, a backup that was restored: the last commits are gone, and what a
worker holds in memory may rest on them. So a connection is asked, before anything else, where it
leads. Where that is not where the worker has been so far, what it holds is compared with what is
there first; what an older connection still answers does not count.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple
from uuid import UUID

from openworkflow_contract.statements import quoted

Fetch = Callable[..., Awaitable[list[Any]]]
"""SQL and its arguments, on a connection to the other server."""

_MARK = "openworkflow: another server"
_WHERE = """
concat_ws('/', to_char(pg_postmaster_start_time() at time zone 'UTC', 'YYYYMMDDHH24MISSUS'),
               (select oid from pg_catalog.pg_database where datname = current_database()),
               to_regclass({table})::oid)"""
"""A standby has another start than its primary, a restored table another number."""


class Held(NamedTuple):
    """A claim that a worker holds, and what it was told is recorded under it."""

    run_id: UUID
    claim_no: int
    deadline: Any
    """The run's own, or the one that its workflow gave it when it was claimed."""
    told: int
    """How much the run has told: a number that grows with each thing."""
    ended: Iterable[UUID]
    """Rows of step attempts that are over."""
    begun: Iterable[UUID]
    """Rows of step attempts that may go on."""


class Compared(NamedTuple):
    """What a server says of claims."""

    standing: set[tuple[UUID, int]]
    """Claims that stand there, with all that was recorded under them."""
    lacking: int
    """How many lack commits; the rest has ended, or is others' by now, as after any outage."""


class Incarnation:
    """Where the connections of a session lead.

    `known` is the newest of these places. `on_another` is called where it is another than before,
    with what sends statements there; nothing else is sent there until that has succeeded.
    """

    def __init__(self, schema: str) -> None:
        table = f"{quoted(schema)}.workflow_runs".replace("'", "''")
        self._where = _WHERE.format(table=f"'{table}'")
        self._looking, self._unchecked = asyncio.Lock(), False
        self.known: str | None = None
        self.on_another: Callable[[Fetch], Awaitable[None]] | None = None

    async def look(self, connection: Any) -> str:
        """Where this connection leads; raises what the driver does."""
        async with self._looking:
            seen: str = await connection.fetchval(f"select {self._where}")
            if seen != self.known:
                self._unchecked = self._unchecked or self.known is not None
                self.known = seen
            if self._unchecked and self.on_another is not None:
                await self.on_another(connection.fetch)
            self._unchecked = False
            return seen

    def guard(self, seen: str) -> str:
        """SQL that fails elsewhere than there: behind a pooler a connection may lead anywhere.

        What fails is not constant: PostgreSQL would compute that before it knows whether it has to.
        """
        failing = f"concat('{_MARK} ', {self._where})::int"
        return f"select case {self._where} when '{seen}' then 0 else {failing} end"


def leads_elsewhere(error: BaseException) -> bool:
    """Whether it is the guard's."""
    return _MARK in str(error)


async def keep_whole(
    fetch: Fetch, queries: Mapping[str, str], worker_id: str, held: Iterable[Held]
) -> Compared:
    """Which of the claims stand there, with all that was recorded under them.

    The runs of the others are handed back there, if they are still this worker's.
    """
    claims = list(held)
    if not claims:
        return Compared(set(), 0)
    rows = [
        (claim.run_id, row, over)
        for claim in claims
        for over, ids in ((True, claim.ended), (False, claim.begun))
        for row in ids
    ]
    columns = zip(*(claim[:4] for claim in claims), strict=True)
    more = zip(*rows, strict=True) if rows else ((), (), ())
    found = await fetch(queries["keep_whole_claims"], *columns, *more, worker_id)
    standing = {(row["run_id"], row["claim_no"]) for row in found if row["stands"]}
    return Compared(standing, sum(row["lacks"] for row in found))
