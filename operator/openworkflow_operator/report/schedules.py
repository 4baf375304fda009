"""The condition SchedulesStored: which declared schedules are not stored, and why. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from openworkflow_operator.api.spec import WorkflowNamespace
from openworkflow_operator.decide.schedules import (
    CONDITION,
    NOT_DECLARED,
    Kept,
    ScheduleFault,
    ScheduleReason,
    concerns,
)
from openworkflow_operator.report.conditions import Condition

_MOST_TOLD: Final = 5
#: What says nothing of the entries.
_NO_ANSWER: Final = ("Conflict", "Paused", NOT_DECLARED)


def schedules_stored(resource: WorkflowNamespace, kept: Kept | None) -> Condition:
    """Names every entry that is not stored; the others are."""
    is_clean = kept is not None and kept.problem is None and not resource.schedules
    if is_clean or not concerns(resource):
        return Condition(CONDITION, "True", NOT_DECLARED, "`schedules` is not set")
    if resource.paused:
        return Condition(CONDITION, "Unknown", "Paused", "the resource is paused")
    if kept is None:
        return _before(resource)
    if kept.problem is not None:
        if not resource.schedules:
            return _not_stored(resource)
        return Condition(CONDITION, "False", kept.problem.reason, kept.problem.message)
    if kept.faults:
        reason = next(r for r in ScheduleReason if any(f.reason == r for f in kept.faults))
        return Condition(CONDITION, "False", reason, _told(kept.faults))
    message = f"{len(resource.schedules)} schedules are in the database"
    return Condition(CONDITION, "True", "Stored", message)


def _before(resource: WorkflowNamespace) -> Condition:
    """While it is not known: what was said of the same generation, or that it is not.

    A restart of the operator is no news of a schedule.
    """
    for c in resource.status.get("conditions") or ():
        is_of_now = c.get("observedGeneration") == resource.generation
        if c["type"] == CONDITION and is_of_now and c["reason"] not in _NO_ANSWER:
            return Condition(CONDITION, c["status"], c["reason"], c["message"])
    return _not_stored(resource)


def _not_stored(resource: WorkflowNamespace) -> Condition:
    message = "the schedules were not stored yet"
    if not resource.schedules:
        message = "it is not known yet whether some are left that are declared no more"
    return Condition(CONDITION, "Unknown", "NotStored", message)


def _told(faults: Sequence[ScheduleFault]) -> str:
    told = [f"schedule {fault.name!r}: {fault.message}" for fault in faults[:_MOST_TOLD]]
    if len(faults) > _MOST_TOLD:
        told.append(f"and {len(faults) - _MOST_TOLD} more")
    return "; ".join(told) + ". The others are stored"
