"""A worker vouches for its claims as long as its heartbeat reaches the database."""

from __future__ import annotations

import asyncio

import pytest

from openworkflow.engine.guard import LeaseGuard


class Clock:
    """Monotonic seconds that pass when the test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def guard(clock: Clock) -> LeaseGuard:
    return LeaseGuard(30.0, clock)


def beat(guard: LeaseGuard, clock: Clock, after: float) -> None:
    clock.now += after
    guard.renew(clock.now)


def test_a_guard_stands_for_one_lease_after_each_heartbeat(guard: LeaseGuard, clock: Clock) -> None:
    beat(guard, clock, 10)
    stood = []
    for passed in (29.9, 0.1):
        clock.now += passed
        stood.append(guard.stands)

    assert [True, False] == stood
    assert 30 == pytest.approx(guard.age)


def test_a_heartbeat_counts_from_when_it_was_sent(guard: LeaseGuard, clock: Clock) -> None:
    """Its answer may have been under way for long."""
    clock.now += 29
    guard.renew(clock.now - 20)

    clock.now += 10
    assert not guard.stands


def test_a_guard_without_a_lease_always_stands(clock: Clock) -> None:
    guard = LeaseGuard(clock=clock)
    clock.now += 1e9
    guard.renew(clock.now)

    assert guard.stands
    assert guard.may_recover


def test_a_worker_recovers_runs_while_its_heartbeats_come(guard: LeaseGuard, clock: Clock) -> None:
    for _ in range(5):
        beat(guard, clock, 11)
        assert guard.may_recover


def test_a_worker_recovers_nothing_during_an_outage_even_before_it_ends(
    guard: LeaseGuard, clock: Clock
) -> None:
    """The connection for claims may be back before the one for heartbeats."""
    clock.now += 16

    assert guard.stands
    assert not guard.may_recover


def test_after_an_outage_the_peers_have_two_beats_to_extend_their_leases(
    guard: LeaseGuard, clock: Clock
) -> None:
    recovers = []
    for passed in (100, 10, 10):
        beat(guard, clock, passed)
        recovers.append(guard.may_recover)

    assert [False, False, True] == recovers


async def test_whoever_waits_goes_on_once_the_guard_stands_again(
    guard: LeaseGuard, clock: Clock
) -> None:
    clock.now += 40
    waiting = asyncio.ensure_future(guard.renewed())
    await asyncio.sleep(0)
    guard.release()  # another reason than a heartbeat
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()

    guard.renew(clock.now)
    guard.release()

    await waiting


async def test_nobody_waits_for_a_guard_that_stands(guard: LeaseGuard) -> None:
    await guard.renewed()
