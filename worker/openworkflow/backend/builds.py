"""Builds of the user's code: who takes new runs, which runs wait for whom, and their end."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from openworkflow.backend.connection import Connection
from openworkflow.core.errors import ConfigurationError, InvalidBuildState
from openworkflow.core.names import valid_build_id
from openworkflow.core.shown import shown
from openworkflow_contract.retirement import BATCH, Leftover, error_of


@dataclass(frozen=True, slots=True)
class Build:
    """A build and the unfinished runs that are pinned to it."""

    build_id: str
    share: int
    """How many of a hundred new runs it takes; 0 for all builds means that all take all."""
    created_at: datetime | None
    """When its first worker started; None if only runs know of it."""
    promoted_at: datetime | None
    held_at: datetime | None
    """Since when it is held back because it failed; None if it is not."""
    running: int
    due: int
    waiting: int
    """Unfinished runs that sleep, or wait for their next attempt."""
    next_due_at: datetime | None

    @property
    def left(self) -> int:
        """Runs that only this build may finish."""
        return self.running + self.due + self.waiting


class Builds:
    """The builds of one namespace; `BackendPostgres.builds` is one.

    `borrow` gives a connection for the length of a block.
    """

    def __init__(
        self,
        borrow: Callable[[], AbstractAsyncContextManager[Connection]],
        queries: Mapping[str, str],
        namespace_id: str,
    ) -> None:
        self._borrow, self._sql, self._namespace_id = borrow, queries, namespace_id

    async def register(self, build_id: str) -> None:
        """Make a build known; it takes new runs if none is promoted."""
        await self._fetch(self._sql["register_build"], build_id)

    async def serve(
        self, workflows: Iterable[tuple[str, str]], build_id: str | None = None
    ) -> None:
        """Say that a worker, of this build, serves these, by name and version; repeat it.

        Whoever makes workers counts the runs that they can take.
        """
        served = sorted([*workflows, *([("", build_id)] if build_id else [])])
        names, versions = [name for name, _ in served], [version for _, version in served]
        await self._fetch(self._sql["serve_workflows"], names, versions)

    async def list(self) -> list[Build]:
        """All builds, newest first."""
        rows = await self._fetch(self._sql["list_builds"])
        return [Build(**row) for row in rows]

    async def promote(self, build_id: str, share: int = 100) -> None:
        """Have `share` percent of the new runs go to this build, in one transaction.

        The others go on to the build that took the most before. Workers heed it at their next
        claim. Raises InvalidBuildState for a build without workers so far, and for a share of
        less than 100 where no other build takes new runs.
        """
        valid_build_id(build_id)
        if type(share) is not int or not 1 <= share <= 100:
            raise ConfigurationError(f"a share is 1 to 100 percent, not {shown(share)}")
        if await self._route(self._sql["promote_build"], build_id, share):
            return
        if build_id not in {build.build_id for build in await self.list()}:
            raise InvalidBuildState(
                f"no worker of build {build_id!r} has started so far; start one, or look at "
                "`openworkflow builds list` for its name"
            )
        raise InvalidBuildState(
            f"nobody would take the other {100 - share} percent of the new runs: no other build is "
            "promoted; promote the one in use first, or this one without a share"
        )

    async def hold(self, build_id: str) -> None:
        """Take the new runs away from a build that fails; the one in use takes them all.

        Raises InvalidBuildState if no other build takes new runs.
        """
        if not await self._route(self._sql["hold_build"], valid_build_id(build_id)):
            raise InvalidBuildState(
                f"build {build_id!r} is unknown, or no other build could take its new runs; "
                "promote another one first"
            )

    async def retire(self, build_id: str, leftover: Leftover = "refuse") -> int:
        """Forget a build whose workers are gone; returns how many runs were moved or failed.

        "move" lets any build continue its unfinished runs, "fail" fails them. Raises
        InvalidBuildState if it takes new runs, and, for "refuse", if runs are left on it.
        """
        found = {build.build_id: build for build in await self.list()}
        build = found.get(valid_build_id(build_id))
        if build is None:
            raise InvalidBuildState(f"there is no build {shown(build_id)} in this namespace")
        if build.share:
            raise InvalidBuildState(
                f"build {build_id!r} takes {build.share} percent of the new runs; promote another "
                "build first"
            )
        settled = 0
        if leftover != "refuse":
            settled = await self.settle(build_id, leftover)
        elif build.left:
            raise InvalidBuildState(
                f"{build.left} unfinished runs are pinned to build {build_id!r}; keep its workers "
                "until they have ended, or choose --move (any build continues them) or --fail"
            )
        deleted = await self._route(self._sql["delete_build"], build_id)
        if not deleted and build.created_at is not None:
            raise InvalidBuildState(
                f"build {build_id!r} was promoted or retired, or got runs, in this moment; look at "
                "`openworkflow builds list`, and try again"
            )
        return settled

    async def settle(self, build_id: str, leftover: Leftover) -> int:
        """Move or fail the unfinished runs pinned to a build, batch by batch; returns how many."""
        settled = 0
        while rows := await (self._fail if leftover == "fail" else self._move)(build_id):
            settled += len(rows)
        return settled

    async def _move(self, build_id: str) -> Sequence[Any]:
        return await self._fetch(self._sql["unpin_build"], build_id, BATCH)

    async def _fail(self, build_id: str) -> Sequence[Any]:
        async with self._borrow() as connection, connection.transaction():
            found = await connection.fetch(
                self._sql["lock_pinned_runs"], self._namespace_id, build_id, BATCH
            )
            rows: Sequence[Any] = await connection.fetch(
                self._sql["fail_build"], [row["id"] for row in found], error_of(build_id)
            )
            return rows

    async def _route(self, sql: str, *arguments: Any) -> Sequence[Any]:
        """A change of who takes new runs, alone: one that waited sees what those before it did."""
        async with self._borrow() as connection, connection.transaction():
            await connection.fetch(self._sql["lock_builds"], self._namespace_id)
            rows: Sequence[Any] = await connection.fetch(sql, self._namespace_id, *arguments)
            return rows

    async def _fetch(self, sql: str, *arguments: Any) -> Sequence[Any]:
        async with self._borrow() as connection:
            rows: Sequence[Any] = await connection.fetch(sql, self._namespace_id, *arguments)
            return rows
