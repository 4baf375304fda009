"""What is told by Events: changes of conditions, of the number of pods, and by whose hand. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, assert_never

from openworkflow_operator.api.spec import WorkflowNamespace
from openworkflow_operator.decide.planner import Plan
from openworkflow_operator.decide.rollout import (
    Action,
    Hold,
    Promote,
    Retire,
    StartCanary,
    StopCanary,
)
from openworkflow_operator.report.conditions import GOOD_NEWS
from openworkflow_operator.report.status import news

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Announcement:
    """One Event."""

    kind: Literal["Normal", "Warning"]
    reason: str
    message: str


def announcements(
    resource: WorkflowNamespace, decided: Plan, status: Object, *, scaled: bool
) -> Iterator[Announcement]:
    """What to tell after this visit; `resource.status` is what was told before."""
    last = resource.status
    yield from _by_hand(resource, status, last)
    for condition in news(status, last):
        is_good = condition.reason in GOOD_NEWS
        by = _by(resource, "paused") if condition.reason == "Paused" else ""
        message = condition.message + by
        yield Announcement("Normal" if is_good else "Warning", condition.reason, message)
    if decided.reverted:
        message = (
            f"the number of workers was changed by {decided.reverted}; it is {decided.scale_to} "
            "again. `replicas` of the resource sets it, `scaling.mode` External leaves it to others"
        )
        yield Announcement("Warning", "ReplicasReverted", message)
    elif scaled:
        direction = "ScaledUp" if (decided.scale_to or 0) > decided.was else "ScaledDown"
        yield Announcement("Normal", direction, f"from {decided.was} to {decided.scale_to} workers")
    yield from map(_of_action, decided.actions)


def _by_hand(resource: WorkflowNamespace, status: Object, last: Object) -> Iterator[Announcement]:
    """What somebody changed in the resource."""
    if not last:
        return
    before, now = _pin(last), _pin(status)
    if now is not None and now != before:
        by = _by(resource, "replicas") or " (through the scale subresource)"
        yield Announcement("Normal", "Pinned", f"`replicas` was set to {resource.replicas}{by}")
    elif before is not None and now is None and resource.replicas is None:
        yield Announcement("Normal", "Unpinned", "`replicas` was removed: the runs decide again")
    if last.get("template") not in (None, status["template"]):
        message = f"`worker` was changed{_by(resource, 'worker')}: {resource.worker.image}"
        yield Announcement("Normal", "TemplateChanged", message)


def _pin(status: Object) -> str | None:
    """What the status says of `replicas`, if it pins the fleet."""
    found = (c for c in status.get("conditions") or () if c["type"] == "ScalingActive")
    return next((c["message"] for c in found if c["reason"] == "Pinned"), None)


def _by(resource: WorkflowNamespace, part: str) -> str:
    name = resource.managers.get(part)
    return f" (by {name})" if name else ""


def _of_action(action: Action) -> Announcement:
    """What the rollout itself decided."""
    match action:
        case Promote(build, share):
            message = f"build {build} takes {share} % of the new runs"
            return Announcement("Normal", "BuildPromoted", message)
        case Hold(build):
            message = f"build {build} takes no new runs any more, since it fails"
            return Announcement("Warning", "BuildHeld", message)
        case StartCanary(build, workflow):
            message = f"build {build} has to pass a run of {workflow}"
            return Announcement("Normal", "CanaryStarted", message)
        case StopCanary(build):
            message = f"nobody waits for the canary of build {build} any more"
            return Announcement("Normal", "CanaryStopped", message)
        case Retire(build, leftover):
            left = {"refuse": "", "move": ", and its runs are moved", "fail": ", and its runs fail"}
            message = f"build {build} is forgotten{left[leftover]}"
            return Announcement("Normal", "BuildRetired", message)
        case _:
            assert_never(action)
