"""The runs of a campaign: of every shape, one after the other, as long as it goes on."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from openworkflow.core.errors import BackendError
from tests.chaos import shapes
from tests.chaos.more_load import REFUSALS, MoreLoad
from tests.chaos.stage import Stage

FAILS = frozenset({"failed"})
TOGETHER = 12
"""Runs that are started at once."""
Start = Callable[[], Awaitable[object]]


class Load:
    """Starts runs; `started` counts them by shape, `refused` those that the client was refused."""

    def __init__(self, stage: Stage, chance: random.Random, rate: float) -> None:
        self._stage, self._chance, self._rate = stage, chance, rate
        self.started: Counter[str] = Counter()
        self.refused = 0
        self._more = MoreLoad(stage, chance)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, until: asyncio.Event) -> None:
        """Start runs until the event, and see those through that are being started then."""
        await self._more.start_schedules()
        shapes_ = self._shapes()
        while not until.is_set():
            name = self._chance.choice(list(shapes_))
            task = asyncio.create_task(self._one(name, shapes_[name]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(self._chance.expovariate(self._rate))
        await asyncio.gather(*self._tasks)

    async def _one(self, name: str, start: Start) -> None:
        try:
            await start()
        except REFUSALS:
            self.refused += 1
        else:
            self.started[name] += 1

    def _shapes(self) -> dict[str, Start]:
        stage = self._stage
        plain = (
            "sequential",
            "slow",
            "parallel",
            "sync",
            "sleeping",
            "retrying",
            "renewed",
            "telling",
            "built",
        )

        def of(workflow: Any, **options: Any) -> Start:
            return lambda: stage.enqueue(workflow, **options)

        return {
            **{name: of(getattr(shapes, name)) for name in plain},
            "versioned 1": of(shapes.versioned_1),
            "versioned 2": of(shapes.versioned_2),
            "failing": of(shapes.failing, ends=FAILS, error="NonRetryableError"),
            "late": of(shapes.late, ends=FAILS, error="DeadlineExceeded", deadline="3s"),
            "delayed": of(shapes.sequential, available_at="1s"),
            "quick": self._together,
            "canceled": self._canceled,
            "signaled": self._signaled,
            "idempotent": self._idempotent,
            "transactional": self._transactional,
            **self._more.shapes(),
        }

    async def _together(self) -> None:
        """Many at once, which one claim takes: they share a task, as far as none waits."""
        await asyncio.gather(*(self._stage.enqueue(shapes.quick) for _ in range(TOGETHER)))

    async def _canceled(self) -> None:
        name, handle = await self._stage.enqueue(shapes.doomed)
        await asyncio.sleep(self._chance.uniform(0, 2))
        await self._more.cancel(name, handle)

    async def _signaled(self) -> None:
        """A run, and what it waits for: each until it is known to be there.

        One whose start was in doubt would wait for what nobody sends.
        """
        name, handle = await self._more.known(shapes.signaled)
        for number in range(shapes.SIGNALS):
            await asyncio.sleep(self._chance.uniform(0, 0.5))
            await self._stage.signal(handle, number, f"{name}-{number}")

    async def _idempotent(self) -> None:
        """Three calls at once, and another until one was answered: one run."""
        name = self._stage.name()
        while True:
            answers = await asyncio.gather(
                *(self._keyed(name) for _ in range(3)), return_exceptions=True
            )
            for answer in answers:
                if isinstance(answer, BaseException) and not isinstance(answer, BackendError):
                    raise answer
            if any(not isinstance(answer, BaseException) for answer in answers):
                return
            await asyncio.sleep(0.2)

    async def _keyed(self, name: str) -> None:
        await self._stage.enqueue(shapes.sequential, name=name, idempotency_key=name)

    async def _transactional(self) -> None:
        """An order of the caller's own, and its run: both, or none of them."""
        async with self._stage.orders() as connection:
            await self._stage.order(connection, commit=self._chance.random() < 0.7)
