"""A race for a new run between two builds, while it changes which of them takes new runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from openworkflow.backend.records import NewRun, claim_key
from openworkflow.core.errors import InvalidBuildState
from openworkflow.core.ids import uuid7
from tests.flushes import flush, wanted
from tests.racing import Mover

_ROUTED = """
insert into workflow_builds (namespace_id, build_id, takes_from, takes_to, created_at)
values ('default', 'old', 0, 100, now() - interval '1 h'), ('default', 'new', 0, 0, now())
"""


@dataclass
class Routed:
    """A run that nobody has begun; "old" takes new runs, and "new" none so far."""

    name: str
    takers: set[str] = field(default_factory=lambda: {"old"})
    """The builds that took new runs at some time."""
    claims: list[str] = field(default_factory=list)
    """The builds that the run went to."""

    @classmethod
    async def make(cls, sql: asyncpg.Connection[Any], mover: Mover) -> Routed:
        await sql.execute("delete from workflow_builds")
        await sql.execute(_ROUTED)
        name = str(uuid7())
        await mover.backend.create_workflow_runs([NewRun(name)])
        return cls(name)

    async def claim(self, build: str, mover: Mover) -> None:
        request = wanted(5, self.name, build_id=build, pinned_keys=[claim_key(self.name, "")])
        done = await flush(mover.session, claim=request, worker=f"{build}/{mover.number}")
        self.claims += [build] * len(done.claimed)

    async def promote(self, mover: Mover) -> None:
        await mover.backend.builds.promote("new")
        self.takers.add("new")

    async def hold(self, build: str, mover: Mover) -> None:
        try:
            await mover.backend.builds.hold(build)
        except InvalidBuildState:  # nobody else would take new runs
            return

    async def faults(self, sql: asyncpg.Connection[Any], mover: Mover) -> list[str]:
        """What is not as it must be: whoever takes new runs now gets the run if nobody has it."""
        takers = await sql.fetch(
            "select build_id from workflow_builds where takes_to > takes_from"
            " and namespace_id = 'default'"
        )
        if len(takers) != 1:
            return [f"new runs go to {takers}"]
        await self.claim(takers[0]["build_id"], mover)
        run = await sql.fetchrow(
            "select build_id, pinned, claim_no from workflow_runs where workflow_name = $1",
            self.name,
        )
        assert run is not None
        if self.claims != [run["build_id"]] or not run["pinned"] or run["claim_no"] != 1:
            return [f"{self.claims} claimed it, and it is {run}"]
        return [] if self.takers.issuperset(self.claims) else [f"{self.claims} took no new runs"]


ROUTE_MOVES: Mapping[str, Callable[[Routed, Mover], Awaitable[None]]] = {
    "old claims": lambda run, mover: run.claim("old", mover),
    "new claims": lambda run, mover: run.claim("new", mover),
    "new is promoted": Routed.promote,
    "old is held": lambda run, mover: run.hold("old", mover),
    "new is held": lambda run, mover: run.hold("new", mover),
}
