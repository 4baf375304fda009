"""A worker process of the campaign.

    python -m tests.chaos.worker DATABASE_URL LEDGER_FOLDER LEASE_SECONDS REST_SECONDS BUILD

CHAOS_BREAK names a defect to build into the engine first (mutations.py); only this script reads it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from openworkflow import BackendPostgres, OpenWorkflow
from openworkflow.backend.heartbeat import HeartbeatSession
from openworkflow.core.errors import BackendError
from tests.chaos import mutations, shapes, steps
from tests.chaos.composed import COMPOSED
from tests.chaos.controlled import CONTROLLED

RESIDENT = 0 if os.environ.get("CHAOS_BREAK") or os.getpid() % 2 else 1000
"""Every second worker replays at each wake, and all of a broken copy, which would hide there."""
MAX_CRASHES = 1000
"""A campaign kills more workers than a run may usually cost."""


async def main(url: str, folder: str, lease: str, rest: str, build: str) -> None:
    """Work until told to stop."""
    steps.open_ledger(Path(folder))
    _note_beats()
    backend = await _connected(url)
    worker = OpenWorkflow(backend).new_worker(
        workflows=(*shapes.WORKFLOWS, *COMPOSED, *CONTROLLED),
        concurrency=40,
        lease=timedelta(seconds=float(lease)),
        rest=timedelta(seconds=float(rest)),
        drain=timedelta(seconds=3),
        max_crashes=MAX_CRASHES,
        resident=RESIDENT,
        build_id=build or None,
        build_policy="moving",
    )
    await worker.run_until_signal()
    await backend.stop()


def _end_with(parent: int) -> None:
    """No campaign that was killed leaves workers behind."""
    while os.getppid() == parent:
        steps.idle(0.5)
    os._exit(1)


def _note_beats() -> None:
    """Have the ledger tell when heartbeats came through: whose do not, loses its leases."""
    beat = HeartbeatSession.beat

    async def noted(session: HeartbeatSession, *arguments: Any) -> set[tuple[UUID, int]]:
        sent = time.monotonic()
        standing = await beat(session, *arguments)
        steps.note_beat(sent)
        return standing

    HeartbeatSession.beat = noted  # type: ignore[assignment, method-assign]


async def _connected(url: str) -> BackendPostgres:
    while True:
        try:
            return await BackendPostgres.connect(url, migrate=False, application_name="chaos")
        except BackendError as error:  # what starts it would start it again
            logging.warning("cannot connect yet: %s", error)
            await asyncio.sleep(0.2)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if defect := os.environ.get("CHAOS_BREAK"):
        mutations.MUTATIONS[defect].apply()
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    asyncio.run(main(*sys.argv[1:]))
