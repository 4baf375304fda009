"""Looks at every database in its own rhythm, once for all namespaces in it.

A look that fails is a result too: all its namespaces get the reason, the fleets hold, and the next
look comes after a growing, jittered pause, so that a database that comes back is not stampeded.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import asyncpg

from openworkflow_operator.api.spec import Key
from openworkflow_operator.database.answers import Question
from openworkflow_operator.database.connection import ConnectOptions, Database, Told
from openworkflow_operator.database.diagnosis import diagnose
from openworkflow_operator.database.dsn import Dsn
from openworkflow_operator.decide.observation import OUTAGES, DatabaseReason, DatabaseView

logger = logging.getLogger(__name__)

#: The longest pause while the server refuses: only a person ends that.
LONGEST_PAUSE_SECONDS: Final = 30.0
#: And while it does not answer: it comes back by itself, and workers find it within seconds.
LONGEST_OUTAGE_PAUSE_SECONDS: Final = 5.0
#: However many wake-ups come in, this is the shortest time between two looks.
SHORTEST_PAUSE_SECONDS: Final = 0.2
#: What a server may have the operator take in over time: after a large answer the next look waits.
BYTES_PER_SECOND: Final = 512 * 2**10


@dataclass(frozen=True, slots=True)
class Target:
    """What to look at for one resource, and how often."""

    dsn: Dsn
    schema: str
    question: Question
    poll_seconds: float
    idle: bool = False
    """The fleet is at zero: a NOTIFY is worth an immediate look."""


@dataclass(frozen=True, slots=True)
class Look:
    """How a look went, for metrics."""

    seconds: float
    reason: str | None = None
    """Why it failed."""


Place = tuple[Dsn, str]


def pause_after(period: float, failures: int, reason: DatabaseReason | None) -> float:
    """Seconds until the next look: the period asked for, longer after looks that failed."""
    if not failures:
        return period
    longest = LONGEST_OUTAGE_PAUSE_SECONDS if reason in OUTAGES else LONGEST_PAUSE_SECONDS
    return max(period, min(longest, 2.0 ** min(failures, 10)))


class Observatory:
    """Keeps one observer per database while resources name it. Use as an async context."""

    def __init__(
        self,
        on_view: Callable[[Key], None],
        options: ConnectOptions | None = None,
        on_look: Callable[[Look], None] = lambda _: None,
    ) -> None:
        self._on_view, self._on_look = on_view, on_look
        self._options = options or ConnectOptions()
        self._observers: dict[Place, _Observer] = {}
        self._places: dict[Key, Place] = {}
        self._views: dict[Key, DatabaseView] = {}
        self._carried: set[Key] = set()
        self._serial = 0

    async def __aenter__(self) -> Observatory:
        return self

    async def __aexit__(self, *_: object) -> None:
        for key in list(self._places):
            self.forget(key)

    @property
    def connections(self) -> int:
        """Databases that are being looked at."""
        return len(self._observers)

    def watch(self, key: Key, target: Target) -> None:
        """Look at this target for the resource from now on."""
        place = (target.dsn, target.schema)
        known = self._places.get(key, place)
        if known != place:
            view = self._views.get(key)
            self.forget(key)
            if view is not None and _is_same_database(known, place):
                # Another user or password: what was seen stands until they have been tried.
                self._views[key] = view
                self._carried.add(key)
        if place not in self._observers:
            self._observers[place] = _Observer(self, target.dsn, target.schema)
        self._places[key] = place
        self._observers[place].set(key, target)

    def hurry(self, key: Key) -> None:
        """Look again soon: something was changed in the database."""
        if (place := self._places.get(key)) is not None:
            self._observers[place].hurry()

    def tell(self, key: Key, told: Told) -> None:
        """Have this stored after the next look, for people who look at the runs."""
        if (place := self._places.get(key)) is not None:
            self._observers[place].tell(key, told)

    def forget(self, key: Key) -> None:
        """Stop looking for this resource."""
        self._views.pop(key, None)
        self._carried.discard(key)
        place = self._places.pop(key, None)
        if place is None:
            return
        observer = self._observers[place]
        if not observer.remove(key):
            observer.stop()
            del self._observers[place]

    def view(self, key: Key) -> DatabaseView | None:
        """The result of the last look, None before the first one."""
        return self._views.get(key)

    def is_tried(self, key: Key) -> bool:
        """Whether the last look was made with the credentials that are watched now."""
        return key in self._views and key not in self._carried

    @property
    def serial(self) -> int:
        """The number of the last look that was begun."""
        return self._serial

    def next_serial(self) -> int:
        """A number for the next look, larger than those before."""
        self._serial += 1
        return self._serial

    def publish(self, views: dict[Key, DatabaseView], look: Look) -> None:
        """Take in what an observer saw."""
        self._on_look(look)
        for key, view in views.items():
            self._views[key] = view
            self._carried.discard(key)
            self._on_view(key)

    @property
    def options(self) -> ConnectOptions:
        """How to connect."""
        return self._options


def _growing(times: int) -> float:
    return min(LONGEST_PAUSE_SECONDS, 2.0 ** min(times, 10))


def _is_same_database(one: Place, other: Place) -> bool:
    return (one[0].place, one[1]) == (other[0].place, other[1])


class _Observer:
    """The loop of one database."""

    def __init__(self, observatory: Observatory, dsn: Dsn, schema: str) -> None:
        self._observatory, self._dsn, self._schema = observatory, dsn, schema
        self._targets: dict[Key, Target] = {}
        self._told: dict[Key, Told] = {}
        self._wake = asyncio.Event()
        self._failures = self._reconnects = self._received = 0
        self._reason: DatabaseReason | None = None
        self._database: Database | None = None
        self._task = asyncio.create_task(self._run(), name="observer")

    def set(self, key: Key, target: Target) -> None:
        """Include the target in the next look; a new one, or one to listen for, has it now."""
        known = self._targets.get(key)
        if known is None or (target.idle and not known.idle):
            self._wake.set()
        self._targets[key] = target

    def remove(self, key: Key) -> int:
        """Leave the target out; returns how many are left."""
        self._targets.pop(key, None)
        self._told.pop(key, None)
        return len(self._targets)

    def hurry(self) -> None:
        """Look again soon."""
        self._wake.set()

    def tell(self, key: Key, told: Told) -> None:
        """Store it after the next look."""
        self._told[key] = told

    def stop(self) -> None:
        """End the loop and its connection."""
        self._task.cancel()

    async def _run(self) -> None:
        try:
            while True:
                started = time.monotonic()
                self._wake.clear()
                await self._look()
                await asyncio.sleep(self._shortest_pause())
                pause = self._pause() - (time.monotonic() - started)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, pause)):
                        await self._wake.wait()
        finally:
            self._disconnect()

    async def _look(self) -> None:
        targets = dict(self._targets)
        serial, started = self._observatory.next_serial(), time.perf_counter()
        views: dict[Key, DatabaseView]
        reason = None
        try:
            found = await self._ask(targets, serial)
            views = {key: found[t.question.namespace_id] for key, t in targets.items()}
            self._failures = 0
        except Exception as error:
            problem = replace(diagnose(error), serial=serial)
            views, reason = dict.fromkeys(targets, problem), problem.reason
            self._failures, self._reason = self._failures + 1, reason
            self._disconnect()
            # The class is ours or asyncpg's; the text could hold what is secret.
            logger.info("a database cannot be read: %s (%s)", reason, type(error).__name__)
        present = {key: view for key, view in views.items() if key in self._targets}
        self._observatory.publish(present, Look(time.perf_counter() - started, reason))
        if reason is None:
            await self._tell()

    async def _ask(self, targets: dict[Key, Target], serial: int) -> dict[str, DatabaseView]:
        if self._database is None or self._database.is_closed:
            options = self._observatory.options
            self._database, self._received = None, 0
            self._database = await Database.connect(self._dsn, self._schema, options)
            self._reconnects += 1  # what refuses has pauses of its own, and one that is away
        else:
            self._reconnects = 0
        idle = [target.question.namespace_id for target in targets.values() if target.idle]
        await self._database.listen(idle, self._wake.set)
        questions = {target.question.namespace_id: target.question for target in targets.values()}
        return dict(await self._database.look(list(questions.values()), serial))

    async def _tell(self) -> None:
        """Store what there is to tell. No look fails for it, and the next status tells it again."""
        assert self._database is not None
        told, self._told = self._told, {}
        try:
            await self._database.tell(list(told.values()))
        except Exception as error:
            if not isinstance(error, asyncpg.PostgresError):
                self._disconnect()  # whether it answers is not known
            logger.info("the status of fleets is not stored: %s", type(error).__name__)

    def _pause(self) -> float:
        period = min((target.poll_seconds for target in self._targets.values()), default=60.0)
        return pause_after(period, self._failures, self._reason) * random.uniform(0.9, 1.1)

    def _shortest_pause(self) -> float:
        """Until the next look whatever asks for one: what a look costs is paid for in time.

        A login costs the most, so a server that hangs up each time is asked less and less often.
        """
        received = self._database.received if self._database else 0
        answers, self._received = max(0, received - self._received), received
        logins = _growing(self._reconnects - 1) if self._reconnects > 1 else 0.0
        return max(SHORTEST_PAUSE_SECONDS, answers / BYTES_PER_SECOND, logins)

    def _disconnect(self) -> None:
        if self._database is not None:
            self._database.terminate()
            self._database = None
