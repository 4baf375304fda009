"""The races in a family: connections stepped through every order of what parent and children do.

As in test_races.py. What must be true after each: an end of a child wakes its parent exactly once,
whether that is parked, about to park or executed; nobody sleeps through it; and when the parent has
ended, so have its children.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from openworkflow.backend import queries
from openworkflow.backend.records import (
    ClaimedRun,
    Completion,
    Disowned,
    Flush,
    NewChild,
    NewRun,
    StepWrite,
)
from openworkflow.core.errors import InvalidRunState
from openworkflow.core.ids import child_id, uuid7
from openworkflow.core.step_attempt import StepKind, StepStatus
from openworkflow.core.workflow_run import RunStatus
from tests.flushes import LEASE, claim, end_of, step_of
from tests.racing import Mover, described
from tests.stepping import BOTH, COMMIT, Move, Stepper, orders

TWENTY = list(orders(3, 3))
NINETY = list(orders(2, 2, 2))
DEADLOCKS = "select deadlocks from pg_stat_database where datname = current_database()"
_FAMILY = """
select child.id, child.status as told, child.wake_at, run.status
  from workflow_children child left join workflow_runs run on run.id = child.id
 where child.parent_run_id = $1
"""


def new_child(parent: ClaimedRun, name: str, **columns: Any) -> NewChild:
    run_id = child_id(1)
    values: dict[str, Any] = {
        "id": run_id,
        "run_id": parent.id,
        "claim_no": parent.claim_no,
        "step_id": run_id,
        "number": 0,
        "workflow_name": name,
        "on_close": "cancel",
        "wake_at": 0,
    }
    fields: dict[str, Any] = dict.fromkeys(NewChild._fields)
    return NewChild(**(fields | values | columns))


def wait_for(parent: ClaimedRun, child: NewChild) -> StepWrite:
    return step_of(
        parent,
        f"child {child.id}",
        id=child.id,
        kind=StepKind.CHILD,
        status=StepStatus.RUNNING,
        output=None,
    )


async def send(mover: Mover, *rows: Any) -> Any:
    by_type: dict[Any, list[Any]] = {}
    for row in rows:
        by_type.setdefault(type(row), []).append(row)
    return await mover.session.flush(Flush("host/1", LEASE, by_type))


@dataclass
class Family:
    """A parent, claimed, that waits for two children, which are claimed too."""

    parent: ClaimedRun
    children: Sequence[ClaimedRun]
    added: list[UUID] = field(default_factory=list)

    @classmethod
    async def make(cls, mover: Mover, count: int) -> list[Family]:
        name = f"parent {uuid7()}"
        await mover.backend.create_workflow_runs([NewRun(name)] * count)
        parents = await claim(mover.session, name, limit=count)
        rows: list[Any] = []
        for parent in parents:
            for child in (
                new_child(parent, f"child of {name}"),
                new_child(parent, f"child of {name}"),
            ):
                rows += [wait_for(parent, child), child]
        assert set() == (await send(mover, *rows)).lost
        claimed = await claim(mover.session, f"child of {name}", limit=2 * count)
        by_id = {run.id: run for run in claimed}
        kids = [row for row in rows if isinstance(row, NewChild)]
        return [
            cls(parent, [by_id[kid.id] for kid in kids if kid.run_id == parent.id])
            for parent in parents
        ]

    async def end(self, mover: Mover, which: int) -> None:
        run = self.children[which]
        await send(mover, mover.first(), Completion(run.id, run.claim_no, "1"))

    async def fail_child(self, mover: Mover) -> None:
        await send(mover, mover.first(), end_of(self.children[0], RunStatus.FAILED, error="{}"))

    async def cancel_child(self, mover: Mover) -> None:
        await allowed(mover.backend.cancel_workflow_run(self.children[0].id))

    async def park(self, mover: Mover) -> None:
        end = end_of(self.parent, RunStatus.PENDING, forever=True, wake_no=self.parent.wake_no)
        await send(mover, mover.first(), end)

    async def succeed(self, mover: Mover) -> None:
        """As the engine does: whatever is open ends with the run."""
        closed = [
            step_of(
                self.parent,
                "",
                id=child.id,
                kind=StepKind.CHILD,
                status=StepStatus.FAILED,
                update=True,
                error="{}",
            )
            for child in self.children
        ]
        end = Completion(self.parent.id, self.parent.claim_no, "1")
        await send(mover, mover.first(), *closed, end)

    async def cancel(self, mover: Mover) -> None:
        await allowed(mover.backend.cancel_workflow_run(self.parent.id))

    async def add(self, mover: Mover) -> None:
        child = new_child(self.parent, "late")
        done = await send(mover, mover.first(), wait_for(self.parent, child), child)
        if child.id not in done.lost:
            self.added.append(child.id)

    async def disown(self, mover: Mover) -> None:
        row = Disowned(self.children[0].id, self.parent.id, self.parent.claim_no)
        await send(mover, mover.first(), row)

    async def look(self, mover: Mover) -> None:
        await mover.backend.families.cancel_orphans()


async def allowed(doing: Awaitable[Any]) -> None:
    with contextlib.suppress(InvalidRunState):
        await doing


Do = Callable[[Family, Mover], Awaitable[None]]
MOVES: Mapping[str, Do] = {
    "a ends": functools.partial(Family.end, which=0),
    "b ends": functools.partial(Family.end, which=1),
    "a fails": Family.fail_child,
    "a is canceled": Family.cancel_child,
    "the parent parks": Family.park,
    "the parent succeeds": Family.succeed,
    "the parent is canceled": Family.cancel,
    "a child is added": Family.add,
    "a is disowned": Family.disown,
    "orphans are looked for": Family.look,
}
LAST = {"the parent parks", "the parent succeeds"}
SENT = {"a child is added", "a is disowned", *LAST}
"""What the parent's worker sends: nothing else of it is under way when the parent parks or ends."""
PAIRS = [
    pair
    for pair in itertools.combinations(MOVES, 2)
    if not (LAST & set(pair) and set(pair) <= SENT)
]
TRIPLES = [
    ("a ends", "b ends", "the parent parks"),
    ("a ends", "b ends", "the parent is canceled"),
    ("a ends", "b ends", "the parent succeeds"),
    ("a is canceled", "the parent parks", "b ends"),
    ("a fails", "the parent is canceled", "orphans are looked for"),
    ("a child is added", "the parent is canceled", "a ends"),
    ("a is disowned", "b ends", "a ends"),
]


async def faults(family: Family, sql: asyncpg.Connection[Any], mover: Mover) -> list[str]:
    """What is not as it must be, in words."""
    found: list[str] = []
    before = await sql.fetch(_FAMILY, family.parent.id)
    parent = await sql.fetchrow(
        "select *, available_at <= now() as is_due from workflow_runs where id = $1",
        family.parent.id,
    )
    assert parent is not None
    ended = sum(row["status"] in ("succeeded", "failed", "canceled") for row in before)
    if parent["completed_at"] is None and parent["wake_no"] != ended:
        found.append(f"{ended} children ended, and the parent was woken {parent['wake_no']} times")
    if parent["status"] == "pending" and ended and not parent["is_due"]:
        found.append("the parent sleeps through the end of a child")
    await mover.backend.families.cancel_orphans()
    for row in await sql.fetch(_FAMILY, family.parent.id):
        if row["told"] is None and parent["completed_at"] is not None:
            found.append("a child goes on, and its parent has ended")
        if row["told"] not in (None, row["status"]):
            found.append(f"a child is {row['status']}, and its family has {row['told']}")
    known = {row["id"] for row in before}
    if known != {*(run.id for run in family.children), *family.added}:
        found.append("a child was added and is not there, or was refused and is")
    return found


async def raced(
    names: Sequence[str],
    every: Sequence[tuple[int, ...]],
    gates: tuple[int, ...],
    movers: Sequence[Mover],
    stepper: Stepper,
    sql: asyncpg.Connection[Any],
) -> Counter[str]:
    wrong: Counter[str] = Counter()
    for order, family in zip(every, await Family.make(movers[0], len(every)), strict=True):
        moves = [
            Move(functools.partial(MOVES[name], family, mover), gates)
            for name, mover in zip(names, movers, strict=False)
        ]
        told = await stepper.step(moves, order)
        errors = [repr(answer) for answer in told if isinstance(answer, BaseException)]
        for fault in [*errors, *await faults(family, sql, movers[0])]:
            wrong[f"{fault}: {described(order, names)}"] += 1
    return wrong


@pytest.mark.parametrize("third", range(3))
async def test_every_order_of_two_moves_of_a_family(
    third: int, movers: list[Mover], stepper: Stepper, sql: asyncpg.Connection[Any]
) -> None:
    wrong: Counter[str] = Counter()
    for names in PAIRS[third::3]:
        wrong += await raced(names, TWENTY, BOTH, movers, stepper, sql)

    assert {} == wrong
    assert [] == await sql.fetch(queries.load("public")["check_invariants"])
    assert 0 == await sql.fetchval(DEADLOCKS)


@pytest.mark.parametrize("names", TRIPLES, ids="+".join)
async def test_every_order_of_three_moves_of_a_family(
    names: Sequence[str], movers: list[Mover], stepper: Stepper, sql: asyncpg.Connection[Any]
) -> None:
    wrong = await raced(names, NINETY, (COMMIT,), movers, stepper, sql)

    assert {} == wrong
    assert [] == await sql.fetch(queries.load("public")["check_invariants"])
    assert 0 == await sql.fetchval(DEADLOCKS)


async def test_families_that_end_crosswise_do_not_wait_in_a_circle(
    movers: list[Mover], stepper: Stepper, sql: asyncpg.Connection[Any]
) -> None:
    """Two flushes end children of the same two parents, in opposite orders."""
    for _ in range(5):
        first, second = await Family.make(movers[0], 2)

        async def one(mover: Mover, first: Family = first, second: Family = second) -> None:
            runs = first.children[0], second.children[0]
            ends = [Completion(run.id, run.claim_no, "1") for run in runs]
            await send(mover, mover.first(), *ends)

        async def other(mover: Mover, first: Family = first, second: Family = second) -> None:
            runs = second.children[1], first.children[1]
            ends = [Completion(run.id, run.claim_no, "1") for run in runs]
            await send(mover, mover.first(), *ends)

        told = await stepper.step(
            [
                Move(functools.partial(one, movers[0]), (COMMIT,)),
                Move(functools.partial(other, movers[1]), (COMMIT,)),
            ],
            (0, 1, 0, 1),
        )
        assert [None, None] == told
    assert 0 == await sql.fetchval(DEADLOCKS)
