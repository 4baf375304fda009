"""The moves of a race for one run, and what must be true after it, in whatever order they came.

A scene is a run that worker `host/1` claimed: it has recorded `s0`, and its row of `open` says that
it runs. Movers act as that worker, as others that claim the run, or as people and their tools.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg

from openworkflow.backend.backend import BackendPostgres, HeartbeatSession, WorkerSession
from openworkflow.backend.records import (
    ClaimedRun,
    Completion,
    Continuation,
    NewRun,
    RecordedStep,
    StepSuccess,
)
from openworkflow.core.errors import InvalidRunState, RunNotFound
from openworkflow.core.ids import uuid7
from openworkflow.core.step_attempt import StepStatus
from openworkflow.core.workflow_run import RunStatus
from tests.flushes import LEASE, claim, end_of, flush, session_of, step_of, wanted
from tests.stepping import Move, Stepper, application_name

FIRST = "host/1"
BEGINNINGS = {
    "expired": "update workflow_runs set available_at = now() - interval '1 s'",
    "parked": "update workflow_runs set status = 'pending', worker_id = null",
    "canceled": "update workflow_runs"
    " set status = 'canceled', worker_id = null, completed_at = now() - interval '1 h'",
}
_NAMED = """
update workflow_runs
   set build_id = 'b' || id, pinned = true, workflow_name = id::text
 where id = any ($1)
"""
_ROWS = """
select id, kind, status, output, claim_no, context::text as context
  from step_attempts
 where workflow_run_id = $1
"""


@dataclass
class Mover:
    """The connections of one of those who race; `hold` is a run whose row is a gate of his."""

    number: int
    backend: BackendPostgres
    session: WorkerSession
    heartbeat: HeartbeatSession
    hold: ClaimedRun

    @classmethod
    async def connect(cls, url: str, number: int) -> Mover:
        backend = await BackendPostgres.connect(url, application_name=application_name(number))
        session = await session_of(backend)
        await backend.create_workflow_runs([NewRun(f"hold {number}")])
        (hold,) = await claim(session, f"hold {number}")
        return cls(number, backend, session, await backend.open_heartbeat(), hold)

    async def close(self) -> None:
        await self.heartbeat.close()
        await self.session.close()
        await self.backend.stop()

    def first(self) -> StepSuccess:
        """The row that a flush begins with, which waits where the gate is shut."""
        return success(self.hold, f"hold {uuid7()}")


@dataclass
class Scene:
    """A run, and what the movers were told about it."""

    run: ClaimedRun
    recorded: StepSuccess
    running: Any
    told: dict[UUID, tuple[bool, str]] = field(default_factory=dict)
    """Rows that were sent: whether they count as recorded, and their status then."""
    claims: list[tuple[ClaimedRun, Mapping[UUID, RecordedStep]]] = field(default_factory=list)
    """Claims that brought the run, with the history that was read for each."""
    ends: list[str] = field(default_factory=list)
    """What people and workers were told that has become of the run."""
    context: str | None = None
    """Of the steps that are recorded in the race."""
    control: Any = None
    """What those were told who do with it what is in racing_control.py."""

    @property
    def name(self) -> str:
        return str(self.run.id)

    @property
    def build(self) -> str:
        return f"b{self.run.id}"

    # -- the worker that has the claim -----------------------------------------------------------

    async def succeed(self, mover: Mover) -> None:
        row = success(self.run, f"s{mover.number + 1}", self.context)
        done = await flush(mover.session, successes=[mover.first(), row])
        self.told[row.id] = row.id not in done.lost, "succeeded"

    async def begin(self, mover: Mover) -> None:
        row = step_of(self.run, f"b{mover.number}", status=StepStatus.RUNNING, output=None)
        row = row._replace(context=self.context)
        done = await flush(mover.session, successes=[mover.first()], steps=[row])
        self.told[row.id] = row.id not in done.lost, "running"

    async def settle(self, mover: Mover) -> None:
        row = self.running._replace(status=StepStatus.SUCCEEDED, update=True, completion_no=2)
        row = row._replace(context=self.context)
        done = await flush(mover.session, successes=[mover.first()], steps=[row])
        self.told[row.id] = row.id not in done.lost, "succeeded"

    async def finish(self, mover: Mover) -> None:
        """As the engine does: whatever is open ends with the run."""
        closed = self.running._replace(status=StepStatus.FAILED, update=True, error='{"e": 1}')
        row, end = (
            success(self.run, "last", self.context),
            Completion(self.run.id, self.run.claim_no, "1"),
        )
        rows = [mover.first(), row]
        done = await flush(mover.session, successes=rows, steps=[closed], completions=[end])
        self.told[row.id] = row.id not in done.lost, "succeeded"
        assert (row.id in done.lost) == (self.run.id in done.lost)
        if self.run.id not in done.lost:
            self.ends.append("succeeded")

    async def park(self, mover: Mover) -> None:
        await flush(mover.session, ends=[end_of(self.run, RunStatus.PENDING, delay=0.0)])

    async def renew(self, mover: Mover) -> None:
        await flush(
            mover.session, continuations=[Continuation(self.run.id, self.run.claim_no, "2")]
        )

    async def beat(self, mover: Mover) -> None:
        await mover.heartbeat.beat(FIRST, LEASE, [(self.run.id, self.run.claim_no)])

    async def release(self, mover: Mover) -> None:
        held = [mover.hold.id]
        await mover.session.release_unknown(FIRST, held, expired=True)

    # -- others ----------------------------------------------------------------------------------

    async def claim(self, mover: Mover) -> None:
        """As a worker does: what is claimed is read at once."""
        request = wanted(5, self.name, build_id=self.build, pinned_keys=[])
        worker = f"other/{mover.number}"
        for run in (await flush(mover.session, claim=request, worker=worker)).claimed:
            if run.id != self.run.id:  # its fork
                continue
            history = (await mover.session.load_histories([run.id]))[run.id]
            self.claims.append((run, {row.id: row for row in history}))

    async def cancel(self, mover: Mover) -> None:
        if await _allowed(mover.backend.cancel_workflow_run(self.run.id)):
            self.ends.append("canceled")

    async def retry(self, mover: Mover) -> None:
        if await _allowed(mover.backend.retry_workflow_run(self.run.id)):
            self.ends.append("retried")

    async def wake(self, mover: Mover) -> None:
        await mover.backend.wake_workflow_run(self.run.id)

    async def prune(self, mover: Mover) -> None:
        ended = [status for status in RunStatus if status.finished]
        async for count in mover.backend.prune(ended, timedelta(minutes=30)):
            assert count

    async def fail_build(self, mover: Mover) -> None:
        if await mover.backend.builds.settle(self.build, "fail"):
            self.ends.append("failed")

    async def move_build(self, mover: Mover) -> None:
        await mover.backend.builds.settle(self.build, "move")


Do = Callable[[Scene, Mover], Awaitable[None]]
CLAIMED: Mapping[str, Do] = {
    "a step succeeds": Scene.succeed,
    "a step begins": Scene.begin,
    "a step ends": Scene.settle,
    "a heartbeat": Scene.beat,
    "the run succeeds": Scene.finish,
    "the run parks": Scene.park,
    "the run continues as new": Scene.renew,
    "the claim is handed back": Scene.release,
}
"""What the worker does that has the claim."""
OTHERS: Mapping[str, Do] = {
    "a claim": Scene.claim,
    "a cancel": Scene.cancel,
    "a retry": Scene.retry,
    "a wake": Scene.wake,
    "a prune": Scene.prune,
    "its build's runs fail": Scene.fail_build,
    "its build's runs move": Scene.move_build,
}
MOVES: Mapping[str, Do] = {**CLAIMED, **OTHERS}
LAST = {"the run succeeds", "the run parks", "the run continues as new"}
"""The engine does these when nothing else that it sent about the run is under way."""


def _meet(first: str, second: str) -> bool:
    """Whether these two may be under way at once."""
    sent = CLAIMED.keys() - {"a heartbeat"}
    return not any(a in LAST and b in sent for a, b in ((first, second), (second, first)))


_ENDED = ["a step succeeds", "a claim", "a cancel", "a retry", "a prune", "its build's runs fail"]
_WAITING = [name for name in OTHERS if name not in ("a retry", "a prune")]
#: By how the run begins: which moves are tried against each other, each with itself too.
PAIRS: Mapping[str, Sequence[tuple[str, str]]] = {
    beginning: [pair for pair in itertools.combinations_with_replacement(names, 2) if _meet(*pair)]
    for beginning, names in {
        "expired": [*CLAIMED, *_WAITING],
        "parked": ["a step succeeds", "a heartbeat", *_WAITING],
        "canceled": _ENDED,
    }.items()
}


async def scenes(
    beginning: str, count: int, sql: asyncpg.Connection[Any], mover: Mover
) -> list[Scene]:
    """So many runs that begin like that."""
    await mover.backend.create_workflow_runs([NewRun("scene")] * count)
    made = []
    for run in await claim(mover.session, "scene", limit=count):
        recorded = success(run, "s0")
        running = step_of(run, "open", status=StepStatus.RUNNING, output=None)
        made.append(Scene(run, recorded, running))
    await flush(
        mover.session,
        successes=[scene.recorded for scene in made],
        steps=[scene.running for scene in made],
    )
    ids = [scene.run.id for scene in made]
    await sql.execute(_NAMED, ids)
    await sql.execute(f"{BEGINNINGS[beginning]} where id = any ($1)", ids)
    if beginning == "canceled":
        await sql.execute(
            "update step_attempts set status = 'failed', completed_at = now()"
            " where status = 'running' and workflow_run_id = any ($1)",
            ids,
        )
    return made


async def faults(scene: Scene, sql: asyncpg.Connection[Any]) -> list[str]:
    """What is not as it must be, in words."""
    run = await sql.fetchrow("select * from workflow_runs where id = $1", scene.run.id)
    if run is None:
        return ["it was pruned, and had not ended"] if "retried" in scene.ends else []
    rows = {row["id"]: row for row in await sql.fetch(_ROWS, scene.run.id)}
    return [
        *_told(scene, run, rows),
        *_missed(scene, run, rows),
        *_ended(scene, run, rows),
        *_counted(scene, run),
    ]


def _told(scene: Scene, run: Any, rows: Mapping[UUID, Any]) -> list[str]:
    """What somebody was told is recorded is there, and nothing else."""
    if run["history_from"] > scene.run.claim_no:  # it continued as new
        return []
    found = []
    if rows[scene.recorded.id]["status"] != "succeeded":
        found.append("what was recorded before changed")
    for id_, (recorded, status) in scene.told.items():
        row = rows.get(id_)
        stands = row is not None and (row["status"] == status or status == "running")
        if recorded and status == "succeeded" and not stands:
            found.append("told that it is recorded, and it is not")
        if not recorded and stands and row is not None and row["claim_no"] == scene.run.claim_no:
            found.append("told that it is lost, and it is recorded")
    return found


def _missed(scene: Scene, run: Any, rows: Mapping[UUID, Any]) -> list[str]:
    """A claim finds whatever the claims before it recorded, and all that still says it runs."""
    return [
        f"claim {claimed.claim_no} has not seen what claim {row['claim_no']} left {row['status']}"
        for claimed, seen in scene.claims
        for row in rows.values()
        if run["history_from"] <= row["claim_no"] < claimed.claim_no
        and row["status"] in ("succeeded", "running")
        and (row["id"] not in seen or row["status"] != seen[row["id"]].status)
    ]


def _ended(scene: Scene, run: Any, rows: Mapping[UUID, Any]) -> list[str]:
    """It ended as was told, once, and nothing of it runs any more."""
    found = []
    ends = [end for end in scene.ends if end != "retried"]
    if "canceled" in ends:  # one that was canceled before is answered the same
        ends = [end for end in ends if end != "canceled"] + ["canceled"]
    lives = 1 + scene.ends.count("retried")
    if len(ends) > lives:
        found.append(f"it ended more than once: {scene.ends}")
    if ends and lives == 1 and run["status"] != ends[0]:
        found.append(f"told that it is {ends[0]}, and it is {run['status']}")
    if run["completed_at"] is not None:
        left = [row for row in rows.values() if row["status"] == "running"]
        found += [f"it is {run['status']}, and a step of it is running"] * len(left)
    return found


def _counted(scene: Scene, run: Any) -> list[str]:
    """Each claim has a number, and an owner at most one."""
    found = []
    if run["claim_no"] != scene.run.claim_no + len(scene.claims):
        found.append(f"{len(scene.claims)} claims brought it to number {run['claim_no']}")
    if len({claimed.claim_no for claimed, _ in scene.claims}) < len(scene.claims):
        found.append("two claims have one number")
    recovered = sum(claimed.recovered for claimed, _ in scene.claims)
    if run["crashes"] > recovered or run["attempts"]:
        found.append(f"{run['crashes']} crashes and {run['attempts']} attempts")
    return found


async def undo_faults(scene: Scene, sql: asyncpg.Connection[Any]) -> list[str]:
    """What is not as it must be of a run whose steps are undone where it is canceled, in words."""
    run = await sql.fetchrow("select * from workflow_runs where id = $1", scene.run.id)
    assert run is not None
    rows = {row["id"]: row for row in await sql.fetch(_ROWS, scene.run.id)}
    decided = sum(row["kind"] == "undo" for row in rows.values())
    status, found = run["status"], [*_told(scene, run, rows), *_counted(scene, run)]
    found += _missed(scene, run, {id_: row for id_, row in rows.items() if row["kind"] != "undo"})
    left = [row for row in rows.values() if '"undo"' in (row["context"] or "")]
    if decided > 1 or (decided and status not in ("pending", "running")):
        found.append(f"it was decided {decided} times to undo it, and it is {status}")
    if status == "canceled" and [row for row in left if row["status"] == "succeeded"]:
        found.append("it is canceled, and a step of it can be undone")
    if status == "canceled" and [row for row in left if row["claim_no"] == scene.run.claim_no]:
        found.append("it is canceled, and a step had begun that can be undone")
    if "canceled" in scene.ends and not decided and status != "canceled":
        found.append(f"told that it is canceled, and it is {status}")
    return found


async def raced(
    names: Sequence[str],
    gates: Sequence[tuple[int, ...]],
    scene: Scene,
    order: Sequence[int],
    stepper: Stepper,
    movers: Sequence[Mover],
    known: Mapping[str, Do] = MOVES,
) -> list[str]:
    """Let the moves of these names race; which errors they ended with."""
    moves = [
        Move(functools.partial(known[name], scene, mover), gate)
        for name, gate, mover in zip(names, gates, movers, strict=False)
    ]
    told = await stepper.step(moves, order)
    return [repr(answer) for answer in told if isinstance(answer, BaseException)]


def success(run: ClaimedRun, name: str, context: str | None = None) -> StepSuccess:
    """A step that succeeded, under this claim."""
    return StepSuccess(uuid7(), run.id, run.claim_no, name, '"x"', 0.001, None, context)


async def _allowed(doing: Awaitable[Any]) -> bool:
    """Whether the run was in a state for it, and this one did it."""
    try:
        await doing
    except (InvalidRunState, RunNotFound):
        return False
    return True


def described(order: Sequence[int], names: Sequence[str]) -> str:
    """An order in words."""
    return " | ".join(names[mover] for mover in order)
