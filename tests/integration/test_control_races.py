"""What people do with a run, and its waits, stepped through every order with all that they meet.

See test_races.py.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import asyncpg
import pytest

from openworkflow.backend import pausing, queries
from tests.racing import Mover, described, faults, raced
from tests.racing_control import (
    CONTROL_MOVES,
    CONTROL_PAIRS,
    control_faults,
    control_scenes,
    settle,
)
from tests.stepping import BOTH, Stepper, orders

TWENTY = list(orders(1 + len(BOTH), 1 + len(BOTH)))
DEADLOCKS = "select deadlocks from pg_stat_database where datname = current_database()"


@pytest.mark.parametrize("third", range(3))
@pytest.mark.parametrize("beginning", CONTROL_PAIRS)
async def test_every_order_of_what_people_do_keeps_what_was_promised(
    beginning: str,
    third: int,
    movers: list[Mover],
    stepper: Stepper,
    sql: asyncpg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pausing, "_MOST_LOOKS", 1)  # one that is held up is told to resume again
    pairs = CONTROL_PAIRS[beginning][third::3]
    wrong: Counter[str] = Counter()
    for names in pairs:
        alike = names[0] == names[1]
        every = [order for order in TWENTY if not (alike and order[0])]
        made = await control_scenes(beginning, len(every), sql, movers[0])
        for order, scene in zip(every, made, strict=True):
            both = [BOTH, BOTH]
            errors = await raced(names, both, scene, order, stepper, movers, CONTROL_MOVES)
            await settle(scene, movers[0])
            found = [*errors, *await faults(scene, sql), *await control_faults(scene, sql)]
            for fault in found:
                wrong[f"{fault}: {described(order, names)}"] += 1

    assert {} == wrong
    assert [] == await sql.fetch(queries.load("public")["check_invariants"])
    assert 0 == await sql.fetchval(DEADLOCKS)


def test_how_many_orders_are_tried() -> None:
    pairs = [pair for pairs in CONTROL_PAIRS.values() for pair in pairs]

    assert 1890 == sum(10 if first == second else 20 for first, second in pairs)
