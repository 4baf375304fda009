"""What people do with a run, as moves of a race for it: pause, resume, signal, fork; and its waits.

See racing.py. Here a run may wait for a signal forever, so that what wakes it must not be lost.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg

from openworkflow.backend.records import Outgoing, Waiting
from openworkflow.client.repairs import UNCHANGED, fork
from openworkflow.codecs.payloads import Payloads
from openworkflow.core.errors import BackendError, ConfigurationError, InvalidRunState, RunNotFound
from openworkflow.core.ids import uuid7
from openworkflow.core.workflow_run import RunStatus
from tests.flushes import end_of, flush
from tests.racing import CLAIMED, MOVES, Do, Mover, Scene, scenes

_WAITS = """
insert into workflow_subscriptions (workflow_run_id, topic, namespace_id, waiting)
select id, id::text, namespace_id, true from workflow_runs where id = any ($1)
"""
#: How a run begins, as racing.BEGINNINGS: which of those, and what is done to it then.
BEGINNINGS: Mapping[str, tuple[str, str]] = {
    "expired": ("expired", ""),
    "paused": (
        "parked",
        "update workflow_runs set paused = true, pause = '{}',"
        " available_at = 'infinity', due_at = now() - interval '1 s'",
    ),
    "waiting": ("parked", "update workflow_runs set available_at = 'infinity'"),
    "paused and canceled": ("canceled", "update workflow_runs set paused = true, pause = '{}'"),
}


@dataclass
class Told:
    """What those who raced were told, beside what the scene knows."""

    sent: list[UUID] = field(default_factory=list)
    """Signals that were taken."""
    sleeps_from: int | None = None
    """The run may wait forever, for something that wakes it more often than so many times."""
    unresumed: bool = False
    """Somebody was told to resume it again."""
    forks: list[UUID] = field(default_factory=list)


async def control_scenes(
    beginning: str, count: int, sql: asyncpg.Connection[Any], mover: Mover
) -> list[Scene]:
    """So many runs that begin like that."""
    first, then = BEGINNINGS[beginning]
    made = await scenes(first, count, sql, mover)
    ids = [scene.run.id for scene in made]
    if then:
        await sql.execute(f"{then} where id = any ($1)", ids)
    if beginning == "waiting":
        await sql.execute(_WAITS, ids)
        for scene in made:
            _told(scene).sleeps_from = 0
    return made


def _told(scene: Scene) -> Told:
    if scene.control is None:
        scene.control = Told()
    told: Told = scene.control
    return told


async def _pause(scene: Scene, mover: Mover) -> None:
    await mover.backend.pauses.pause_runs([scene.run.id], reason=None, by=None)


async def _resume(scene: Scene, mover: Mover) -> None:
    try:
        await mover.backend.pauses.resume_runs([scene.run.id])
    except BackendError as error:  # after one look, not after ten seconds: see the test
        if "resume again" not in str(error):
            raise
        _told(scene).unresumed = True


async def _send(scene: Scene, mover: Mover, run_id: UUID | None) -> None:
    keep_for = None if run_id else timedelta(hours=1)
    message = Outgoing(uuid7(), scene.name, "1", run_id, None, keep_for)
    try:
        _told(scene).sent.append(await mover.backend.messages.send(message))
    except (InvalidRunState, RunNotFound):
        assert run_id is not None


async def _signal(scene: Scene, mover: Mover) -> None:
    await _send(scene, mover, scene.run.id)


async def _signal_topic(scene: Scene, mover: Mover) -> None:
    await _send(scene, mover, None)


async def _wait(scene: Scene, mover: Mover) -> None:
    """As the engine does: subscribe, read, and park if there is nothing."""
    run, session = scene.run, mover.session
    busy = await session.subscribe([(run.id, scene.name)])
    found = (await session.read_inboxes([Waiting(run.id, [scene.name], [], [])])).get(run.id)
    if found is None or found.messages or busy:
        return
    _told(scene).sleeps_from = found.wake_no
    end = end_of(run, RunStatus.PENDING, forever=True, wake_no=found.wake_no)
    await flush(session, ends=[end])


PLAIN = Payloads((), "default", 1000)


async def _fork(scene: Scene, mover: Mover) -> None:
    unchanged: Any = {"input": UNCHANGED, "results": None, "version": UNCHANGED, "build": None}
    try:
        made = await fork(mover.backend, scene.run.id, "open", payloads=PLAIN, **unchanged)
    except (RunNotFound, ConfigurationError):  # it is gone, or has no such step any more
        return
    _told(scene).forks.append(made.id)


CONTROL: Mapping[str, Do] = {
    "a pause": _pause,
    "a resume": _resume,
    "a signal": _signal,
    "a signal to a topic": _signal_topic,
    "a fork": _fork,
    "the run waits": _wait,
}
CONTROL_MOVES: Mapping[str, Do] = {**MOVES, **CONTROL}
_ALONE = {"the run waits", "the run succeeds", "the run parks", "the run continues as new"}
"""The engine does one of these, and nothing else with it."""
_PAUSES, _SIGNALS = ("a pause", "a resume"), ("a signal", "a signal to a topic")
_CHANGES = ["a step succeeds", "a step ends", "the run succeeds", "the run continues as new"]
#: By how the run begins: what is tried against what.
_TRIED: Mapping[str, Sequence[tuple[Sequence[str], Sequence[str]]]] = {
    "expired": [
        (
            _PAUSES,
            [*CLAIMED, *_PAUSES, *_SIGNALS, "the run waits", "a claim", "a cancel", "a wake"],
        ),
        (_SIGNALS, [*_CHANGES, *_SIGNALS, "the run waits", "the run parks", "a claim", "a cancel"]),
        (["the run waits"], ["a wake", "a claim", "a cancel", "its build's runs move"]),
        (["a fork"], [*_CHANGES, "a fork", "a claim", "a cancel"]),
    ],
    "paused": [
        (_PAUSES, [*_PAUSES, *_SIGNALS, "a step succeeds", "a claim", "a cancel", "a wake"])
    ],
    "waiting": [
        (_PAUSES, [*_SIGNALS, "a wake"]),
        (_SIGNALS, [*_SIGNALS, "a wake", "a claim", "a cancel"]),
    ],
    "paused and canceled": [
        (["a retry"], [*_PAUSES, *_SIGNALS, "a fork", "a claim"]),
        (["a resume"], ["a cancel", "a prune"]),
    ],
}
_OF_THE_CLAIM = {"a step succeeds", "a step begins", "a step ends", "the claim is handed back"}


def _meet(first: str, second: str) -> bool:
    """Whether these two may be under way at once."""
    one, other = (first in _ALONE, second in _ALONE)
    return not (one and other) and not (
        (one and second in _OF_THE_CLAIM) or (other and first in _OF_THE_CLAIM)
    )


def _pairs(beginning: str) -> list[tuple[str, str]]:
    pairs = [pair for tried in _TRIED[beginning] for pair in itertools.product(*tried)]
    each = {frozenset(pair): pair for pair in pairs if _meet(*pair)}
    return list(each.values())


CONTROL_PAIRS: Mapping[str, Sequence[tuple[str, str]]] = {
    beginning: _pairs(beginning) for beginning in BEGINNINGS
}


async def settle(scene: Scene, mover: Mover) -> None:
    """Whoever was told to resume again does."""
    if _told(scene).unresumed:
        await mover.backend.pauses.resume_runs([scene.run.id])


_STATE = """
select status, paused, pause is not null as held, completed_at,
       available_at <= now() or coalesce(due_at <= now(), false) as due,
       not paused or available_at = 'infinity' as set_aside, wake_no
  from workflow_runs where id = $1
"""


async def control_faults(scene: Scene, sql: asyncpg.Connection[Any]) -> list[str]:
    """What is not as it must be, in words, beside what racing.faults finds."""
    told, found = _told(scene), []
    run = await sql.fetchrow(_STATE, scene.run.id)
    found += [fault for fork_id in told.forks for fault in await _forked(fork_id, scene, sql)]
    if run is None or run["completed_at"] is not None:
        return found
    if run["paused"] != run["held"]:
        found.append(f"its pause is {run['held']}, and it is {run['paused']} that it is held")
    sleeps = told.sleeps_from is not None and told.sleeps_from >= run["wake_no"]
    if run["status"] == "pending" and not sleeps and not run["due"]:
        found.append("it waits, and nothing will make it due")
    if run["status"] == "pending" and sleeps and told.sent:
        found.append("it sleeps through a signal")
    if run["status"] == "pending" and not run["set_aside"]:
        found.append("it is paused, and due")
    messages = await sql.fetch("select id from workflow_messages where name = $1", scene.name)
    if missing := set(told.sent) - {row["id"] for row in messages}:
        found.append(f"{len(missing)} signals that were taken are gone")
    return found


async def _forked(fork_id: UUID, scene: Scene, sql: asyncpg.Connection[Any]) -> list[str]:
    rows = await sql.fetch(
        "select step_name, status, output from step_attempts where workflow_run_id = $1", fork_id
    )
    found = [f"its fork has {row['step_name']} {row['status']}" for row in rows if not _ended(row)]
    begun_anew = await sql.fetchval(
        "select history_from > 0 from workflow_runs where id = $1", fork_id
    )
    if not begun_anew and "s0" not in [row["step_name"] for row in rows]:
        found.append("its fork lacks what was recorded before")
    return found


def _ended(row: Any) -> bool:
    return bool(row["status"] in ("succeeded", "failed"))
