"""Runs that are made of others, and runs that somebody counts, holds, repeats or forks."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

import asyncpg

from openworkflow import Cron, Debounce, RunHandle, Unique
from openworkflow.core.errors import BackendError, ConfigurationError, InvalidRunState, RunExists
from tests.chaos import composed, controlled, shapes, steps
from tests.chaos.evidence import UNIQUE, WINDOW, Fork, Group, Job
from tests.chaos.stage import Stage

T = TypeVar("T")
REFUSALS = (
    BackendError,
    asyncpg.PostgresError,
    asyncpg.InternalClientError,  # of a connection that broke in the midst of a statement
    OSError,
)
FAILS = frozenset({"failed"})
SUCCEEDS = frozenset({"succeeded"})
CANCELED = frozenset({"canceled"})
KEYS = 3
"""Of limits and rates."""
SCHEDULES = {"chaos-allow": "allow", "chaos-queue": "queue_all"}
BACKFILLED = 4
"""Minutes of a backfill."""
Start = Callable[[], Awaitable[object]]


class MoreLoad:
    """Starts runs of these kinds."""

    def __init__(self, stage: Stage, chance: random.Random) -> None:
        self._stage, self._chance = stage, chance
        self._backfilled_to: datetime | None = None
        self._keys = 0

    def shapes(self) -> dict[str, Start]:
        """A starter for each shape."""
        return {
            "family": self._family,
            "clan canceled": self._clan_canceled,
            "clan late": self._clan_late,
            "mapped": self._mapped,
            "spread": self._spread,
            "saga kept": lambda: self._saga("keep", SUCCEEDS),
            "saga failing": lambda: self._saga("fail", FAILS, error="NonRetryableError"),
            "saga late": lambda: self._saga("wait", FAILS, error="DeadlineExceeded", deadline="2s"),
            "saga canceled": self._saga_canceled,
            "limited": self._limited,
            "rated": self._rated,
            "paced": lambda: self._stage.enqueue(controlled.paced),
            "unique": self._unique,
            "debounced": self._debounced,
            "paused": self._paused,
            "followed": self._followed,
            "mended": self._mended,
            "reopened": self._reopened,
            "forked": self._forked,
            "bulk canceled": self._bulk_canceled,
            "backfilled": self._backfilled,
        }

    # -- what is asked until it is answered ----------------------------------------------------

    async def known(self, workflow: Any, **options: Any) -> tuple[str, RunHandle[Any]]:
        """Start a run until it is known to be there."""
        name = options.pop("name", "") or self._stage.name()
        return await self._answered(
            lambda: self._stage.enqueue(workflow, name=name, idempotency_key=name, **options)
        )

    async def cancel(self, name: str, handle: RunHandle[Any]) -> None:
        """Cancel a run until it is known to be canceled."""
        await self._answered(lambda: self._stage.cancel(name, handle))

    async def start_schedules(self) -> None:
        """Have schedules that run every minute, whatever was missed."""
        for name, overlap in SCHEDULES.items():
            given = {"job": name, "generation": 0}
            cron = Cron("* * * * *", overlap=overlap, catch_up="all", input=given)  # type: ignore[arg-type]
            try:
                await self._answered(
                    lambda name=name, cron=cron: self._stage.client.schedules.create(  # type: ignore[misc]
                        name, controlled.occurring, cron
                    )
                )
            except ConfigurationError:  # it was made by the call before, which was not answered
                continue

    async def _answered(self, call: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await call()
            except REFUSALS:
                await asyncio.sleep(0.2)

    def _children(self, parent: str, **ends: frozenset[str]) -> None:
        for name, each in ends.items():
            job = f"{parent}/{name}"
            self._stage.jobs[job] = Job(job, each, may_lack=True)

    # -- families, maps, sagas -----------------------------------------------------------------

    async def _family(self) -> None:
        priority = self._chance.choice((None, None, 3))
        name, _ = await self._stage.enqueue(composed.family, priority=priority)
        self._children(
            name,
            awaited=SUCCEEDS,
            started=SUCCEEDS,
            abandoned=SUCCEEDS,
            failing=FAILS,
            left=CANCELED,
        )

    async def _clan_canceled(self) -> None:
        name, handle = await self.known(composed.clan)  # else it never ends
        self._children(name, abandoned=SUCCEEDS, left=CANCELED, awaited=CANCELED)
        await asyncio.sleep(self._chance.uniform(0, 2))
        await self.cancel(name, handle)

    async def _clan_late(self) -> None:
        name, _ = await self._stage.enqueue(
            composed.clan, ends=FAILS, error="DeadlineExceeded", deadline="2s"
        )
        # Deadlines of children are no later than the parent's: they fail of it, or are canceled.
        over = FAILS | CANCELED
        self._children(name, abandoned=SUCCEEDS | over, left=over, awaited=over)

    async def _mapped(self) -> None:
        name = self._stage.name()
        group = Group(f"{name}/some", composed.AT_ONCE, rule=WINDOW)
        self._stage.notes.groups[name] = [group]
        await self._stage.enqueue(composed.mapped, name=name)

    async def _spread(self) -> None:
        name = self._stage.name()
        self._stage.notes.windows[name] = composed.AT_ONCE
        await self._stage.enqueue(composed.spread, name=name)
        for number in range(composed.ITEMS):
            ends = FAILS if number == composed.BAD_ITEM else SUCCEEDS
            self._children(name, **{f"m{number}": ends})

    async def _saga(self, way: str, ends: frozenset[str], **options: Any) -> None:
        await self._stage.enqueue(composed.saga, ends=ends, values={"way": way}, **options)

    async def _saga_canceled(self) -> None:
        name, handle = await self.known(composed.saga, values={"way": "wait"})
        await asyncio.sleep(self._chance.uniform(0, 2))
        await self.cancel(name, handle)

    # -- limits, keys, schedules ---------------------------------------------------------------

    async def _limited(self) -> None:
        name, key = self._stage.name(), f"k{self._chance.randrange(KEYS)}"
        self._stage.notes.groups[name] = [
            Group(f"limited/key {key}", controlled.OF_A_KEY),
            Group("limited", controlled.OF_ALL),
        ]
        by_name = self._chance.random() < 0.3
        workflow: Any = "limited" if by_name else controlled.limited
        priority = self._chance.choice((None, None, 2))
        await self._stage.enqueue(workflow, name=name, values={"key": key}, priority=priority)

    async def _rated(self) -> None:
        values = {"key": f"k{self._chance.randrange(KEYS)}"}
        by_name = self._chance.random() < 0.3
        await self._stage.enqueue("rated" if by_name else controlled.rated, values=values)  # type: ignore[arg-type]

    async def _unique(self) -> None:
        """Several calls for a key: a run at a time, whichever call it was that started it."""
        key = self._key("unique")
        whole = [Group(key, 1, whole=True, rule=UNIQUE)]
        for _ in range(4):
            name, rule = self._stage.name(), self._chance.choice(("return", "reject", "cancel"))
            self._stage.notes.groups[name] = whole
            given = {"job": name, "generation": 0}
            try:
                handle = await self._stage.client.run_workflow(
                    controlled.single,
                    given,
                    unique=Unique(key, rule),  # type: ignore[arg-type]
                )
            except RunExists:
                continue
            if handle.created:
                self._stage.jobs[name] = Job(name, SUCCEEDS | CANCELED)
            await asyncio.sleep(self._chance.uniform(0, 0.8))

    async def _debounced(self) -> None:
        key = self._key("newest")
        for number in range(4):
            given = {"job": f"{key}.{number}", "generation": 0}
            # One that is not answered may be heeded after the next: such a key is asked no more.
            await self._stage.client.run_workflow(
                controlled.newest, given, debounce=Debounce(key, "0.4s", max_wait="2s")
            )
            self._stage.notes.newest[key] = number
            await asyncio.sleep(self._chance.uniform(0, 0.5))

    async def _backfilled(self) -> None:
        """The minutes before those that were backfilled last, of one of the schedules."""
        if self._backfilled_to is None:
            now = await self._answered(self._stage.backend.now)
            self._backfilled_to = now.replace(second=0, microsecond=0) - timedelta(hours=1)
        end = self._backfilled_to
        start = self._backfilled_to = end - timedelta(minutes=BACKFILLED)
        schedule = self._chance.choice(list(SCHEDULES))
        backfill = self._stage.client.schedules.backfill
        calls = (self._answered(lambda: backfill(schedule, start, end)) for _ in range(2))
        await asyncio.gather(*calls)  # of which one has nothing to do
        minutes = [start + timedelta(minutes=number) for number in range(BACKFILLED)]
        self._stage.notes.wanted += [(schedule, minute) for minute in minutes]

    # -- what people do ------------------------------------------------------------------------

    async def _paused(self) -> None:
        """Held back for a while; alone, or with others of a filter."""
        tag = self._key("paused")
        name, handle = await self.known(
            shapes.sleeping, values={"seconds": 0.5}, tags={"chaos": tag}
        )
        await asyncio.sleep(self._chance.uniform(0, 1))
        in_bulk = self._chance.random() < 0.5
        try:
            if in_bulk:
                await self._answered(lambda: self._bulk("pause", tag))
            else:
                await self._answered(lambda: self._stage.client.pause(handle.id))
        except InvalidRunState:  # it has ended
            return
        before = (await self._answered(handle.run)).claim_no
        # Until another has slept as often, however slow the machine is.
        _, other = await self.known(shapes.sleeping, values={"seconds": 0.5})
        await self._ended(other)
        after = (await self._answered(handle.run)).claim_no
        self._stage.notes.pauses.append((name, before, after))
        if in_bulk:
            await self._answered(lambda: self._bulk("resume", tag))
        else:
            await self._answered(lambda: self._stage.client.resume(handle.id))

    async def _followed(self) -> None:
        """A run whose events somebody reads as they come."""
        name, handle = await self.known(shapes.telling)
        self._stage.notes.followed[name] = [event.offset async for event in handle.events()]

    async def _mended(self) -> None:
        name, handle = await self._failed(controlled.mended)
        steps.mend(self._stage.fleet.folder, name)
        await self._retried(handle, None)

    async def _reopened(self) -> None:
        name, handle = await self._failed(controlled.reopened)
        steps.mend(self._stage.fleet.folder, name)
        self._stage.notes.reopened[name] = time.monotonic()
        await self._retried(handle, "b")

    async def _failed(self, workflow: Any) -> tuple[str, RunHandle[Any]]:
        name, handle = await self.known(workflow, values={"mends": True})
        await self._ended(handle)
        return name, handle

    async def _retried(self, handle: RunHandle[Any], from_step: str | None) -> None:
        try:
            await self._answered(lambda: self._stage.client.retry(handle.id, from_step=from_step))
        except InvalidRunState:  # it was retried by a call that was not answered
            return

    async def _forked(self) -> None:
        """The fork of a run that has ended, from its second step on."""
        origin, handle = await self.known(shapes.sequential)
        await self._ended(handle)
        name = self._stage.name()
        await self._stage.client.fork(
            handle.id, from_step="b", input={"job": name, "generation": 0}
        )
        self._stage.jobs[name] = Job(name)
        self._stage.notes.forks.append(Fork(name, origin, frozenset({"a"})))

    async def _bulk_canceled(self) -> None:
        tag = self._key("bulk")
        names = [(await self.known(shapes.doomed, tags={"chaos": tag}))[0] for _ in range(3)]
        self._stage.jobs |= {name: Job(name, CANCELED) for name in names}
        await self._answered(lambda: self._bulk("cancel", tag))
        now = time.monotonic()
        self._stage.jobs |= {name: Job(name, CANCELED, canceled_at=now) for name in names}

    async def _bulk(self, action: Any, tag: str) -> None:
        async for _ in self._stage.client.bulk(action, f"tag.chaos:{tag}"):
            pass

    async def _ended(self, handle: RunHandle[Any]) -> None:
        while (await self._answered(handle.run)).completed_at is None:
            await asyncio.sleep(0.1)

    def _key(self, what: str) -> str:
        self._keys += 1
        return f"{what}-{self._keys}"
