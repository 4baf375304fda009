"""Several connections stepped through every order of what they do, without a sleep.

Each mover has connections of its own, told by their application name. Triggers make them wait at
gates: where a statement has its snapshot and has read nothing, and where a transaction is about to
commit. A gate is an advisory lock that the stepper holds until the mover's turn has come.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

SNAPSHOT, COMMIT = 1, 2
"""The gates: before anything is read or written, and after everything is."""
BOTH = (SNAPSHOT, COMMIT)
STUCK_SECONDS = 60.0

_GATES = """
create function step_gate() returns trigger language plpgsql as $$ begin
    if current_setting('application_name') like 'mover %' then
        perform pg_advisory_xact_lock_shared(
            tg_argv[0]::int, split_part(current_setting('application_name'), ' ', 2)::int);
    end if;
    return null;
end $$;
"""
_GATE = """
create trigger step_snapshot before insert or update or delete on {table}
    for each statement execute function step_gate(1);
create constraint trigger step_commit after insert or update or delete on {table}
    deferrable initially deferred for each row execute function step_gate(2);
"""
# Who waits, and whether for the stepper. Whoever was just granted a lock waits for nobody.
_WAITING = """
select split_part(application_name, ' ', 2)::int as mover, blockers && $1::int[] as at_gate
  from (select application_name, pg_blocking_pids(pid) as blockers
          from pg_stat_activity
         where application_name like 'mover %' and wait_event_type = 'Lock'
           and datname = current_database()) as waiting
 where blockers <> '{}'
"""


def application_name(mover: int) -> str:
    """What the connections of this mover are called."""
    return f"mover {mover}"


def orders(*parts: int) -> Iterator[tuple[int, ...]]:
    """Every order in which so many steps of each mover can come: 2 and 1 make 001, 010 and 100."""
    if not any(parts):
        yield ()
        return
    for mover, left in enumerate(parts):
        if left:
            fewer = [*parts[:mover], left - 1, *parts[mover + 1 :]]
            for rest in orders(*fewer):
                yield (mover, *rest)


@dataclass(frozen=True)
class Move:
    """What a mover does: `gates` are those that it stops at, in their order."""

    do: Callable[[], Awaitable[Any]]
    gates: tuple[int, ...] = BOTH


@dataclass
class Stepper:
    """Opens the gates one by one; `locked` are runs whose rows are a gate too, one a mover.

    A statement that begins with such a row waits there with its snapshot taken.
    """

    url: str
    locked: Sequence[Any] = ()
    _gates: list[asyncpg.Connection[Any]] = field(default_factory=list)

    async def open(self) -> None:
        """Put the gates up; nobody but movers meets them."""
        self._gates = [await asyncpg.connect(self.url) for _ in range(1 + len(self.locked))]
        await self._gates[0].execute(_GATES)
        for table in ("workflow_runs", "step_attempts", "workflow_builds"):
            await self._gates[0].execute(_GATE.format(table=table))

    async def close(self) -> None:
        for connection in self._gates:
            await connection.close()

    async def step(self, moves: Sequence[Move], order: Sequence[int]) -> list[Any]:
        """Do the moves in this order; answers what each returned or raised."""
        await self._shut(moves)
        tasks: dict[int, asyncio.Task[Any]] = {}
        turns = dict.fromkeys(range(len(moves)), 0)
        for mover in order:
            if mover in tasks:
                await self._unlock(moves[mover].gates[turns[mover]], mover)
                turns[mover] += 1
            else:
                tasks[mover] = asyncio.create_task(_told(moves[mover].do()))
            await self._settled(tasks)
        async with asyncio.timeout(STUCK_SECONDS):
            return [await tasks[mover] for mover in range(len(moves))]

    async def _shut(self, moves: Sequence[Move]) -> None:
        shut = [(gate, mover) for mover, move in enumerate(moves) for gate in move.gates]
        keys = ", ".join(f"pg_advisory_lock({gate}, {mover})" for gate, mover in shut)
        await self._gates[0].fetchrow(f"select {keys}")
        for gate, mover in shut:
            if gate == SNAPSHOT and mover < len(self.locked):
                await self._gates[1 + mover].execute(
                    f"begin; select from workflow_runs where id = '{self.locked[mover]}' for update"
                )

    async def _unlock(self, gate: int, mover: int) -> None:
        await self._gates[0].fetchrow(f"select pg_advisory_unlock({gate}, {mover})")
        if gate == SNAPSHOT and mover < len(self.locked):
            await self._gates[1 + mover].execute("rollback")

    async def _settled(self, tasks: dict[int, asyncio.Task[Any]]) -> None:
        """Every mover is done, stands at a gate, or waits for another mover."""
        mine = [connection.get_server_pid() for connection in self._gates]
        give_up = time.monotonic() + STUCK_SECONDS
        while True:
            going = {mover for mover, task in tasks.items() if not task.done()}
            rows = await self._gates[0].fetch(_WAITING, mine) if going else []
            waiting = {row["mover"] for row in rows}
            if going <= waiting:
                return
            assert time.monotonic() < give_up, f"{going - waiting} neither end nor wait"


async def _told(doing: Awaitable[Any]) -> Any:
    try:
        return await doing
    except Exception as error:
        return error
