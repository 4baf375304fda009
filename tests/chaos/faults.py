"""What a campaign does to the workers, their network and their database: one function a kind."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Mapping
from typing import Any

import asyncpg

from tests.chaos import machines, refusals, shapes
from tests.chaos.ground import TERMINATE, Fault, Ground
from tests.chaos.stage import until
from tests.helpers import eventually


async def sigkill(on: Ground) -> None:
    process = on.chance.choice(on.stage.fleet.processes)
    with on.stage.fault("sigkill", [process.pid]):
        await on.stage.fleet.kill(process)


async def sigstop(on: Ground) -> None:
    process = on.chance.choice(on.stage.fleet.processes)
    with on.stage.fault("sigstop", [process.pid]):
        await on.stage.fleet.freeze(process, 1.7 * on.stage.fleet.lease)


async def sigterm(on: Ground) -> None:
    process = on.chance.choice(on.stage.fleet.processes)
    with on.stage.fault("sigterm", [process.pid]):
        await on.stage.fleet.terminate(process)


async def backends(on: Ground) -> None:
    with on.stage.fault("backends"):
        async with on.admin() as connection:
            await connection.fetchval(TERMINATE, "chaos%")


async def restart_fast(on: Ground) -> None:
    with on.stage.fault("restart-fast"):
        await asyncio.to_thread(on.server.restart, signal.SIGINT, on.outage)


async def stop_immediate(on: Ground) -> None:
    with on.stage.fault("stop-immediate"):
        await asyncio.to_thread(on.server.restart, signal.SIGQUIT, on.outage)


async def cut(on: Ground) -> None:
    with on.stage.fault("cut"):
        for _ in range(3):
            on.proxy.cut()
            await asyncio.sleep(on.chance.uniform(0, 0.1))


async def lost_answer(on: Ground) -> None:
    with on.stage.fault("lost-answer"):
        on.proxy.lose = on.chance.randint(1, 6)
        await until(lambda: not on.proxy.lose, 5)
        on.proxy.lose = 0


async def delay(on: Ground) -> None:
    with on.stage.fault("delay"):
        on.proxy.delay = 0.1
        await asyncio.sleep(2)
        on.proxy.delay = 0


async def pause(on: Ground) -> None:
    """The network holds everything back for a while."""
    with on.stage.fault("pause"):
        on.proxy.pause()
        await asyncio.sleep(on.outage)
        on.proxy.resume()


async def silence(on: Ground) -> None:
    """The connections that there are stay open, and never say anything more."""
    with on.stage.fault("silence"):
        on.proxy.silence()


async def row_locks(on: Ground) -> None:
    with on.stage.fault("row-locks"):
        async with on.admin() as connection, connection.transaction():
            await connection.execute(
                "SELECT FROM workflow_runs WHERE completed_at IS NULL LIMIT 20 FOR UPDATE"
            )
            await asyncio.sleep(on.outage)


async def table_lock(on: Ground) -> None:
    with on.stage.fault("table-lock"):
        table = on.chance.choice(("workflow_runs", "step_attempts"))
        async with on.admin() as connection, connection.transaction():
            await connection.execute("SET LOCAL lock_timeout = '5s'")
            await connection.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")
            await asyncio.sleep(on.outage)


async def connections(on: Ground) -> None:
    """Others take every connection, those of the workers too."""
    taken: list[asyncpg.Connection[Any]] = []

    async def take_all() -> None:
        with contextlib.suppress(asyncpg.PostgresError, OSError):
            while True:
                taken.append(await asyncpg.connect(on.url))

    with on.stage.fault("connections"):
        try:
            await take_all()
            await taken[0].fetchval(TERMINATE, "chaos%")
            await take_all()
            await asyncio.sleep(2)
        finally:
            for connection in taken:
                connection.terminate()


async def blocked_loop(on: Ground) -> None:
    """A step blocks the event loop of its worker for longer than a lease."""
    seconds = 1.5 * on.stage.fleet.lease
    name, _ = await on.stage.enqueue(shapes.blocking, values={"seconds": seconds})
    await eventually(lambda: on.stage.has_called(name, "b"), 120)
    with on.stage.fault("blocked-loop"):
        await asyncio.sleep(seconds)


async def read_only(on: Ground) -> None:
    """The server takes no writes, as a standby."""
    statement = "ALTER DATABASE postgres SET default_transaction_read_only = {}"
    with on.stage.fault("read-only"):
        async with on.admin() as connection:
            await connection.execute(statement.format("on"))
            await connection.fetchval(TERMINATE, "chaos%")
            await asyncio.sleep(on.outage)
            await connection.execute(statement.format("off"))
            await connection.fetchval(TERMINATE, "%")


BESIDE = (
    *("sigkill", "sigstop", "sigterm", "cut", "lost-answer", "delay", "pause", "silence"),
    *("pooler-restart", "clock-jump"),
)
"""What may come beside any other: those that need no connection to be undone."""
FAULTS: Mapping[str, Fault] = {
    "sigkill": sigkill,
    "sigstop": sigstop,
    "sigterm": sigterm,
    "backends": backends,
    "restart-fast": restart_fast,
    "stop-immediate": stop_immediate,
    "cut": cut,
    "lost-answer": lost_answer,
    "delay": delay,
    "pause": pause,
    "silence": silence,
    "row-locks": row_locks,
    "table-lock": table_lock,
    "connections": connections,
    "blocked-loop": blocked_loop,
    "read-only": read_only,
    **refusals.FAULTS,
    **machines.FAULTS,
}
