"""What people who look at the runs are told of their fleet: its status, in their words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from openworkflow_operator.api.spec import WorkflowNamespace

_NUMBERS: Final = {
    "replicas": "workers",
    "readyReplicas": "ready",
    "desiredReplicas": "desired",
    "dueRuns": "due",
    "runningRuns": "running",
    "lastScaleTime": "scaled_at",
    "builds": "builds",
}
_CONDITION: Final = {
    "type": "type",
    "status": "status",
    "reason": "reason",
    "message": "message",
    "lastTransitionTime": "since",
}


def told_of(resource: WorkflowNamespace, status: Mapping[str, Any]) -> dict[str, Any]:
    """The status under the names that `workflow_fleets.status` has."""
    return {
        "least": resource.scaling.min_replicas,
        "most": resource.scaling.max_replicas,
        **_renamed(status, _NUMBERS),
        "conditions": [_renamed(each, _CONDITION) for each in status["conditions"]],
    }


def _renamed(given: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {ours: given[theirs] for theirs, ours in names.items() if theirs in given}
