"""The races for a run: connections stepped through every order of what they do to it.

Each of two moves is begun, stands where it has a snapshot and has read nothing, stands where all is
done but the commit, and ends: twenty orders for each pair, with whatever waits of them the locks
lead to. Of three moves each stands once: ninety orders.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest

from openworkflow.backend import queries
from tests.racing import (
    BEGINNINGS,
    CLAIMED,
    PAIRS,
    Mover,
    described,
    faults,
    raced,
    scenes,
)
from tests.routing import ROUTE_MOVES, Routed
from tests.stepping import BOTH, COMMIT, SNAPSHOT, Move, Stepper, orders

TRIPLES = [
    ("expired", ("a step succeeds", "a heartbeat", "a claim")),
    ("expired", ("a step succeeds", "a claim", "a claim")),
    ("expired", ("a step begins", "a cancel", "a retry")),
    ("expired", ("a step ends", "a claim", "a cancel")),
    ("expired", ("the run succeeds", "a claim", "a cancel")),
    ("expired", ("the run parks", "a claim", "a wake")),
    ("expired", ("a cancel", "a retry", "a claim")),
    ("canceled", ("a step succeeds", "a retry", "a claim")),
]
ROUTES = [
    ("old claims", "new claims"),
    ("old claims", "new is promoted"),
    ("new claims", "new is promoted"),
    ("old claims", "old is held"),
    ("old claims", "new claims", "new is promoted"),
    ("new claims", "new is promoted", "new is held"),
]
NINETY = list(orders(2, 2, 2))
TWENTY = list(orders(1 + len(BOTH), 1 + len(BOTH)))
DEADLOCKS = "select deadlocks from pg_stat_database where datname = current_database()"


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


@pytest.mark.parametrize(("beginning", "names"), TRIPLES, ids=lambda each: "+".join(each))
async def test_every_order_of_three_moves_keeps_what_was_promised(
    beginning: str,
    names: Sequence[str],
    movers: list[Mover],
    stepper: Stepper,
    sql: asyncpg.Connection[Any],
) -> None:
    wrong: Counter[str] = Counter()
    gates = [(SNAPSHOT,) if name in CLAIMED else (COMMIT,) for name in names]
    made = await scenes(beginning, len(NINETY), sql, movers[0])
    for order, scene in zip(NINETY, made, strict=True):
        errors = await raced(names, gates, scene, order, stepper, movers)
        for fault in [*errors, *await faults(scene, sql)]:
            wrong[f"{fault}: {described(order, names)}"] += 1

    assert {} == wrong
    assert [] == await sql.fetch(queries.load("public")["check_invariants"])
    assert 0 == await sql.fetchval(DEADLOCKS)


@pytest.mark.parametrize("names", ROUTES, ids="+".join)
async def test_a_run_goes_to_one_build_however_claims_and_changes_of_builds_come(
    names: Sequence[str],
    movers: list[Mover],
    stepper: Stepper,
    sql: asyncpg.Connection[Any],
) -> None:
    wrong: Counter[str] = Counter()
    gates, every = ([BOTH] * 2, TWENTY) if len(names) == 2 else ([(COMMIT,)] * 3, NINETY)
    for order in every:
        new = await Routed.make(sql, movers[0])
        moves = [
            Move(functools.partial(ROUTE_MOVES[name], new, mover), gate)
            for name, gate, mover in zip(names, gates, movers, strict=False)
        ]
        errors = [told for told in await stepper.step(moves, order) if told is not None]
        for fault in [*map(repr, errors), *await new.faults(sql, movers[0])]:
            wrong[f"{fault}: {described(order, names)}"] += 1

    assert {} == wrong
    assert 0 == await sql.fetchval(DEADLOCKS)


def test_how_many_orders_are_tried() -> None:
    tried = sum(
        10 if first == second else 20 for pairs in PAIRS.values() for first, second in pairs
    )

    tried += sum(len(NINETY) for _ in TRIPLES)
    tried += sum(len(TWENTY if len(names) == 2 else NINETY) for names in ROUTES)

    assert (20, 90, 3190) == (len(TWENTY), len(NINETY), tried)
