"""Carries out in a tenant's database what a rollout decided: shares, canaries, retired builds.

Each action is safe to repeat: an operator that was killed after half of them is followed by one
that decides anew from what is there.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, assert_never

from openworkflow_operator.database.connection import ConnectOptions, Database
from openworkflow_operator.database.dsn import Dsn
from openworkflow_operator.decide.rollout import (
    Action,
    Hold,
    Promote,
    Retire,
    StartCanary,
    StopCanary,
)

logger = logging.getLogger(__name__)

#: Batches of left-over runs that one visit moves or fails; the next visit goes on.
BATCHES_OF_A_VISIT: Final = 10


async def carry_out(
    actions: Sequence[Action], dsn: Dsn, schema: str, namespace_id: str, options: ConnectOptions
) -> None:
    """Do these, over a connection of their own.

    Raises what `diagnosis.diagnose` understands.
    """
    database = await Database.connect(dsn, schema, options)
    try:
        for action in actions:
            logger.info("namespace %s: %s", namespace_id, action)
            await _carry_out(database, action, namespace_id)
    finally:
        database.terminate()


async def _carry_out(database: Database, action: Action, namespace_id: str) -> None:
    match action:
        case Promote(build, share):
            await database.route("promote_build.sql", namespace_id, build, share)
        case Hold(build):
            await database.route("hold_build.sql", namespace_id, build)
        case StartCanary(build, workflow):
            await database.write("start_canary.sql", namespace_id, build, workflow)
        case StopCanary(build):
            lock = ("lock_canary.sql", namespace_id, build)
            await database.write("stop_canary.sql", namespace_id, build, first=lock)
        case Retire(build, leftover):
            if leftover != "refuse":
                await _settle(database, leftover, namespace_id, build)
            await database.route("delete_build.sql", namespace_id, build)
        case _:
            assert_never(action)


async def _settle(database: Database, leftover: str, namespace_id: str, build: str) -> None:
    lock = ("lock_left_runs.sql", namespace_id, build)
    for _ in range(BATCHES_OF_A_VISIT):
        if leftover == "move":
            settled = await database.write("move_runs.sql", namespace_id, build)
        else:
            settled = await database.write("fail_runs.sql", namespace_id, build, first=lock)
        if not settled:
            return
