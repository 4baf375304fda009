"""What a worker asks for: as much as it has room for, when there may be work, and one suspect."""

from __future__ import annotations

import asyncio

import pytest

from openworkflow.worker.claimer import trusted_crashes
from tests.claims import Desk, claimed_run


def test_a_worker_asks_for_no_more_than_it_has_slots_or_than_a_batch() -> None:
    desk = Desk(slots=7, batch=5)

    desk.bring(*(claimed_run() for _ in range(5)))

    assert 2 == desk.take().limit


def test_a_worker_whose_claim_came_back_short_is_not_hungry() -> None:
    desk = Desk()

    desk.bring(claimed_run())

    assert desk.claimer.take() is None


def test_a_wake_up_while_a_claim_is_under_way_is_not_forgotten() -> None:
    desk = Desk()
    request = desk.take()
    desk.claimer.wake()

    desk.claimer.settled(request, [])

    assert desk.claimer.take() is not None


def test_a_second_claim_beside_the_first_is_for_a_backlog() -> None:
    desk = Desk(slots=20, batch=5)
    desk.take()
    assert desk.claimer.take() is None

    behind = Desk(slots=20, batch=5)
    behind.bring(*(claimed_run() for _ in range(5)))
    behind.take()
    assert behind.claimer.take() is not None


def test_nothing_is_claimed_while_there_is_an_obstacle() -> None:
    desk = Desk()
    desk.obstacle = "no heartbeat reached the database for 31 s"
    assert desk.claimer.take() is None

    desk.obstacle = None
    assert desk.claimer.take() is not None


def test_a_worker_that_stops_claims_nothing() -> None:
    desk = Desk()

    desk.claimer.stop()

    assert desk.claimer.take() is None


def test_expired_leases_of_others_are_left_alone_during_an_outage_and_soon_after() -> None:
    desk = Desk()
    recovers = []
    for passed in (1, 19, 0, 21):
        desk.now += passed
        if passed == 0:  # the heartbeat is back
            desk.guard.renew(desk.now)
        if passed == 21:
            desk.guard.renew(desk.now - 11)
            desk.guard.renew(desk.now)
        request = desk.take()
        recovers.append(request.recover)
        desk.claimer.wake()
        desk.claimer.settled(request, [])

    assert [True, False, False, True] == recovers


def test_one_suspect_is_asked_for_at_a_time() -> None:
    """Two claims that are under way at once share the permission for one."""
    desk = Desk(slots=20, batch=5)
    desk.bring(*(claimed_run() for _ in range(5)))
    first = desk.take()
    second = desk.take()
    assert (1, 0) == (first.suspects, second.suspects)

    desk.claimer.settled(first, [])
    desk.claimer.settled(second, [])
    desk.claimer.wake()
    assert 1 == desk.take().suspects


@pytest.mark.parametrize("ends", ["forget", "trust"])
async def test_no_suspect_is_asked_for_until_the_one_here_has_ended_or_made_progress(
    ends: str,
) -> None:
    desk = Desk()
    suspect = claimed_run(crashes=3, recovered=True, claim_no=4)
    desk.bring(suspect)
    assert [(suspect.id, 4)] == desk.claimer.suspects()
    desk.claimer.wake()
    request = desk.take()
    assert 0 == request.suspects
    desk.claimer.settled(request, [])
    await desk.claimer.arrivals()

    getattr(desk.claimer, ends)((suspect.id, 4))

    assert [] == await asyncio.wait_for(desk.claimer.arrivals(), 25)

    assert 1 == desk.take().suspects


def test_a_run_with_fewer_crashes_is_no_suspect() -> None:
    desk = Desk()

    desk.bring(claimed_run(crashes=2, recovered=True))

    assert [] == desk.claimer.suspects()


@pytest.mark.parametrize(
    ("max_crashes", "trusted"), [(1, 0), (2, 0), (3, 1), (4, 2), (5, 2), (100, 2)]
)
def test_a_suspect_has_two_executions_before_its_conviction_where_there_is_room(
    max_crashes: int, trusted: int
) -> None:
    assert trusted == trusted_crashes(max_crashes)


def test_two_claims_of_one_run_are_held_apart() -> None:
    """The older one may still be executed here when the newer one arrives."""
    desk = Desk()
    older = claimed_run()
    newer = older._replace(claim_no=2)
    desk.bring(older)
    desk.claimer.wake()
    desk.bring(newer)
    assert {(older.id, 1), (older.id, 2)} == set(desk.claimer.claims())

    desk.claimer.forget((older.id, 1))

    assert [(older.id, 2)] == desk.claimer.claims()
    assert [older.id] == desk.claimer.held()


async def test_arrivals_come_once_each_with_a_slot() -> None:
    desk = Desk()
    run = claimed_run()
    desk.bring(run)

    (arrival,) = await desk.claimer.arrivals()

    assert (run, True) == (arrival.run, arrival.slot.occupies)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(desk.claimer.arrivals(), 0.01)


async def test_a_slot_that_falls_free_is_news_for_whoever_sends_claims() -> None:
    desk = Desk(slots=1)
    desk.bring(claimed_run())
    (arrival,) = await desk.claimer.arrivals()

    arrival.slot.release()

    assert [] == await asyncio.wait_for(desk.claimer.arrivals(), 25)
    assert 1 == desk.take().limit


async def test_a_worker_is_empty_once_its_runs_and_its_claims_are_gone() -> None:
    desk = Desk()
    run = claimed_run()
    desk.bring(run)
    desk.claimer.wake()
    request = desk.take()
    emptied = asyncio.ensure_future(desk.claimer.emptied(5))

    desk.claimer.forget((run.id, 1))
    await asyncio.sleep(0.01)
    assert not emptied.done()
    desk.claimer.settled(request, [])

    assert await emptied
    assert await desk.claimer.emptied(0)


async def test_waiting_for_an_empty_worker_has_an_end() -> None:
    desk = Desk()
    desk.bring(claimed_run())

    assert not await desk.claimer.emptied(0.01)


async def test_a_claim_that_set_aside_all_it_found_is_followed_by_another() -> None:
    desk = Desk()
    desk.claimer.wake()
    request = desk.claimer.take()
    assert request is not None

    desk.claimer.settled(request, [], request.limit)

    assert desk.claimer.take() is not None
