"""Slots are never overdrawn, and runs that rest come before new claims."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from openworkflow.worker.slots import Slot, Slots


def make(count: int, most_resting: int | None = None) -> tuple[Slots, list[str]]:
    told: list[str] = []
    slots = Slots(count, most_resting=most_resting, freed=lambda: told.append("freed"))
    return slots, told


def fill(slots: Slots, runs: int) -> list[Slot]:
    slots.reserve(runs)
    return slots.fill(runs, runs)


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_a_claim_reserves_what_it_may_bring() -> None:
    slots, _ = make(10)

    slots.reserve(6)

    assert (4, 0) == (slots.claimable, slots.used)


def test_a_claim_that_brings_less_gives_the_rest_back() -> None:
    slots, _ = make(10)
    slots.reserve(6)

    assert 2 == len(slots.fill(6, 2))

    assert (8, 2) == (slots.claimable, slots.used)


def test_a_run_that_ends_gives_its_slot_back_once() -> None:
    slots, _ = make(1)
    (slot,) = fill(slots, 1)

    slot.close()
    slot.close()

    assert (1, 0) == (slots.claimable, slots.used)


def test_a_run_that_rests_needs_no_slot_and_whoever_claims_is_told() -> None:
    slots, told = make(1)
    (slot,) = fill(slots, 1)

    slot.release()

    assert (1, 0, 1) == (slots.claimable, slots.used, slots.resting)
    assert ["freed"] == told


async def test_a_run_with_a_slot_goes_on_at_once() -> None:
    slots, _ = make(1)
    (slot,) = fill(slots, 1)

    await slot.acquire()

    assert 1 == slots.used


async def test_a_run_that_rested_takes_a_free_slot_at_once() -> None:
    slots, _ = make(1)
    (slot,) = fill(slots, 1)
    slot.release()

    await slot.acquire()

    assert (0, 1, 0) == (slots.claimable, slots.used, slots.resting)


async def test_a_run_that_goes_on_comes_before_a_new_claim() -> None:
    slots, told = make(1)
    (first,) = fill(slots, 1)
    first.release()
    (second,) = fill(slots, 1)
    goes_on = asyncio.ensure_future(first.acquire())
    await settle()
    told.clear()

    second.close()
    await goes_on

    assert (0, 1) == (slots.claimable, slots.used)
    assert [] == told


async def test_a_claim_under_way_keeps_its_slots_from_runs_that_go_on() -> None:
    """Else it might bring more runs than there are slots."""
    slots, _ = make(1)
    (slot,) = fill(slots, 1)
    slot.release()
    slots.reserve(1)
    goes_on = asyncio.ensure_future(slot.acquire())
    await settle()
    assert not goes_on.done()

    slots.fill(1, 0)

    await goes_on
    assert 1 == slots.used


async def test_runs_go_on_in_the_order_in_which_they_asked() -> None:
    slots, _ = make(2)
    resting = fill(slots, 2)
    for slot in resting:
        slot.release()
    (one, other) = fill(slots, 2)
    order: list[int] = []

    async def go_on(number: int) -> None:
        await resting[number].acquire()
        order.append(number)

    waiting = [asyncio.ensure_future(go_on(number)) for number in (1, 0)]
    await settle()
    one.close()
    other.close()

    await asyncio.gather(*waiting)
    assert [1, 0] == order


async def test_a_run_that_is_interrupted_while_it_waits_for_a_slot_takes_none() -> None:
    slots, _ = make(1)
    (first,) = fill(slots, 1)
    first.release()
    (second,) = fill(slots, 1)
    waiting = asyncio.ensure_future(first.acquire())
    await settle()
    waiting.cancel()
    await settle()

    second.close()
    first.close()

    assert (1, 0, 0) == (slots.claimable, slots.used, slots.resting)


async def test_a_run_whose_slot_came_in_the_moment_of_its_interruption_gives_it_back() -> None:
    slots, _ = make(1)
    (first,) = fill(slots, 1)
    first.release()
    (second,) = fill(slots, 1)
    waiting = asyncio.ensure_future(first.acquire())
    await settle()

    second.close()
    waiting.cancel()
    await settle()
    first.close()

    assert (1, 0, 0) == (slots.claimable, slots.used, slots.resting)


async def test_two_branches_of_a_run_that_go_on_at_once_take_one_slot() -> None:
    slots, _ = make(2)
    (slot,) = fill(slots, 1)
    slot.release()
    others = fill(slots, 2)
    branches = [asyncio.ensure_future(slot.acquire()) for _ in range(2)]
    await settle()
    for other in others:
        other.close()

    await asyncio.gather(*branches)

    assert (1, 0) == (slots.used, slots.resting)


def test_no_more_than_so_many_runs_may_rest() -> None:
    slots, _ = make(3, most_resting=1)
    first, second, _ = fill(slots, 3)
    room = [second.may_rest]
    first.release()
    room.append(second.may_rest)
    first.close()
    room.append(second.may_rest)

    assert [True, False, True] == room


@given(st.lists(st.tuples(st.sampled_from(["claim", "rest", "go on", "end"]), st.integers(0, 5))))
def test_no_order_of_events_overdraws_or_loses_a_slot(events: list[tuple[str, int]]) -> None:
    async def play() -> None:
        slots, _ = make(3)
        live: list[Slot] = []
        waiting: list[asyncio.Future[None]] = []
        for event, which in events:
            if event == "claim":
                asked = min(slots.claimable, which)
                slots.reserve(asked)
                live += slots.fill(asked, asked - which % 2 if asked else 0)
            elif live:
                slot = live[which % len(live)]
                if event == "rest" and slot.may_rest:
                    slot.release()
                elif event == "go on":
                    waiting.append(asyncio.ensure_future(slot.acquire()))
                elif event == "end":
                    slot.close()
                    live.remove(slot)
            await settle()
            assert 0 <= slots.used <= slots.count
            assert 0 <= slots.resting <= slots.most_resting
            assert slots.used + slots.resting == len(live)
        for slot in live:
            slot.close()
        await settle()
        assert all(future.done() for future in waiting)
        assert (3, 0, 0) == (slots.claimable, slots.used, slots.resting)

    asyncio.run(play())
