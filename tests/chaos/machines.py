"""Faults of what surrounds a worker and its server: poolers, standbys, clocks and memory."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import Mapping

import asyncpg
import psutil

from openworkflow.core.errors import InvalidBuildState
from tests.chaos import shapes
from tests.chaos.ground import Fault, Ground
from tests.helpers import eventually
from tests.local_postgres import Standby

JUMPS = ("+3h", "-3h", "+400d")
SPARE_BYTES = 128 << 20
"""What a worker may still take whose memory is limited: half of what a hungry step asks for."""


async def pooler_restart(on: Ground) -> None:
    """The pooler dies, and another one comes up on its port."""
    if on.pooler is None:
        return
    with on.stage.fault("pooler-restart"):
        await on.pooler.stop()
        await asyncio.sleep(on.outage / 3)
        await on.pooler.start()


async def promotion(on: Ground) -> None:
    """The server dies, and its synchronous standby takes its place."""
    with on.stage.fault("promotion"):
        standby = Standby(
            on.server.bin_dir, on.server.lib_dir, on.server.settings, primary_port=on.server.port
        )
        await asyncio.to_thread(standby.start)
        await _follow_synchronously(on)
        await asyncio.to_thread(on.server.crash)
        await asyncio.to_thread(standby.promote)
        for way in (on.proxy, on.direct):
            way.upstream_port = standby.port
            way.cut()
        dead, on.server = on.server, standby
        on.servers.append(standby)
        dead.stop()


async def _follow_synchronously(on: Ground) -> None:
    """From here on nothing is confirmed that the standby has not.

    pg_stat_replication says `sync` before commits wait: on a busy machine, a second before. So they
    wait for a standby that there is not, until one is seen to; and only then for ours.
    """
    async with on.admin() as connection:
        for names in ("nobody", "*"):
            await connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
            await connection.execute("SELECT pg_reload_conf()")
            if names == "nobody":
                await eventually(lambda: _commits_wait(on.url), 120)
        written = await connection.fetchval("SELECT pg_current_wal_lsn()::text")
        await eventually(
            lambda: connection.fetchval(
                "SELECT true FROM pg_stat_replication"
                " WHERE sync_state = 'sync' AND flush_lsn >= $1::text::pg_lsn",
                written,
            ),
            120,
        )


async def _commits_wait(url: str) -> bool:
    connection = await asyncpg.connect(url)
    try:
        sql = "SELECT pg_logical_emit_message(true, 'chaos', '')"
        await asyncio.wait_for(connection.execute(sql), 0.5)
    except TimeoutError:
        return True
    finally:
        connection.terminate()
    return False


async def clock_jump(on: Ground) -> None:
    """The clocks of the workers jump, and come back; the server's does not."""
    if not on.stage.fleet.clock:
        return
    with on.stage.fault("clock-jump"):
        on.stage.fleet.set_clock(on.chance.choice(JUMPS))
        await asyncio.sleep(on.stage.fleet.lease)
        on.stage.fleet.set_clock("+0")


async def memory(on: Ground) -> None:
    """A worker gets no more memory for a while, and its steps ask for some."""
    process = on.chance.choice(on.stage.fleet.processes)
    with on.stage.fault("memory", [process.pid]):
        for _ in range(5):
            await on.stage.enqueue(shapes.hungry)
        taken = psutil.Process(process.pid).memory_info().vms
        _, most = resource.prlimit(process.pid, resource.RLIMIT_AS)
        resource.prlimit(process.pid, resource.RLIMIT_AS, (taken + SPARE_BYTES, most))
        await asyncio.sleep(on.stage.fleet.lease)
        resource.prlimit(process.pid, resource.RLIMIT_AS, (most, most))


async def promote(on: Ground) -> None:
    """Another build takes the new runs, or a share of them. No fault, but done in between."""
    build, share = on.chance.choice(on.stage.fleet.builds), on.chance.choice((30, 100))
    with contextlib.suppress(InvalidBuildState), on.stage.fault("promote"):
        await on.stage.backend.builds.promote(build, share)


FAULTS: Mapping[str, Fault] = {
    "pooler-restart": pooler_restart,
    "promotion": promotion,
    "clock-jump": clock_jump,
    "memory": memory,
    "promote": promote,
}
