"""One run that kills its workers by SIGKILL takes no other run with it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from pathlib import Path

import asyncpg

from openworkflow import OpenWorkflow
from tests.helpers import eventually

SUSPECTS = Path(__file__).with_name("suspects.py")
MAX_CRASHES = 5


class Fleet:
    """One worker process, started again by the test each time it was killed."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._process: asyncio.subprocess.Process | None = None
        self.kills = 0

    async def keep_one_running(self) -> None:
        while True:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, str(SUSPECTS), self._url
            )
            assert -signal.SIGKILL == await self._process.wait()
            self.kills += 1

    async def stop(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


async def test_a_run_that_kills_its_workers_is_convicted_and_its_neighbours_succeed(
    ow: OpenWorkflow, database_url: str, sql: asyncpg.Connection
) -> None:
    """They are in progress in the same process each time, and record nothing in between."""
    culprit = await ow.run_workflow("culprit")
    innocents = await ow.run_workflows("innocent", [None] * 19)
    fleet = Fleet(database_url)
    running = asyncio.ensure_future(fleet.keep_one_running())

    async def over() -> bool:
        left = await sql.fetchval("SELECT count(*) FROM workflow_runs WHERE completed_at IS NULL")
        return bool(left == 0)

    try:
        await eventually(over, deadline=400)
    finally:
        running.cancel()
        await fleet.stop()

    details = await ow.get_run(culprit.id)
    assert "failed" == details.run.status
    assert "PoisonPill" in str(details.run.error)
    assert ["done"] * 19 == [await run.result(timeout=1) for run in innocents]
    assert MAX_CRASHES == fleet.kills
