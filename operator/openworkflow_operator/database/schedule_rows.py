"""The schedules of one namespace made what a resource declares, over one connection.

Safe to repeat and to be killed: each entry is one transaction, and what is there already is left.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg

from openworkflow_operator.api.schedules import ScheduleEntry
from openworkflow_operator.database.connection import Database
from openworkflow_operator.database.diagnosis import UnusableAnswer
from openworkflow_operator.decide.recurrence import NoRecurrence
from openworkflow_operator.decide.schedules import (
    SOURCE,
    Aim,
    Definition,
    Kept,
    ScheduleFault,
    ScheduleReason,
    Stored,
    aim_after,
    defined,
    first_aim,
    is_settled,
    name_taken,
    next_aim,
)

logger = logging.getLogger(__name__)

#: Rows of one look: the entries of a resource, and as many that it declares no more; the next round
#: finds others.
MOST_ROWS: Final = 1000
#: Looks and changes, until nothing is left to do.
_PASSES: Final = 4
#: Instants in a row whose runs are there already, by hand.
_MOST_TAKEN: Final = 100
#: Classes of SQLSTATE that say that the row is at fault, a trigger of the tenant's among them.
_ROW_AT_FAULT: Final = frozenset({"22", "23", "54", "P0"})


async def keep(database: Database, namespace_id: str, entries: Sequence[ScheduleEntry]) -> Kept:
    """Store these, and stop what was declared and is not among them.

    Raises what `diagnosis.diagnose` understands.
    """
    wanted: dict[str, Definition] = {}
    faults: dict[str, ScheduleFault] = {}
    for entry in entries:
        match defined(entry):
            case ScheduleFault() as fault:
                faults[entry.name] = fault
            case definition:
                wanted[entry.name] = definition
    declared = [entry.name for entry in entries]
    for _ in range(_PASSES):
        now, there = await _look(database, namespace_id, declared)
        # An entry that cannot run is declared all the same: what it was before goes on.
        gone = [name for name in there if name not in declared]
        if gone:
            await _write(database, namespace_id, gone, "retire_schedules", gone)
            logger.info("namespace %s: %d schedules are declared no more", namespace_id, len(gone))
        todo = _todo(wanted, there, faults)
        if not gone and not todo:
            return Kept([faults[name] for name in declared if name in faults])
        for name in todo:
            refusal = await _put(database, namespace_id, name, wanted[name], there.get(name), now)
            if refusal is not None:
                faults[name] = refusal
    raise UnusableAnswer  # it takes everything, and has nothing of it


def _todo(
    wanted: Mapping[str, Definition],
    there: Mapping[str, Stored],
    faults: dict[str, ScheduleFault],
) -> list[str]:
    """What is to be stored; names that somebody else has become faults."""
    todo = []
    for name, definition in wanted.items():
        known = there.get(name)
        if known is not None and known.source != SOURCE:
            faults[name] = name_taken(name, known.source)
        elif name not in faults and (known is None or not is_settled(definition, known)):
            todo.append(name)
    return todo


async def _look(
    database: Database, namespace_id: str, names: Sequence[str]
) -> tuple[datetime, dict[str, Stored]]:
    rows = await database.read("look_at_schedules", namespace_id, names, MOST_ROWS)
    try:
        now = rows[0]["now"]
        if not isinstance(now, datetime):
            raise UnusableAnswer
        return now, {row["name"]: _stored(row) for row in rows if row["name"] is not None}
    except (LookupError, TypeError, ValueError, RecursionError):
        raise UnusableAnswer from None


def _stored(row: Mapping[str, Any]) -> Stored:
    next_at, run_id = row["next_at"], row["next_run_id"]
    if not isinstance(row["id"], UUID) or not isinstance(run_id, UUID | None):
        raise UnusableAnswer
    if not isinstance(next_at, datetime | None) or not isinstance(row["name"], str):
        raise UnusableAnswer
    names = ("workflow_name", "version", "cron", "time_zone", "input", "overlap", "catch_up")
    return Stored(
        id=row["id"],
        source=str(row["source"]),
        definition=Definition(
            **{name: row[name] for name in names}, jitter_seconds=row["jitter_seconds"]
        ),
        is_paused=bool(row["is_paused"]),
        is_retired=bool(row["is_retired"]),
        next_at=next_at,
        next_run_id=run_id,
        has_run=bool(row["has_run"]),
    )


async def _put(
    database: Database,
    namespace_id: str,
    name: str,
    wanted: Definition,
    there: Stored | None,
    now: datetime,
) -> ScheduleFault | None:
    try:
        if there is None:
            made = uuid4()
            columns = _columns(wanted, first_aim(wanted, made, now))
            await _write(database, namespace_id, (), "insert_schedule", name, made, *columns)
        else:
            await _change(database, namespace_id, name, wanted, there, now)
    except NoRecurrence as error:
        return ScheduleFault(name, ScheduleReason.INVALID, str(error))
    except asyncpg.PostgresError as error:
        if (error.sqlstate or "")[:2] not in _ROW_AT_FAULT:
            raise
        # Its words may be anything; the class of the error is PostgreSQL's.
        message = f"the database does not take it ({type(error).__name__})"
        return ScheduleFault(name, ScheduleReason.REFUSED, message)
    return None


async def _change(
    database: Database,
    namespace_id: str,
    name: str,
    wanted: Definition,
    there: Stored,
    now: datetime,
) -> None:
    aim = next_aim(wanted, there, now)
    for _ in range(_MOST_TAKEN):
        columns = (*_columns(wanted, aim), there.next_run_id)
        locked = [name]
        (row,) = await _write(
            *(database, namespace_id, locked), "change_schedule", name, there.id, *columns
        )
        if row["is_changed"] or not row["is_as_seen"]:
            return
        aim = aim_after(aim, wanted, there)


def _columns(wanted: Definition, aim: Aim) -> tuple[object, ...]:
    return (
        *(wanted.workflow_name, wanted.version, wanted.cron, wanted.time_zone, wanted.input),
        *(wanted.overlap, wanted.catch_up, wanted.jitter_seconds),
        *(aim.run_id, aim.instant, aim.due_at),
    )


async def _write(
    database: Database, namespace_id: str, locked: Sequence[str], name: str, *arguments: object
) -> list[Any]:
    """Run a statement that changes something, after a lock of the schedules that it is about."""
    async with database.writing() as fetch:
        if locked:
            await fetch("lock_schedules", namespace_id, locked)
        return await fetch(name, namespace_id, *arguments)
