"""Pauses of runs, workflows and namespaces, and what they set aside: `BackendPostgres.pauses`.

A paused run that waits is due at no time, so that nothing is brought up for it; when it would be
due is kept beside. A pause first says that it is there, and then sets aside what waits. What others
make due meanwhile is set aside by the claim that comes upon it. Both lock the pause, so that a
resume, which takes it away first and gives back what was set aside after that, misses nothing.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from openworkflow.backend.liveness import SCAN_SECONDS
from openworkflow.backend.namespace import Namespace
from openworkflow.backend.requests import Requests
from openworkflow.core.errors import BackendError
from openworkflow.core.workflow_run import RunStatus

ALL_WORKFLOWS = ""
"""Stands for every workflow of the namespace."""
BATCH = 2000
"""Runs that a statement sets aside or gives back."""
_LOOK_AGAIN = 0.05
_MOST_LOOKS = 200
"""Ten seconds for those who write to the last runs to be done."""


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause of a workflow, or of the whole namespace."""

    workflow_name: str
    """"" for all."""
    reason: str | None
    paused_by: str | None
    paused_at: datetime
    runs: int
    """Unfinished runs that it holds."""


class Pauses:
    """The pauses of one namespace."""

    def __init__(
        self, requests: Requests, queries: Mapping[str, str], namespace: Namespace
    ) -> None:
        self._fetch, self._sql, self._namespace = requests.fetch, queries, namespace

    async def pause(self, workflow_name: str, *, reason: str | None, by: str | None) -> int:
        """Pause a workflow, or ALL_WORKFLOWS; returns how many runs that sets aside.

        Runs that are executed go on until they wait. Raises BackendError.
        """
        place = (self._namespace.id, workflow_name)
        await self._fetch(self._sql["pause_workflow"], *place, reason, by)
        held, sql = 0, self._sql["hold_runs"]
        # What parks while the second kind is walked is of the first again.
        for status in (RunStatus.PENDING, RunStatus.RUNNING, RunStatus.PENDING):
            while rows := await self._fetch(sql, *place, status, BATCH, seconds=SCAN_SECONDS):
                held += len(rows)
        return held

    async def resume(self, workflow_name: str) -> bool:
        """End that pause; False if there was none. What it alone has held is due as it was.

        Raises BackendError, also while somebody's transaction that starts runs holds the pause.
        """
        place = (self._namespace.id, workflow_name)
        ended = await self._fetch(self._sql["resume_workflow"], *place)
        # Also if there was none: an earlier call may have been cut short.
        await self._release(None)
        await self._fetch(self._sql["admit_resumed"], *place)
        return bool(ended)

    async def pause_runs(
        self, run_ids: Sequence[UUID], *, reason: str | None, by: str | None
    ) -> list[UUID]:
        """Pause each of these runs that has not ended; returns which."""
        rows = await self._fetch(
            self._sql["pause_runs"], self._namespace.id, list(run_ids), by, reason
        )
        return [row["id"] for row in rows]

    async def resume_runs(self, run_ids: Sequence[UUID]) -> list[UUID]:
        """End the pauses of these runs themselves; returns those that may have had one."""
        rows = await self._fetch(self._sql["resume_runs"], self._namespace.id, list(run_ids))
        resumed = [row["id"] for row in rows]
        await self._release(resumed)
        return resumed

    async def list(self) -> list[Pause]:
        """The pauses of workflows, that of the namespace first."""
        rows = await self._fetch(self._sql["list_pauses"], self._namespace.id, seconds=SCAN_SECONDS)
        return [Pause(**row) for row in rows]

    async def _release(self, run_ids: Sequence[UUID] | None) -> None:
        """Give back what nothing holds any more: of these runs, or of all."""
        wanted = (self._namespace.id, None if run_ids is None else list(run_ids))
        sql, channel = self._sql["release_runs"], self._namespace.work_channel
        for _ in range(_MOST_LOOKS):
            while (await self._fetch(sql, *wanted, BATCH, channel))[0]["released"]:
                pass
            (left,) = await self._fetch(self._sql["find_unreleased"], *wanted)
            if not left["is_left"]:
                return
            await asyncio.sleep(_LOOK_AGAIN)
        raise BackendError(
            "some runs are written to by others for too long to be resumed; resume again"
        )
