"""The races for a run: two connections stepped through every order of what they do to it.

Each of two moves is begun, stands where it has a snapshot and has read nothing, stands where all is
done but the commit, and ends: twenty orders for each pair, with whatever waits of them the locks
lead to.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest

from openworkflow.backend import queries
from tests.racing import BEGINNINGS, MOVES, PAIRS, Mover, Scene, described, faults, scenes
from tests.stepping import BOTH, Move, Stepper, orders

TWENTY = list(orders(1 + len(BOTH), 1 + len(BOTH)))
DEADLOCKS = "select deadlocks from pg_stat_database where datname = current_database()"


@pytest.fixture
async def movers(database_url: str) -> AsyncIterator[list[Mover]]:
    movers = [await Mover.connect(database_url, number) for number in range(3)]
    yield movers
    for mover in movers:
        await mover.close()


@pytest.fixture
async def stepper(database_url: str, movers: list[Mover]) -> AsyncIterator[Stepper]:
    stepper = Stepper(database_url, [mover.hold.id for mover in movers])
    await stepper.open()
    yield stepper
    await stepper.close()


async def raced(
    names: Sequence[str],
    gates: Sequence[tuple[int, ...]],
    scene: Scene,
    order: Sequence[int],
    stepper: Stepper,
    movers: Sequence[Mover],
) -> list[str]:
    """Which errors the moves ended with."""
    moves = [
        Move(functools.partial(MOVES[name], scene, mover), gate)
        for name, gate, mover in zip(names, gates, movers, strict=False)
    ]
    told = await stepper.step(moves, order)
    return [repr(answer) for answer in told if isinstance(answer, BaseException)]


@pytest.mark.parametrize("third", range(3))
@pytest.mark.parametrize("beginning", BEGINNINGS)
async def test_every_order_of_two_moves_keeps_what_was_promised(
    beginning: str,
    third: int,
    movers: list[Mover],
    stepper: Stepper,
    sql: asyncpg.Connection[Any],
) -> None:
    """A step was recorded for a claim that another had replaced, and no later one had seen it."""
    wrong: Counter[str] = Counter()
    for names in PAIRS[beginning][third::3]:
        alike = names[0] == names[1]
        every = [order for order in TWENTY if not (alike and order[0])]
        made = await scenes(beginning, len(every), sql, movers[0])
        for order, scene in zip(every, made, strict=True):
            errors = await raced(names, [BOTH, BOTH], scene, order, stepper, movers)
            for fault in [*errors, *await faults(scene, sql)]:
                wrong[f"{fault}: {described(order, names)}"] += 1

    assert {} == wrong
    assert [] == await sql.fetch(queries.load("public")["check_invariants"])
    assert 0 == await sql.fetchval(DEADLOCKS)


def test_how_many_orders_are_tried() -> None:
    tried = sum(
        10 if first == second else 20 for pairs in PAIRS.values() for first, second in pairs
    )

    assert (20, 2210) == (len(TWENTY), tried)
