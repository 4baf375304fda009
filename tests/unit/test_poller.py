"""Polls and timers make the claimer hungry, whatever happens to the database meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from openworkflow.core.errors import BackendError
from openworkflow.engine.journal import DatabaseClock
from openworkflow.worker import poller
from openworkflow.worker.poller import Poller
from tests.claims import NOW, Desk
from tests.helpers import eventually


class Database:
    """Knows when the next run is due, or fails as it is told; counts how often it was asked."""

    def __init__(self) -> None:
        self.due: float | None = None
        self.error: Exception | None = None
        self.hangs = False
        self.asked = 0

    async def next_due(self) -> float | None:
        self.asked += 1
        if self.hangs:
            await asyncio.sleep(60)
        if self.error is not None:
            raise self.error
        return self.due


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def kicks() -> list[str]:
    return []


@pytest.fixture
def made(database: Any, desk: Desk, kicks: list[str]) -> Poller:
    return Poller(database, DatabaseClock(NOW), desk.claimer, lambda: kicks.append("kick"))


@pytest.fixture
async def polling(made: Poller, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Poller]:
    """Polls as fast as the test needs, and looks for timers at every poll."""
    monkeypatch.setattr(poller, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(poller, "FIRST_POLL_SECONDS", 0.01)
    task = asyncio.ensure_future(made.run(lambda: True))
    yield made
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def hungry(desk: Desk) -> bool:
    """Whether the worker asks for work; it is sated afterwards."""
    request = desk.claimer.take()
    if request is not None:
        desk.claimer.settled(request, [])
    return request is not None


def test_a_wake_up_makes_hungry_and_lets_a_flush_leave(
    made: Poller, desk: Desk, kicks: list[str]
) -> None:
    hungry(desk)

    made.wake()

    assert (True, ["kick"]) == (hungry(desk), kicks)


async def test_a_flood_of_messages_costs_few_claims_and_the_last_is_not_lost(
    made: Poller, desk: Desk, kicks: list[str]
) -> None:
    """Any role of the database may send them; each cost a claim."""
    claims, end = 0, time.monotonic() + 0.5
    while time.monotonic() < end:
        made.hear()
        claims += hungry(desk)
        await asyncio.sleep(0)

    assert 1 <= claims <= 16
    kicks.clear()
    made.hear()
    assert await eventually(lambda: hungry(desk))


async def test_polls_go_on(polling: Poller, desk: Desk) -> None:
    for _ in range(3):
        await eventually(lambda: hungry(desk))


@pytest.mark.parametrize("error", [BackendError("refused"), OverflowError("a date of its own")])
async def test_polls_go_on_whatever_the_look_for_timers_raises(
    polling: Poller, desk: Desk, database: Database, error: Exception
) -> None:
    database.error = error
    await eventually(lambda: database.asked >= 3)

    assert await eventually(lambda: hungry(desk))


async def test_polls_go_on_while_the_pool_has_no_connection_for_the_look_for_timers(
    polling: Poller, desk: Desk, database: Database
) -> None:
    database.hangs = True
    await eventually(lambda: database.asked >= 3)

    assert await eventually(lambda: hungry(desk))


async def test_a_timer_that_is_due_soon_wakes_the_worker(
    made: Poller, desk: Desk, kicks: list[str]
) -> None:
    hungry(desk)

    made.resume_at(NOW + timedelta(seconds=0.02))

    await eventually(lambda: kicks)
    assert hungry(desk)


async def test_a_timer_that_is_due_later_is_left_to_the_polls(
    made: Poller, monkeypatch: pytest.MonkeyPatch, kicks: list[str]
) -> None:
    monkeypatch.setattr(poller, "POLL_SECONDS", 0.01)

    made.resume_in(0.02)
    made.resume_at(None)

    await asyncio.sleep(0.05)  # that nothing happens can only be waited for
    assert [] == kicks
