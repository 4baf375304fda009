"""The condition ObjectsApplied: which objects of a fleet are not as desired, and why. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from openworkflow_operator.decide.faults import (
    BEING_DELETED,
    CONTESTED,
    NOT_APPLIED,
    Fault,
    worst_of,
)
from openworkflow_operator.decide.pods import Trouble
from openworkflow_operator.report.conditions import Condition

NAME: Final = "ObjectsApplied"
_MOST_TOLD: Final = 5

_ADVICE: Final = {
    Trouble.NAME_TAKEN: "exists and is not this resource's, so it is left alone: delete or rename "
    "one of the two",
    Trouble.QUOTA_EXCEEDED: "is refused by a ResourceQuota",
    Trouble.ADMISSION_DENIED: "is refused by the API server or a policy",
    NOT_APPLIED: "could not be applied; it is tried again",
    BEING_DELETED: "is being deleted, and made anew once its finalizers are gone",
    CONTESTED: "is changed again each time that it is made as desired, by a policy or another "
    "controller; that is put right once a minute",
}


def objects_applied(faults: Sequence[Fault], is_paused: bool) -> Condition:
    """Names every object that is not as desired."""
    if is_paused:
        return Condition(NAME, "Unknown", "Paused", "the operator changes nothing")
    reason = worst_of(tuple(faults))
    if reason is None:
        return Condition(NAME, "True", "Applied", "all objects of the fleet are as desired")
    told = [_told(fault) for fault in faults[:_MOST_TOLD]]
    if len(faults) > _MOST_TOLD:
        told.append(f"and {len(faults) - _MOST_TOLD} more")
    return Condition(NAME, "False", reason, "; ".join(told))


def _told(fault: Fault) -> str:
    text = f"{fault} {_ADVICE.get(fault.reason, fault.reason)}"
    return f"{text} ({fault.words})" if fault.words else text
