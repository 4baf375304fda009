"""The conditions and numbers a user sees: a pure function of what was observed and decided.

Types and reasons are part of the API. Every condition is there from the first visit on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from openworkflow_operator.api.spec import Key, ScalingMode, WorkflowNamespace
from openworkflow_operator.decide.faults import Fault, worst_of
from openworkflow_operator.decide.installations import Installation
from openworkflow_operator.decide.observation import (
    DatabaseProblem,
    DatabaseReason,
    DatabaseView,
    Observation,
    Pruning,
)
from openworkflow_operator.decide.pods import Pod, Trouble, worst
from openworkflow_operator.decide.rollout import Phase
from openworkflow_operator.decide.scaling import Limit
from openworkflow_operator.desired.workload import selector_labels
from openworkflow_operator.report.build_status import builds_of, rolled_out
from openworkflow_operator.report.conditions import Condition
from openworkflow_operator.report.objects import objects_applied

Object = Mapping[str, Any]

#: Numbers alone do not cost a write more often than this.
REFRESH_SECONDS: Final = 30.0
#: Nor does the time of the last observation alone; the metrics always have it.
REFRESH_TIME_SECONDS: Final = 300.0

#: Reasons of RetentionActive that only repeat what the resource says.
_NO_RETENTION: Final = frozenset({"KeptForever", "Paused", "NotPruned"})

_ADVICE: Final = {
    Trouble.IMAGE_PULL_FAILED: "the image cannot be pulled: check `worker.image` and its secrets",
    Trouble.CRASH_LOOPING: "workers start and crash: see their logs",
    Trouble.UNSCHEDULABLE: "no node takes the pods: check requests, selectors and capacity",
    Trouble.CONFIGURATION: "a Secret or ConfigMap that `worker` names is not there",
    Trouble.QUOTA_EXCEEDED: "a ResourceQuota of the namespace allows no more",
    Trouble.ADMISSION_DENIED: "a policy of the cluster refuses the objects or pods of the fleet",
    Trouble.NAME_TAKEN: "an object that is not this resource's has a name that the fleet needs",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything the status is made from."""

    resource: WorkflowNamespace
    database: DatabaseView | None
    deployment: Object | None
    pods: Sequence[Pod]
    desired: int
    limit: Limit = Limit.NONE
    faults: Sequence[Fault] = ()
    """Objects that could not be made, changed or deleted."""
    conflict: Key | None = None
    """The older resource with the same database and namespace id."""
    installation: Installation | None = None
    """Who keeps this status."""
    scaled: bool = False
    pruning: Pruning | None = None
    phases: Mapping[str, tuple[Phase, str]] = field(default_factory=dict)
    """Where each build stands, and why; the wanted one first."""
    fleets: Mapping[str, Object] = field(default_factory=dict)
    """The Deployments of the builds."""


def conditions_of(facts: Facts) -> list[Condition]:
    """All conditions, the summary first."""
    if facts.conflict is not None:
        return _in_conflict(facts.conflict, facts.resource.key)
    database = _database(facts.database)
    objects = objects_applied(facts.faults, facts.resource.paused)
    workers = _workers(facts)
    parts = [database, workers]
    if any(fault.is_refusal for fault in facts.faults):
        parts.insert(1, objects)
    failed = next((part for part in parts if part.status != "True"), None)
    ready = (
        Condition("Ready", "True", "Ready", "the database is read and the fleet is as wanted")
        if failed is None
        else Condition("Ready", failed.status, failed.reason, failed.message)
    )
    others = [_scaling(facts), _limited(facts), _retention(facts), _paused(facts.resource)]
    return [ready, database, workers, objects, *others, *rolled_out(facts.phases)]


def status_of(facts: Facts, now: datetime) -> dict[str, Any]:
    """The whole status, with transition times carried over from the last one."""
    resource, last = facts.resource, facts.resource.status
    live = (facts.deployment or {}).get("status") or {}
    selector = ",".join(f"{k}={v}" for k, v in sorted(selector_labels(resource).items()))
    status: dict[str, Any] = {
        "observedGeneration": resource.generation,
        "replicas": live.get("replicas", 0),
        "readyReplicas": live.get("readyReplicas", 0),
        "desiredReplicas": facts.desired,
        "selector": selector,
        "conditions": _dated(conditions_of(facts), last, resource.generation, now),
    }
    if facts.installation is not None:
        status["operator"] = facts.installation.mark
    if facts.phases:
        status["builds"] = builds_of(facts.phases, facts.fleets, facts.pods, facts.database)
    numbers = ("dueRuns", "runningRuns", "lastObservationTime", "lastScaleTime")
    status |= {name: last[name] for name in numbers if last.get(name) is not None}
    if facts.database is not None and not isinstance(facts.database, DatabaseProblem):
        demand = facts.database.demand
        status["dueRuns"] = demand.due + demand.unserved
        status["runningRuns"] = facts.database.demand.running
        status["lastObservationTime"] = _timestamp(facts.database.at)
    if facts.scaled:
        status["lastScaleTime"] = _timestamp(now)
    return status


def worth_writing(status: Object, last: Object, seconds_since_write: float) -> bool:
    """Whether to write it: at once when it says something new, else only now and then."""
    changed = {k for k in status.keys() | last.keys() if status.get(k) != last.get(k)}
    if _without_numbers(status) != _without_numbers(last):
        return True
    if changed - {"lastObservationTime"}:
        return seconds_since_write >= REFRESH_SECONDS
    return bool(changed) and seconds_since_write >= REFRESH_TIME_SECONDS


def _without_numbers(status: Object) -> dict[str, Any]:
    """The status less what changes with every run; words on a build count its runs too."""
    # Of an older CRD the mark is dropped, which must not cost a write at each visit.
    numbers = ("dueRuns", "runningRuns", "lastObservationTime", "builds", "conditions", "operator")
    return {
        **{name: value for name, value in status.items() if name not in numbers},
        "builds": [
            {k: v for k, v in build.items() if k not in ("runsLeft", "nextWakeTime", "message")}
            for build in status.get("builds") or ()
        ],
        "conditions": [
            {k: v for k, v in c.items() if k != "message" or c["type"] != "RolledOut"}
            for c in status.get("conditions") or ()
        ],
    }


def news(status: Object, last: Object) -> list[Condition]:
    """Conditions that changed and that somebody should hear of, for Events."""
    before = {c["type"]: (c["status"], c["reason"]) for c in last.get("conditions") or ()}
    found = []
    for c in status["conditions"]:
        was = before.get(c["type"])
        is_new = was is not None or c["status"] == "False" or c["type"] == "Ready"
        told_elsewhere = c["type"] in ("Ready", "ScalingActive") and c["status"] != "True"
        as_wanted = c["type"] == "RetentionActive" and c["reason"] in _NO_RETENTION
        changed = was != (c["status"], c["reason"])
        if is_new and changed and not told_elsewhere and not as_wanted:
            found.append(Condition(c["type"], c["status"], c["reason"], c["message"]))
    return found


def _in_conflict(other: Key, key: Key) -> list[Condition]:
    # Who else uses a database is not told across namespaces.
    name = f"the older WorkflowNamespace {other.name}"
    elder = name if other.namespace == key.namespace else "an older WorkflowNamespace elsewhere"
    message = f"{elder} has the same database and `namespaceId`, and acts"
    names = (
        "DatabaseReachable",
        "WorkersAvailable",
        "ObjectsApplied",
        "ScalingActive",
        "ScalingLimited",
        "RetentionActive",
        "Paused",
    )
    unknown = [Condition(name, "Unknown", "Conflict") for name in names]
    return [Condition("Ready", "False", "Conflict", message), *unknown]


def _database(view: DatabaseView | None) -> Condition:
    match view:
        case None:
            message = "the database was not read yet"
            return Condition("DatabaseReachable", "Unknown", DatabaseReason.NOT_OBSERVED, message)
        case DatabaseProblem(reason=reason, message=message):
            return Condition("DatabaseReachable", "False", reason, message)
        case _:
            message = "the run counts are read"
            return Condition("DatabaseReachable", "True", DatabaseReason.REACHABLE, message)


def _workers(facts: Facts) -> Condition:
    name = "WorkersAvailable"
    refused = tuple(fault for fault in facts.faults if fault.hits_pods and fault.is_refusal)
    trouble = worst_of(refused) or worst(facts.deployment, facts.pods)
    if trouble is not None:
        return Condition(name, "False", trouble, _ADVICE[Trouble(trouble)])
    if facts.deployment is None:
        return Condition(name, "Unknown", "NotCreated", "the fleet was not made yet")
    ready = sum(1 for pod in facts.pods if pod.ready and not pod.terminating)
    if facts.desired == 0:
        return Condition(name, "True", "ScaledToZero", "nothing to do, so there are no workers")
    if ready == 0:
        return Condition(name, "False", "WorkersStarting", "no worker is ready yet")
    return Condition(name, "True", "WorkersReady", "workers are ready")


def _scaling(facts: Facts) -> Condition:
    name, resource = "ScalingActive", facts.resource
    if resource.paused:
        return Condition(name, "False", "Paused", "the resource is paused")
    if resource.replicas is not None:
        message = f"`replicas` pins the fleet to {resource.replicas}"
        return Condition(name, "False", "Pinned", message)
    if resource.scaling.mode is ScalingMode.EXTERNAL:
        return Condition(name, "False", "External", "`scaling.mode` leaves it to somebody else")
    if facts.database is None:
        return Condition(name, "Unknown", DatabaseReason.NOT_OBSERVED, "not read yet")
    if isinstance(facts.database, DatabaseProblem):
        message = "the fleet is held as it is until the database can be read"
        return Condition(name, "False", "DatabaseUnreachable", message)
    return Condition(name, "True", "Following", "the fleet follows the run counts")


def _limited(facts: Facts) -> Condition:
    messages = {
        Limit.NONE: "the fleet is as large as the runs need",
        Limit.MAX_REPLICAS: "the runs need more workers than `scaling.maxReplicas` allows",
        Limit.PODS_BLOCKED: "more workers are needed, but those there are do not start",
        Limit.RUNS_NOT_PICKED_UP: (
            "runs wait beside idle workers: do the workers serve these workflows and versions?"
        ),
    }
    limited = facts.limit is not Limit.NONE
    seen = facts.database if isinstance(facts.database, Observation) else None
    if facts.limit is Limit.RUNS_NOT_PICKED_UP and seen and seen.demand.unserved_names:
        names = ", ".join(seen.demand.unserved_names)
        messages[facts.limit] = f"no worker serves these workflows, of which runs wait: {names}"
    return Condition(
        "ScalingLimited", "True" if limited else "False", facts.limit, messages[facts.limit]
    )


def _retention(facts: Facts) -> Condition:
    name, resource = "RetentionActive", facts.resource
    if not resource.retention_seconds:
        message = "`retention` is not set: finished runs are kept for ever"
        return Condition(name, "False", "KeptForever", message)
    if resource.paused:
        return Condition(name, "False", "Paused", "the resource is paused")
    if facts.pruning is None:
        return Condition(name, "Unknown", "NotPruned", "nothing was deleted yet")
    if (problem := facts.pruning.problem) is not None:
        return Condition(name, "False", problem.reason, problem.message)
    message = "finished runs are deleted within an hour after their time is over"
    return Condition(name, "True", "Pruning", message)


def _paused(resource: WorkflowNamespace) -> Condition:
    if resource.paused:
        return Condition("Paused", "True", "Paused", "the operator changes nothing")
    return Condition("Paused", "False", "NotPaused", "the operator keeps the fleet as wanted")


def _dated(
    conditions: Sequence[Condition], last: Object, generation: int, now: datetime
) -> list[dict[str, Any]]:
    before = {c["type"]: c for c in last.get("conditions") or ()}
    dated = []
    for condition in conditions:
        was = before.get(condition.type)
        since = (
            was["lastTransitionTime"]
            if was is not None and was["status"] == condition.status
            else _timestamp(now)
        )
        dated.append(
            {
                "type": condition.type,
                "status": condition.status,
                "observedGeneration": generation,
                "lastTransitionTime": since,
                "reason": str(condition.reason),
                "message": condition.message,
            }
        )
    return dated


def _timestamp(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")
