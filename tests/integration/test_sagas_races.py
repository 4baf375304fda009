"""A cancellation against all that a worker does, of a run whose steps can be undone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import asyncpg
import pytest

from openworkflow.backend import queries
from tests.racing import CLAIMED, Mover, described, raced, scenes, undo_faults
from tests.stepping import BOTH, Stepper, orders

UNDOABLE = '{"undo": true}'
TWENTY = list(orders(1 + len(BOTH), 1 + len(BOTH)))
MARK = "update step_attempts set context = $2 where workflow_run_id = any ($1) and step_name = 's0'"


@pytest.mark.parametrize("is_owed", [False, True], ids=["nothing owed", "owed"])
@pytest.mark.parametrize("beginning", ["expired", "parked"])
async def test_no_order_cancels_a_run_that_has_something_to_undo(
    beginning: str,
    is_owed: bool,
    movers: list[Mover],
    stepper: Stepper,
    sql: asyncpg.Connection[Any],
) -> None:
    """Either the step was recorded as begun, and is undone, or its worker is told not to begin."""
    wrong: Counter[str] = Counter()
    others = [*CLAIMED] if beginning == "expired" else ["a step succeeds", "a step begins"]
    for other in (*others, "a claim", "a cancel", "a wake"):
        made = await scenes(beginning, len(TWENTY), sql, movers[0])
        if is_owed:
            await sql.execute(MARK, [scene.run.id for scene in made], UNDOABLE)
        for order, scene in zip(TWENTY, made, strict=True):
            scene.context = UNDOABLE
            names = "a cancel", other
            errors = await raced(names, [BOTH, BOTH], scene, order, stepper, movers)
            for fault in [*errors, *await undo_faults(scene, sql)]:
                wrong[f"{fault}: {described(order, names)}"] += 1

    assert {} == wrong
    assert [] == await sql.fetch(queries.load("public")["check_invariants"])
