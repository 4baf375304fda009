"""Two who write about runs of one limit, stepped through every order of what they do: no more begin
than there are slots, and none waits while there is room.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import asyncpg
import pytest

from openworkflow import BackendPostgres, RunStatus
from openworkflow.backend.backend import NewRun, WorkerSession
from openworkflow.backend.records import ClaimedRun
from openworkflow.core.errors import InvalidRunState, RunNotFound
from openworkflow.core.limits import LimitRule
from tests.flushes import claim, end_of, flush
from tests.stepping import Move, Stepper, application_name, orders

SLOTS = 2
ROOM = """
select count(*) filter (where status = 'running' or status = 'pending' and available_at <= now()),
       count(*) filter (where completed_at is null and pause is null)
  from workflow_runs where limits = array[$1]
"""


@dataclass
class Hand:
    """Somebody who writes, and what there is to write about."""

    backend: BackendPostgres
    session: WorkerSession
    key: str
    running: list[ClaimedRun]
    waiting: list[Any]

    async def start(self) -> object:
        return await self.backend.create_workflow_runs([NewRun("a", limits=self.key)] * 2)

    async def end_first(self) -> object:
        return await flush(self.session, ends=[end_of(self.running[0])])

    async def end_second(self) -> object:
        return await flush(self.session, ends=[end_of(self.running[1])])

    async def park_first(self) -> object:
        sleep = end_of(self.running[0], RunStatus.PENDING, delay=3600.0)
        return await flush(self.session, ends=[sleep])

    async def cancel_waiting(self) -> object:
        return await self.backend.cancel_workflow_run(self.waiting[0].id)

    async def cancel_first(self) -> object:
        return await self.backend.cancel_workflow_run(self.running[0].id)

    async def pause_waiting(self) -> object:
        pauses = self.backend.pauses
        return await pauses.pause_runs([self.waiting[0].id], reason=None, by=None)

    async def claim(self) -> object:
        return await claim(self.session, "a", worker="host/2")


MOVES: dict[str, Callable[[Hand], Awaitable[object]]] = {
    name: getattr(Hand, name)
    for name in (
        *("start", "end_first", "end_second", "park_first", "cancel_waiting"),
        *("cancel_first", "pause_waiting", "claim"),
    )
}
PAIRS = [
    # Who races, with how many that run, and how many that wait.
    ("start", "end_first", 2, 0),
    ("start", "end_first", 2, 2),
    ("start", "park_first", 2, 0),
    ("start", "start", 1, 0),
    ("start", "start", 0, 0),
    ("start", "cancel_first", 2, 0),
    ("end_first", "end_second", 2, 1),
    ("end_first", "end_second", 2, 2),
    ("end_first", "cancel_waiting", 2, 1),
    ("end_first", "cancel_waiting", 2, 2),
    ("end_first", "pause_waiting", 2, 2),
    ("park_first", "end_second", 2, 2),
    ("cancel_first", "end_second", 2, 2),
    ("cancel_first", "claim", 2, 2),
    ("end_first", "claim", 2, 2),
    ("start", "claim", 2, 0),
]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: " ".join(map(str, pair)))
async def test_in_every_order_as_many_begin_as_there_are_slots(
    backend: BackendPostgres,
    database_url: str,
    sql: asyncpg.Connection[Any],
    pair: tuple[str, str, int, int],
) -> None:
    first, second, runs, waits = pair
    names = first, second
    movers = [
        await BackendPostgres.connect(database_url, application_name=application_name(n))
        for n in (0, 1)
    ]
    sessions = [await mover.open_session(1) for mover in movers]
    own = await backend.open_session(1)
    stepper = Stepper(database_url)
    await stepper.open()
    for number, order in enumerate(orders(3, 3)):
        key = f"limit {number}"
        await backend.limits.ensure([LimitRule(name=key, slots=SLOTS)])
        await backend.create_workflow_runs([NewRun("a", limits=key)] * runs)
        running = await claim(own, "a")
        waiting = await backend.create_workflow_runs([NewRun("a", limits=key)] * waits)
        hands = [Hand(movers[n], sessions[n], key, running, waiting) for n in (0, 1)]

        told = await stepper.step(
            [Move(partial(MOVES[name], hand)) for name, hand in zip(names, hands, strict=True)],
            order,
        )

        assert not [each for each in told if isinstance(each, BaseException)], (order, told)
        row = await sql.fetchrow(ROOM, key)
        assert row is not None
        begun, unfinished = row
        assert min(SLOTS, unfinished) == begun, order
        assert [] == (await backend.diagnostics()).violations, order
        await sql.execute("delete from workflow_runs")
    await stepper.close()
    for each in (own, *sessions):
        await each.close()
    for mover in movers:
        await mover.stop()


class Crowd:
    """Several who do anything at once, until all is done."""

    def __init__(self, backend: BackendPostgres, url: str, seed: int) -> None:
        self._backend, self._url, self._chance = backend, url, random.Random(seed)
        self.busy = True

    async def people(self) -> None:
        """Start, cancel, pause, wake and delete."""
        ids = []
        for _ in range(60):
            count = self._chance.randint(1, 4)
            key = self._chance.choice(("a/key\x1fx", "a/key\x1fy", "a/key\x1fx\x1eall", "all"))
            runs = [NewRun("a", limits=key) for _ in range(count)]
            ids += [each.id for each in await self._backend.create_workflow_runs(runs)]
            chosen, chance = self._chance.choice(ids), self._chance.random()
            try:
                if chance < 0.2:
                    await self._backend.cancel_workflow_run(chosen)
                elif chance < 0.4:
                    await self._backend.pauses.pause_runs([chosen], reason=None, by=None)
                    await self._backend.pauses.resume_runs([chosen])
                elif chance < 0.6:
                    await self._backend.wake_workflow_run(chosen)
                elif chance < 0.7:
                    await self._backend.pauses.pause("a", reason=None, by=None)
                    await self._backend.pauses.resume("a")
                elif chance < 0.8:
                    await self._backend.retry_workflow_run(chosen)
            except (InvalidRunState, RunNotFound):
                pass

    async def worker(self, number: int) -> None:
        """Claim, and end, park or hand back."""
        session, held = await self._backend.open_session(1), list[ClaimedRun]()
        name = f"host/{number}"
        while self.busy or held:
            held += await claim(session, "a", limit=3, worker=name)
            self._chance.shuffle(held)
            ended, held = held[:2], held[2:]
            ends = [
                end_of(run, RunStatus.PENDING, delay=self._chance.choice((0.0, 0.01)))
                if self._chance.random() < 0.3
                else end_of(run)
                for run in ended
            ]
            if ends:
                await flush(session, ends=ends)
            await asyncio.sleep(0)
        await session.close()


@pytest.mark.parametrize("seed", range(3))
async def test_a_crowd_keeps_limits_and_gets_all_done(
    backend: BackendPostgres, database_url: str, sql: asyncpg.Connection[Any], seed: int
) -> None:
    await backend.limits.ensure([LimitRule(name="a/key", slots=2), LimitRule(name="all", slots=3)])
    crowd = Crowd(backend, database_url, seed)
    async with asyncio.timeout(120), asyncio.TaskGroup() as tasks:
        for number in range(3):
            tasks.create_task(crowd.worker(number))
        people = [tasks.create_task(crowd.people()) for _ in range(2)]
        while crowd.busy:
            most = await sql.fetch(
                "select each, count(*) from workflow_runs, unnest(limits) as each"
                " where status = 'running' group by 1"
            )
            for key, count in most:
                assert count <= (3 if key == "all" else 2), key
            counts = await backend.count_runs()
            done = not counts[RunStatus.PENDING] and not counts[RunStatus.RUNNING]
            crowd.busy = not (done and all(task.done() for task in people))
    assert [] == (await backend.diagnostics()).violations
    assert 0 == await sql.fetchval("select count(*) from workflow_limit_runs")
    assert 0 == await sql.fetchval("select count(*) from workflow_limit_lanes")
    assert 0 == await sql.fetchval("select sum(taken + tokens) from workflow_limit_keys")
